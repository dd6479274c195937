//! Reading a cdb that may be hostile.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::{HEADER, TABLES, hash, table_of};

/// A database cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The file is not a cdb or is damaged.
    #[error("damaged constant database: {0}; build it again from its source")]
    Damaged(&'static str),
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

/// An open database. It may be shared between threads: every read names its own position.
#[derive(Debug)]
pub struct Reader {
    file: File,
    length: u64,
    tables: Vec<(u64, u64)>,
}

impl Reader {
    /// Opens a database; `Ok(None)` when the file does not exist.
    ///
    /// # Errors
    /// It cannot be opened or read, or its header is wrong.
    pub fn open(path: &Path) -> Result<Option<Self>, Error> {
        match File::open(path) {
            Ok(file) => Self::new(file).map(Some),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Reads an open file as a database.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn new(file: File) -> Result<Self, Error> {
        let length = file.metadata()?.len();
        let mut reader = Self { file, length, tables: Vec::new() };
        let header = reader.bytes(0, HEADER)?;
        reader.tables = header
            .chunks_exact(8)
            .map(|pair| (u64::from(number(&pair[..4])), u64::from(number(&pair[4..]))))
            .collect();
        debug_assert_eq!(reader.tables.len(), TABLES);
        let outside = |&(start, slots): &(u64, u64)| {
            slots > 0 && (start < HEADER || start.saturating_add(slots * 8) > length)
        };
        if reader.tables.iter().any(outside) {
            return Err(Error::Damaged("a hash table lies outside the file"));
        }
        Ok(reader)
    }

    /// The value of the first record with this key.
    ///
    /// # Errors
    /// The file cannot be read or is damaged.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let mut found = None;
        self.search(key, |value| {
            found = Some(value);
            false
        })?;
        Ok(found)
    }

    /// The values of all records with this key, in the order they were added.
    ///
    /// # Errors
    /// As [`Reader::get`].
    pub fn get_all(&self, key: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        let mut all = Vec::new();
        self.search(key, |value| {
            all.push(value);
            true
        })?;
        Ok(all)
    }

    /// All records, in the order they were added.
    pub fn records(&self) -> impl Iterator<Item = Result<Record, Error>> + '_ {
        // Records end where the first table starts; an empty database has tables at the header's end.
        let end = self.tables.iter().map(|t| t.0).filter(|&s| s >= HEADER).min().unwrap_or(HEADER);
        let mut at = HEADER;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let record = self.record(at);
            at = match &record {
                Ok((_, next)) => *next,
                Err(_) => end,
            };
            Some(record.map(|(r, _)| r))
        })
    }

    fn search(&self, key: &[u8], mut each: impl FnMut(Vec<u8>) -> bool) -> Result<(), Error> {
        let wanted = hash(key);
        let Some(&(start, slots)) = self.tables.get(table_of(wanted)) else {
            return Ok(());
        };
        if slots == 0 {
            return Ok(());
        }
        let mut slot = u64::from(wanted >> 8) % slots;
        for _ in 0..slots {
            let pair = self.bytes(start + slot * 8, 8)?;
            let position = u64::from(number(&pair[4..]));
            if position == 0 {
                return Ok(());
            }
            if number(&pair[..4]) == wanted
                && let Some(value) = self.value_if(position, key)?
                && !each(value)
            {
                return Ok(());
            }
            slot = (slot + 1) % slots;
        }
        Ok(())
    }

    /// The value of the record at `position` if its key is `key`.
    fn value_if(&self, position: u64, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let (key_length, value_length) = self.lengths(position)?;
        if usize::try_from(key_length) != Ok(key.len()) || self.bytes(position + 8, key_length)? != key {
            return Ok(None);
        }
        self.bytes(position + 8 + key_length, value_length).map(Some)
    }

    fn record(&self, position: u64) -> Result<(Record, u64), Error> {
        let (key_length, value_length) = self.lengths(position)?;
        let key = self.bytes(position + 8, key_length)?;
        let value = self.bytes(position + 8 + key_length, value_length)?;
        Ok((Record { key, value }, position + 8 + key_length + value_length))
    }

    fn lengths(&self, position: u64) -> Result<(u64, u64), Error> {
        if position < HEADER {
            return Err(Error::Damaged("a record lies inside the header"));
        }
        let pair = self.bytes(position, 8)?;
        Ok((u64::from(number(&pair[..4])), u64::from(number(&pair[4..]))))
    }

    /// Reads exactly `count` bytes; the length is checked before anything is allocated.
    fn bytes(&self, from: u64, count: u64) -> Result<Vec<u8>, Error> {
        if from.saturating_add(count) > self.length {
            return Err(Error::Damaged("a position lies outside the file"));
        }
        let count = usize::try_from(count).map_err(|_| Error::Damaged("a length is too large"))?;
        let mut buf = vec![0; count];
        match self.file.read_exact_at(&mut buf, from) {
            Ok(()) => Ok(buf),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                Err(Error::Damaged("the file was cut short while it was open"))
            }
            Err(e) => Err(e.into()),
        }
    }
}

fn number(four: &[u8]) -> u32 {
    four.iter().rev().fold(0, |n, &b| (n << 8) | u32::from(b))
}
