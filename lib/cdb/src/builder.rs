//! Making a cdb.

use std::io;
use std::path::Path;

use crate::{HEADER, TABLES, hash, table_of};

/// The database would pass the 4 GiB that its positions can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("constant database too large: it holds at most 4 GiB")]
pub struct Full;

/// Collects records and lays them out.
#[derive(Debug)]
pub struct Builder {
    bytes: Vec<u8>,
    tables: Vec<Vec<(u32, u32)>>,
}

impl Default for Builder {
    fn default() -> Self {
        let start = usize::try_from(HEADER).expect("invariant: 2048 fits usize");
        Self { bytes: vec![0; start], tables: vec![Vec::new(); TABLES] }
    }
}

impl Builder {
    /// An empty database.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a record. Keys may repeat; [`crate::Reader::get`] finds the first.
    ///
    /// # Errors
    /// [`Full`]; the builder is then unusable.
    pub fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), Full> {
        let position = u32::try_from(self.bytes.len()).map_err(|_| Full)?;
        for length in [key.len(), value.len()] {
            self.number(u32::try_from(length).map_err(|_| Full)?);
        }
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        let hash = hash(key);
        self.tables[table_of(hash)].push((hash, position));
        Ok(())
    }

    /// The finished database.
    ///
    /// # Errors
    /// [`Full`].
    pub fn finish(mut self) -> Result<Vec<u8>, Full> {
        for (index, records) in std::mem::take(&mut self.tables).into_iter().enumerate() {
            let start = u32::try_from(self.bytes.len()).map_err(|_| Full)?;
            // Twice as many slots as records keeps probes short.
            let count = u32::try_from(records.len() * 2).map_err(|_| Full)?;
            let mut slots = vec![(0u32, 0u32); records.len() * 2];
            for (hash, position) in records {
                let first = (hash >> 8) % count;
                let mut at = usize::try_from(first).map_err(|_| Full)?;
                while slots[at].1 != 0 {
                    at = (at + 1) % slots.len();
                }
                slots[at] = (hash, position);
            }
            for (hash, position) in slots {
                self.number(hash);
                self.number(position);
            }
            self.bytes[index * 8..index * 8 + 4].copy_from_slice(&start.to_le_bytes());
            self.bytes[index * 8 + 4..index * 8 + 8].copy_from_slice(&count.to_le_bytes());
        }
        u32::try_from(self.bytes.len()).map_err(|_| Full)?;
        Ok(self.bytes)
    }

    /// Finishes and durably replaces the file at `path`.
    ///
    /// # Errors
    /// [`Full`] as `InvalidData`, or any step of [`unix::durable::replace`]; the old file stays.
    pub fn replace(self, path: &Path, mode: u32, owner: unix::durable::Owner) -> io::Result<()> {
        let bytes = self.finish().map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        unix::durable::replace(path, &bytes, mode, owner)
    }

    fn number(&mut self, n: u32) {
        self.bytes.extend_from_slice(&n.to_le_bytes());
    }
}
