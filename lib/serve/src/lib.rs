//! The front of `nssd` and `inlookup`.
//!
//! ```text
//! clients ══► front (one thread: accept, frame, deadlines, replies in order)
//!               │ job                        ▲ reply + wake
//!               ▼                            │
//!             queue (bounded) ──► N workers, each with a state of its own (a store connection)
//!             slow queue      ──► M workers for what costs much time, so that it delays nothing else
//! ```
//!
//! - [`Settings`]: every limit;
//! - [`Service`]: what a daemon brings: the state of a worker, and the answer to one frame;
//! - [`Front`]: the loop; [`Handle`] stops, reloads or asks it from another thread;
//! - [`Breaker`]: lets workers fail at once while their store hangs;
//! - [`Expiring`]: a table of bounded size for answers that may be given again for a while;
//! - [`listener`]: the socket, inherited or our own;
//! - [`notify`], [`Timers`]: readiness and deadlines, for other servers too.
//!
//! Overload is answered at once with "cannot tell": when the queue is full, when a request's time is
//! up before a worker has answered it, and when there are too many connections. What a frame means is
//! not known here, but for the two statuses `Temporary` and `Refused` that every protocol has.

#![forbid(unsafe_code)]

mod breaker;
mod connection;
mod expiring;
mod front;
mod handle;
pub mod notify;
mod settings;
mod timers;
mod workers;

pub use breaker::Breaker;
pub use expiring::Expiring;
pub use front::{Front, SIGNALS_OBEYED, Stopped};
pub use handle::Handle;
pub use lookup::frame::Frame;
pub use settings::{Counters, Error, Settings, Statistics, listener};
pub use timers::Timers;
pub use unix::socket::Peer;

/// What a worker says to one frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// An encoded reply frame.
    Reply(Vec<u8>),
    /// It cannot tell now.
    Temporary,
    /// Not for this peer; the connection goes on.
    Refused,
    /// The frame is no request: refused, and the connection ends.
    Malformed,
}

/// Which queue a request waits in, and which workers take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// [`Settings::workers`].
    Quick,
    /// [`Settings::slow_workers`].
    Slow,
}

/// What a daemon does with frames.
pub trait Service: Send + Sync + 'static {
    /// What each worker thread owns: a connection to the store, say.
    type Worker;

    /// Makes a worker's state, in the worker's thread: at the start, and again after a panic.
    fn worker(&self) -> Self::Worker;

    /// Answers from memory, without a worker. Called in the front's thread, so it must neither wait nor
    /// take long. `None`: a worker shall answer.
    fn at_once(&self, _peer: &Peer, _frame: &Frame<'_>) -> Option<Answer> {
        None
    }

    /// Which workers shall answer this frame? Called in the front's thread.
    fn lane(&self, _frame: &Frame<'_>) -> Lane {
        Lane::Quick
    }

    /// Answers one frame. May block; the front sees to it that the client is told in time.
    fn answer(&self, worker: &mut Self::Worker, peer: &Peer, frame: &Frame<'_>) -> Answer;

    /// SIGHUP: reread what was configured, forget what was cached. Called in the front's thread.
    fn reload(&self) {}

    /// SIGUSR1: say how things are. Called in the front's thread.
    fn status(&self, _counters: &Counters) {}
}
