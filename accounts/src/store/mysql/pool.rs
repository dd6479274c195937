//! The connections that the stores of one process share.
//!
//! A store takes a connection on its first question and keeps it, with its prepared statements, until it is
//! dropped; so taking one neither pings nor resets it, and the pool's part is the limit. `mysql::Pool`
//! connects while it holds its lock. So that nobody waits for that lock without an end, stores stand in
//! line here first, each with its own deadline.

use std::os::fd::AsRawFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use mysql::{DriverError, OptsBuilder, PoolConstraints, PoolOpts, PooledConn};

/// At most so many connections, made when needed.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    pool: Result<mysql::Pool, String>,
    limit: usize,
    line: Arc<Line>,
}

/// Only one store at a time takes a connection.
#[derive(Debug, Default)]
struct Line {
    taken: Mutex<bool>,
    free: Condvar,
}

/// Why there is no connection.
pub(super) enum NoConnection {
    /// So many are in use, and none came back in time.
    AllInUse(usize),
    /// Others were still waiting for theirs.
    NotInTime,
    /// The pool's options are wrong.
    Options(String),
    /// Connecting failed.
    Failed(mysql::Error),
}

impl Pool {
    /// Connects to nothing yet.
    pub(super) fn new(options: OptsBuilder, limit: usize) -> Self {
        let limit = limit.max(1);
        let constraints = PoolConstraints::new(0, limit).unwrap_or_default();
        let pooling = PoolOpts::new()
            .with_constraints(constraints)
            .with_reset_connection(false)
            .with_check_health(false);
        let pool = mysql::Pool::new(options.pool_opts(pooling)).map_err(|e| e.to_string());
        Self { pool, limit, line: Arc::default() }
    }

    /// A connection, a new one if need be. Waits `patience` for its turn, and as long for one in use.
    pub(super) fn take(&self, patience: Duration) -> Result<PooledConn, NoConnection> {
        let pool = self.pool.as_ref().map_err(|why| NoConnection::Options(why.clone()))?;
        let _turn = self.line.turn(patience).ok_or(NoConnection::NotInTime)?;
        pool.try_get_conn(patience).map_err(|e| match e {
            mysql::Error::DriverError(DriverError::Timeout) => NoConnection::AllInUse(self.limit),
            e => NoConnection::Failed(e),
        })
    }
}

/// Ends a connection that must not be used again.
pub(super) fn discard(mut connection: PooledConn) {
    // What comes back goes to the next store, unless it cannot be reset; one that is shut down cannot.
    connection.reset_connection(true);
    // It may be shut down already.
    let _ = nix::sys::socket::shutdown(connection.as_ref().as_raw_fd(), nix::sys::socket::Shutdown::Both);
}

struct Turn<'a>(&'a Line);

impl Line {
    fn turn(&self, patience: Duration) -> Option<Turn<'_>> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut taken, _) =
            self.free.wait_timeout_while(taken, patience, |t| *t).unwrap_or_else(PoisonError::into_inner);
        if *taken {
            return None;
        }
        *taken = true;
        Some(Turn(self))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.0.free.notify_one();
    }
}
