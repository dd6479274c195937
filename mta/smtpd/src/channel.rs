//! The client's end: descriptors 0 and 1, deadlines, TLS, and the signal that ends the service.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection};
use smtp::server::TlsFacts;
use unix::Signal;
use unix::clock::Deadline;
use unix::fd::Raw;
use unix::signals::Signals;
use unix::wait::{Interest, one, ready};

/// How long a client that is cut off may take to read the last reply.
const LINGER: Duration = Duration::from_secs(2);
/// How much of what it still sends is read and dropped meanwhile.
const LINGER_BYTES: usize = 1 << 20;

/// What came of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// So many bytes.
    Bytes(usize),
    /// The client is gone.
    Gone,
    /// Nothing came in time.
    TimedOut,
    /// SIGTERM arrived.
    Terminated,
}

/// The connection with one client.
#[derive(Debug)]
pub(crate) struct Channel {
    wire: Wire,
    tls: Option<Box<ServerConnection>>,
    out: Vec<u8>,
    broken: bool,
}

/// Descriptors 0 and 1 with a deadline for each read and write.
#[derive(Debug)]
struct Wire {
    timeout: Duration,
    signals: Signals,
}

impl Wire {
    /// Waits until `fd` is ready; the error says what came first.
    fn wait(&mut self, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        let deadline = Deadline::after(self.timeout);
        loop {
            let got = ready(&[(fd, interest), (self.signals.as_fd(), Interest::Read)], Some(deadline))?;
            if got[0].read || got[0].write || got[0].closed {
                return Ok(());
            }
            if got[1].read && self.signals.take() == Some(Signal::SIGTERM) {
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "terminated"));
            }
            if deadline.passed() {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }
}

impl Read for Wire {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let stdin = io::stdin();
        loop {
            match Raw(stdin.as_fd()).read(buf) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(stdin.as_fd(), Interest::Read)?
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }
}

impl Write for Wire {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let stdout = io::stdout();
        loop {
            match Raw(stdout.as_fd()).write(buf) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(stdout.as_fd(), Interest::Write)?
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Channel {
    /// Takes over descriptors 0 and 1; each read and write may take `timeout`.
    pub(crate) fn new(timeout: Duration) -> io::Result<Self> {
        unix::fd::set_nonblocking(io::stdin(), true)?;
        unix::fd::set_nonblocking(io::stdout(), true)?;
        let signals = Signals::listen(&[Signal::SIGTERM])?;
        Ok(Self { wire: Wire { timeout, signals }, tls: None, out: Vec::new(), broken: false })
    }

    /// Keeps bytes for the next [`Channel::flush`].
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Sends what is kept; false when the client is gone or does not read.
    pub(crate) fn flush(&mut self) -> bool {
        let bytes = std::mem::take(&mut self.out);
        if !self.broken && !bytes.is_empty() {
            let sent = match &mut self.tls {
                Some(tls) => {
                    let mut stream = rustls::Stream::new(&mut **tls, &mut self.wire);
                    stream.write_all(&bytes).and_then(|()| stream.flush())
                }
                None => self.wire.write_all(&bytes),
            };
            self.broken = sent.is_err();
        }
        !self.broken
    }

    /// Reads what the client sends.
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> Heard {
        if !self.flush() {
            return Heard::Gone;
        }
        let got = match &mut self.tls {
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.wire).read(buf),
            None => self.wire.read(buf),
        };
        match got {
            Ok(0) => Heard::Gone,
            Ok(n) => Heard::Bytes(n),
            Err(e) => match e.kind() {
                io::ErrorKind::TimedOut => Heard::TimedOut,
                io::ErrorKind::ConnectionAborted => Heard::Terminated,
                _ => Heard::Gone,
            },
        }
    }

    /// Shakes hands.
    pub(crate) fn start_tls(&mut self, config: Arc<ServerConfig>) -> io::Result<TlsFacts> {
        if !self.flush() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut tls = ServerConnection::new(config).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            if let Err(e) = tls.complete_io(&mut self.wire) {
                // The alert that says why is still to be sent.
                let _ = tls.write_tls(&mut self.wire);
                return Err(e);
            }
        }
        let facts = crate::tls::facts(&tls);
        self.tls = Some(Box::new(tls));
        Ok(facts)
    }

    /// Sends what is kept and pauses; false when SIGTERM ends the pause.
    pub(crate) fn pause(&mut self, pause: Duration) -> bool {
        self.flush();
        let deadline = Deadline::after(pause);
        while !deadline.passed() {
            match ready(&[(self.wire.signals.as_fd(), Interest::Read)], Some(deadline)) {
                Ok(got) if got[0].read && self.wire.signals.take() == Some(Signal::SIGTERM) => return false,
                Ok(_) => {}
                Err(_) => return true,
            }
        }
        true
    }

    /// Sends what is kept and ends the connection in order. A client that is cut off while it is
    /// still sending is read from for a moment, else the kernel would take the last reply back.
    pub(crate) fn close(&mut self, cut: bool) {
        let sent = self.flush();
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            let _ = tls.write_tls(&mut self.wire);
        }
        if !sent || !cut {
            return;
        }
        linger();
    }
}

/// A last word before there is a channel.
pub(crate) fn say_and_forget(bytes: &[u8]) {
    if io::stdout().write_all(bytes).and_then(|()| io::stdout().flush()).is_ok() {
        linger();
    }
}

/// Ends our side and reads for a moment what the client has still sent.
fn linger() {
    use nix::sys::socket::{Shutdown, shutdown};
    use std::os::fd::AsRawFd as _;
    if shutdown(io::stdout().as_raw_fd(), Shutdown::Write).is_err() {
        return;
    }
    let (stdin, deadline) = (io::stdin(), Deadline::after(LINGER));
    let (mut buf, mut left) = ([0; 8192], LINGER_BYTES);
    while left > 0 && matches!(one(stdin.as_fd(), Interest::Read, deadline), Ok(true)) {
        match Raw(stdin.as_fd()).read(&mut buf) {
            Ok(n) if n > 0 => left = left.saturating_sub(n),
            Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            _ => return,
        }
    }
}
