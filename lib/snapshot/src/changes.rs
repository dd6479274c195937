//! Changes to a map that is published already.

use std::sync::atomic::Ordering;

use crate::Words;
use crate::build::{Row, fields};
use crate::header::{Header, set};
use crate::layout::{CHANGES, Key, Kind, USED, halves, hash_id, join, word};
use crate::map::{head_check, head_place, link_check};
use crate::record::{Entry, MAX_BYTES, MUST_ASK, OWN_UID, What};

/// What became of a name.
#[derive(Debug, Clone, Copy)]
pub enum Change<'a> {
    /// A user that is new or has changed.
    User(Row<'a>),
    /// There is no such user.
    Gone(&'a [u8]),
    /// The daemon must be asked about it.
    Ask(&'a [u8]),
}

/// There is no room for another change, or the map is damaged: a new map is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// Appends to one map. There must be one writer at a time.
#[derive(Debug)]
pub struct Changes<'a> {
    words: &'a Words,
    header: &'a Header,
}

impl<'a> Changes<'a> {
    /// For a map whose header was read from the same words, which can be written.
    #[must_use]
    pub fn new(words: &'a Words, header: &'a Header) -> Self {
        Self { words, header }
    }

    /// Appends one; readers see it when this returns.
    ///
    /// # Errors
    /// See [`Full`]. Nothing was changed.
    pub fn append(&self, change: Change<'_>) -> Result<(), Full> {
        let (entry, strings) = match change {
            Change::User(row) => fields(&row, 0).unwrap_or_else(|| must_ask(row.name)),
            Change::Gone(name) => {
                let (mut entry, strings) = must_ask(name);
                (entry.what, entry.flags) = (What::Gone, 0);
                (entry, strings)
            }
            Change::Ask(name) => must_ask(name),
        };
        let key = Key::new(strings[0]).ok_or(Full)?;
        let seed = self.header.seed;
        let record = entry.write(strings, seed).ok_or(Full)?;
        let used = word(self.words, USED).and_then(|n| usize::try_from(n).ok()).ok_or(Full)?;
        let end = used.checked_add(record.len() + 2).filter(|&end| end <= self.header.changes.size);
        let (Some(end), at) = (end, self.header.changes.at.wrapping_add(used)) else { return Err(Full) };
        let here = u32::try_from(at).map_err(|_| Full)?;
        let heads = self.header.heads;
        let by_name = head_place(heads, key.hash(seed, Kind::User), 0).ok_or(Full)?;
        let by_uid = head_place(heads, hash_id(seed, Kind::Uid, entry.id), 1).ok_or(Full)?;
        let first = |head: usize| word(self.words, head).map(|w| halves(w).0).ok_or(Full);
        let is_owner = entry.flags & OWN_UID != 0;
        let link = join(first(by_name)?, if is_owner { first(by_uid)? } else { 0 });
        let put = |at: usize, value: u64| {
            if let Some(word) = self.words.get(at) {
                word.store(value.to_le(), Ordering::Relaxed);
            }
        };
        put(at, link);
        put(at + 1, link_check(seed, at, link));
        for (n, &value) in record.iter().enumerate() {
            put(at + 2 + n, value);
        }
        // By uid first: an entry that is not the last of its name is passed over there.
        if is_owner {
            set(self.words, by_uid, join(here, head_check(seed, by_uid, here)));
        }
        set(self.words, by_name, join(here, head_check(seed, by_name, here)));
        set(self.words, USED, end as u64);
        set(self.words, CHANGES, word(self.words, CHANGES).unwrap_or(0).wrapping_add(1));
        Ok(())
    }
}

fn must_ask(name: &[u8]) -> (Entry, [&[u8]; 4]) {
    let entry = Entry {
        what: What::User,
        flags: MUST_ASK,
        ordinal: 0,
        id: 0,
        gid: 0,
        also: 0,
        lengths: [0; 4],
        bytes: [0; MAX_BYTES],
        words: 0,
    };
    (entry, [name, b"", b"", b""])
}
