//! `poll` with deadlines.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::clock::Deadline;

/// What to wait for on a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Something to read, or the other end closed.
    Read,
    /// Room to write.
    Write,
    /// Either.
    Both,
    /// Only errors and hang-up.
    Nothing,
}

impl Interest {
    fn flags(self) -> PollFlags {
        match self {
            Self::Read => PollFlags::POLLIN,
            Self::Write => PollFlags::POLLOUT,
            Self::Both => PollFlags::POLLIN | PollFlags::POLLOUT,
            Self::Nothing => PollFlags::empty(),
        }
    }
}

/// What became of one descriptor of [`ready`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ready {
    /// Reading will not block (data, EOF or an error).
    pub read: bool,
    /// Writing will not block.
    pub write: bool,
    /// The other end hung up or there is an error.
    pub closed: bool,
}

/// Waits until one descriptor is ready, the deadline passes (`None`: never) or a signal arrives.
///
/// Returns one [`Ready`] for each descriptor; all false when the time is up or a signal came.
///
/// # Errors
/// poll(2) errors other than EINTR.
pub fn ready(fds: &[(BorrowedFd<'_>, Interest)], deadline: Option<Deadline>) -> io::Result<Vec<Ready>> {
    let mut set: Vec<PollFd<'_>> = fds.iter().map(|&(fd, i)| PollFd::new(fd, i.flags())).collect();
    let timeout = deadline.map_or(PollTimeout::NONE, |d| milliseconds_up(d.left()));
    match poll(&mut set, timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(e) => return Err(e.into()),
    }
    Ok(set
        .iter()
        .map(|p| {
            let got = p.revents().unwrap_or(PollFlags::empty());
            let closed = got.intersects(PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL);
            Ready {
                read: got.intersects(PollFlags::POLLIN) || closed,
                write: got.intersects(PollFlags::POLLOUT),
                closed,
            }
        })
        .collect())
}

/// Waits for one descriptor; `Ok(false)` when the deadline passed first.
///
/// # Errors
/// poll(2) errors.
pub fn one(fd: BorrowedFd<'_>, interest: Interest, deadline: Deadline) -> io::Result<bool> {
    loop {
        let mut set = [PollFd::new(fd, interest.flags())];
        match poll(&mut set, milliseconds_up(deadline.left())) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(e) => return Err(e.into()),
        }
        if deadline.passed() {
            return Ok(false);
        }
    }
}

/// Waits a while for something that has no event. A signal may end it early.
pub fn pause(time: Duration) {
    // Nothing to watch, so the only outcomes are the end of the time and EINTR.
    let _ = poll(&mut [], milliseconds_up(time));
}

/// poll counts in milliseconds; rounding down would spin through the last one.
fn milliseconds_up(left: Duration) -> PollTimeout {
    let ms = left.as_nanos().div_ceil(1_000_000);
    PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX)
}
