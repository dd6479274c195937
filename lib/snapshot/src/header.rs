//! The header of a map, and what its live words say.

use std::sync::atomic::Ordering;

use crate::Words;
use crate::layout::{
    CHANGES, COMPLETE_UNTIL, FIXED_WORDS, HEADER_WORDS, Kind, MAGIC, Mix, STATE, USABLE_UNTIL, USED, VERSION,
    word, word_acquire,
};

/// A part of a map: where it begins and how many words, or buckets, it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Part {
    pub(crate) at: usize,
    pub(crate) size: usize,
}

/// The fixed part of the header, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub(crate) words: usize,
    /// Grows with every map of a daemon.
    pub generation: u64,
    /// When it was built, in seconds since 1970.
    pub built: u64,
    pub(crate) seed: u64,
    /// Users in the records.
    pub users: u64,
    /// Domains in the records.
    pub domains: u64,
    pub(crate) records: Part,
    pub(crate) by_name: Part,
    pub(crate) by_uid: Part,
    pub(crate) by_domain: Part,
    pub(crate) by_gid: Part,
    pub(crate) heads: Part,
    pub(crate) changes: Part,
    pub(crate) body_check: u64,
}

/// What the daemon says about a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It counts.
    Live,
    /// There is a newer one.
    Superseded,
    /// The daemon knows better, and is to be asked.
    Ask,
}

impl State {
    pub(crate) fn to_word(self) -> u64 {
        match self {
            Self::Live => 1,
            Self::Superseded => 2,
            Self::Ask => 3,
        }
    }
}

/// What a map is good for at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// All answers count.
    Complete,
    /// The daemon has not confirmed it lately: what is found counts, "no" does not.
    Found,
    /// The daemon is to be asked; what is found counts where there is none.
    Ask,
    /// There is a newer one.
    Superseded,
    /// Too old, or damaged: nothing counts.
    Expired,
}

impl Header {
    pub(crate) fn fixed(&self) -> [u64; FIXED_WORDS] {
        let part = |p: Part| [p.at as u64, p.size as u64];
        let [[a, b], [c, d], [e, f], [g, h], [i, j], [k, l], [m, n]] =
            [self.records, self.by_name, self.by_uid, self.by_domain, self.by_gid, self.heads, self.changes]
                .map(part);
        [
            MAGIC,
            VERSION,
            self.words as u64,
            self.generation,
            self.built,
            self.seed,
            self.users,
            self.domains,
            self.body_check,
            a,
            b,
            c,
            d,
            e,
            f,
            g,
            h,
            i,
            j,
            k,
            l,
            m,
            n,
            0,
        ]
    }

    pub(crate) fn check(fixed: &[u64; FIXED_WORDS]) -> u64 {
        let mut mix = Mix::new(MAGIC, Kind::Body);
        fixed.iter().for_each(|&w| mix.add(w));
        mix.end()
    }

    /// Reads and checks the header of a map of exactly these words.
    #[must_use]
    pub fn read(words: &Words) -> Option<Self> {
        let mut fixed = [0; FIXED_WORDS];
        for (at, to) in fixed.iter_mut().enumerate() {
            *to = word(words, at)?;
        }
        if word(words, FIXED_WORDS)? != Self::check(&fixed) {
            return None;
        }
        let [
            magic,
            version,
            total,
            generation,
            built,
            seed,
            users,
            domains,
            body_check,
            a,
            b,
            c,
            d,
            e,
            f,
            g,
            h,
            i,
            j,
            k,
            l,
            m,
            n,
            _,
        ] = fixed;
        let size = |w: u64| usize::try_from(w).ok();
        let part = |at: u64, n: u64| Some(Part { at: size(at)?, size: size(n)? });
        let header = Self {
            words: size(total)?,
            generation,
            built,
            seed,
            users,
            domains,
            records: part(a, b)?,
            by_name: part(c, d)?,
            by_uid: part(e, f)?,
            by_domain: part(g, h)?,
            by_gid: part(i, j)?,
            heads: part(k, l)?,
            changes: part(m, n)?,
            body_check,
        };
        let right = magic == MAGIC && version == VERSION && header.words == words.len() && header.fits();
        right.then_some(header)
    }

    /// Is every part inside the map, and every table of a size that can be asked?
    fn fits(&self) -> bool {
        let inside = |p: Part, words_each: usize| {
            let end = p.size.checked_mul(words_each).and_then(|n| n.checked_add(p.at));
            p.at >= HEADER_WORDS && end.is_some_and(|end| end <= self.words)
        };
        let table = |p: Part, words_each| p.size.is_power_of_two() && inside(p, words_each);
        inside(self.records, 1)
            && [self.by_name, self.by_uid, self.by_domain, self.by_gid].iter().all(|&p| table(p, 8))
            && table(self.heads, 2)
            && inside(self.changes, 1)
            && u32::try_from(self.words).is_ok()
    }

    /// What the map is good for at `now` (milliseconds of the monotonic clock).
    #[must_use]
    pub fn standing(&self, words: &Words, now: u64) -> Standing {
        let live = |at| word(words, at).unwrap_or(0);
        let state = word_acquire(words, STATE);
        if state == Some(State::Superseded.to_word()) {
            Standing::Superseded
        } else if now > live(USABLE_UNTIL) {
            Standing::Expired
        } else if state == Some(State::Ask.to_word()) {
            Standing::Ask
        } else if state != Some(State::Live.to_word()) {
            Standing::Expired
        } else if now <= live(COMPLETE_UNTIL) {
            Standing::Complete
        } else {
            Standing::Found
        }
    }

    /// For the daemon: says what a published map is.
    pub fn set_state(&self, words: &Words, state: State) {
        set(words, STATE, state.to_word());
    }

    /// For the daemon: until when (milliseconds of the monotonic clock) "no" counts, and until when anything does.
    pub fn set_times(&self, words: &Words, complete_until: u64, usable_until: u64) {
        set(words, USABLE_UNTIL, usable_until);
        set(words, COMPLETE_UNTIL, complete_until);
    }

    /// How many changes were appended, and which part of their room is used, in percent.
    #[must_use]
    pub fn changes(&self, words: &Words) -> (u64, u64) {
        let used = word(words, USED).unwrap_or(0).saturating_mul(100);
        (word(words, CHANGES).unwrap_or(0), used.checked_div(self.changes.size as u64).unwrap_or(100))
    }
}

pub(crate) fn set(words: &Words, at: usize, value: u64) {
    if let Some(word) = words.get(at) {
        word.store(value.to_le(), Ordering::Release);
    }
}
