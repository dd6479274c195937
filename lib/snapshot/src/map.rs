//! Questions to a map.

use crate::Words;
use crate::build::DomainRow;
use crate::header::{Header, Part};
use crate::index::{Damaged, find};
use crate::layout::{Key, Kind, Mix, halves, hash_id, place, word, word_acquire};
use crate::record::{Entry, IS_ALIAS, IS_GROUP, MUST_ASK, OWN_UID, What};

/// What a map says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer<T> {
    /// There is one.
    Found(T),
    /// There is none.
    Absent,
    /// The map cannot tell; the daemon can.
    Ask,
}

/// A user.
#[derive(Debug, Clone, Copy)]
pub struct User {
    name: Key,
    entry: Entry,
}

/// The group of a domain.
#[derive(Debug, Clone, Copy)]
pub struct Group {
    entry: Entry,
}

impl User {
    /// The name that was asked for, in lower case.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        self.name.as_bytes()
    }

    /// What follows the name in a passwd record: a NUL, then password (`x`), comment, home and shell, each
    /// with its NUL.
    #[must_use]
    pub fn tail(&self) -> &[u8] {
        self.entry.tail()
    }

    /// User id.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.entry.id
    }

    /// Group id.
    #[must_use]
    pub fn gid(&self) -> u32 {
        self.entry.gid
    }

    /// A further group; 0: none.
    #[must_use]
    pub fn also(&self) -> u32 {
        self.entry.also
    }

    /// Does the uid name this user?
    #[must_use]
    pub fn has_own_uid(&self) -> bool {
        self.entry.has(OWN_UID)
    }

    /// The comment.
    #[must_use]
    pub fn gecos(&self) -> &[u8] {
        self.entry.second()
    }

    /// The home directory.
    #[must_use]
    pub fn home(&self) -> &[u8] {
        self.entry.home()
    }

    /// The shell.
    #[must_use]
    pub fn shell(&self) -> &[u8] {
        self.entry.shell()
    }

    /// The record it was read from.
    #[must_use]
    pub fn entry(&self) -> &Entry {
        &self.entry
    }
}

impl Group {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        self.entry.name()
    }

    /// Its id.
    #[must_use]
    pub fn gid(&self) -> u32 {
        self.entry.gid
    }
}

/// A map and its header.
#[derive(Debug, Clone, Copy)]
pub struct Map<'a> {
    pub(crate) words: &'a Words,
    pub(crate) header: &'a Header,
}

pub(crate) fn head_check(seed: u64, at: usize, to: u32) -> u32 {
    let mut mix = Mix::new(seed, Kind::Head);
    mix.add(at as u64);
    mix.add(to.into());
    halves(mix.end()).1
}

pub(crate) fn link_check(seed: u64, at: usize, link: u64) -> u64 {
    let mut mix = Mix::new(seed, Kind::Link);
    mix.add(at as u64);
    mix.add(link);
    mix.end()
}

fn from<T>(found: Result<Option<T>, Damaged>) -> Answer<T> {
    match found {
        Ok(Some(found)) => Answer::Found(found),
        Ok(None) => Answer::Absent,
        Err(Damaged) => Answer::Ask,
    }
}

impl<'a> Map<'a> {
    /// A map whose header was read from the same words.
    #[must_use]
    pub fn new(words: &'a Words, header: &'a Header) -> Self {
        Self { words, header }
    }

    /// The user with this name in any case.
    #[must_use]
    pub fn user(&self, name: &[u8]) -> Answer<User> {
        let Some(key) = Key::new(name) else { return Answer::Absent };
        match self.exact(&key) {
            Ok(Some(entry)) => return self.shown(key, entry),
            Ok(None) => {}
            Err(Damaged) => return Answer::Ask,
        }
        // In an alias domain she is who she is in the real one.
        let mut parts = key.as_bytes().splitn(2, |&b| b == b'@');
        let (Some(local), Some(domain)) = (parts.next(), parts.next()) else { return Answer::Absent };
        let domain = match self.domain(domain) {
            Answer::Found(domain) => domain,
            Answer::Absent => return Answer::Absent,
            Answer::Ask => return Answer::Ask,
        };
        if !domain.has(IS_ALIAS) {
            return Answer::Absent;
        }
        if domain.has(MUST_ASK) {
            return Answer::Ask;
        }
        let mut real = [0; 2 * crate::layout::NAME_BYTES];
        let mut length = 0;
        for part in [local, b"@", domain.second()] {
            let Some(to) = real.get_mut(length..length + part.len()) else { return Answer::Ask };
            to.copy_from_slice(part);
            length += part.len();
        }
        let Some(real) = real.get(..length).and_then(Key::new) else { return Answer::Ask };
        match self.exact(&real) {
            Ok(Some(entry)) => self.shown(key, entry),
            Ok(None) => Answer::Absent,
            Err(Damaged) => Answer::Ask,
        }
    }

    fn shown(&self, name: Key, entry: Entry) -> Answer<User> {
        if entry.what == What::Gone {
            Answer::Absent
        } else if entry.has(MUST_ASK) {
            Answer::Ask
        } else {
            Answer::Found(User { name, entry })
        }
    }

    /// The record under a real name, or the note that it is gone.
    fn exact(&self, key: &Key) -> Result<Option<Entry>, Damaged> {
        if let Some((entry, _)) = self.changed(key)? {
            return Ok(Some(entry));
        }
        let seed = self.header.seed;
        let hash = key.hash(seed, Kind::User);
        find(self.words, self.header.by_name, seed, hash, |e| {
            e.what == What::User && e.name() == key.as_bytes()
        })
    }

    /// The last change of a name, and where it is.
    fn changed(&self, key: &Key) -> Result<Option<(Entry, usize)>, Damaged> {
        let hash = key.hash(self.header.seed, Kind::User);
        self.chain(hash, 0, |entry, _| Ok(entry.what != What::Domain && entry.name() == key.as_bytes()))
    }

    /// Follows the chain of changes by name (0) or by uid (1), the latest first.
    fn chain(
        &self,
        hash: u64,
        which: usize,
        wanted: impl Fn(&Entry, usize) -> Result<bool, Damaged>,
    ) -> Result<Option<(Entry, usize)>, Damaged> {
        let seed = self.header.seed;
        let at = head_place(self.header.heads, hash, which).ok_or(Damaged)?;
        let (mut next, check) = halves(word_acquire(self.words, at).ok_or(Damaged)?);
        if check != head_check(seed, at, next) {
            return Err(Damaged);
        }
        let part = self.header.changes;
        while next != 0 {
            let here = place(next);
            if here < part.at || here >= part.at.wrapping_add(part.size) {
                return Err(Damaged);
            }
            let link = word(self.words, here).ok_or(Damaged)?;
            if word(self.words, here + 1) != Some(link_check(seed, here, link)) {
                return Err(Damaged);
            }
            let entry = Entry::read(self.words, here + 2, seed).ok_or(Damaged)?;
            if wanted(&entry, here)? {
                return Ok(Some((entry, here)));
            }
            let (by_name, by_uid) = halves(link);
            let earlier = if which == 0 { by_name } else { by_uid };
            // Each was appended behind the one before.
            if earlier >= next {
                return Err(Damaged);
            }
            next = earlier;
        }
        Ok(None)
    }

    /// The user who has this uid for her own.
    #[must_use]
    pub fn user_by_uid(&self, uid: u32) -> Answer<User> {
        let found = self.by_uid(uid);
        match from(found) {
            Answer::Found(entry) => match Key::new(entry.name()) {
                Some(key) => self.shown(key, entry),
                None => Answer::Ask,
            },
            Answer::Absent => Answer::Absent,
            Answer::Ask => Answer::Ask,
        }
    }

    fn by_uid(&self, uid: u32) -> Result<Option<Entry>, Damaged> {
        let seed = self.header.seed;
        let hash = hash_id(seed, Kind::Uid, uid);
        let owns = |e: &Entry| e.what == What::User && e.has(OWN_UID) && e.id == uid;
        let last = |e: &Entry, at: usize| {
            let Some(key) = Key::new(e.name()) else { return Err(Damaged) };
            Ok(self.changed(&key)?.is_some_and(|(_, last)| last == at))
        };
        if let Some((entry, _)) =
            self.chain(hash, 1, |e, at| if owns(e) { last(e, at) } else { Ok(false) })?
        {
            return Ok(Some(entry));
        }
        let Some(entry) = find(self.words, self.header.by_uid, seed, hash, owns)? else { return Ok(None) };
        let key = Key::new(entry.name()).ok_or(Damaged)?;
        // Of one who was changed, what she is now would have been found by the changes.
        Ok(if self.changed(&key)?.is_none() { Some(entry) } else { None })
    }

    fn domain(&self, name: &[u8]) -> Answer<Entry> {
        let Some(key) = Key::new(name) else { return Answer::Absent };
        let seed = self.header.seed;
        let hash = key.hash(seed, Kind::Domain);
        from(find(self.words, self.header.by_domain, seed, hash, |e| {
            e.what == What::Domain && e.name() == key.as_bytes()
        }))
    }

    /// The group with this name in any case.
    #[must_use]
    pub fn group(&self, name: &[u8]) -> Answer<Group> {
        match self.domain(name) {
            Answer::Found(entry) if entry.has(IS_GROUP) => Answer::Found(Group { entry }),
            Answer::Found(_) | Answer::Absent => Answer::Absent,
            Answer::Ask => Answer::Ask,
        }
    }

    /// The group with this id.
    #[must_use]
    pub fn group_by_gid(&self, gid: u32) -> Answer<Group> {
        let seed = self.header.seed;
        let hash = hash_id(seed, Kind::Gid, gid);
        match from(find(self.words, self.header.by_gid, seed, hash, |e| {
            e.what == What::Domain && e.gid == gid
        })) {
            Answer::Found(entry) => Answer::Found(Group { entry }),
            Answer::Absent => Answer::Absent,
            Answer::Ask => Answer::Ask,
        }
    }

    /// The further group of a user.
    #[must_use]
    pub fn groups_of(&self, name: &[u8]) -> Answer<u32> {
        match self.user(name) {
            Answer::Found(user) if user.also() != 0 => Answer::Found(user.also()),
            Answer::Found(_) | Answer::Absent => Answer::Absent,
            Answer::Ask => Answer::Ask,
        }
    }

    /// Is there exactly this domain?
    #[must_use]
    pub fn has_domain(&self, row: &DomainRow<'_>) -> bool {
        let Answer::Found(entry) = self.domain(row.name) else { return false };
        let owns_gid = match self.group_by_gid(row.ids.1) {
            Answer::Found(group) => group.name() == row.name,
            Answer::Absent => false,
            Answer::Ask => return false,
        };
        entry.second() == row.real
            && (entry.id, entry.gid) == row.ids
            && entry.has(IS_GROUP) == row.is_group
            && owns_gid == (row.owns_gid && row.is_group)
            && entry.has(MUST_ASK) == row.must_ask
    }

    /// Is everything between the header and the chains as it was written? Reads all of it.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let mut mix = Mix::new(self.header.seed, Kind::Body);
        let body = self.header.records.at..self.header.heads.at;
        match self.words.get(body) {
            Some(words) => {
                words
                    .iter()
                    .for_each(|w| mix.add(u64::from_le(w.load(std::sync::atomic::Ordering::Relaxed))));
                mix.end() == self.header.body_check
            }
            None => false,
        }
    }

    /// Every user record that was built in, changed since or not; false when they cannot all be read.
    pub fn each_row(&self, mut row: impl FnMut(&Entry)) -> bool {
        let part = self.header.records;
        let mut at = part.at;
        while at < part.at.saturating_add(part.size) {
            let Some(entry) = Entry::read(self.words, at, self.header.seed) else { return false };
            if entry.what == What::User {
                row(&entry);
            }
            at += entry.words;
        }
        true
    }

    /// Every change that was appended, in their order; false when they cannot all be read.
    pub fn each_change(&self, mut change: impl FnMut(&Entry)) -> bool {
        let part = self.header.changes;
        let used = word(self.words, crate::layout::USED).and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        let mut at = part.at;
        while at < part.at.saturating_add(used.min(part.size)) {
            let Some(entry) = Entry::read(self.words, at + 2, self.header.seed) else { return false };
            change(&entry);
            at += entry.words + 2;
        }
        true
    }
}

pub(crate) fn head_place(heads: Part, hash: u64, which: usize) -> Option<usize> {
    let mask = heads.size.checked_sub(1)?;
    let number = place(halves(hash).0) & mask;
    Some(heads.at.wrapping_add(number).wrapping_add(which.wrapping_mul(heads.size)))
}
