//! Bounces on their way into the queue, each in a thread of its own: a queue program that is slow
//! or hangs holds up no delivery.
//!
//! A thread has everything it needs and touches nothing of the driver; its result comes back by a
//! channel, and a byte on a pipe says so. While a bounce is on its way its message is left alone.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use mta_queue::client::{Outcome, QueueProgram, Transfer};
use mta_queue::layout::MessageId;
use unix::fd::Raw;

/// Bounces at once.
const MOST: usize = 8;
/// A thread copies bytes, and no more.
const STACK: usize = 256 * 1024;

/// A bounce: everything about it.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) program: QueueProgram,
    /// What comes before the copy of the original.
    pub(super) head: Vec<u8>,
    /// What comes after it, when it is whole and when it was cut.
    pub(super) tails: [Vec<u8>; 2],
    /// The original.
    pub(super) mess: PathBuf,
    /// Bytes of it that are copied, 0: all.
    pub(super) max_bytes: u64,
    pub(super) from: Vec<u8>,
    pub(super) to: Vec<u8>,
}

impl Job {
    /// The qp of the queued bounce.
    fn inject(&self) -> io::Result<u32> {
        let mut transfer = self.program.open().map_err(refused)?;
        transfer.write(&self.head);
        match File::open(&self.mess).and_then(|mess| copy_original(&mut transfer, mess, self.max_bytes)) {
            Ok(cut) => transfer.write(&self.tails[usize::from(cut)]),
            Err(e) => {
                transfer.abort();
                return Err(e);
            }
        }
        match transfer.finish(&self.from, [&self.to[..]]) {
            Outcome::Queued { qp } => Ok(qp),
            other => Err(refused(other)),
        }
    }
}

/// What became of the bounce about a message.
pub(super) type Injected = (MessageId, io::Result<u32>);

/// Bounces that are on their way or wait for their turn.
#[derive(Debug)]
pub(super) struct Injector {
    running: BTreeSet<MessageId>,
    waiting: VecDeque<MessageId>,
    results: (Sender<Injected>, Receiver<Injected>),
    wake: OwnedFd,
    waker: Arc<OwnedFd>,
}

impl Injector {
    /// None on their way.
    ///
    /// # Errors
    /// No descriptors left.
    pub(super) fn new() -> io::Result<Self> {
        let (wake, waker) = unix::fd::pipe()?;
        unix::fd::set_nonblocking(&wake, true)?;
        // A pipe that is full says enough.
        unix::fd::set_nonblocking(&waker, true)?;
        Ok(Self {
            running: BTreeSet::new(),
            waiting: VecDeque::new(),
            results: channel(),
            wake,
            waker: Arc::new(waker),
        })
    }

    /// Is the bounce about this message on its way, or waiting for its turn?
    pub(super) fn has(&self, id: MessageId) -> bool {
        self.running.contains(&id) || self.waiting.contains(&id)
    }

    /// Is none on its way?
    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// Is there room for one more? Otherwise its turn comes, see [`Injector::take`].
    pub(super) fn has_room_for(&mut self, id: MessageId) -> bool {
        let room = self.running.len() < MOST;
        if !room {
            self.waiting.push_back(id);
        }
        room
    }

    /// Sends a bounce on its way.
    ///
    /// # Errors
    /// No thread can be started.
    pub(super) fn start(&mut self, id: MessageId, job: Job) -> io::Result<()> {
        let (results, waker) = (self.results.0.clone(), self.waker.clone());
        let work = move || {
            // The driver outlives its threads, and looks when it has missed a byte.
            let _ = results.send((id, job.inject()));
            let _ = Raw(waker.as_fd()).write(&[0]);
        };
        std::thread::Builder::new().stack_size(STACK).spawn(work)?;
        self.running.insert(id);
        Ok(())
    }

    /// Readable when there are results.
    pub(super) fn watched(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// The results since the last time, and the messages whose turn it is now.
    pub(super) fn take(&mut self) -> (Vec<Injected>, Vec<MessageId>) {
        let mut bytes = [0u8; 64];
        while matches!(Raw(self.wake.as_fd()).read(&mut bytes), Ok(1..)) {}
        let results: Vec<Injected> = self.results.1.try_iter().collect();
        for (id, _) in &results {
            self.running.remove(id);
        }
        let room = MOST.saturating_sub(self.running.len()).min(self.waiting.len());
        (results, self.waiting.drain(..room).collect())
    }

    /// Nothing more is begun; those whose turn has not come are found again at the next start.
    pub(super) fn exit(&mut self) {
        self.waiting.clear();
    }
}

fn refused(outcome: Outcome) -> io::Error {
    let text = match outcome {
        Outcome::Queued { .. } => Vec::new(),
        Outcome::Permanent(text) | Outcome::Temporary(text) => text,
    };
    io::Error::other(format!("cannot queue the bounce: {}", text.escape_ascii()))
}

/// Copies the original up to `max` bytes (0: all); was some of it left out?
fn copy_original(transfer: &mut Transfer, mut mess: File, max: u64) -> io::Result<bool> {
    let mut left = if max == 0 { u64::MAX } else { max };
    let mut piece = vec![0u8; 64 * 1024];
    loop {
        let n = match mess.read(&mut piece) {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        let keep = usize::try_from(left).unwrap_or(usize::MAX).min(n);
        transfer.write(&piece[..keep]);
        left -= keep as u64;
        if n == 0 || keep < n {
            return Ok(keep < n);
        }
    }
}
