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

/// Commands that fit into a pipe whatever their length (100 bytes at most), so that nobody waits for the other.
const AT_ONCE: usize = 40;

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
        Ok(self.obey_all(&[command])?.first() == Some(&true))
    }

    /// Gives commands, a pipe full at a time, and waits for the end of each; one answer for each.
    ///
    /// # Errors
    /// As [`Cleaner::obey`].
    pub fn obey_all(&self, commands: &[Command]) -> io::Result<Vec<bool>> {
        let mut answers = Vec::with_capacity(commands.len());
        for some in commands.chunks(AT_ONCE) {
            let bytes: Vec<u8> = some.iter().flat_map(|command| command.encode()).collect();
            Raw(self.to.as_fd()).write_all(&bytes)?;
            for _ in some {
                if !one(self.from.as_fd(), Interest::Read, Deadline::after(PATIENCE))? {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "qmail-clean does not answer"));
                }
                let mut answer = [0u8];
                Raw(self.from.as_fd()).read_exact(&mut answer)?;
                answers.push(answer == *b"+");
            }
        }
        Ok(answers)
    }
}
