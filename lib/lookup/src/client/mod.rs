//! One blocking connection to a daemon, under one absolute deadline for each question.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use unix::Errno;
use unix::clock::Deadline;
use unix::socket::{self, Peer};
use unix::wait::{Interest, one};

use crate::frame::{self, Frame, MAX_FRAME, Malformed};

/// Bytes of the length in front of a frame.
const PREFIX: usize = 4;
/// Bytes that the first read takes at most; enough for any record.
const FIRST_READ: usize = 2048;

/// Why there is no answer. None of these means "no".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// The socket does not exist.
    #[error("the lookup daemon's socket does not exist; is the daemon running?")]
    Missing,
    /// The socket is there and nobody listens.
    #[error("nobody listens on the lookup daemon's socket; is the daemon running?")]
    NotListening,
    /// This process may not connect.
    #[error("no permission to connect to the lookup daemon")]
    Denied,
    /// Connecting failed in another way.
    #[error("cannot connect to the lookup daemon: {0}")]
    Connect(Errno),
    /// The time was up first.
    #[error("the lookup daemon did not answer in time")]
    TimedOut,
    /// The connection ended in the middle.
    #[error("the lookup daemon closed the connection")]
    Closed,
    /// The reply makes no sense.
    #[error("the lookup daemon's reply makes no sense: {0}")]
    Broken(Malformed),
    /// The daemon answers, and says that it cannot tell (its store is away, or it is overloaded).
    #[error("the lookup daemon cannot tell now (its account store is away, or it is overloaded)")]
    Backend,
    /// The daemon refuses to answer this to this process.
    #[error("the lookup daemon refuses to answer this")]
    Refused,
    /// The question does not fit a request.
    #[error("the question is too long")]
    TooLong,
    /// No memory.
    #[error("out of memory")]
    Memory,
}

/// One connection. Its descriptor is close-on-exec, non-blocking and never 0, 1 or 2.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
}

impl Connection {
    /// Connects.
    ///
    /// A full backlog is waited for within the deadline.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub fn dial(path: &Path, deadline: Deadline) -> Result<Self, Unavailable> {
        match socket::connect(path, deadline) {
            Ok(socket) => Ok(Self { socket }),
            Err(e) => Err(match e.kind() {
                io::ErrorKind::NotFound => Unavailable::Missing,
                io::ErrorKind::ConnectionRefused => Unavailable::NotListening,
                io::ErrorKind::PermissionDenied => Unavailable::Denied,
                io::ErrorKind::TimedOut => Unavailable::TimedOut,
                _ => Unavailable::Connect(Errno::from_raw(e.raw_os_error().unwrap_or(0))),
            }),
        }
    }

    /// Who listens there.
    #[must_use]
    pub fn peer(&self) -> Option<Peer> {
        socket::peer(&self.socket).ok()
    }

    /// Sends one encoded request and reads one reply into `buffer`, which is overwritten.
    ///
    /// # Errors
    /// See [`Unavailable`]. The connection must not be used again.
    pub fn exchange(
        &self,
        request: &[u8],
        buffer: &mut Vec<u8>,
        deadline: Deadline,
    ) -> Result<(), Unavailable> {
        self.send(request, deadline)?;
        buffer.clear();
        // Most replies come whole with the first read.
        self.read_some(buffer, FIRST_READ, deadline)?;
        while buffer.len() < PREFIX {
            self.read_some(buffer, FIRST_READ, deadline)?;
        }
        let length = buffer.first_chunk::<PREFIX>().map_or(0, |b| u32::from_be_bytes(*b));
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > MAX_FRAME {
            return Err(Unavailable::Broken(Malformed::Length));
        }
        let total = PREFIX + length;
        while buffer.len() < total {
            self.read_some(buffer, total - buffer.len(), deadline)?;
        }
        // Nothing else was asked for.
        if buffer.len() > total { Err(Unavailable::Broken(Malformed::Leftover)) } else { Ok(()) }
    }

    fn send(&self, mut bytes: &[u8], deadline: Deadline) -> Result<(), Unavailable> {
        while !bytes.is_empty() {
            match socket::send_quietly(&self.socket, bytes) {
                Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
                Err(e) => self.wait(&e, Interest::Write, deadline)?,
            }
        }
        Ok(())
    }

    /// Appends what comes next, at most `most` bytes.
    fn read_some(&self, buffer: &mut Vec<u8>, most: usize, deadline: Deadline) -> Result<(), Unavailable> {
        let done = buffer.len();
        buffer.try_reserve(most).map_err(|_| Unavailable::Memory)?;
        buffer.resize(done.saturating_add(most), 0);
        loop {
            // The reply is hardly there yet, so this does not try to read first. A daemon that dribbles
            // bytes gets no more time than one that is silent.
            match one(self.socket.as_fd(), Interest::Read, deadline) {
                Ok(true) => {}
                Ok(false) => return Err(Unavailable::TimedOut),
                Err(_) => return Err(Unavailable::Closed),
            }
            match socket::receive(&self.socket, buffer.get_mut(done..).unwrap_or_default()) {
                Ok(0) => return Err(Unavailable::Closed),
                Ok(n) => {
                    buffer.truncate(done.saturating_add(n));
                    return Ok(());
                }
                Err(e) => self.wait(&e, Interest::Read, deadline)?,
            }
        }
    }

    fn wait(&self, error: &io::Error, interest: Interest, deadline: Deadline) -> Result<(), Unavailable> {
        match error.kind() {
            io::ErrorKind::Interrupted if !deadline.passed() => Ok(()),
            io::ErrorKind::Interrupted => Err(Unavailable::TimedOut),
            io::ErrorKind::WouldBlock => match one(self.socket.as_fd(), interest, deadline) {
                Ok(true) => Ok(()),
                Ok(false) => Err(Unavailable::TimedOut),
                Err(_) => Err(Unavailable::Closed),
            },
            _ => Err(Unavailable::Closed),
        }
    }
}

/// A connection that is opened when needed and kept between questions.
#[derive(Debug)]
pub struct Link {
    path: PathBuf,
    patience: Duration,
    kept: Option<Connection>,
    buffer: Vec<u8>,
}

impl Link {
    /// A link to the daemon at `path`; each exchange takes at most `patience`.
    #[must_use]
    pub fn new(path: &Path, patience: Duration) -> Self {
        Self { path: path.to_owned(), patience, kept: None, buffer: Vec::new() }
    }

    /// Sends a request and reads its reply with `decode`.
    ///
    /// A kept connection that turns out to be closed (the daemon was restarted) is replaced once.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub fn exchange<T>(
        &mut self,
        request: &[u8],
        decode: impl FnOnce(&Frame<'_>) -> Result<T, Malformed>,
    ) -> Result<T, Unavailable> {
        let deadline = Deadline::after(self.patience);
        let mut kept = None;
        if let Some(old) = self.kept.take() {
            match old.exchange(request, &mut self.buffer, deadline) {
                Ok(()) => kept = Some(old),
                Err(Unavailable::Closed) => {}
                Err(e) => return Err(e),
            }
        }
        let connection = match kept {
            Some(connection) => connection,
            None => {
                let fresh = Connection::dial(&self.path, deadline)?;
                fresh.exchange(request, &mut self.buffer, deadline)?;
                fresh
            }
        };
        let reply = read(&self.buffer, decode)?;
        self.kept = Some(connection);
        Ok(reply)
    }
}

/// Decodes the reply that [`Connection::exchange`] left in `buffer`.
///
/// # Errors
/// [`Unavailable::Broken`].
pub fn read<'b, T>(
    buffer: &'b [u8],
    decode: impl FnOnce(&Frame<'b>) -> Result<T, Malformed>,
) -> Result<T, Unavailable> {
    let (frame, _) = frame::split(buffer, MAX_FRAME)
        .and_then(|found| found.ok_or(Malformed::Length))
        .map_err(Unavailable::Broken)?;
    decode(&frame).map_err(Unavailable::Broken)
}

#[cfg(test)]
mod tests;
