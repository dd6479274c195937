//! Writing a map, one row at a time: what is kept in memory is 16 bytes a user, and the tables at the end.

use std::io::{self, Write};

use crate::header::{Header, Part, State};
use crate::index;
use crate::layout::{
    COMPLETE_UNTIL, FIXED_WORDS, HEADER_WORDS, Key, Kind, Mix, STATE, USABLE_UNTIL, hash_id, join,
};
use crate::map::head_check;
use crate::record::{Entry, IS_ALIAS, IS_GROUP, MAX_BYTES, MUST_ASK, OWN_UID, What};

/// A user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row<'a> {
    /// The address, in lower case.
    pub name: &'a [u8],
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Does the user id name this user?
    pub owns_uid: bool,
    /// A further group; 0: none.
    pub also: u32,
    /// Comment.
    pub gecos: &'a [u8],
    /// Home directory.
    pub home: &'a [u8],
    /// Shell.
    pub shell: &'a [u8],
}

/// A domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DomainRow<'a> {
    /// Its name, in lower case.
    pub name: &'a [u8],
    /// The real domain; its own name when it is one.
    pub real: &'a [u8],
    /// Its user and group id.
    pub ids: (u32, u32),
    /// Is it a group?
    pub is_group: bool,
    /// Is it the only group with this id?
    pub owns_gid: bool,
    /// Of another name: must the daemon be asked about its users?
    pub must_ask: bool,
}

/// Bytes for changes, at least.
const CHANGES_LEAST: usize = 256 * 1024;

/// Writes the parts behind the header to `out`; the header comes last, from [`Builder::finish`].
#[derive(Debug)]
pub struct Builder<W> {
    out: W,
    seed: u64,
    body: Mix,
    at: usize,
    by_name: Vec<(u64, u32)>,
    by_uid: Vec<(u64, u32)>,
    by_domain: Vec<(u64, u32)>,
    by_gid: Vec<(u64, u32)>,
}

impl<W: Write> Builder<W> {
    /// `out` takes what stands at byte [`Builder::<W>::START`] of the map and behind; `seed` is any random number.
    pub fn new(out: W, seed: u64) -> Self {
        let empty = Vec::new;
        Self {
            out,
            seed,
            body: Mix::new(seed, Kind::Body),
            at: HEADER_WORDS,
            by_name: empty(),
            by_uid: empty(),
            by_domain: empty(),
            by_gid: empty(),
        }
    }

    /// Where it is written to.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }

    /// Bytes of the header.
    pub const START: u64 = HEADER_WORDS as u64 * 8;

    fn put(&mut self, words: &[u64]) -> io::Result<u32> {
        let at = u32::try_from(self.at).map_err(|_| too_large())?;
        for word in words {
            self.body.add(*word);
            self.out.write_all(&word.to_le_bytes())?;
        }
        self.at += words.len();
        Ok(at)
    }

    /// Adds a user; each name once. One that no record can hold is noted as "ask".
    ///
    /// # Errors
    /// It cannot be written.
    pub fn user(&mut self, row: &Row<'_>) -> io::Result<()> {
        let ordinal = u32::try_from(self.by_name.len()).map_err(|_| too_large())?;
        let Some(key) = Key::new(row.name) else { return Ok(()) };
        let record = fields(row, ordinal).and_then(|(entry, strings)| entry.write(strings, self.seed));
        let record = match record {
            Some(record) => record,
            None => {
                let bare = Row { gecos: b"", home: b"", shell: b"", ..*row };
                let ask = fields(&bare, ordinal).and_then(|(mut entry, strings)| {
                    entry.flags |= MUST_ASK;
                    entry.write(strings, self.seed)
                });
                ask.ok_or_else(too_large)?
            }
        };
        let at = self.put(&record)?;
        self.by_name.push((key.hash(self.seed, Kind::User), at));
        if row.owns_uid {
            self.by_uid.push((hash_id(self.seed, Kind::Uid, row.uid), at));
        }
        Ok(())
    }

    /// How many users were added.
    #[must_use]
    pub fn users(&self) -> usize {
        self.by_name.len()
    }

    /// Adds a domain, after all users; each name once.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn domain(&mut self, row: &DomainRow<'_>) -> io::Result<()> {
        let flag = |on: bool, flag: u8| if on { flag } else { 0 };
        let entry = Entry {
            what: What::Domain,
            flags: flag(row.is_group, IS_GROUP)
                | flag(row.name != row.real, IS_ALIAS)
                | flag(row.must_ask, MUST_ASK),
            ordinal: 0,
            id: row.ids.0,
            gid: row.ids.1,
            also: 0,
            lengths: [0; 4],
            bytes: [0; MAX_BYTES],
            words: 0,
        };
        let strings = [row.name, row.real, b"".as_slice(), b"".as_slice()];
        let (Some(key), Some(record)) = (Key::new(row.name), entry.write(strings, self.seed)) else {
            return Ok(());
        };
        let at = self.put(&record)?;
        self.by_domain.push((key.hash(self.seed, Kind::Domain), at));
        if row.is_group && row.owns_gid {
            self.by_gid.push((hash_id(self.seed, Kind::Gid, row.ids.1), at));
        }
        Ok(())
    }

    /// Writes the rest. The map counts from the start for a reader that gets the header, until the times given
    /// (see [`Header::set_times`]); `generation` and `built` are the header's.
    ///
    /// # Errors
    /// It cannot be written, or is too large.
    pub fn finish(
        mut self,
        generation: u64,
        built: u64,
        (complete_until, usable_until): (u64, u64),
    ) -> io::Result<(W, Vec<u8>)> {
        let records = Part { at: HEADER_WORDS, size: self.at - HEADER_WORDS };
        let (users, domains) = (self.by_name.len() as u64, self.by_domain.len() as u64);
        // Tables begin at a cache line.
        let pad = self.at.next_multiple_of(index::BUCKET) - self.at;
        self.put(&vec![0; pad])?;
        let mut parts = [Part::default(); 4];
        for (n, part) in parts.iter_mut().enumerate() {
            let pairs = std::mem::take(match n {
                0 => &mut self.by_name,
                1 => &mut self.by_uid,
                2 => &mut self.by_domain,
                _ => &mut self.by_gid,
            });
            let table = index::build(&pairs, self.seed).ok_or_else(too_large)?;
            drop(pairs);
            *part = Part { at: self.at, size: table.len() / index::BUCKET };
            self.put(&table)?;
        }
        let body_check = self.body.end();
        let count = usize::try_from(users).unwrap_or(usize::MAX);
        let heads = Part { at: self.at, size: (1024 + count / 64).next_power_of_two() };
        for at in heads.at..heads.at + 2 * heads.size {
            self.put(&[join(0, head_check(self.seed, at, 0))])?;
        }
        let changes = Part { at: self.at, size: CHANGES_LEAST / 8 + records.size / 8 };
        // The room itself is there already when the file was made as long as `words`; here it is zeroes.
        let zeroes = [0; 4096];
        let mut left = changes.size * 8;
        while left > 0 {
            let now = left.min(zeroes.len());
            self.out.write_all(zeroes.get(..now).unwrap_or_default())?;
            left -= now;
        }
        let [by_name, by_uid, by_domain, by_gid] = parts;
        let header = Header {
            words: changes.at + changes.size,
            generation,
            built,
            seed: self.seed,
            users,
            domains,
            records,
            by_name,
            by_uid,
            by_domain,
            by_gid,
            heads,
            changes,
            body_check,
        };
        if u32::try_from(header.words).is_err() {
            return Err(too_large());
        }
        let fixed = header.fixed();
        let mut front = vec![0_u64; HEADER_WORDS];
        let live = [
            (FIXED_WORDS, Header::check(&fixed)),
            (STATE, State::Live.to_word()),
            (COMPLETE_UNTIL, complete_until),
            (USABLE_UNTIL, usable_until),
        ];
        for (at, value) in fixed.into_iter().enumerate().chain(live) {
            if let Some(word) = front.get_mut(at) {
                *word = value;
            }
        }
        self.out.flush()?;
        Ok((self.out, front.into_iter().flat_map(u64::to_le_bytes).collect()))
    }
}

fn too_large() -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, "too many accounts for one map")
}

/// A user's record without its strings, and those; `None` when it cannot be held.
pub(crate) fn fields<'a>(row: &Row<'a>, ordinal: u32) -> Option<(Entry, [&'a [u8]; 4])> {
    let strings = [row.name, row.gecos, row.home, row.shell];
    let length: usize = strings.iter().map(|s| s.len() + 1).sum::<usize>() + 2;
    if length > MAX_BYTES || strings.iter().any(|s| s.contains(&0)) {
        return None;
    }
    let entry = Entry {
        what: What::User,
        flags: if row.owns_uid { OWN_UID } else { 0 },
        ordinal,
        id: row.uid,
        gid: row.gid,
        also: row.also,
        lengths: [0; 4],
        bytes: [0; MAX_BYTES],
        words: 0,
    };
    Some((entry, strings))
}
