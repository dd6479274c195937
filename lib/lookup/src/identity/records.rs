//! Users, groups, shadow records and pages of them, and how they stand in a frame.

use super::Map;
use crate::frame::{Fields, Malformed, TooLong, Writer};

/// Has this text none of the bytes that would break a line of passwd?
#[must_use]
pub fn is_clean(text: &[u8]) -> bool {
    !text.iter().any(|b| matches!(b, 0 | b':' | b'\n'))
}

/// A user. The password field is always `x` and is therefore not carried.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct User {
    /// Login name, the whole `user@domain`.
    pub name: Vec<u8>,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Her name.
    pub gecos: Vec<u8>,
    /// Home directory.
    pub home: Vec<u8>,
    /// Login shell.
    pub shell: Vec<u8>,
}

/// A group. Members that have it as their primary group are not listed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Group {
    /// Name: the domain.
    pub name: Vec<u8>,
    /// Group id.
    pub gid: u32,
    /// Supplementary members.
    pub members: Vec<Vec<u8>>,
}

/// A shadow record; ages in days, `None` for an empty field.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Shadow {
    /// Login name.
    pub name: Vec<u8>,
    /// Hash, or `*`: no password logs in.
    pub password: Vec<u8>,
    /// Day of the last change, counted from 1970.
    pub last_change: Option<u64>,
    /// Days before it may be changed.
    pub min: Option<u64>,
    /// Days after which it must be changed.
    pub max: Option<u64>,
    /// Days of warning before that.
    pub warn: Option<u64>,
    /// Days after that until the account is switched off.
    pub inactive: Option<u64>,
    /// Day on which the account expires, counted from 1970.
    pub expire: Option<u64>,
}

/// A record of a map: how it is put into a frame and taken out.
pub trait Record: Sized {
    /// The map it belongs to.
    const MAP: Map;
    /// Writes the record's fields.
    ///
    /// # Errors
    /// [`TooLong`].
    fn put(&self, w: &mut Writer<'_>) -> Result<(), TooLong>;
    /// Reads the record's fields.
    ///
    /// # Errors
    /// They are not those of a record.
    fn take(f: &mut Fields<'_>) -> Result<Self, Malformed>;
    /// Bytes that [`Record::put`] writes.
    fn size(&self) -> usize;
}

fn text(f: &mut Fields<'_>) -> Result<Vec<u8>, Malformed> {
    let bytes = f.bytes()?;
    if is_clean(bytes) { Ok(bytes.to_vec()) } else { Err(Malformed::Value) }
}

impl Record for User {
    const MAP: Map = Map::Passwd;

    fn put(&self, w: &mut Writer<'_>) -> Result<(), TooLong> {
        w.bytes(&self.name)?;
        w.number(self.uid)?;
        w.number(self.gid)?;
        w.bytes(&self.gecos)?;
        w.bytes(&self.home)?;
        w.bytes(&self.shell)
    }

    fn take(f: &mut Fields<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            name: text(f)?,
            uid: f.number()?,
            gid: f.number()?,
            gecos: text(f)?,
            home: text(f)?,
            shell: text(f)?,
        })
    }

    fn size(&self) -> usize {
        6 * 2 + 8 + self.name.len() + self.gecos.len() + self.home.len() + self.shell.len()
    }
}

impl Record for Group {
    const MAP: Map = Map::Group;

    fn put(&self, w: &mut Writer<'_>) -> Result<(), TooLong> {
        w.bytes(&self.name)?;
        w.number(self.gid)?;
        w.number(u32::try_from(self.members.len()).map_err(|_| TooLong)?)?;
        self.members.iter().try_for_each(|m| w.bytes(m))
    }

    fn take(f: &mut Fields<'_>) -> Result<Self, Malformed> {
        let (name, gid, count) = (text(f)?, f.number()?, f.number()?);
        let mut members = Vec::new();
        for _ in 0..count {
            members.push(text(f)?);
        }
        Ok(Self { name, gid, members })
    }

    fn size(&self) -> usize {
        3 * 2 + 8 + self.name.len() + self.members.iter().map(|m| m.len() + 2).sum::<usize>()
    }
}

/// Hashes stay out of every log.
impl std::fmt::Debug for Shadow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hash = if self.password == b"*" { "*" } else { "(hidden)" };
        write!(f, "Shadow({} {hash} {:?})", self.name.escape_ascii(), self.days())
    }
}

impl Shadow {
    fn days(&self) -> [Option<u64>; 6] {
        [self.last_change, self.min, self.max, self.warn, self.inactive, self.expire]
    }
}

impl Record for Shadow {
    const MAP: Map = Map::Shadow;

    fn put(&self, w: &mut Writer<'_>) -> Result<(), TooLong> {
        w.bytes(&self.name)?;
        w.bytes(&self.password)?;
        self.days().into_iter().try_for_each(|days| w.optional_long(days))
    }

    fn take(f: &mut Fields<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            name: text(f)?,
            password: text(f)?,
            last_change: f.optional_long()?,
            min: f.optional_long()?,
            max: f.optional_long()?,
            warn: f.optional_long()?,
            inactive: f.optional_long()?,
            expire: f.optional_long()?,
        })
    }

    fn size(&self) -> usize {
        8 * 2 + 8 * self.days().iter().flatten().count() + self.name.len() + self.password.len()
    }
}

/// Part of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// Records, in order.
    pub records: Vec<T>,
    /// What to ask the next page with; empty after the last one.
    pub next: Vec<u8>,
}

impl<T: Record> Page<T> {
    pub(super) fn put(&self, w: &mut Writer<'_>) -> Result<(), TooLong> {
        w.bytes(&self.next)?;
        self.records.iter().try_for_each(|r| r.put(w))
    }

    pub(super) fn take(f: &mut Fields<'_>) -> Result<Self, Malformed> {
        let next = f.bytes()?.to_vec();
        let mut records = Vec::new();
        while f.more() {
            records.push(T::take(f)?);
        }
        // An empty page that is not the last one would let a reader go round for ever.
        if records.is_empty() && !next.is_empty() {
            return Err(Malformed::Value);
        }
        Ok(Self { records, next })
    }
}
