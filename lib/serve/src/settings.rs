//! Limits, counters, errors, and the listening socket.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lookup::frame::MAX_REQUEST;

/// Limits of a front.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Worker threads.
    pub workers: usize,
    /// Requests that may wait for a worker; more are answered "cannot tell" at once.
    pub queue: usize,
    /// Worker threads for [`crate::Lane::Slow`]; without any, all requests are of the quick lane.
    pub slow_workers: usize,
    /// As `queue`, for [`crate::Lane::Slow`].
    pub slow_queue: usize,
    /// Connections at a time, fewer when the process may not open so many descriptors. When there are more, the one that was idle longest is closed; when none
    /// is idle, the new one is told "cannot tell" and closed.
    pub connections: usize,
    /// Connections at a time from one user other than root.
    pub connections_per_user: usize,
    /// Requests of one connection that may be on their way at a time; further ones wait in the socket.
    pub pipeline: usize,
    /// Bytes of a request frame, at most.
    pub max_request: usize,
    /// A request is answered within this time, if only with "cannot tell".
    pub request: Duration,
    /// A frame that has begun must be complete, and a reply must be taken, within this time.
    pub transfer: Duration,
    /// A connection without a request is closed after this time.
    pub idle: Duration,
    /// When stopping, requests on their way get this long.
    pub drain: Duration,
    /// A descriptor that gets a newline when the daemon is ready.
    pub ready_descriptor: Option<i32>,
    /// Where the counters are kept; share it with the service to show them.
    pub statistics: Arc<Statistics>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            workers: 4,
            queue: 1024,
            slow_workers: 0,
            slow_queue: 256,
            connections: 4096,
            connections_per_user: 2048,
            pipeline: 32,
            max_request: MAX_REQUEST,
            request: Duration::from_secs(5),
            transfer: Duration::from_secs(5),
            idle: Duration::from_secs(300),
            drain: Duration::from_secs(5),
            ready_descriptor: None,
            statistics: Arc::default(),
        }
    }
}

impl Settings {
    /// Takes as many descriptors as the limits here need. When the process may not open so many, there are
    /// fewer connections: what workers open (a store, a file) must not fail for connections' sake.
    ///
    /// # Errors
    /// The limit cannot be read or set.
    pub(crate) fn fit_descriptors(&mut self) -> io::Result<()> {
        let workers = self.workers.saturating_add(self.slow_workers);
        let reserve = 32usize.saturating_add(workers.saturating_mul(8));
        let wanted = u64::try_from(self.connections.saturating_add(reserve)).unwrap_or(u64::MAX);
        let limit = usize::try_from(unix::host::raise_descriptor_limit(wanted)?).unwrap_or(usize::MAX);
        self.connections = self.connections.min(limit.saturating_sub(reserve).max(4));
        Ok(())
    }
}

/// Counters while the front runs.
#[derive(Debug, Default)]
pub struct Statistics {
    pub(crate) connections: AtomicU64,
    pub(crate) waiting: AtomicU64,
    pub(crate) accepted: AtomicU64,
    pub(crate) turned_away: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) shed: AtomicU64,
    pub(crate) expired: AtomicU64,
    pub(crate) malformed: AtomicU64,
    pub(crate) panics: AtomicU64,
}

impl Statistics {
    /// The counters now.
    #[must_use]
    pub fn read(&self) -> Counters {
        let get = |c: &AtomicU64| c.load(Ordering::Relaxed);
        Counters {
            connections: get(&self.connections),
            waiting: get(&self.waiting),
            accepted: get(&self.accepted),
            turned_away: get(&self.turned_away),
            requests: get(&self.requests),
            shed: get(&self.shed),
            expired: get(&self.expired),
            malformed: get(&self.malformed),
            panics: get(&self.panics),
        }
    }
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Connections open now.
    pub connections: u64,
    /// Requests waiting for a worker now.
    pub waiting: u64,
    /// Connections accepted since the start.
    pub accepted: u64,
    /// Connections closed because there were too many.
    pub turned_away: u64,
    /// Requests read.
    pub requests: u64,
    /// Requests answered "cannot tell" because the queue was full.
    pub shed: u64,
    /// Requests answered "cannot tell" because their time was up.
    pub expired: u64,
    /// Connections that sent something that is no request.
    pub malformed: u64,
    /// Panics of workers (faults of ours), answered "cannot tell".
    pub panics: u64,
}

impl Counters {
    /// Names and values, in a fixed order.
    #[must_use]
    pub fn rows(&self) -> [(&'static str, u64); 9] {
        [
            ("connections", self.connections),
            ("waiting", self.waiting),
            ("accepted", self.accepted),
            ("turned-away", self.turned_away),
            ("requests", self.requests),
            ("shed", self.shed),
            ("expired", self.expired),
            ("malformed", self.malformed),
            ("panics", self.panics),
        ]
    }
}

/// Why a front cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The listening socket cannot be made.
    #[error("cannot listen on {path}: {source}")]
    Listen {
        /// The socket's path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The service manager passed something unusable.
    #[error("inherited socket: {0}")]
    Inherited(io::Error),
    /// The event loop failed.
    #[error("event loop: {0}")]
    Loop(#[from] io::Error),
    /// A worker thread cannot be started.
    #[error("cannot start worker threads: {0}")]
    Threads(io::Error),
}

/// The listening socket: the one the service manager passed (LISTEN_FDS), else our own at `path`
/// with exactly `mode`.
///
/// # Errors
/// See [`Error`].
pub fn listener(path: &Path, mode: u32) -> Result<UnixListener, Error> {
    let mut passed = sd_notify::listen_fds().map_err(Error::Inherited)?;
    if let Some(fd) = passed.next() {
        return unix::socket::inherited_listener(fd).map_err(Error::Inherited);
    }
    unix::socket::listen(path, mode).map_err(|source| Error::Listen { path: path.to_owned(), source })
}
