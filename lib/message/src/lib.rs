//! Internet messages, byte for byte.
//!
//! ```text
//! message bytes ─ header::split ─► header fields (names, bodies, raw bytes) and the rest
//! field body    ─ address::list ─► addresses with the place each one has in the body
//! seconds       ─ date::Moment  ─► "Wed, 25 Nov 2026 08:42:56 +0000"
//! envelope      ─ trace         ─► Received, Return-Path, Delivered-To, "From " lines
//! ```
//!
//! Nothing here changes bytes it was not asked to change: fields keep their raw form, and an
//! address is rewritten by replacing its own place in the body. Messages are `[u8]` with `\n`
//! line ends; a `\r` before it is kept and does not count as text. Reading and writing messages
//! is not here.

#![forbid(unsafe_code)]

pub mod address;
pub mod date;
pub mod header;
pub mod trace;

pub use address::Address;
pub use date::Moment;
