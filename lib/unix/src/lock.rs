//! Whole-file locks, flock(2): released when the descriptor closes, whoever dies.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::clock::Deadline;

/// A lock, exclusive unless made by [`Lock::try_shared`]; dropping it gives it up.
#[derive(Debug)]
pub struct Lock(Flock<File>);

impl Lock {
    /// Opens (or creates with `mode`) the file and locks it at once; `Ok(None)` when another holds it.
    ///
    /// # Errors
    /// Opening or locking failed for another reason.
    pub fn try_exclusive(path: &Path, mode: u32) -> io::Result<Option<Self>> {
        Self::take(open(path, mode)?, FlockArg::LockExclusiveNonblock)
    }

    /// As [`Lock::try_exclusive`], trying again until `patience` is over.
    ///
    /// # Errors
    /// As above.
    pub fn exclusive_within(path: &Path, mode: u32, patience: Duration) -> io::Result<Option<Self>> {
        let deadline = Deadline::after(patience);
        loop {
            if let Some(lock) = Self::try_exclusive(path, mode)? {
                return Ok(Some(lock));
            }
            if deadline.passed() {
                return Ok(None);
            }
            // flock has no deadline of its own and an alarm would be global to the process.
            std::thread::sleep(Duration::from_millis(5).min(deadline.left()));
        }
    }

    /// Locks an open file, waiting as long as it takes.
    ///
    /// # Errors
    /// flock(2) errors.
    pub fn exclusive(file: File) -> io::Result<Self> {
        Self::take(file, FlockArg::LockExclusive)?.ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    /// Locks an open file, trying until `patience` is over; `Ok(None)` when another holds it.
    ///
    /// # Errors
    /// flock(2) errors.
    pub fn within(file: File, patience: Duration) -> io::Result<Option<Self>> {
        let deadline = Deadline::after(patience);
        let mut file = file;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(Some(Self(lock))),
                Err((f, Errno::EAGAIN)) if !deadline.passed() => {
                    file = f;
                    std::thread::sleep(Duration::from_millis(5).min(deadline.left()));
                }
                Err((_, Errno::EAGAIN)) => return Ok(None),
                Err((f, Errno::EINTR)) => file = f,
                Err((_, e)) => return Err(e.into()),
            }
        }
    }

    /// Takes a shared lock on an open file; `Ok(None)` when another holds it for itself.
    ///
    /// # Errors
    /// flock(2) errors.
    pub fn try_shared(file: File) -> io::Result<Option<Self>> {
        Self::take(file, FlockArg::LockSharedNonblock)
    }

    /// The locked file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.0
    }

    fn take(file: File, how: FlockArg) -> io::Result<Option<Self>> {
        let mut file = file;
        loop {
            match Flock::lock(file, how) {
                Ok(lock) => return Ok(Some(Self(lock))),
                Err((_, Errno::EAGAIN)) => return Ok(None),
                Err((f, Errno::EINTR)) => file = f,
                Err((_, e)) => return Err(e.into()),
            }
        }
    }
}

/// Takes an fcntl(2) lock on a whole open file for this process, trying until `patience` is over;
/// `Ok(false)` when another process held it all the time.
///
/// The lock is what other Maildir++ programs use. It goes when the process closes *any* descriptor
/// of the file.
///
/// # Errors
/// fcntl(2) errors other than "held by another".
pub fn record_lock_within(file: &File, exclusive: bool, patience: Duration) -> io::Result<bool> {
    use nix::fcntl::{FcntlArg, fcntl};
    let kind = if exclusive { libc::F_WRLCK } else { libc::F_RDLCK };
    let whole_file = libc::flock {
        l_type: i16::try_from(kind).map_err(io::Error::other)?,
        l_whence: i16::try_from(libc::SEEK_SET).map_err(io::Error::other)?,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    let deadline = Deadline::after(patience);
    loop {
        match fcntl(file, FcntlArg::F_SETLK(&whole_file)) {
            Ok(_) => return Ok(true),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN | Errno::EACCES) if deadline.passed() => return Ok(false),
            // As above: no deadline of its own.
            Err(Errno::EAGAIN | Errno::EACCES) => std::thread::sleep(Duration::from_millis(5)),
            Err(e) => return Err(e.into()),
        }
    }
}

fn open(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(mode).open(path)
}
