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
use crate::{Answer, Error, Lane, Service, Settings, Statistics};

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

/// One lane: its queue and what its workers sleep on.
struct Inbox {
    state: Mutex<Jobs>,
    arrived: Condvar,
    capacity: usize,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    closed: bool,
}

impl Inbox {
    fn new(capacity: usize) -> Self {
        Self { state: Mutex::default(), arrived: Condvar::new(), capacity }
    }

    fn close(&self) {
        lock(&self.state).closed = true;
        self.arrived.notify_all();
    }
}

/// What front and workers share.
pub(crate) struct Shared {
    quick: Inbox,
    slow: Inbox,
    has_slow: bool,
    outbox: Mutex<Vec<(Ticket, Answer)>>,
    waker: Waker,
    statistics: Arc<Statistics>,
}

/// A panic elsewhere leaves these collections whole, so a poisoned lock is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(settings: &Settings, waker: Waker) -> Arc<Self> {
        Arc::new(Self {
            quick: Inbox::new(settings.queue),
            slow: Inbox::new(settings.slow_queue),
            has_slow: settings.slow_workers > 0,
            outbox: Mutex::default(),
            waker,
            statistics: Arc::clone(&settings.statistics),
        })
    }

    /// Queues a job; false when the queue is full.
    pub(crate) fn submit(&self, lane: Lane, job: Job) -> bool {
        let inbox = self.inbox(lane);
        let mut jobs = lock(&inbox.state);
        if jobs.waiting.len() >= inbox.capacity {
            return false;
        }
        jobs.waiting.push_back(job);
        self.statistics.waiting.fetch_add(1, Ordering::Relaxed);
        inbox.arrived.notify_one();
        true
    }

    fn inbox(&self, lane: Lane) -> &Inbox {
        if lane == Lane::Slow && self.has_slow { &self.slow } else { &self.quick }
    }

    /// The answers since the last call.
    pub(crate) fn answers(&self) -> Vec<(Ticket, Answer)> {
        std::mem::take(&mut lock(&self.outbox))
    }

    /// Lets the workers go once their queues are empty.
    pub(crate) fn close(&self) {
        self.quick.close();
        self.slow.close();
    }

    fn next(&self, lane: Lane) -> Option<Job> {
        let inbox = self.inbox(lane);
        let mut jobs = lock(&inbox.state);
        loop {
            if let Some(job) = jobs.waiting.pop_front() {
                self.statistics.waiting.fetch_sub(1, Ordering::Relaxed);
                return Some(job);
            }
            if jobs.closed {
                return None;
            }
            jobs = inbox.arrived.wait(jobs).unwrap_or_else(PoisonError::into_inner);
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

/// Starts the workers of both lanes.
pub(crate) fn start<S: Service>(
    settings: &Settings,
    service: &Arc<S>,
    shared: &Arc<Shared>,
) -> Result<Vec<JoinHandle<()>>, Error> {
    let quick = (0..settings.workers.max(1)).map(|n| (Lane::Quick, format!("worker-{n}")));
    let slow = (0..settings.slow_workers).map(|n| (Lane::Slow, format!("slow-{n}")));
    quick
        .chain(slow)
        .map(|(lane, name)| {
            let (service, shared) = (Arc::clone(service), Arc::clone(shared));
            std::thread::Builder::new()
                .name(name)
                .spawn(move || work(&*service, &shared, lane))
                .map_err(Error::Threads)
        })
        .collect()
}

fn work<S: Service>(service: &S, shared: &Shared, lane: Lane) {
    let mut state = None;
    while let Some(job) = shared.next(lane) {
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
