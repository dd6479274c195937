//! Walks over directories of the queue, a slice at a time, so that a million files hold nobody up.

use std::collections::BTreeMap;
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

/// Seconds between looks at messages that lay in todo at the start; also how long todo-proc may take from the
/// removal of an envelope to telling about it.
const LOOK_AGAIN: u64 = 60;

/// Messages that were not loaded at the start because they lay in todo: todo-proc sorts them and says so.
///
/// It may be that nobody says so: the qmail-clean of an earlier run can still be about to remove the
/// envelope of a message that has all its files. Who is out of todo for a while without a word is loaded.
#[derive(Debug, Default)]
pub(crate) struct Unsorted {
    /// When each was first seen to have left todo.
    left: BTreeMap<MessageId, Option<u64>>,
    next: u64,
}

impl Unsorted {
    /// Leaves a message to todo-proc.
    pub(crate) fn add(&mut self, id: MessageId, now: u64) {
        self.left.insert(id, None);
        self.next = now + LOOK_AGAIN;
    }

    /// todo-proc has told about it.
    pub(crate) fn told(&mut self, id: MessageId) {
        self.left.remove(&id);
    }

    /// When to look again, in seconds since 1970.
    pub(crate) fn due(&self) -> Option<u64> {
        (!self.left.is_empty()).then_some(self.next)
    }

    /// Those that nobody will tell about. `in_todo` looks whether one is still there; what cannot be told is
    /// looked at again.
    pub(crate) fn look(
        &mut self,
        now: u64,
        mut in_todo: impl FnMut(MessageId) -> io::Result<bool>,
    ) -> Vec<MessageId> {
        self.next = now + LOOK_AGAIN;
        let mut forgotten = Vec::new();
        for (&id, since) in &mut self.left {
            match in_todo(id) {
                Ok(false) => {
                    if now.saturating_sub(*since.get_or_insert(now)) >= LOOK_AGAIN {
                        forgotten.push(id);
                    }
                }
                Ok(true) | Err(_) => *since = None,
            }
        }
        forgotten.iter().for_each(|id| self.told(*id));
        forgotten
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
    fn a_message_that_left_todo_without_a_word_is_loaded_after_a_while() {
        let ids: Vec<MessageId> = (1..=3).map(MessageId).collect();
        let mut unsorted = Unsorted::default();
        assert_eq!(unsorted.due(), None);
        ids.iter().for_each(|&id| unsorted.add(id, 1000));
        assert_eq!(unsorted.due(), Some(1060));
        // 1 stays in todo, 2 is told about in time, 3 has left.
        let stays = |id: MessageId| Ok(id == MessageId(1));
        assert!(unsorted.look(1060, stays).is_empty());
        unsorted.told(MessageId(2));
        assert_eq!(unsorted.look(1120, stays), [MessageId(3)]);
        assert!(unsorted.look(1180, stays).is_empty());
        assert_eq!(unsorted.due(), Some(1240));
        unsorted.told(MessageId(1));
        assert_eq!(unsorted.due(), None);
    }

    #[test]
    fn what_cannot_be_told_counts_as_still_there() {
        let mut unsorted = Unsorted::default();
        unsorted.add(MessageId(1), 0);
        let broken = |_| Err(io::Error::from(unix::Errno::EIO));
        assert!(unsorted.look(60, |_| Ok(false)).is_empty());
        assert!(unsorted.look(120, broken).is_empty());
        assert!(unsorted.look(180, |_| Ok(false)).is_empty());
        assert_eq!(unsorted.look(240, |_| Ok(false)), [MessageId(1)]);
    }

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
