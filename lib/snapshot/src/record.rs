//! One record: a user, a domain, or what became of a name.
//!
//! ```text
//! word 0  checksum of the others          word 2  uid or gid (low), gid (high)
//!      1  words, kind, flags; ordinal     3  further group (low)
//!      4  lengths of name, gecos, home, shell (16 bits each)
//!      5  name NUL x NUL gecos NUL home NUL shell NUL        (of a domain: name NUL real name NUL)
//! ```

use crate::Words;
use crate::layout::{Kind, Mix, halves, join, word};

/// Words before the strings.
pub(crate) const FRONT: usize = 5;
/// Words of a record, at most: the longest names, comment and home that the store takes, and a shell of 128 bytes.
pub(crate) const MAX_WORDS: usize = 62;
/// Bytes of its strings, at most.
pub(crate) const MAX_BYTES: usize = (MAX_WORDS - FRONT) * 8;

/// Flag of a user: the uid is its own.
pub(crate) const OWN_UID: u8 = 1;
/// Flag of a domain: it is a group.
pub(crate) const IS_GROUP: u8 = 2;
/// Flag of a domain: another name for a real one.
pub(crate) const IS_ALIAS: u8 = 4;
/// Flag: ask the daemon.
pub(crate) const MUST_ASK: u8 = 8;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    User = 1,
    Domain = 2,
    /// A user that is no more.
    Gone = 3,
}

/// A record, read whole and checked.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    pub(crate) what: What,
    pub(crate) flags: u8,
    pub(crate) ordinal: u32,
    pub(crate) id: u32,
    pub(crate) gid: u32,
    pub(crate) also: u32,
    pub(crate) lengths: [u16; 4],
    pub(crate) bytes: [u8; MAX_BYTES],
    pub(crate) words: usize,
}

impl Entry {
    /// Reads one; `None` when it does not add up.
    pub(crate) fn read(words: &Words, at: usize, seed: u64) -> Option<Self> {
        let check = word(words, at)?;
        let one = word(words, at.checked_add(1)?)?;
        let (low, ordinal) = halves(one);
        let [count_low, count_high, what, flags] = low.to_le_bytes();
        let count = usize::from(u16::from_le_bytes([count_low, count_high]));
        if !(FRONT..=MAX_WORDS).contains(&count) {
            return None;
        }
        let all = words.get(at..at.checked_add(count)?)?;
        let mut mix = Mix::new(seed, Kind::Record);
        mix.add(one);
        let mut front = [0; FRONT - 2];
        for (n, to) in front.iter_mut().enumerate() {
            *to = word(all, n + 2)?;
            mix.add(*to);
        }
        let mut bytes = [0; MAX_BYTES];
        for (from, to) in all.get(FRONT..)?.iter().zip(bytes.chunks_exact_mut(8)) {
            let word = u64::from_le(from.load(std::sync::atomic::Ordering::Relaxed));
            mix.add(word);
            to.copy_from_slice(&word.to_le_bytes());
        }
        if mix.end() != check {
            return None;
        }
        let [ids, further, lengths] = front;
        let [a, b, c, d, e, f, g, h] = lengths.to_le_bytes();
        let pair = u16::from_le_bytes;
        let what = match what {
            1 => What::User,
            2 => What::Domain,
            3 => What::Gone,
            _ => return None,
        };
        let (id, gid) = halves(ids);
        let lengths = [pair([a, b]), pair([c, d]), pair([e, f]), pair([g, h])];
        let also = halves(further).0;
        let entry = Self { what, flags, ordinal, id, gid, also, lengths, bytes, words: count };
        (entry.strings_end() <= (count - FRONT) * 8).then_some(entry)
    }

    /// The record of these strings as words; `None` when they are too long or one holds a NUL byte.
    pub(crate) fn write(&self, strings: [&[u8]; 4], seed: u64) -> Option<Vec<u64>> {
        if strings.iter().any(|s| s.contains(&0)) {
            return None;
        }
        let mut text = Vec::with_capacity(256);
        let [name, rest @ ..] = strings;
        text.extend_from_slice(name);
        text.push(0);
        if self.what == What::User {
            text.extend_from_slice(b"x\0");
        }
        for string in rest {
            text.extend_from_slice(string);
            text.push(0);
        }
        if text.len() > MAX_BYTES {
            return None;
        }
        text.resize(text.len().next_multiple_of(8), 0);
        let count = u16::try_from(text.len() / 8 + FRONT).ok()?;
        let [low, high] = count.to_le_bytes();
        let mut lengths = [0; 4];
        for (string, to) in strings.iter().zip(&mut lengths) {
            *to = u64::try_from(string.len()).ok()?;
        }
        let [a, b, c, d] = lengths;
        let mut words = vec![
            0,
            join(u32::from_le_bytes([low, high, self.what as u8, self.flags]), self.ordinal),
            join(self.id, self.gid),
            self.also.into(),
            a | b << 16 | c << 32 | d << 48,
        ];
        words.extend(text.chunks_exact(8).map(|c| c.try_into().map_or(0, u64::from_le_bytes)));
        let mut mix = Mix::new(seed, Kind::Record);
        words.iter().skip(1).for_each(|&w| mix.add(w));
        if let Some(first) = words.first_mut() {
            *first = mix.end();
        }
        Some(words)
    }

    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Bytes of the strings with what is between and behind them.
    fn strings_end(&self) -> usize {
        let strings: usize = self.lengths.iter().copied().map(usize::from).sum();
        strings + if self.what == What::User { 6 } else { 4 }
    }

    /// All strings from the end of the name on: NUL, and what follows.
    pub(crate) fn tail(&self) -> &[u8] {
        let [name, ..] = self.lengths;
        self.bytes.get(name.into()..self.strings_end()).unwrap_or_default()
    }

    fn string(&self, which: usize) -> &[u8] {
        let before: usize = self.lengths.iter().take(which).map(|&n| usize::from(n) + 1).sum();
        let password = if self.what == What::User && which > 0 { 2 } else { 0 };
        let start = before + password;
        let length = self.lengths.get(which).copied().map_or(0, usize::from);
        self.bytes.get(start..start + length).unwrap_or_default()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        self.string(0)
    }

    /// Which user record it is, counted from 0 in the order they were built from.
    #[must_use]
    pub fn ordinal(&self) -> u32 {
        self.ordinal
    }

    /// Of a user: the comment. Of a domain: the name of the real one.
    pub(crate) fn second(&self) -> &[u8] {
        self.string(1)
    }

    pub(crate) fn home(&self) -> &[u8] {
        self.string(2)
    }

    pub(crate) fn shell(&self) -> &[u8] {
        self.string(3)
    }
}
