//! Many messages into the queue with few waits for the disk.
//!
//! The steps and their order are those of one message; what is shared are the waits. While one batch is on
//! its way to the disk, the next one gathers.
//!
//! | steps | for all messages of a batch |
//! |---|---|
//! | 6 | the file system is forced out once; when that takes too long, each message by itself |
//! | 7 | each envelope is linked |
//! | 8 | each directory with new envelopes is forced out once |

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use unix::Errno;
use unix::durable::Disk;
use unix::together::{PATIENCE, Together};

use super::{Envelope, Failure, Prepared, unsafe_directory};
use crate::layout::MessageId;

/// Queues batches of messages.
#[derive(Debug)]
pub struct Committer<'d> {
    disk: Disk<'d>,
    together: Option<&'d Together>,
}

impl<'d> Committer<'d> {
    /// `together`: the file system of the queue; without one each message is forced out by itself.
    #[must_use]
    pub fn new(disk: Disk<'d>, together: Option<&'d Together>) -> Self {
        Self { disk, together }
    }

    /// Queues complete messages, all of them flushed ([`Envelope::flush`]). One answer for each, in their
    /// order; what the errors mean is said at [`Prepared::commit`].
    pub fn commit(&self, batch: Vec<Envelope<'_>>) -> Vec<Result<MessageId, Failure>> {
        let flushed = self.together.is_some_and(|t| matches!(t.flush(PATIENCE), Ok(true)));
        let linked = batch.into_iter().map(|envelope| {
            let prepared = if flushed { Prepared(envelope) } else { envelope.prepare()? };
            prepared.link()
        });
        let linked: Vec<Result<(MessageId, PathBuf), Failure>> = linked.collect();
        // What a directory's wait came to; all its messages share it.
        let mut waited: BTreeMap<PathBuf, Option<Errno>> = BTreeMap::new();
        let answers = linked.into_iter().map(|one| {
            let (id, todo) = one?;
            let directory = todo.parent().map(PathBuf::from).unwrap_or_default();
            let trouble = waited.entry(directory).or_insert_with(|| {
                let failed = |e: io::Error| e.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
                self.disk.sync_parent(&todo).err().map(failed)
            });
            match *trouble {
                None => Ok(id),
                Some(errno) => Err(unsafe_directory(&todo)(errno.into())),
            }
        });
        answers.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Record;
    use crate::exit::Code;
    use crate::inject::Message;
    use crate::layout::{Part, Queue, Shape, ids_in};
    use std::path::Path;
    use unix::durable::{Durability, Faults, Step};

    /// Forcing out a directory fails, or linking the second envelope.
    struct Broken {
        step: Step,
        part: &'static str,
    }

    impl Faults for Broken {
        fn before(&self, step: Step, path: &Path) -> io::Result<()> {
            let here = path.components().any(|c| c.as_os_str() == self.part);
            if step == self.step && here { Err(Errno::ENOSPC.into()) } else { Ok(()) }
        }
    }

    fn queue() -> (tempfile::TempDir, Queue) {
        let dir = tempfile::tempdir().unwrap();
        let queue = Queue::new(dir.path(), Shape { split: 3, bigtodo: true });
        std::fs::create_dir(dir.path().join("pid")).unwrap();
        for part in [Part::Mess, Part::Intd, Part::Todo] {
            for (_, d) in queue.directories(part) {
                std::fs::create_dir_all(d).unwrap();
            }
        }
        (dir, queue)
    }

    fn envelope<'q>(queue: &'q Queue, disk: Disk<'q>, number: u32) -> Envelope<'q> {
        let mut message = Message::create(queue, disk, number, 1).unwrap();
        message.write(format!("message {number}\n").as_bytes()).unwrap();
        let mut envelope = message.envelope(7, number).unwrap();
        for record in [Record::Sender(b"s@x"), Record::Recipient(b"r@x")] {
            envelope.record(record).unwrap();
        }
        envelope.flush().unwrap();
        envelope
    }

    fn there(queue: &Queue, part: Part) -> usize {
        queue.directories(part).map(|(_, d)| ids_in(&d).unwrap().len()).sum()
    }

    fn run(faults: &dyn Faults, together: bool) -> (usize, Vec<Result<MessageId, Code>>, [usize; 3]) {
        let (dir, queue) = queue();
        let disk = Disk::with_faults(Durability::default(), faults);
        let together = together.then(|| Together::new(dir.path()).unwrap()).flatten();
        let committer = Committer::new(disk, together.as_ref());
        let batch: Vec<_> = (1..=7).map(|n| envelope(&queue, disk, n)).collect();
        let answers: Vec<_> = committer.commit(batch).into_iter().map(|a| a.map_err(|f| f.code)).collect();
        let queued = answers.iter().filter(|a| a.is_ok()).count();
        (queued, answers, [Part::Mess, Part::Intd, Part::Todo].map(|p| there(&queue, p)))
    }

    #[test]
    fn every_message_of_a_batch_is_queued() {
        for together in [true, false] {
            let (queued, answers, left) = run(&unix::durable::NoFaults, together);
            assert_eq!((queued, left), (7, [7, 7, 7]), "{answers:?}");
        }
    }

    #[test]
    fn what_cannot_be_committed_is_removed_and_what_may_not_survive_is_not_promised() {
        for together in [true, false] {
            // Link into mess comes first and must pass.
            let (queued, answers, left) = run(&Broken { step: Step::Link, part: "todo" }, together);
            assert_eq!((queued, left), (0, [0, 0, 0]), "{answers:?}");
            assert!(answers.iter().all(|a| *a == Err(Code::LINK_TODO)));
            let (queued, answers, left) = run(&Broken { step: Step::SyncDirectory, part: "todo" }, together);
            assert_eq!((queued, left), (0, [7, 7, 7]), "{answers:?}");
            assert!(answers.iter().all(|a| *a == Err(Code::DIRECTORY_SYNC)));
        }
        // Forced out one by one, a message that fails takes no other along, and leaves nothing.
        let (queued, _, left) = run(&Broken { step: Step::SyncFile, part: "mess" }, false);
        assert_eq!((queued, left), (0, [0, 0, 0]));
    }
}
