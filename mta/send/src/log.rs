//! Log lines of the queue, byte for byte as log tools expect them.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use unix::fd::Raw;
use unix::lock::Lock;

/// A text that cannot break a log line: newline becomes `/`, other unprintable bytes, blanks and `%` become `_`.
#[must_use]
pub fn safe(text: &[u8]) -> Vec<u8> {
    text.iter()
        .map(|&b| match b {
            b'\n' => b'/',
            b'%' => b'_',
            33..=126 => b,
            _ => b'_',
        })
        .collect()
}

/// Builds a line of bytes from pieces that may be text or numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line(Vec<u8>);

impl Line {
    /// Begins a line.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }

    /// Adds text of our own.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    /// Adds a number or anything that displays as plain text of ours.
    #[must_use]
    pub fn value(self, value: impl std::fmt::Display) -> Self {
        self.text(&value.to_string())
    }

    /// Adds text of others, made [`safe`].
    #[must_use]
    pub fn safe(mut self, text: &[u8]) -> Self {
        self.0.extend(safe(text));
        self
    }

    /// The line, without newline.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Delivery numbers of one process in log lines: `7`, or `7.QIDENT`.
#[must_use]
pub fn delivery(number: u64, ident: Option<&[u8]>) -> String {
    match ident {
        Some(ident) => format!("{number}.{}", String::from_utf8_lossy(&safe(ident))),
        None => number.to_string(),
    }
}

/// Where lines go: a descriptor, written to in blocks, shared under a lock with other senders if wanted.
#[derive(Debug)]
pub struct Log {
    to: OwnedFd,
    pending: Vec<u8>,
    lock_file: PathBuf,
    locking: bool,
}

/// Bytes that wait at most before they are written.
const PENDING_MAX: usize = 32 * 1024;

impl Log {
    /// To this descriptor; `lock_file` is what senders lock while they write when `locking`.
    #[must_use]
    pub fn new(to: OwnedFd, lock_file: PathBuf, locking: bool) -> Self {
        Self { to, pending: Vec::new(), lock_file, locking }
    }

    /// Adds a line.
    pub fn line(&mut self, line: Line) {
        self.raw(&line.into_bytes());
    }

    /// Adds a line that another program made.
    pub fn raw(&mut self, line: &[u8]) {
        self.pending.extend_from_slice(line);
        self.pending.push(b'\n');
        if self.pending.len() > PENDING_MAX {
            self.flush();
        }
    }

    /// Is the log shared under a lock?
    #[must_use]
    pub fn is_locking(&self) -> bool {
        self.locking
    }

    /// Starts or stops sharing it under a lock.
    pub fn toggle_lock(&mut self) {
        self.locking = !self.locking;
    }

    /// Writes what waits. When the logger is gone, lines are lost and mail still flows.
    pub fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let lock = if self.locking {
            std::fs::File::open(&self.lock_file).and_then(Lock::exclusive).ok()
        } else {
            None
        };
        // There is no place left to report a failure to.
        let _ = Raw(self.to.as_fd()).write_all(&self.pending);
        drop(lock);
        self.pending.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_cannot_forge_lines() {
        assert_eq!(safe(b"a b\nc%d\x7f\xff~!"), b"a_b/c_d__~!");
        let line = Line::new("x ").safe(b"\n").value(7).text(" y").into_bytes();
        assert_eq!(line, b"x /7 y");
    }
}
