//! The state table: stop after each step, fail at each step, look at what is left.

use super::*;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use unix::durable::{Durability, Faults, Step};

use crate::layout::{Shape, ids_in};

/// Lets `steps` steps pass; the next one fails, and with `stopped` everything after it too, as
/// when the machine had stopped before it.
struct After {
    left: AtomicUsize,
    stopped: bool,
    failed: AtomicBool,
    done: AtomicUsize,
}

impl After {
    fn new(steps: usize, stopped: bool) -> Self {
        Self {
            left: AtomicUsize::new(steps),
            stopped,
            failed: AtomicBool::new(false),
            done: AtomicUsize::new(0),
        }
    }
}

impl Faults for After {
    fn before(&self, _: Step, _: &Path) -> io::Result<()> {
        let (failed, left) = (self.failed.load(Relaxed), self.left.load(Relaxed));
        if failed && self.stopped || !failed && left == 0 {
            self.failed.store(true, Relaxed);
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        self.left.store(left.saturating_sub(1), Relaxed);
        self.done.fetch_add(1, Relaxed);
        Ok(())
    }
}

fn queue(bigtodo: bool) -> (tempfile::TempDir, Queue) {
    let dir = tempfile::tempdir().unwrap();
    let queue = Queue::new(dir.path(), Shape { split: 3, bigtodo });
    std::fs::create_dir(dir.path().join("pid")).unwrap();
    for part in [Part::Mess, Part::Intd, Part::Todo] {
        for (_, d) in queue.directories(part) {
            std::fs::create_dir_all(d).unwrap();
        }
    }
    (dir, queue)
}

const MESSAGE: &[u8] = b"Subject: x\n\nbody\0without newline";

fn inject(queue: &Queue, disk: Disk<'_>) -> Result<MessageId, Failure> {
    let mut message = Message::create(queue, disk, 77, 1_000_000)?;
    message.write(b"Received: first\n")?;
    message.copy(&mut &MESSAGE[..])?;
    let mut envelope = message.envelope(1000, 77)?;
    envelope.copy(&mut &b"Fs@x\0Ta@y\0Tb@z\0\0"[..])?;
    envelope.prepare()?.commit()
}

fn files(queue: &Queue, part: Part) -> BTreeSet<MessageId> {
    queue.directories(part).flat_map(|(_, d)| ids_in(&d).unwrap()).collect()
}

fn embryos(queue: &Queue) -> usize {
    std::fs::read_dir(queue.root().join("pid")).unwrap().count()
}

fn assert_whole(queue: &Queue, id: MessageId) {
    let mess = std::fs::read(queue.path(Part::Mess, id)).unwrap();
    assert_eq!(mess, [b"Received: first\n", MESSAGE].concat());
    let todo = std::fs::read(queue.path(Part::Todo, id)).unwrap();
    assert_eq!(todo, b"u1000\0p77\0Fs@x\0Ta@y\0Tb@z\0");
    assert!(crate::layout::is_named_by_inode(&queue.path(Part::Mess, id), id).unwrap());
}

#[test]
fn a_message_without_trouble_is_whole_and_leaves_no_embryo() {
    for bigtodo in [false, true] {
        let (_dir, queue) = queue(bigtodo);
        let id = inject(&queue, Disk::new(Durability::default())).unwrap();
        assert_whole(&queue, id);
        assert_eq!(embryos(&queue), 0);
    }
}

fn number_of_steps() -> usize {
    let (_dir, queue) = queue(false);
    let count = After::new(usize::MAX, false);
    inject(&queue, Disk::with_faults(Durability::default(), &count)).unwrap();
    count.done.load(Relaxed)
}

#[test]
fn stopping_before_any_step_leaves_nothing_or_a_whole_queued_message() {
    let steps = number_of_steps();
    assert_eq!(steps, 12, "create link unlink write create write sync sync syncdir syncdir link syncdir");
    for n in 0..steps {
        let (_dir, queue) = queue(false);
        let fault = After::new(n, true);
        let result = inject(&queue, Disk::with_faults(Durability::default(), &fault));
        assert!(result.is_err(), "the client never hears yes, step {n}");
        let (mess, intd, todo) =
            (files(&queue, Part::Mess), files(&queue, Part::Intd), files(&queue, Part::Todo));
        assert!(intd.is_subset(&mess) && todo.is_subset(&intd), "state outside the table, step {n}");
        match todo.first() {
            Some(&id) => {
                assert_eq!(n, steps - 1, "queued only by the link to todo");
                assert_whole(&queue, id);
            }
            None => assert!(n < steps - 1),
        }
    }
}

#[test]
fn failing_at_any_step_leaves_nothing_behind() {
    let codes = [70, 67, 83, 53, 65, 53, 64, 64, 69, 69, 66, 69];
    for (n, code) in codes.into_iter().enumerate() {
        let (_dir, queue) = queue(true);
        let fault = After::new(n, false);
        let failure = inject(&queue, Disk::with_faults(Durability::default(), &fault)).unwrap_err();
        assert_eq!(failure.code, Code(code), "step {n}: {failure}");
        let left: usize = [Part::Mess, Part::Intd, Part::Todo].iter().map(|&p| files(&queue, p).len()).sum();
        // Failing to remove the pid file leaves just that; after the link to todo the message stays.
        let (embryo, wanted) = (usize::from(n == 2), if n == 11 { 3 } else { 0 });
        assert_eq!((embryos(&queue), left), (embryo, wanted), "step {n}");
    }
}

#[test]
fn ten_collisions_are_code_70() {
    let (dir, queue) = queue(false);
    for s in 1..=9 {
        std::fs::write(dir.path().join(format!("pid/77.1000000.{s}")), b"").unwrap();
    }
    let failure = inject(&queue, Disk::new(Durability::default())).unwrap_err();
    assert_eq!(failure.code, Code::PID_FILE);
    std::fs::remove_file(dir.path().join("pid/77.1000000.9")).unwrap();
    inject(&queue, Disk::new(Durability::default())).unwrap();
    assert_eq!(embryos(&queue), 8);
}

#[test]
fn bad_envelopes_have_their_codes_and_leave_nothing() {
    let long = [b"F\0T".to_vec(), vec![b'x'; 1003], b"\0\0".to_vec()].concat();
    let cases: [(&[u8], Code); 6] = [
        (b"", Code::READ),
        (b"Fa\0Tb\0", Code::READ),
        (b"Tb\0\0", Code::ENVELOPE),
        (b"Fa\0Xb\0\0", Code::ENVELOPE),
        (b"Fa\0Qb\0\0", Code::ENVELOPE),
        (&long, Code::ADDRESS_TOO_LONG),
    ];
    for (bytes, code) in cases {
        let (_dir, queue) = queue(false);
        let message = Message::create(&queue, Disk::new(Durability::default()), 1, 1).unwrap();
        let mut envelope = message.envelope(0, 1).unwrap();
        assert_eq!(envelope.copy(&mut &bytes[..]).unwrap_err().code, code, "{bytes:?}");
        drop(envelope);
        assert!(files(&queue, Part::Mess).is_empty() && files(&queue, Part::Intd).is_empty());
    }
}

#[test]
fn large_messages_arrive_unchanged_from_pieces_of_any_size() {
    let body: Vec<u8> = (0..1_000_003u32).map(|n| n.to_le_bytes()[usize::from(n % 7 == 0)]).collect();
    for piece in [1 << 20, 65_537, 65_536, 4_099] {
        let (_dir, queue) = queue(false);
        let mut message = Message::create(&queue, Disk::new(Durability::default()), 1, 1).unwrap();
        body.chunks(piece).for_each(|c| message.write(c).unwrap());
        let id = message.envelope(0, 1).unwrap().prepare().unwrap().commit().unwrap();
        assert!(std::fs::read(queue.path(Part::Mess, id)).unwrap() == body, "pieces of {piece}");
    }
}
