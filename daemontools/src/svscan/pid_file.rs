//! `.svscan.pid`: which svscan runs on a directory.
//!
//! | bytes | meaning |
//! |---|---|
//! | 4 | process id, as the machine stores an int |
//! | 1 | newline |
//! | rest | process id in decimal, newline |
//!
//! The lock on the file says whether it runs, whatever the file holds; the file says who it is. Readers
//! take the last line: the first bytes may hold a newline of their own.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use unix::Pid;
use unix::lock::Lock;

/// The file's name in the scan directory, or in the directory of the running state.
pub const NAME: &str = ".svscan.pid";

/// Readers hold the lock for a moment to see whether it is free.
const READERS_MOMENT: Duration = Duration::from_millis(200);

/// The contents for this process id.
#[must_use]
pub fn encode(pid: Pid) -> Vec<u8> {
    let mut out = pid.as_raw().to_ne_bytes().to_vec();
    out.extend(format!("\n{pid}\n").bytes());
    out
}

/// The process id in these contents; `None` when there is none.
#[must_use]
pub fn decode(contents: &[u8]) -> Option<Pid> {
    let last = contents.strip_suffix(b"\n").unwrap_or(contents).rsplit(|&b| b == b'\n').next()?;
    let digits = std::str::from_utf8(last).ok().filter(|t| t.bytes().all(|b| b.is_ascii_digit()))?;
    digits.parse().ok().filter(|&pid| pid > 0).map(Pid::from_raw)
}

/// Why a directory cannot be claimed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another svscan holds the lock.
    #[error("svscan is already running, pid {}", .0.map_or_else(|| "unknown".to_owned(), |p| p.to_string()))]
    Busy(Option<Pid>),
    /// The file or the directory cannot be used.
    #[error("unable to lock {}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The claim on a scan directory; it ends with this value.
#[derive(Debug)]
pub struct Claim {
    lock: Lock,
    /// `None`: nothing could be written, so the directory itself is locked.
    path: Option<PathBuf>,
}

impl Claim {
    /// Claims the directory: by its pid file in `state`, or, where none can be written, by a lock on
    /// `dir` itself. `forcibly` replaces a file that cannot be opened (for the first process of a
    /// container, after which nobody can be left).
    ///
    /// # Errors
    /// See [`Error`].
    pub fn take(state: &Path, dir: &Path, pid: Pid, forcibly: bool) -> Result<Self, Error> {
        let path = state.join(NAME);
        let failed = |source| Error::Io { path: path.clone(), source };
        loop {
            let opened = match open(&path) {
                Err(_) if forcibly => fs::remove_file(&path).and_then(|()| open(&path)),
                other => other,
            };
            let file = match opened {
                Ok(file) => file,
                Err(e) if is_unwritable(&e) => return Self::of_directory(dir),
                Err(e) => return Err(failed(e)),
            };
            let lock = Lock::within(file, READERS_MOMENT).map_err(failed)?;
            let Some(lock) = lock else {
                return Err(Error::Busy(fs::read(&path).ok().and_then(|bytes| decode(&bytes))));
            };
            // The one before may have removed the file between our open and our lock.
            if is_same(lock.file(), &path) {
                let mut file = lock.file();
                file.set_len(0).and_then(|()| file.write_all(&encode(pid))).map_err(failed)?;
                return Ok(Self { lock, path: Some(path) });
            }
        }
    }

    fn of_directory(dir: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Io { path: dir.to_owned(), source };
        let lock = Lock::within(File::open(dir).map_err(failed)?, READERS_MOMENT).map_err(failed)?;
        Ok(Self { lock: lock.ok_or(Error::Busy(None))?, path: None })
    }

    /// Could the pid file be written?
    #[must_use]
    pub fn is_published(&self) -> bool {
        self.path.is_some()
    }

    /// Removes the file, then gives up the lock: a file that is there without a lock is left by one that
    /// was killed.
    pub fn give_up(self) {
        if let Some(path) = &self.path
            && is_same(self.lock.file(), path)
        {
            // Left behind it says nothing: nobody holds its lock.
            let _ = fs::remove_file(path);
        }
    }
}

/// The process id and start time of the svscan whose pid file is in `state`; `Ok(None)` when none runs.
///
/// # Errors
/// It cannot be told (no permission, say).
pub fn running(state: &Path) -> io::Result<Option<Pid>> {
    let path = state.join(NAME);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    if Lock::try_shared(file)?.is_some() {
        return Ok(None);
    }
    let holder = decode(&fs::read(&path)?);
    holder.map(Some).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it holds no process id"))
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o644).open(path)
}

fn is_unwritable(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EROFS | libc::EACCES | libc::EPERM))
}

fn is_same(file: &File, path: &Path) -> bool {
    let identity = |meta: fs::Metadata| (meta.dev(), meta.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(there)) => identity(ours) == identity(there),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes() {
        assert_eq!(encode(Pid::from_raw(1038)), b"\x0e\x04\0\0\n1038\n");
        assert_eq!(decode(b"\x0e\x04\0\0\n1038\n"), Some(Pid::from_raw(1038)));
        assert_eq!(decode(b"\n\n\0\0\n2570\n"), Some(Pid::from_raw(2570)), "newlines in the number");
        assert_eq!(decode(b"77"), Some(Pid::from_raw(77)), "text alone");
        for wrong in [
            &b""[..],
            b"\n",
            b"\x0e\x04\0\0\n",
            b"\x0e\x04\0\0\n-5\n",
            b"\n0\n",
            b"\n+7\n",
            b"\n99999999999\n",
        ] {
            assert_eq!(decode(wrong), None, "{}", wrong.escape_ascii());
        }
    }

    #[test]
    fn one_claim_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let take = || Claim::take(dir.path(), dir.path(), Pid::this(), false);
        let running = || running(dir.path()).unwrap();
        assert_eq!(running(), None);
        let first = take().unwrap();
        assert!(first.is_published());
        assert_eq!(running(), Some(Pid::this()));
        assert!(matches!(take(), Err(Error::Busy(Some(pid))) if pid == Pid::this()));
        drop(first);
        assert!(dir.path().join(NAME).exists(), "as after a kill");
        assert_eq!(running(), None);
        take().unwrap().give_up();
        assert!(!dir.path().join(NAME).exists());
        fs::create_dir(dir.path().join(NAME)).unwrap();
        assert!(matches!(take(), Err(Error::Io { .. })));
    }

    proptest! {
        #[test]
        fn round_trip(pid in 1..=i32::MAX) {
            prop_assert_eq!(decode(&encode(Pid::from_raw(pid))), Some(Pid::from_raw(pid)));
        }

        #[test]
        fn decode_never_panics(bytes: Vec<u8>) {
            if let Some(pid) = decode(&bytes) {
                prop_assert!(pid.as_raw() > 0);
            }
        }
    }
}
