//! Forcing out many changes at once.
//!
//! Files that are forced out one by one cost a journal commit and a flush of the disk's cache each, even when
//! dozens wait at the same time. syncfs(2) makes one of all of them. It also waits for whatever else is being
//! written to the file system, which can take long; so it runs in a thread of its own, and whoever does not
//! want to wait any longer forces its files out one by one.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;

/// The first kernel whose syncfs tells of write errors.
const HONEST_SINCE: (u32, u32) = (5, 8);

#[derive(Debug, Default)]
struct State {
    /// Tickets handed out.
    wanted: u64,
    /// All tickets up to this one are dealt with.
    done: u64,
    /// How the last round ended.
    failed: Option<Errno>,
    /// Somebody did not wait for the end of the round that is running.
    given_up: bool,
    stop: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Somebody wants a round, or nobody ever will again.
    asked: Condvar,
    /// A round is over.
    answered: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here can panic while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file system that is forced out as a whole.
#[derive(Debug)]
pub struct Together {
    shared: Arc<Shared>,
}

/// How long the whole file system may take before things are forced out one by one: long enough for a disk
/// with some other work, short enough for those who wait.
pub const PATIENCE: Duration = Duration::from_millis(300);

impl Together {
    /// For the file system that `directory` is on; `None` where the kernel would not tell of write errors.
    ///
    /// # Errors
    /// The directory cannot be opened, or there is no thread to be had.
    pub fn new(directory: &Path) -> io::Result<Option<Self>> {
        let kernel = nix::sys::utsname::uname()?;
        if !is_honest(&kernel.release().to_string_lossy()) {
            return Ok(None);
        }
        let file = File::open(directory)?;
        let shared = Arc::<Shared>::default();
        let theirs = shared.clone();
        std::thread::Builder::new()
            .name("flush".to_owned())
            .stack_size(64 * 1024)
            .spawn(move || rounds(&theirs, &file))?;
        Ok(Some(Self { shared }))
    }

    /// Waits until everything that was written before this call is on the disk, names in directories
    /// included; false when that has not happened within `patience`, and at once while an earlier round
    /// that somebody gave up on is still running.
    ///
    /// # Errors
    /// Something that was written could not be brought to the disk: not necessarily what the caller wrote.
    pub fn flush(&self, patience: Duration) -> io::Result<bool> {
        let end = Instant::now() + patience;
        let mut state = self.shared.lock();
        if state.given_up {
            return Ok(false);
        }
        state.wanted += 1;
        let ticket = state.wanted;
        self.shared.asked.notify_one();
        while state.done < ticket {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                state.given_up = true;
                return Ok(false);
            }
            state = self.shared.answered.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        match state.failed {
            None => Ok(true),
            Some(errno) => Err(errno.into()),
        }
    }
}

impl Drop for Together {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.asked.notify_one();
    }
}

fn rounds(shared: &Shared, file: &File) {
    let mut state = shared.lock();
    loop {
        if state.stop {
            return;
        }
        if state.done == state.wanted {
            state = shared.asked.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        let target = state.wanted;
        drop(state);
        let result = nix::unistd::syncfs(file);
        state = shared.lock();
        state.given_up = false;
        state.done = target;
        state.failed = result.err();
        shared.answered.notify_all();
    }
}

/// Does syncfs of this release tell of write errors?
fn is_honest(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version >= HONEST_SINCE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_as_numbers() {
        for (release, honest) in [
            ("5.8.0", true),
            ("6.1.0-18-amd64", true),
            ("5.10", true),
            ("5.7.19", false),
            ("4.19.0-21", false),
            ("x", false),
        ] {
            assert_eq!(is_honest(release), honest, "{release}");
        }
    }

    #[test]
    fn many_may_wait_for_one_flush() {
        let dir = tempfile::tempdir().unwrap();
        let together = Together::new(dir.path()).unwrap().expect("a kernel of this decade");
        std::fs::write(dir.path().join("f"), b"x").unwrap();
        // Nobody gives up, so each of them in turn is told the truth.
        for _ in 0..3 {
            assert!(together.flush(Duration::from_secs(60)).unwrap());
        }
    }

    #[test]
    fn no_patience_is_not_an_answer() {
        let dir = tempfile::tempdir().unwrap();
        let together = Together::new(dir.path()).unwrap().expect("a kernel of this decade");
        // Either it was done in no time or it is "cannot tell", never an error.
        let _ = together.flush(Duration::ZERO).unwrap();
        let end = Instant::now() + Duration::from_secs(60);
        while !together.flush(Duration::from_secs(60)).unwrap() {
            assert!(Instant::now() < end);
        }
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        assert!(Together::new(Path::new("/nonexistent")).is_err());
    }
}
