//! How many descriptors svscan may hold, and how many its children.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Beside the pipes: standard descriptors, signals, watches, the lock, svscan's own log, and what a start needs for a moment.
const OTHERS: u64 = 24;

/// Limits of open files.
#[derive(Debug, Clone, Copy)]
pub(super) struct OpenFiles {
    /// What we were started with: our children's.
    inherited: u64,
    ours: u64,
    hard: u64,
}

impl OpenFiles {
    /// Raises our own limit so far that `slots` services with loggers have room, if the hard limit allows.
    pub(super) fn raise(slots: usize) -> io::Result<Self> {
        let (inherited, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let ours = inherited.max(needed(slots).min(hard));
        let limits = Self { inherited, ours, hard };
        limits.set(ours)?;
        Ok(limits)
    }

    /// How many services with loggers have room, when it is fewer than `slots`.
    pub(super) fn shortage(&self, slots: usize) -> Option<u64> {
        (self.ours < needed(slots)).then(|| self.ours.saturating_sub(OTHERS) / 2)
    }

    /// Does this with the limit that children are to inherit.
    pub(super) fn as_inherited<T>(&self, start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if self.ours == self.inherited {
            return start();
        }
        self.set(self.inherited)?;
        let started = start();
        self.set(self.ours)?;
        started
    }

    fn set(&self, soft: u64) -> io::Result<()> {
        Ok(setrlimit(Resource::RLIMIT_NOFILE, soft, self.hard)?)
    }
}

fn needed(slots: usize) -> u64 {
    u64::try_from(slots).unwrap_or(u64::MAX).saturating_mul(2).saturating_add(OTHERS)
}
