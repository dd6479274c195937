//! Constant databases (cdb): one file, many records, a lookup in two or three reads.
//!
//! ```text
//! Builder ── add(key, value) ... ──► bytes ── unix::durable::replace ──► file
//! file ── Reader::open ── get(key) ──► Result<Option<value>, Error>
//! ```
//!
//! The format, all numbers little-endian `u32`: 256 pairs (position, slot count) of hash tables;
//! records (key length, value length, key, value); the tables, each slot a pair (hash,
//! position of the record; 0 is an empty slot). The hash of a key starts at 5381 and takes each byte
//! `c` by `h = (h * 33) ^ c`; its low 8 bits choose the table, the rest the first slot.
//!
//! Invariants: the reader never maps the file (one that is truncated while open gives an error, not a
//! signal) and trusts nothing in it: every position is checked against the file's length before it is
//! used, and every probe is bounded by the table's length. A damaged file is an [`Error`], never
//! "not there". The writer replaces the file whole and durably, so a reader keeps the file it opened.

#![forbid(unsafe_code)]

mod builder;
mod reader;

pub use builder::{Builder, Full};
pub use reader::{Error, Reader, Record};

/// Number of hash tables.
const TABLES: usize = 256;
/// Bytes of the table of tables, where the first record starts.
const HEADER: u64 = 2048;

/// The hash of a key.
fn hash(key: &[u8]) -> u32 {
    key.iter().fold(5381, |h: u32, &c| h.wrapping_mul(33) ^ u32::from(c))
}

/// Which table holds a key with this hash.
fn table_of(hash: u32) -> usize {
    usize::from(hash.to_le_bytes()[0])
}
