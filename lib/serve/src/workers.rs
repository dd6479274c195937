//! The bounded queue and the threads that empty it.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use lookup::frame;
use unix::readiness::Waker;
use unix::socket::Peer;
use zeroize::Zeroizing;

use crate::settings::count;
use crate::{Answer, Error, Service, Statistics};

/// A request on its way: which connection, which of its requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) key: usize,
    pub(crate) sequence: u64,
}

/// A request for a worker. It may carry a password.
pub(crate) struct Job {
    pub(crate) ticket: Ticket,
    pub(crate) peer: Peer,
    pub(crate) bytes: Zeroizing<Vec<u8>>,
    pub(crate) deadline: Instant,
}

#[derive(Default)]
struct Inbox {
    jobs: VecDeque<Job>,
    closed: bool,
}

/// What front and workers share.
pub(crate) struct Shared {
    inbox: Mutex<Inbox>,
    arrived: Condvar,
    outbox: Mutex<Vec<(Ticket, Answer)>>,
    capacity: usize,
    waker: Waker,
    statistics: Arc<Statistics>,
}

/// A panic elsewhere leaves these collections whole, so a poisoned lock is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(capacity: usize, waker: Waker, statistics: Arc<Statistics>) -> Arc<Self> {
        Arc::new(Self {
            inbox: Mutex::default(),
            arrived: Condvar::new(),
            outbox: Mutex::default(),
            capacity,
            waker,
            statistics,
        })
    }

    /// Queues a job; false when the queue is full.
    pub(crate) fn submit(&self, job: Job) -> bool {
        let mut inbox = lock(&self.inbox);
        if inbox.jobs.len() >= self.capacity {
            return false;
        }
        inbox.jobs.push_back(job);
        self.statistics.waiting.fetch_add(1, Ordering::Relaxed);
        self.arrived.notify_one();
        true
    }

    /// The answers since the last call.
    pub(crate) fn answers(&self) -> Vec<(Ticket, Answer)> {
        std::mem::take(&mut lock(&self.outbox))
    }

    /// Lets the workers go once the queue is empty.
    pub(crate) fn close(&self) {
        lock(&self.inbox).closed = true;
        self.arrived.notify_all();
    }

    fn next(&self) -> Option<Job> {
        let mut inbox = lock(&self.inbox);
        loop {
            if let Some(job) = inbox.jobs.pop_front() {
                self.statistics.waiting.fetch_sub(1, Ordering::Relaxed);
                return Some(job);
            }
            if inbox.closed {
                return None;
            }
            inbox = self.arrived.wait(inbox).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn deliver(&self, ticket: Ticket, answer: Answer) {
        let mut outbox = lock(&self.outbox);
        let first = outbox.is_empty();
        outbox.push((ticket, answer));
        drop(outbox);
        if first {
            self.waker.wake();
        }
    }
}

/// Starts the workers.
pub(crate) fn start<S: Service>(
    count: usize,
    service: &Arc<S>,
    shared: &Arc<Shared>,
) -> Result<Vec<JoinHandle<()>>, Error> {
    (0..count.max(1))
        .map(|n| {
            let (service, shared) = (Arc::clone(service), Arc::clone(shared));
            std::thread::Builder::new()
                .name(format!("worker-{n}"))
                .spawn(move || work(&*service, &shared))
                .map_err(Error::Threads)
        })
        .collect()
}

fn work<S: Service>(service: &S, shared: &Shared) {
    let mut state = None;
    while let Some(job) = shared.next() {
        let answer = if Instant::now() >= job.deadline {
            // The client has been told already; do not spend the store's time on it.
            Answer::Temporary
        } else {
            let worker = &mut state;
            catch_unwind(AssertUnwindSafe(|| answer(service, worker, &job))).unwrap_or_else(|_| {
                count(&shared.statistics.panics);
                Answer::Temporary
            })
        };
        shared.deliver(job.ticket, answer);
    }
}

/// The state is out of `slot` while the service works, so that a panic drops it.
fn answer<S: Service>(service: &S, slot: &mut Option<S::Worker>, job: &Job) -> Answer {
    let mut worker = slot.take().unwrap_or_else(|| service.worker());
    let answer = match frame::split(&job.bytes, frame::MAX_FRAME) {
        Ok(Some((frame, _))) => service.answer(&mut worker, &job.peer, &frame),
        Ok(None) | Err(_) => Answer::Malformed,
    };
    *slot = Some(worker);
    answer
}
