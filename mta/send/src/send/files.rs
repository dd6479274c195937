//! The files of the sending half: reading passes, recording results.
//!
//! | step | action | if the machine stops right after |
//! |---|---|---|
//! | failure 1 | append to `bounce/id`, force out | the delivery is repeated, the bounce may name the recipient twice |
//! | failure 2, success | `T` becomes `D` in the channel file | done |
//! | last recipient | unlink the channel file | done |
//! | message done | unlink bounce, then info, then qmail-clean removes mess | mess without info is garbage, collected later |
//!
//! A success is not forced out: when the mark is lost the recipient may get a second copy, never none.

use std::fs::{File, FileTimes, OpenOptions};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::time::{Duration, UNIX_EPOCH};

use mta_queue::envelope::{Record, records};
use mta_queue::layout::{Channel, MessageId, Part, Queue, exists};
use unix::durable::Disk;

use super::scheduler::Known;

/// Longest record or info file that is read, in bytes.
const RECORD_MAX: u64 = 16 << 20;

/// What info says about a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Info {
    /// Envelope sender as stored.
    pub(crate) sender: Vec<u8>,
    /// Header lines put before the message.
    pub(crate) extra_header: Vec<u8>,
    /// Header lines exported to deliveries.
    pub(crate) exported: Vec<u8>,
    /// When it was sorted, in seconds since 1970.
    pub(crate) birth: u64,
}

/// The queue's files as qmail-send works on them.
#[derive(Debug)]
pub(crate) struct Files<'a> {
    pub(crate) queue: &'a Queue,
    pub(crate) disk: Disk<'a>,
}

fn seconds(time: i64) -> u64 {
    u64::try_from(time).unwrap_or(0)
}

fn invalid(text: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.to_string())
}

impl Files<'_> {
    pub(crate) fn info(&self, id: MessageId) -> io::Result<Info> {
        let file = File::open(self.queue.path(Part::Info, id))?;
        let mut info = Info { birth: seconds(file.metadata()?.mtime()), ..Info::default() };
        let mut bytes = Vec::new();
        file.take(RECORD_MAX).read_to_end(&mut bytes)?;
        for record in records(&bytes) {
            match record.map_err(invalid)?.1 {
                Record::Sender(s) => info.sender = s.to_vec(),
                Record::ExtraHeader(t) => info.extra_header = t.to_vec(),
                Record::Exported(t) => info.exported = t.to_vec(),
                Record::Uid(_) | Record::Pid(_) | Record::Recipient(_) | Record::Done(_) => {
                    return Err(invalid("unexpected record in info"));
                }
            }
        }
        Ok(info)
    }

    /// Which channel files a sorted message has, and when they are due.
    pub(crate) fn known(&self, id: MessageId) -> io::Result<Known> {
        let mut known = Known::default();
        for channel in Channel::BOTH {
            let path = self.queue.path(Part::Recipients(channel), id);
            known.due[channel.index()] = match std::fs::symlink_metadata(path) {
                Ok(meta) => Some(seconds(meta.mtime())),
                Err(e) if e.kind() == io::ErrorKind::NotFound => None,
                Err(e) => return Err(e),
            };
        }
        Ok(known)
    }

    pub(crate) fn has(&self, part: Part, id: MessageId) -> io::Result<bool> {
        exists(&self.queue.path(part, id))
    }

    pub(crate) fn recipients(&self, channel: Channel, id: MessageId) -> io::Result<Recipients> {
        let file = File::open(self.queue.path(Part::Recipients(channel), id))?;
        Ok(Recipients { source: BufReader::new(file), offset: 0 })
    }

    /// The recipient is done with: nothing more is sent to it.
    pub(crate) fn mark_done(&self, channel: Channel, id: MessageId, offset: u64) -> io::Result<()> {
        let path = self.queue.path(Part::Recipients(channel), id);
        let file = OpenOptions::new().write(true).open(&path)?;
        self.disk.write_at(&path, &file, b"D", offset)
    }

    /// Adds a failure to the bounce file and forces it out.
    pub(crate) fn add_failure(&self, id: MessageId, entry: &[u8]) -> io::Result<()> {
        let path = self.queue.path(Part::Bounce, id);
        let is_new = !exists(&path)?;
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
        self.disk.write(&path, &mut file, entry)?;
        self.disk.sync_file(&path, &file)?;
        if is_new { self.disk.sync_parent(&path) } else { Ok(()) }
    }

    pub(crate) fn remove(&self, part: Part, id: MessageId) -> io::Result<()> {
        self.disk.unlink(&self.queue.path(part, id)).map(drop)
    }

    /// Writes down when a channel is due, for the next start.
    pub(crate) fn set_due(&self, channel: Channel, id: MessageId, due: u64) -> io::Result<()> {
        let time = UNIX_EPOCH + Duration::from_secs(due.min(u64::from(u32::MAX) * 2));
        let file = OpenOptions::new().write(true).open(self.queue.path(Part::Recipients(channel), id))?;
        file.set_times(FileTimes::new().set_modified(time).set_accessed(time))
    }
}

/// Walks over a channel file.
#[derive(Debug)]
pub(crate) struct Recipients {
    source: BufReader<File>,
    offset: u64,
}

impl Recipients {
    /// The next recipient still to be served: where its record begins, and its address.
    pub(crate) fn next(&mut self) -> io::Result<Option<(u64, Vec<u8>)>> {
        loop {
            let mut record = Vec::new();
            let start = self.offset;
            let n = self.source.by_ref().take(RECORD_MAX).read_until(0, &mut record)?;
            if n == 0 {
                return Ok(None);
            }
            self.offset += n as u64;
            if record.pop() != Some(0) {
                return Err(invalid("record without an end"));
            }
            match Record::decode(&record).map_err(invalid)? {
                Record::Recipient(address) => return Ok(Some((start, address.to_vec()))),
                Record::Done(_) => {}
                _ => return Err(invalid("unexpected record in a channel file")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mta_queue::layout::Shape;
    use unix::durable::{Durability, Faults, Step};

    fn queue() -> (tempfile::TempDir, Queue) {
        let dir = tempfile::tempdir().unwrap();
        let queue = Queue::new(dir.path(), Shape { split: 1, bigtodo: false });
        for part in Part::ALL {
            queue.directories(part).for_each(|(_, d)| std::fs::create_dir_all(d).unwrap());
        }
        (dir, queue)
    }

    #[test]
    fn recipients_are_walked_and_marked_in_place() {
        let (_dir, queue) = queue();
        let files = Files { queue: &queue, disk: Disk::new(Durability::default()) };
        let id = MessageId(3);
        let path = queue.path(Part::Recipients(Channel::Local), id);
        std::fs::write(&path, b"Ta@x\0Db@x\0Tc@x\0").unwrap();
        let mut walk = files.recipients(Channel::Local, id).unwrap();
        assert_eq!(walk.next().unwrap(), Some((0, b"a@x".to_vec())));
        files.mark_done(Channel::Local, id, 0).unwrap();
        assert_eq!(walk.next().unwrap(), Some((10, b"c@x".to_vec())));
        assert_eq!(walk.next().unwrap(), None);
        assert_eq!(std::fs::read(&path).unwrap(), b"Da@x\0Db@x\0Tc@x\0");
        std::fs::write(&path, b"Ta@x").unwrap();
        assert!(files.recipients(Channel::Local, id).unwrap().next().is_err());
    }

    /// Notes the steps, and fails at one of them.
    #[derive(Default)]
    struct Steps {
        seen: std::sync::Mutex<Vec<Step>>,
        fail: Option<Step>,
    }

    impl Faults for Steps {
        fn before(&self, step: Step, _: &std::path::Path) -> io::Result<()> {
            self.seen.lock().unwrap().push(step);
            if self.fail == Some(step) { Err(io::Error::other("full")) } else { Ok(()) }
        }
    }

    /// The recipient is marked as done only after this: the failure must be on the disk by then.
    #[test]
    fn must_failures_are_forced_out_before_the_mark() {
        let (_dir, queue) = queue();
        let id = MessageId(3);
        let steps = Steps::default();
        let files = Files { queue: &queue, disk: Disk::with_faults(Durability::default(), &steps) };
        files.add_failure(id, b"<a>:\nno\n\n").unwrap();
        files.add_failure(id, b"<b>:\nno\n\n").unwrap();
        let wanted = [Step::Write, Step::SyncFile, Step::SyncDirectory, Step::Write, Step::SyncFile];
        assert_eq!(*steps.seen.lock().unwrap(), wanted);
        assert_eq!(std::fs::read(queue.path(Part::Bounce, id)).unwrap(), b"<a>:\nno\n\n<b>:\nno\n\n");
        for step in [Step::Write, Step::SyncFile, Step::SyncDirectory] {
            let steps = Steps { fail: Some(step), ..Steps::default() };
            let files = Files { queue: &queue, disk: Disk::with_faults(Durability::default(), &steps) };
            assert!(files.add_failure(MessageId(4), b"x").is_err(), "{step:?}");
            let _ = std::fs::remove_file(queue.path(Part::Bounce, MessageId(4)));
        }
    }

    #[test]
    fn due_times_survive_in_the_file_times() {
        let (_dir, queue) = queue();
        let files = Files { queue: &queue, disk: Disk::new(Durability::default()) };
        let id = MessageId(3);
        assert_eq!(files.known(id).unwrap(), Known::default());
        std::fs::write(queue.path(Part::Recipients(Channel::Remote), id), b"Ta@x\0").unwrap();
        files.set_due(Channel::Remote, id, 2_000_000_000).unwrap();
        assert_eq!(files.known(id).unwrap().due, [None, Some(2_000_000_000)]);
    }

    #[test]
    fn info_is_read_whole() {
        let (_dir, queue) = queue();
        let files = Files { queue: &queue, disk: Disk::new(Durability::default()) };
        let id = MessageId(3);
        std::fs::write(queue.path(Part::Info, id), b"Fs@x\0eA: b\n\0hC: d\n\0").unwrap();
        let info = files.info(id).unwrap();
        assert_eq!(
            (&info.sender[..], &info.extra_header[..], &info.exported[..]),
            (&b"s@x"[..], &b"A: b\n"[..], &b"C: d\n"[..])
        );
        assert!(info.birth > 1_000_000_000);
    }
}
