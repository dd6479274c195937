//! Daemon that answers mail and login questions.
//!
//! ```text
//! client ══► serve's front ─► Lookups (who may ask, what is counted) ─► Answers ─► accounts
//!                               quick lane: lookups    -i workers │ remembered facts
//!                               slow lane:  passwords  -a workers │ failure counters
//! ```
//!
//! - [`settings`]: the program's table and what it is told;
//! - [`daemon`]: the socket, the user to become;
//! - [`lookups`]: who may ask, what is counted and logged; [`log`];
//! - [`answers`]: the meaning of every question, over a [`source`];
//! - [`peers`], [`service`], [`throttle`], [`breaker`], [`counters`]: its parts;
//! - [`store`]: opens the accounts, anew after a reload; [`notes`] writes who logged in;
//! - [`inquerytest`]: the client tool.
//!
//! Invariants: a failure of the store is answered "cannot tell" and never remembered; hashes never
//! leave the process; a login is decided by what the store says now.

#![forbid(unsafe_code)]

pub mod answers;
pub mod breaker;
pub mod counters;
pub mod daemon;
pub mod inquerytest;
pub mod log;
pub mod lookups;
pub mod nobody;
pub mod notes;
pub mod peers;
pub mod service;
pub mod settings;
pub mod source;
pub mod store;
pub mod throttle;
