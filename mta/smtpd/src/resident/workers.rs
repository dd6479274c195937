//! Threads for what may last. Each lane has its own, started when all others are busy.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::ServerConnection;
use serve::Breaker;
use unix::readiness::Waker;

use super::core::{Core, Lane, Pause, Site};
use crate::lookups::Lookups;

/// What the deepest call of a worker needs of a stack, with room to spare, bytes.
const STACK: usize = 512 * 1024;
/// A question that failed after this time shows that the daemon hangs...
const SLOW: Duration = Duration::from_millis(500);
/// ... and for so long it is then asked by one worker only; the others say at once that they cannot tell.
const REST: Duration = Duration::from_secs(2);

/// What a worker is given.
#[derive(Debug)]
pub(crate) enum Task {
    /// A session that cannot go on in the event loop.
    Session(Box<Core>),
    /// Bytes of a handshake have come.
    Handshake(Box<ServerConnection>),
}

/// What a worker gives back.
#[derive(Debug)]
pub(crate) enum Done {
    /// The session waits for something else.
    Session(Box<Core>, Pause),
    /// What became of the bytes.
    Handshake(Box<ServerConnection>, Result<(), String>),
    /// The worker failed in a way that it never should; what it had is gone.
    Lost,
}

#[derive(Debug)]
struct Job {
    key: usize,
    task: Task,
    since: Instant,
}

#[derive(Debug, Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    threads: usize,
    idle: usize,
    closed: bool,
}

#[derive(Debug)]
struct Pool {
    lane: Lane,
    most: usize,
    jobs: Mutex<Jobs>,
    arrived: Condvar,
    breaker: Arc<Breaker>,
}

#[derive(Debug)]
struct Outbox {
    done: Mutex<Vec<(usize, Done)>>,
    waker: Waker,
}

/// All lanes.
#[derive(Debug)]
pub(crate) struct Workers {
    pools: [Arc<Pool>; 4],
    outbox: Arc<Outbox>,
}

/// A panic elsewhere leaves these collections whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Workers {
    /// At most so many threads for questions of each kind, and for the queue; none is started yet.
    pub(crate) fn new(questions: usize, queue: usize, waker: Waker) -> Self {
        let pool = |lane, most| {
            let breaker = Arc::new(Breaker::new(SLOW, REST));
            Arc::new(Pool { lane, most, jobs: Mutex::default(), arrived: Condvar::new(), breaker })
        };
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            pools: [
                pool(Lane::Lookup, questions),
                pool(Lane::Login, questions),
                pool(Lane::Queue, queue),
                pool(Lane::Handshake, processors),
            ],
            outbox: Arc::new(Outbox { done: Mutex::default(), waker }),
        }
    }

    /// Hands a task to a lane. A connection has one task at most, so the number of connections bounds what waits.
    pub(crate) fn submit(&self, lane: Lane, key: usize, task: Task) -> io::Result<()> {
        let pool = match lane {
            Lane::Lookup => &self.pools[0],
            Lane::Login => &self.pools[1],
            Lane::Queue => &self.pools[2],
            Lane::Handshake => &self.pools[3],
        };
        let mut jobs = lock(&pool.jobs);
        jobs.waiting.push_back(Job { key, task, since: Instant::now() });
        if jobs.idle >= jobs.waiting.len() || jobs.threads >= pool.most {
            pool.arrived.notify_one();
            return Ok(());
        }
        let (theirs, outbox) = (Arc::clone(pool), Arc::clone(&self.outbox));
        let started = std::thread::Builder::new()
            .name(format!("{lane:?}").to_lowercase())
            .stack_size(STACK)
            .spawn(move || work(&theirs, &outbox));
        match started {
            Ok(_) => jobs.threads += 1,
            // The threads that there are will come to it.
            Err(_) if jobs.threads > 0 => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// What was done since the last call.
    pub(crate) fn done(&self) -> Vec<(usize, Done)> {
        std::mem::take(&mut lock(&self.outbox.done))
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for pool in &self.pools {
            lock(&pool.jobs).closed = true;
            pool.arrived.notify_all();
        }
    }
}

fn work(pool: &Pool, outbox: &Outbox) {
    let mut lookups = Lookups::sharing(Arc::clone(&pool.breaker));
    loop {
        let Some(Job { key, task, since }) = next(pool) else { return };
        let done = catch_unwind(AssertUnwindSafe(|| match task {
            Task::Session(core) => session(core, pool.lane, since, &mut lookups),
            Task::Handshake(mut tls) => {
                let result = tls.process_new_packets().map(|_| ()).map_err(|e| e.to_string());
                Done::Handshake(tls, result)
            }
        }));
        let mut all = lock(&outbox.done);
        all.push((key, done.unwrap_or(Done::Lost)));
        if all.len() == 1 {
            drop(all);
            outbox.waker.wake();
        }
    }
}

fn session(mut core: Box<Core>, lane: Lane, since: Instant, lookups: &mut Lookups) -> Done {
    let question = matches!(lane, Lane::Lookup | Lane::Login);
    if question && since.elapsed() >= core.world.settings().lookup_patience {
        // It waited as long for a worker as it may wait for an answer.
        core.log.line("all workers that ask the lookup daemon are busy");
        core.give_up();
    }
    let pause = core.advance(Site::Worker(lane, lookups));
    Done::Session(core, pause)
}

fn next(pool: &Pool) -> Option<Job> {
    let mut jobs = lock(&pool.jobs);
    loop {
        if let Some(job) = jobs.waiting.pop_front() {
            return Some(job);
        }
        if jobs.closed {
            return None;
        }
        jobs.idle += 1;
        jobs = pool.arrived.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        jobs.idle -= 1;
    }
}
