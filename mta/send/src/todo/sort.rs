//! A committed envelope becomes info, local and remote files.
//!
//! | step | action | if the machine stops right after |
//! |---|---|---|
//! | 1 | read todo, look at mess | S4 |
//! | 2 | remove old info, local, remote | S4 |
//! | 3 | write info, local, remote | S4 with leftovers, repeated from 1 |
//! | 4 | force them and their directories out | S4 complete |
//! | 5 | qmail-clean removes intd and todo | S5: sorted |
//!
//! Messages that wait together go through step 4 together, so that one commit of the file system's
//! journal serves them all.
//!
//! Until step 5 everything is repeated after a crash, which is harmless since qmail-send has not
//! heard of the message.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use mta_queue::envelope::{Record, RecordError, records};
use mta_queue::layout::{Channel, MessageId, Part, Queue};
use unix::durable::Disk;
use unix::together::{PATIENCE, Together};

use super::rewrite::Rules;
use crate::log::Line;

/// Longest envelope that is read, in bytes.
const ENVELOPE_MAX: u64 = 256 << 20;

/// Why a message stays in todo for now.
#[derive(Debug, thiserror::Error)]
pub enum SortError {
    /// The file system said no.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The envelope cannot be understood.
    #[error("{error} in {}", path.display())]
    Record {
        /// What is wrong.
        error: RecordError,
        /// The envelope.
        path: PathBuf,
    },
}

fn io_error<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> SortError + 'a {
    move |source| SortError::Io { what, path: path.to_owned(), source }
}

/// A message whose files are written, but not forced out.
#[derive(Debug)]
pub struct Sorted {
    /// Which one.
    pub id: MessageId,
    files: Vec<(PathBuf, File)>,
    /// Log lines about it, to be printed when todo is gone.
    pub lines: Vec<Line>,
    /// Has it recipients on this channel? By [`Channel::index`].
    pub channels: [bool; 2],
}

impl Sorted {
    /// `L`, `R`, `B` or `X`: local, remote, both, none.
    #[must_use]
    pub fn letter(&self) -> u8 {
        match self.channels {
            [true, false] => b'L',
            [false, true] => b'R',
            [true, true] => b'B',
            [false, false] => b'X',
        }
    }
}

/// What sorting needs to know.
#[derive(Debug)]
pub struct Sorter<'a> {
    /// The queue.
    pub queue: &'a Queue,
    /// Its disk.
    pub disk: Disk<'a>,
    /// Its file system, to force everything out at once.
    pub together: Option<&'a Together>,
    /// Where recipients go.
    pub rules: &'a Rules,
    /// Name of the queue in log lines.
    pub name: &'a [u8],
}

impl Sorter<'_> {
    /// Steps 1 to 3 for the envelope at `todo`. `Ok(None)` when it is gone.
    ///
    /// # Errors
    /// The message stays where it is; nothing that was made is left.
    pub fn sort(&self, id: MessageId, todo: &Path) -> Result<Option<Sorted>, SortError> {
        let envelope = match read_bounded(todo) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io_error("cannot read", todo)(e)),
        };
        let mess = self.queue.path(Part::Mess, id);
        let size = std::fs::symlink_metadata(&mess).map_err(io_error("cannot look at", &mess))?.size();
        self.remove_old(id)?;
        let result = self.write_files(id, todo, &envelope, size);
        if result.is_err() {
            self.forget(id);
        }
        result.map(Some)
    }

    /// Step 4 for messages that were sorted one after the other: the whole file system at once; where that
    /// cannot be or takes too long, files first, then each directory once.
    ///
    /// # Errors
    /// None of them may go on to step 5; nothing that was made is left.
    pub fn force_out(&self, batch: &[Sorted]) -> Result<(), SortError> {
        if batch.is_empty() || self.together.is_some_and(|t| matches!(t.flush(PATIENCE), Ok(true))) {
            return Ok(());
        }
        let result = self.force_files_out(batch);
        if result.is_err() {
            batch.iter().for_each(|sorted| self.forget(sorted.id));
        }
        result
    }

    fn force_files_out(&self, batch: &[Sorted]) -> Result<(), SortError> {
        let mut directories = BTreeMap::new();
        for (path, file) in batch.iter().flat_map(|sorted| &sorted.files) {
            self.disk.sync_file(path, file).map_err(io_error("cannot force out", path))?;
            directories.entry(path.parent()).or_insert(path);
        }
        for path in directories.into_values() {
            self.disk.sync_parent(path).map_err(io_error("cannot force out the directory of", path))?;
        }
        Ok(())
    }

    /// What stays is removed the next time round; the first error is the one to tell.
    fn forget(&self, id: MessageId) {
        let _ = self.remove_old(id);
    }

    fn remove_old(&self, id: MessageId) -> Result<(), SortError> {
        let parts = [Part::Info, Part::Recipients(Channel::Local), Part::Recipients(Channel::Remote)];
        for path in parts.map(|part| self.queue.path(part, id)) {
            self.disk.unlink(&path).map_err(io_error("cannot remove", &path))?;
        }
        Ok(())
    }

    fn write_files(&self, id: MessageId, todo: &Path, bytes: &[u8], size: u64) -> Result<Sorted, SortError> {
        let (mut uid, mut pid, mut sender) = (0, 0, &b""[..]);
        let (mut info, mut outputs) = (Vec::new(), [Vec::new(), Vec::new()]);
        let mut routed = Vec::new();
        for record in records(bytes) {
            let (_, record) = record.map_err(|error| SortError::Record { error, path: todo.to_owned() })?;
            match record {
                Record::Uid(n) => uid = n,
                Record::Pid(n) => pid = n,
                Record::Sender(s) => {
                    sender = s;
                    record.encode(&mut info);
                }
                Record::ExtraHeader(_) | Record::Exported(_) => record.encode(&mut info),
                Record::Recipient(r) => {
                    let (channel, address) = self.rules.rewrite(r);
                    Record::Recipient(&address).encode(&mut outputs[channel.index()]);
                    routed.push((channel, address));
                }
                Record::Done(_) => {
                    return Err(SortError::Record { error: RecordError::Unknown, path: todo.to_owned() });
                }
            }
        }
        let mut files = vec![self.write(self.queue.path(Part::Info, id), &info)?];
        for channel in Channel::BOTH {
            if !outputs[channel.index()].is_empty() {
                files.push(
                    self.write(self.queue.path(Part::Recipients(channel), id), &outputs[channel.index()])?,
                );
            }
        }
        let channels = [!outputs[0].is_empty(), !outputs[1].is_empty()];
        let head = Head { id, size, sender, pid, uid };
        Ok(Sorted { id, files, lines: self.lines(&head, &routed), channels })
    }

    fn write(&self, path: PathBuf, bytes: &[u8]) -> Result<(PathBuf, File), SortError> {
        let mut file = self.disk.create_new(&path, 0o600).map_err(io_error("cannot create", &path))?;
        self.disk.write(&path, &mut file, bytes).map_err(io_error("cannot write", &path))?;
        Ok((path, file))
    }

    fn lines(&self, head: &Head<'_>, routed: &[(Channel, Vec<u8>)]) -> Vec<Line> {
        let mut lines = Vec::with_capacity(routed.len() + 2);
        lines.push(Line::new("new msg ").value(head.id).text(" ").safe(self.name));
        lines.push(
            Line::new("info msg ")
                .value(head.id)
                .text(": bytes ")
                .value(head.size)
                .text(" from <")
                .safe(head.sender)
                .text("> qp ")
                .value(head.pid)
                .text(" uid ")
                .value(head.uid)
                .text(" ")
                .safe(self.name),
        );
        // Log tools expect a word for each address.
        let sender = if head.sender.is_empty() { b"<>" } else { head.sender };
        for (channel, address) in routed {
            lines.push(
                Line::new(channel.name())
                    .text(": ")
                    .safe(sender)
                    .text(" ")
                    .safe(address)
                    .text(" ")
                    .value(head.id)
                    .text(" ")
                    .value(head.size)
                    .text(" bytes ")
                    .safe(self.name)
                    .text(" opendir mode"),
            );
        }
        lines
    }
}

struct Head<'a> {
    id: MessageId,
    size: u64,
    sender: &'a [u8],
    pid: u32,
    uid: u32,
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    if size > ENVELOPE_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {ENVELOPE_MAX} bytes")));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    file.take(ENVELOPE_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::Map;
    use mta_queue::layout::Shape;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use unix::durable::{Durability, Faults, Step};

    struct Site {
        _dir: tempfile::TempDir,
        queue: Queue,
        rules: Rules,
    }

    fn site(envelope: &[u8]) -> (Site, MessageId, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let queue = Queue::new(dir.path(), Shape { split: 2, bigtodo: false });
        for part in Part::ALL {
            queue.directories(part).for_each(|(_, d)| std::fs::create_dir_all(d).unwrap());
        }
        let id = MessageId(40);
        std::fs::write(queue.path(Part::Mess, id), b"0123456789").unwrap();
        let todo = queue.path(Part::Todo, id);
        std::fs::write(&todo, envelope).unwrap();
        let rules = Rules { locals: Map::new(&["here"]), ..Rules::default() };
        (Site { _dir: dir, queue, rules }, id, todo)
    }

    fn sorter<'a>(site: &'a Site, disk: Disk<'a>) -> Sorter<'a> {
        Sorter { queue: &site.queue, disk, together: None, rules: &site.rules, name: b"queue1" }
    }

    const ENVELOPE: &[u8] = b"u500\0p77\0Fs d@x\0Ta@here\0Tb@far\0Tc@here\0eX: y\n\0";

    #[test]
    fn recipients_are_sorted_and_logged() {
        let (site, id, todo) = site(ENVELOPE);
        let disk = Disk::new(Durability::default());
        let sorted = sorter(&site, disk).sort(id, &todo).unwrap().unwrap();
        assert_eq!(sorted.letter(), b'B');
        let read = |part| std::fs::read(site.queue.path(part, id)).unwrap();
        assert_eq!(read(Part::Info), b"Fs d@x\0eX: y\n\0");
        assert_eq!(read(Part::Recipients(Channel::Local)), b"Ta@here\0Tc@here\0");
        assert_eq!(read(Part::Recipients(Channel::Remote)), b"Tb@far\0");
        let lines: Vec<String> =
            sorted.lines.into_iter().map(|l| String::from_utf8(l.into_bytes()).unwrap()).collect();
        assert_eq!(
            lines,
            [
                "new msg 40 queue1",
                "info msg 40: bytes 10 from <s_d@x> qp 77 uid 500 queue1",
                "local: s_d@x a@here 40 10 bytes queue1 opendir mode",
                "remote: s_d@x b@far 40 10 bytes queue1 opendir mode",
                "local: s_d@x c@here 40 10 bytes queue1 opendir mode",
            ]
        );
        assert!(todo.exists(), "only qmail-clean removes it");
        assert!(sorter(&site, disk).sort(MessageId(41), &todo.with_file_name("41")).unwrap().is_none());
    }

    #[test]
    fn together_or_one_by_one_comes_to_the_same() {
        let (site, id, todo) = site(ENVELOPE);
        let together = Together::new(site.queue.root()).unwrap();
        let alone = sorter(&site, Disk::new(Durability::default()));
        let sorter = Sorter { together: together.as_ref(), ..alone };
        let sorted = sorter.sort(id, &todo).unwrap().unwrap();
        sorter.force_out(&[sorted]).unwrap();
        assert!(site.queue.path(Part::Info, id).exists());
    }

    #[test]
    fn garbage_stays_in_todo_and_leaves_nothing() {
        for bad in [&b"u1\0p1\0Fs\0\0"[..], b"Fs\0Qx\0", b"Fs\0Ta@here", b"Fs\0Dx\0"] {
            let (site, id, todo) = site(bad);
            assert!(sorter(&site, Disk::new(Durability::default())).sort(id, &todo).is_err(), "{bad:?}");
            assert!(todo.exists() && !site.queue.path(Part::Info, id).exists());
            assert!(!site.queue.path(Part::Recipients(Channel::Local), id).exists());
        }
    }

    struct StopAt(AtomicUsize);
    impl Faults for StopAt {
        fn before(&self, _: Step, _: &Path) -> io::Result<()> {
            let left = self.0.load(Ordering::Relaxed);
            if left == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.store(left - 1, Ordering::Relaxed);
            Ok(())
        }
    }

    #[test]
    fn stopping_before_any_step_can_be_repeated() {
        // Three old files, then create, write, force out, directory for each of three.
        for n in 0..15 {
            let (site, id, todo) = site(ENVELOPE);
            let fault = StopAt(AtomicUsize::new(n));
            let sorter_with_faults = sorter(&site, Disk::with_faults(Durability::default(), &fault));
            let done =
                sorter_with_faults.sort(id, &todo).and_then(|s| sorter_with_faults.force_out(&[s.unwrap()]));
            assert!(done.is_err(), "step {n}");
            assert_eq!(std::fs::read(&todo).unwrap(), ENVELOPE);
            let sorter = sorter(&site, Disk::new(Durability::default()));
            let again = sorter.sort(id, &todo).unwrap().unwrap();
            sorter.force_out(std::slice::from_ref(&again)).unwrap();
            assert_eq!(again.letter(), b'B', "step {n}");
            assert_eq!(
                std::fs::read(site.queue.path(Part::Recipients(Channel::Remote), id)).unwrap(),
                b"Tb@far\0"
            );
        }
    }
}
