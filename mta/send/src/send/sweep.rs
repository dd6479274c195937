//! Walks over directories of the queue, a slice at a time, so that a million files hold nobody up.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use mta_queue::layout::{MessageId, Part, Queue, ids_in};

/// Messages looked at in one slice.
const SLICE: usize = 500;

/// A walk over all messages that have a part.
#[derive(Debug)]
pub(crate) struct Walk {
    directories: std::vec::IntoIter<PathBuf>,
    ids: Vec<MessageId>,
}

impl Walk {
    pub(crate) fn over(queue: &Queue, part: Part) -> Self {
        let all: Vec<PathBuf> = queue.directories(part).map(|(_, d)| d).collect();
        Self { directories: all.into_iter(), ids: Vec::new() }
    }

    /// Some more messages; `Ok(None)` at the end. A slice may be empty.
    ///
    /// # Errors
    /// A directory cannot be read; the walk goes on with the next one.
    pub(crate) fn slice(&mut self) -> io::Result<Option<Vec<MessageId>>> {
        if self.ids.is_empty() {
            let Some(directory) = self.directories.next() else {
                return Ok(None);
            };
            self.ids = ids_in(&directory)
                .map_err(|e| io::Error::new(e.kind(), format!("cannot read {}: {e}", directory.display())))?;
        }
        let rest = self.ids.len().saturating_sub(SLICE);
        Ok(Some(self.ids.split_off(rest)))
    }
}

/// Is this message garbage: nobody sorted it, nobody is about to, and it has been so for `ossified` seconds?
pub(crate) fn is_garbage(queue: &Queue, id: MessageId, ossified: u64, now: u64) -> io::Result<bool> {
    let meta = match std::fs::symlink_metadata(queue.path(Part::Mess, id)) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e),
    };
    // Some file systems keep no access times.
    let touched = meta.atime().max(meta.mtime()).max(meta.ctime());
    if u64::try_from(touched).unwrap_or(0).saturating_add(ossified) >= now {
        return Ok(false);
    }
    let has = |part| mta_queue::layout::exists(&queue.path(part, id));
    Ok(!has(Part::Info)? && !has(Part::Todo)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mta_queue::layout::Shape;

    #[test]
    fn every_message_is_seen_once_in_slices() {
        let dir = tempfile::tempdir().unwrap();
        let queue = Queue::new(dir.path(), Shape { split: 3, bigtodo: false });
        queue.directories(Part::Info).for_each(|(_, d)| std::fs::create_dir_all(d).unwrap());
        let all: Vec<MessageId> = (0..2000).map(MessageId).collect();
        all.iter().for_each(|&id| std::fs::write(queue.path(Part::Info, id), b"").unwrap());
        let (mut walk, mut seen) = (Walk::over(&queue, Part::Info), Vec::new());
        while let Some(slice) = walk.slice().unwrap() {
            assert!(slice.len() <= SLICE);
            seen.extend(slice);
        }
        seen.sort();
        assert_eq!(seen, all);
    }

    #[test]
    fn only_old_messages_that_nobody_knows_are_garbage() {
        let dir = tempfile::tempdir().unwrap();
        let queue = Queue::new(dir.path(), Shape { split: 1, bigtodo: false });
        for part in Part::ALL {
            queue.directories(part).for_each(|(_, d)| std::fs::create_dir_all(d).unwrap());
        }
        let id = MessageId(1);
        std::fs::write(queue.path(Part::Mess, id), b"").unwrap();
        let now = unix::clock::unix_seconds();
        let garbage = |now| is_garbage(&queue, id, 100, now).unwrap();
        assert!(!garbage(now + 50) && garbage(now + 200));
        std::fs::write(queue.path(Part::Todo, id), b"").unwrap();
        assert!(!garbage(now + 200));
    }
}
