//! The sending side of the queue.
//!
//! ```text
//! qmail-queue ─ todo + trigger ─► todo-proc ─ info, local, remote ─► qmail-send ─ spawn protocol ─► qmail-lspawn, qmail-rspawn
//!                                    └──── qmail-clean ────┘ (removes what is done with)
//! ```
//!
//! - [`todo`]: todo-proc, sorts messages by where their recipients are;
//! - [`clean`]: qmail-clean, the only one who removes files of the injection half;
//! - [`send`]: qmail-send, schedules deliveries, records results, bounces;
//! - [`queue_fix`]: queue-fix, creates and mends queue directories;
//! - [`views`]: qmail-qread and qmail-qstat;
//! - [`place`], [`log`], [`cleaner`]: what the programs share.
//!
//! Invariant: a crash of any of these programs at any point loses no message; a recipient may get
//! a second copy only when the crash falls between a delivery and the mark that records it.

#![forbid(unsafe_code)]

pub mod clean;
pub mod cleaner;
pub mod log;
pub mod place;
pub mod queue_fix;
pub mod send;
pub mod todo;
pub mod views;
