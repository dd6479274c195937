//! The map of public user and group records that `nssd` publishes and the NSS module reads: bytes in, answers
//! out, no I/O and no clock.
//!
//! ```text
//! word    0  header      magic, sizes, places of the parts, checksum
//!        32  live words  state, times, words of changes in use        (changed in place by the daemon)
//!       512  records     users, then domains, one after the other
//!            indexes     users by name, users by uid, domains by name, domains by gid
//!            heads       of the chains of changes, by name and by uid (changed in place)
//!            changes     records that were added since; only ever appended to
//! ```
//!
//! Everything is 8-byte words in little-endian order, read one at a time, so that a mapping that another process
//! changes can be read without a lock. Nothing that was published is changed except the words marked so:
//! a reader sees a change when the head of its chain says so, and then all of it.
//!
//! Every answer is proven, also "no": the header, each record, each bucket of an index, each head and each link
//! of a chain carry a checksum that is looked at whenever they are used. What does not add up is
//! [`Answer::Ask`]: somebody else must be asked. No bytes at all make a look-up panic, wait or allocate.
//!
//! - `layout`: where things are, checksums; [`Header`]: the header, and what the live words say;
//! - `record`: one record; `index`: fixed hash tables; [`Map`]: questions;
//! - [`Builder`]: writes a map from rows, one at a time; [`Changes`]: appends to a published one.

#![forbid(unsafe_code)]
// The reading part runs in programs of others, by way of the NSS module.
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

mod build;
mod changes;
mod header;
mod index;
mod layout;
mod map;
mod record;

pub use build::{Builder, DomainRow, Row};
pub use changes::{Change, Changes, Full};
pub use header::{Header, Standing, State};
pub use map::{Answer, Group, Map, User};
pub use record::Entry;

use std::sync::atomic::AtomicU64;

/// Words of a map, mapped or in memory.
pub type Words = [AtomicU64];

/// For fuzzing: any bytes as a map, asked everything.
pub fn fuzz_map(bytes: &[u8]) {
    let words: Vec<AtomicU64> = bytes
        .chunks_exact(8)
        .filter_map(|c| c.try_into().ok())
        .map(|c| AtomicU64::new(u64::from_ne_bytes(c)))
        .collect();
    let Some(header) = Header::read(&words) else { return };
    let map = Map::new(&words, &header);
    for name in [&b"a@b.c"[..], b"b.c", b"", &[b'a'; 300]] {
        let _ = (map.user(name), map.group(name), map.groups_of(name));
    }
    for id in [0, 1, 8001, u32::MAX] {
        let _ = (map.user_by_uid(id), map.group_by_gid(id));
    }
    let _ = map.is_whole();
    map.each_row(|_| ());
    map.each_change(|_| ());
}
