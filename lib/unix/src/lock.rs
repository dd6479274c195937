//! Whole-file locks, flock(2): released when the descriptor closes, whoever dies.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;

use crate::clock::Deadline;

/// A lock, exclusive unless made by [`Lock::try_shared`]; dropping it gives it up.
#[derive(Debug)]
pub struct Lock(File);

/// Given up also when a child that is about to become another program still has the descriptor.
impl Drop for Lock {
    fn drop(&mut self) {
        // When that fails, closing it is what is left.
        let _ = self.0.unlock();
    }
}

impl Lock {
    /// Opens (or creates with `mode`) the file and locks it at once; `Ok(None)` when another holds it.
    ///
    /// # Errors
    /// Opening or locking failed for another reason.
    pub fn try_exclusive(path: &Path, mode: u32) -> io::Result<Option<Self>> {
        Self::take(open(path, mode)?)
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
        loop {
            match file.lock() {
                Ok(()) => return Ok(Self(file)),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Locks an open file, trying until `patience` is over; `Ok(None)` when another holds it.
    ///
    /// # Errors
    /// flock(2) errors.
    pub fn within(file: File, patience: Duration) -> io::Result<Option<Self>> {
        let deadline = Deadline::after(patience);
        while !try_lock(&file)? {
            if deadline.passed() {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(5).min(deadline.left()));
        }
        Ok(Some(Self(file)))
    }

    /// Takes a shared lock on an open file; `Ok(None)` when another holds it for itself.
    ///
    /// # Errors
    /// flock(2) errors.
    pub fn try_shared(file: File) -> io::Result<Option<Self>> {
        Ok(tried(|| file.try_lock_shared())?.then_some(Self(file)))
    }

    /// The locked file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.0
    }

    fn take(file: File) -> io::Result<Option<Self>> {
        Ok(try_lock(&file)?.then_some(Self(file)))
    }
}

fn try_lock(file: &File) -> io::Result<bool> {
    tried(|| file.try_lock())
}

fn tried(lock: impl Fn() -> Result<(), TryLockError>) -> io::Result<bool> {
    loop {
        match lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(TryLockError::Error(e)) => return Err(e),
        }
    }
}

/// Takes an fcntl(2) lock on a whole open file, trying until `patience` is over; `Ok(false)` when
/// another held it all the time.
///
/// The lock keeps other Maildir++ programs out, which lock for their process, and other threads of
/// this one too: it belongs to the open file and goes when that is closed.
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
        match fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file)) {
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
