//! Mailboxes: one file a message, delivered so that nothing is lost and nothing is half there.
//!
//! ```text
//! message ─ deliver ─► tmp/NAME ─ fsync ─► link new/NAME ─ fsync new ─► unlink tmp/NAME
//! account ─ make    ─► home, Maildir, cur, new, tmp with owner and mode
//! quota   ─ quota   ─► Maildir++ "maildirsize": limits, usage, verdict
//! ```
//!
//! Invariants: a message is in `new` whole and on the disk, or not at all; what a crash leaves is in
//! `tmp`, where readers do not look; a delivery that failed left nothing behind. Who the message
//! is for and what is put before it is decided elsewhere.

#![forbid(unsafe_code)]

mod deliver;
mod make;
mod name;
pub mod quota;

pub use deliver::{Delivered, Error, deliver, deliver_on};
pub use make::make;
pub use name::host_part;
pub use quota::Quota;
