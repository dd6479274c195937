//! Waits for the disk that the threads of a process share.
//!
//! | at work at the same time | how each of their files is forced out |
//! |---|---|
//! | fewer than [`ENOUGH`] | by itself: nobody waits for anything but his own bytes |
//! | more | all together, see [`crate::together`]; by itself when that takes too long or fails |

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::durable::parent;
use crate::together::{PATIENCE, Together};

/// From how many on it pays: one round takes about as long as forcing out two files.
pub const ENOUGH: usize = 3;
/// File systems that are known at a time; files on further ones are forced out by themselves.
const SYSTEMS_MAX: usize = 4;

/// Who is at work, and the file systems they work on.
#[derive(Debug, Default)]
pub struct Gather {
    at_work: AtomicUsize,
    systems: Mutex<BTreeMap<u64, Option<Arc<Together>>>>,
}

/// Somebody at work, until this is dropped.
#[derive(Debug)]
pub struct AtWork<'a>(&'a Gather);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.at_work.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Gather {
    /// Counts the caller among those at work.
    pub fn begin(&self) -> AtWork<'_> {
        self.at_work.fetch_add(1, Ordering::Relaxed);
        AtWork(self)
    }

    /// Forces out everything that was written so far on the file system where `path` has its directory,
    /// when enough are at work to share that. False: it was not done, or not all of it can be told to be
    /// on the disk; the caller forces out what is his by himself.
    pub(crate) fn flush(&self, path: &Path) -> bool {
        if self.at_work.load(Ordering::Relaxed) < ENOUGH {
            return false;
        }
        self.system(parent(path)).is_some_and(|together| matches!(together.flush(PATIENCE), Ok(true)))
    }

    fn system(&self, directory: &Path) -> Option<Arc<Together>> {
        let device = std::fs::metadata(directory).ok()?.dev();
        // Nothing in here panics while it holds the lock.
        let mut systems = self.systems.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = systems.get(&device) {
            return known.clone();
        }
        if systems.len() >= SYSTEMS_MAX {
            return None;
        }
        // A directory that cannot be opened says nothing about the file system.
        let together = Together::new(directory).ok()?.map(Arc::new);
        systems.insert(device, together.clone());
        together
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_enough_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let (gather, file) = (Gather::default(), dir.path().join("f"));
        let mut all: Vec<AtWork<'_>> = Vec::new();
        while all.len() + 1 < ENOUGH {
            all.push(gather.begin());
            assert!(!gather.flush(&file) && gather.systems.lock().unwrap().is_empty());
        }
        all.push(gather.begin());
        // Whether it was quick enough is the machine's business.
        let _ = gather.flush(&file);
        assert_eq!(gather.systems.lock().unwrap().len(), 1);
        assert!(!gather.flush(Path::new("/nonexistent/f")));
        all.pop();
        assert!(!gather.flush(&file));
    }
}
