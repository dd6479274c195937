//! The queue: what lies on the disk, how a message gets there safely, and the protocols around it.
//!
//! ```text
//! smtpd, inject, local ─ client ─► qmail-queue (fd 0 message, fd 1 envelope, exit code)
//!                                    │ mess, intd, todo + lock/trigger          (layout, envelope)
//!                                    ▼
//!                          todo-proc, qmail-send ─ spawn_protocol ─► spawners
//! ```
//!
//! - [`client`]: hand a message to the queue program and learn what became of it;
//! - [`exit`]: the queue program's exit codes;
//! - [`envelope`]: envelopes on the wire and in queue files;
//! - [`inject`]: the durable steps, shared by everything that puts messages into a queue;
//! - [`qmqp`]: a whole message in one go, for the queue service;
//! - [`received`]: the field that starts every message;
//! - [`layout`]: names, owners and modes of a queue directory;
//! - [`spawn_protocol`]: qmail-send and the spawners;
//! - [`worker_protocol`]: qmail-lspawn and its workers;
//! - [`worker_protocol`]: qmail-lspawn and its workers.
//!
//! Invariant: when the client says `Queued`, the message survives a power cut. Delivering it is
//! not here, that is `mta-send` and `mta-spawn`.

#![forbid(unsafe_code)]

pub mod client;
pub mod envelope;
pub mod exit;
pub mod inject;
pub mod injector;
pub mod layout;
pub mod qmqp;
pub mod received;
pub mod spawn_protocol;
pub mod worker_protocol;
