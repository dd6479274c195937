//! What clients ask a state directory.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::fifo;
use crate::status::{BadRecord, LEN, Record};

/// Is a supervise running on this state directory?
///
/// # Errors
/// It cannot be told (no permission, say).
pub fn is_running(state: &Path) -> io::Result<bool> {
    Ok(fifo::writer(&state.join("ok"))?.is_some())
}

/// The status record in this state directory.
///
/// # Errors
/// It cannot be read, or is no record (`InvalidData`).
pub fn record(state: &Path) -> io::Result<Record> {
    let path = state.join("status");
    let read = || -> io::Result<Result<Record, BadRecord>> {
        // One call: nobody writes more, and something without an end may be in its place.
        let mut bytes = [0; 2 * LEN];
        let length = File::open(&path)?.read(&mut bytes)?;
        Ok(Record::decode(&bytes[..length]))
    };
    // A writer that is not atomic may be in between; once more is enough.
    let answer = match read()? {
        Err(_) => read()?,
        good => good,
    };
    answer.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}
