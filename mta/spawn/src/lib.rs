//! The parents of the delivery side.
//!
//! ```text
//! qmail-start ─ forks ─► qmail-lspawn (root)  qmail-rspawn  qmail-clean x 2  todo-proc  logger
//!      └─ becomes ─► qmail-send
//!
//! qmail-send ─ requests ─► pool ─ check ─► Spawner::begin ─► child ─► Spawner::ended ─► report ─► qmail-send
//! ```
//!
//! - [`start`]: the process tree and its pipes;
//! - [`pool`]: one event loop for both spawners: requests in, children, reports out;
//! - [`request`]: what must be true of a request before anything is started for it;
//! - [`lspawn`]: whose mail it is, a change to that user for good, qmail-local, its exit code;
//! - [`rspawn`]: qmail-remote and the report grammar of its output;
//! - [`service`]: a spawner as a service of its queue;
//! - [`exported`]: header lines as variables of one delivery.
//!
//! Invariants: nothing is delivered as root; a message file is handed out only when it belongs to
//! the queue; what cannot be told is a deferral, never a bounce; a delivery's variables exist in
//! that delivery's environment only.

#![forbid(unsafe_code)]

pub mod exported;
pub mod lspawn;
pub mod pool;
pub mod request;
pub mod rspawn;
pub mod service;
pub mod start;

use program::{Source, Variable};

/// The queue unless QUEUEDIR says otherwise.
pub const DEFAULT_QUEUE: &str = "/var/indimail/queue";

/// QUEUEDIR, for the tables of programs.
pub const QUEUEDIR: Variable =
    Variable { name: "QUEUEDIR", help: "the queue directory (/var/indimail/queue)" };

/// A value that only a variable gives.
pub(crate) fn variable(name: &str) -> Source<'_> {
    Source { variable: Some(name), ..Source::default() }
}
