//! Where things are, and checksums.

use std::sync::atomic::Ordering;

use crate::Words;

/// "INDIMAP1".
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"INDIMAP1");
/// Of the format; a reader takes no other.
pub(crate) const VERSION: u64 = 1;

/// Words before the records.
pub(crate) const HEADER_WORDS: usize = 512;
/// Words of the fixed part that the header's checksum covers; it follows them.
pub(crate) const FIXED_WORDS: usize = 24;
/// Live word: [`crate::State`].
pub(crate) const STATE: usize = 32;
/// Live word: until when "no" counts, in milliseconds of the monotonic clock.
pub(crate) const COMPLETE_UNTIL: usize = 33;
/// Live word: until when anything counts, likewise.
pub(crate) const USABLE_UNTIL: usize = 34;
/// Live word: words of the changes in use.
pub(crate) const USED: usize = 35;
/// Live word: how many changes were made.
pub(crate) const CHANGES: usize = 36;

/// Bytes of a name, at most: those of an address.
pub(crate) const NAME_BYTES: usize = 112;

/// What is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    User = 1,
    Uid = 2,
    Domain = 3,
    Gid = 4,
    Record = 5,
    Bucket = 6,
    Head = 7,
    Link = 8,
    Body = 9,
}

/// A running checksum or hash. Each step maps states one to one, so that one changed word always shows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mix(u64);

impl Mix {
    pub(crate) fn new(seed: u64, kind: Kind) -> Self {
        let mut mix = Self(seed);
        mix.add(kind as u64);
        mix
    }

    pub(crate) fn add(&mut self, word: u64) {
        let mixed = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 29);
    }

    pub(crate) fn end(self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        mixed ^ (mixed >> 32)
    }
}

/// One word of a map.
pub(crate) fn word(words: &Words, at: usize) -> Option<u64> {
    words.get(at).map(|w| u64::from_le(w.load(Ordering::Relaxed)))
}

/// One word that publishes others.
pub(crate) fn word_acquire(words: &Words, at: usize) -> Option<u64> {
    words.get(at).map(|w| u64::from_le(w.load(Ordering::Acquire)))
}

/// A name to look for, in lower case.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    bytes: [u8; NAME_BYTES],
    length: usize,
}

impl Key {
    /// `None`: empty, too long or with a NUL byte. No record has such a name.
    pub(crate) fn new(name: &[u8]) -> Option<Self> {
        if name.is_empty() || name.contains(&0) {
            return None;
        }
        let mut bytes = [0; NAME_BYTES];
        let to = bytes.get_mut(..name.len())?;
        to.copy_from_slice(name);
        to.make_ascii_lowercase();
        Some(Self { bytes, length: name.len() })
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    pub(crate) fn hash(&self, seed: u64, kind: Kind) -> u64 {
        let mut mix = Mix::new(seed, kind);
        for chunk in self.bytes.chunks_exact(8).take(self.length / 8 + 1) {
            mix.add(chunk.try_into().map_or(0, u64::from_le_bytes));
        }
        mix.end()
    }
}

/// The hash of an id.
pub(crate) fn hash_id(seed: u64, kind: Kind, id: u32) -> u64 {
    let mut mix = Mix::new(seed, kind);
    mix.add(id.into());
    mix.end()
}

/// The lower and the upper half of a word.
pub(crate) fn halves(word: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = word.to_le_bytes();
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
}

/// A word of two halves.
pub(crate) fn join(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// A place in a map as an index; places have 32 bits.
pub(crate) fn place(at: u32) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}
