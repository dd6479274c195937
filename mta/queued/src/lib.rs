//! qmail-queued: takes messages over a Unix socket and puts them into the queue, many with one wait for the
//! disk.
//!
//! ```text
//! qmail-smtpd ... ══ QMQP ══► receiver (a thread for each connection: message and envelope files)
//!                                 │ complete                       ▲ queued, or why not
//!                                 ▼                                │
//!                             committer (one thread: everything that waits goes to the disk together)
//! ```
//!
//! - [`settings`]: options, variables, the table;
//! - [`receiver`]: one client's request, up to a complete envelope;
//! - [`committer`] makes batches;
//! - [`service`]: the socket, the threads, the end.
//!
//! The files, their order and what a crash leaves are those of `qmail-queue` (`mta_queue::inject`); a client
//! that hears `K` has its message in a queue that survives a power cut.

#![forbid(unsafe_code)]

pub mod committer;
pub mod receiver;
pub mod service;
pub mod settings;

/// The program.
pub const PROGRAM: program::Program = program::Program { spec: &settings::SPEC, main: service::main };
