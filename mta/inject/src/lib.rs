//! Mail from programs and people on this host into the queue.
//!
//! ```text
//! fd 0 ─ header::read ─► rewrite (pure) ─► header, sender, recipients ─► queue client
//!   └───────────────────── body, as it is ────────────────────────────────┘
//! sendmail ─ options translated ─► the same
//! ```
//!
//! Rewriting changes only what it must: hosts are completed where they stand, missing fields are put
//! before the others, Bcc, Return-Path and Content-Length are taken out; every other byte stays.
//! Nothing here runs with more rights than the caller's.

#![forbid(unsafe_code)]

mod default_queue;
pub mod inject;
pub mod sendmail;
