//! The protocol that programs and the NSS and PAM modules speak with `nssd` and `inlookup`.
//!
//! ```text
//! program ── mail::Client ─────► frame ──► Unix socket ──► inlookup (serve)
//! module ─── identity::Client ─► frame ──► Unix socket ──► nssd (serve)
//! ```
//!
//! - [`frame`]: lengths, versions, fields; the limits of everything that crosses the socket;
//! - [`mail`]: questions about mailboxes, domains, relaying and logins, asked of `inlookup`;
//! - [`identity`]: questions about users and groups, asked of `nssd`;
//! - [`conf`]: the file that tells the modules where the daemons listen;
//! - [`client`]: one blocking connection under one absolute deadline.
//!
//! A connection carries any number of requests; replies come in the order of the requests. Answers
//! are `Result<Option<T>, Unavailable>`: found, absent, cannot tell. An error is never "absent".
//!
//! Nothing here keeps global state, touches signals or the environment, or panics on what the other
//! side sends, so that it can run inside foreign processes.

#![forbid(unsafe_code)]
// Much of this runs in programs of others, by way of the NSS and PAM modules.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::unreachable
    )
)]

pub mod client;
pub mod conf;
pub mod frame;
pub mod identity;
pub mod mail;

pub use client::Unavailable;
pub use frame::{Malformed, TooLong};

/// What a flush request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key<'a> {
    /// Everything.
    All,
    /// One address (`user@domain`).
    Address(&'a [u8]),
    /// A domain and everybody in it.
    Domain(&'a [u8]),
}

impl<'a> Key<'a> {
    fn put(self, out: &mut frame::Writer<'_>) -> Result<(), TooLong> {
        let (tag, value): (u8, &[u8]) = match self {
            Self::All => (0, b""),
            Self::Address(a) => (1, a),
            Self::Domain(d) => (2, d),
        };
        out.byte(tag)?;
        out.bytes(value)
    }

    fn take(fields: &mut frame::Fields<'a>) -> Result<Self, Malformed> {
        let tag = fields.byte()?;
        let value = fields.bytes()?;
        match tag {
            0 if value.is_empty() => Ok(Self::All),
            1 => Ok(Self::Address(value)),
            2 => Ok(Self::Domain(value)),
            _ => Err(Malformed::Value),
        }
    }
}
