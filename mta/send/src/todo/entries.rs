//! Looking for committed envelopes without reading 150 empty directories for each message.
//!
//! A directory of todo that held nothing is not read again while its modification time stays the
//! same. The time is believed only if it was well in the past when the directory was read: the
//! clock of a file system is coarse, and an entry made right after the reading must show.

use std::collections::HashMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use mta_queue::layout::{MessageId, Queue};

/// How old a modification time must be before it is believed: many ticks of the kernel's clock.
const SETTLED: Duration = Duration::from_millis(200);

/// A committed envelope, where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) subdirectory: Option<u64>,
    pub(super) id: MessageId,
}

impl Entry {
    pub(super) fn path(&self, queue: &Queue) -> PathBuf {
        let todo = queue.root().join("todo");
        match self.subdirectory {
            Some(n) => todo.join(n.to_string()).join(self.id.to_string()),
            None => todo.join(self.id.to_string()),
        }
    }
}

/// What is remembered from one look to the next.
#[derive(Debug, Default)]
pub(super) struct Empty(HashMap<u64, SystemTime>);

impl Empty {
    /// All envelopes in todo, split or not.
    pub(super) fn entries(&mut self, queue: &Queue, now: SystemTime) -> io::Result<Vec<Entry>> {
        let base = queue.root().join("todo");
        let (mut entries, mut subdirectories) = (Vec::new(), Vec::new());
        each_number(&base, |number, is_directory| {
            if is_directory {
                subdirectories.push(number);
            } else {
                entries.push(Entry { subdirectory: None, id: MessageId(number) });
            }
        })?;
        for n in subdirectories {
            let directory = base.join(n.to_string());
            // Before it is read: what comes in between changes the time.
            let changed = std::fs::metadata(&directory)?.modified()?;
            if self.0.get(&n) == Some(&changed) {
                continue;
            }
            let before = entries.len();
            each_number(&directory, |number, is_directory| {
                if !is_directory {
                    entries.push(Entry { subdirectory: Some(n), id: MessageId(number) });
                }
            })?;
            if entries.len() == before && now.duration_since(changed).is_ok_and(|age| age >= SETTLED) {
                self.0.insert(n, changed);
            } else {
                self.0.remove(&n);
            }
        }
        Ok(entries)
    }
}

fn each_number(directory: &Path, mut sink: impl FnMut(u64, bool)) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if let Some(MessageId(number)) = MessageId::parse(entry.file_name().as_bytes()) {
            sink(number, entry.file_type()?.is_dir());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mta_queue::layout::Shape;

    fn todo(files: &[&str]) -> (tempfile::TempDir, Queue) {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..2 {
            std::fs::create_dir_all(dir.path().join(format!("todo/{n}"))).unwrap();
        }
        files.iter().for_each(|name| std::fs::write(dir.path().join(name), b"").unwrap());
        let queue = Queue::new(dir.path(), Shape { split: 2, bigtodo: true });
        (dir, queue)
    }

    fn found(empty: &mut Empty, queue: &Queue, now: SystemTime) -> Vec<PathBuf> {
        let entries = empty.entries(queue, now).unwrap().into_iter();
        let mut found: Vec<_> =
            entries.map(|e| e.path(queue).strip_prefix(queue.root()).unwrap().to_owned()).collect();
        found.sort();
        found
    }

    #[test]
    fn fix_35_entries_are_found_wherever_they_lie() {
        let (_dir, queue) = todo(&["todo/12", "todo/0/14", "todo/0/15", "todo/x", "todo/1/.17"]);
        let now = SystemTime::now();
        let wanted = ["todo/0/14", "todo/0/15", "todo/12"].map(PathBuf::from);
        let mut empty = Empty::default();
        assert_eq!(found(&mut empty, &queue, now), wanted);
        // What stays, for trouble with it, is found again however late.
        assert_eq!(found(&mut empty, &queue, now + Duration::from_secs(9)), wanted);
        assert_eq!(found(&mut empty, &queue, now + Duration::from_secs(9)), wanted);
    }

    #[test]
    fn an_entry_made_right_after_a_look_is_seen_by_the_next_one() {
        let (dir, queue) = todo(&[]);
        let mut empty = Empty::default();
        for id in 0..2000u64 {
            let name = format!("todo/{}/{id}", id % 2);
            assert!(found(&mut empty, &queue, SystemTime::now()).is_empty());
            std::fs::write(dir.path().join(&name), b"").unwrap();
            assert_eq!(found(&mut empty, &queue, SystemTime::now()), [PathBuf::from(&name)]);
            std::fs::remove_file(dir.path().join(&name)).unwrap();
        }
    }

    #[test]
    fn an_empty_directory_is_not_read_again_until_it_changes() {
        let (dir, queue) = todo(&[]);
        let mut empty = Empty::default();
        let changed =
            |n: u64| std::fs::metadata(dir.path().join(format!("todo/{n}"))).unwrap().modified().unwrap();
        let now = changed(0).max(changed(1));
        found(&mut empty, &queue, now + SETTLED / 2);
        assert!(empty.0.is_empty(), "too young to be believed");
        found(&mut empty, &queue, now + SETTLED);
        assert_eq!(empty.0.len(), 2);
        std::fs::write(dir.path().join("todo/1/7"), b"").unwrap();
        std::fs::File::open(dir.path().join("todo/1")).unwrap().set_modified(now + SETTLED).unwrap();
        assert_eq!(found(&mut empty, &queue, now + SETTLED * 9), [PathBuf::from("todo/1/7")]);
        assert_eq!(empty.0.len(), 1);
        // A clock that was set back is no news either way.
        std::fs::File::open(dir.path().join("todo/0")).unwrap().set_modified(now - SETTLED).unwrap();
        found(&mut empty, &queue, now - SETTLED * 9);
        assert!(empty.0.is_empty());
    }
}
