//! A running qmail-clean, as its masters see it.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use unix::clock::Deadline;
use unix::fd::Raw;
use unix::wait::{Interest, one};

use crate::clean::Command;

/// How long one removal may take; a disk can be slow, a qmail-clean that is gone shows at once.
const PATIENCE: Duration = Duration::from_secs(300);

/// Pipes to and from a qmail-clean.
#[derive(Debug)]
pub struct Cleaner {
    to: OwnedFd,
    from: OwnedFd,
}

impl Cleaner {
    /// Over these pipes.
    #[must_use]
    pub fn new(to: OwnedFd, from: OwnedFd) -> Self {
        Self { to, from }
    }

    /// What to watch (for hang-up only) to notice when qmail-clean is gone although nothing is asked of it.
    #[must_use]
    pub fn watched(&self) -> (BorrowedFd<'_>, Interest) {
        (self.from.as_fd(), Interest::Nothing)
    }

    /// Gives a command and waits for its end; `Ok(false)` when qmail-clean could not obey.
    ///
    /// # Errors
    /// qmail-clean is gone or does not answer: nothing can be removed any more.
    pub fn obey(&self, command: Command) -> io::Result<bool> {
        Raw(self.to.as_fd()).write_all(&command.encode())?;
        if !one(self.from.as_fd(), Interest::Read, Deadline::after(PATIENCE))? {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "qmail-clean does not answer"));
        }
        let mut answer = [0u8];
        Raw(self.from.as_fd()).read_exact(&mut answer)?;
        Ok(answer == *b"+")
    }
}
