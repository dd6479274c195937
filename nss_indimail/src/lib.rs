//! `libnss_indimail.so.2`: mail accounts as system accounts.
//!
//! ```text
//! getpwnam("user@domain") ── libc ──► entry points (this process, whatever it is)
//!                                         │  panic guard, errno, the caller's buffer
//!                                         ▼
//!                                      mapping: the map that nssd publishes; most questions end here
//!                                         │
//!                                         ▼
//!                                      hooks (libnss's traits and records)
//!                                         │
//!                                         ▼
//!                                      source: a Unix socket to nssd, one deadline, then closed
//! ```
//!
//! - [`source`]: who answers, and when nobody is asked at all;
//! - `mapping`: the map of users, mapped once, read without a lock;
//! - [`hooks`]: questions and answers as `libnss` has them;
//! - `walk`: where this process is in `getpwent` and its like;
//! - `buffer`: records in the caller's buffer;
//! - `shims`: the exported functions.
//!
//! What this module owes its host: no panic crosses into it, no abort without memory, no signal, no thread, no descriptor (but a mapping) kept
//! between calls, no word on stderr, no wait beyond one deadline, errno as the contract says.
//!
//! `libnss` brings the record types and the hook traits. Its exported functions are not used: they
//! abort the host on a panic, leave errno unset, misalign the member list, and answer "unavailable"
//! to a `getpwent` without `setpwent` (`tests/crate_faults.rs` shows each).

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::arithmetic_side_effects,
    clippy::unreachable
)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

/// Without memory a look-up fails; it does not end the host.
#[global_allocator]
static MEMORY: unix::guest::Memory = unix::guest::Memory;

pub mod buffer;
pub mod hooks;
mod mapping;
pub mod shims;
pub mod source;
pub mod walk;
