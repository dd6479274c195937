//! One of the two spawners, as qmail-send sees it.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use mta_queue::spawn_protocol::{Report, ReportDecoder, Request, decode_maximum};
use unix::clock::Deadline;
use unix::fd::Raw;
use unix::wait::{Interest, one};

/// How long a spawner may take to say that it is there.
const PATIENCE: Duration = Duration::from_secs(60);

/// Pipes to and from a spawner, with what is still to be written.
#[derive(Debug)]
pub(crate) struct Spawner {
    to: OwnedFd,
    from: OwnedFd,
    pending: Vec<u8>,
    decoder: ReportDecoder,
    alive: bool,
}

impl Spawner {
    /// Waits for the spawner's first two bytes: how many deliveries it runs at most.
    pub(crate) fn greet(to: OwnedFd, from: OwnedFd) -> io::Result<(Self, u16)> {
        let mut maximum = [0u8; 2];
        let deadline = Deadline::after(PATIENCE);
        for byte in &mut maximum {
            if !one(from.as_fd(), Interest::Read, deadline)? {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Raw(from.as_fd()).read_exact(std::slice::from_mut(byte))?;
        }
        for fd in [&to, &from] {
            unix::fd::set_nonblocking(fd, true)?;
        }
        let spawner = Self { to, from, pending: Vec::new(), decoder: ReportDecoder::default(), alive: true };
        Ok((spawner, decode_maximum(maximum)))
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.alive
    }

    pub(crate) fn give_up(&mut self) {
        self.alive = false;
    }

    /// Adds a request to what is written next.
    pub(crate) fn request(&mut self, request: &Request) -> Result<(), mta_queue::spawn_protocol::HoldsNul> {
        request.encode(&mut self.pending)
    }

    /// Descriptors to wait for.
    pub(crate) fn interests(&self) -> [(BorrowedFd<'_>, Interest); 2] {
        let writing = if self.pending.is_empty() { Interest::Nothing } else { Interest::Write };
        [(self.from.as_fd(), Interest::Read), (self.to.as_fd(), writing)]
    }

    /// Writes as much as the spawner takes now.
    pub(crate) fn write(&mut self) -> io::Result<()> {
        while !self.pending.is_empty() {
            match Raw(self.to.as_fd()).write(&self.pending) {
                Ok(n) => drop(self.pending.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// The reports that have arrived; `Ok(None)` at EOF.
    pub(crate) fn read(&mut self) -> io::Result<Option<Vec<Report>>> {
        let mut piece = [0u8; 16 * 1024];
        match Raw(self.from.as_fd()).read(&mut piece) {
            Ok(0) => Ok(None),
            Ok(n) => Ok(Some(self.decoder.take(&piece[..n]))),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(Some(Vec::new()))
            }
            Err(e) => Err(e),
        }
    }
}
