//! Appending to an mbox file.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use unix::durable::Durability;
use unix::lock::Lock;

use crate::message_file::Message;

/// How long another program may hold the lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);
/// Longest piece of a line that is looked at for its beginning.
const PIECE: u64 = 64 * 1024;

/// Appends the message with `heading` (the "From " line and trace lines) before it.
///
/// Lines of the message that look like the beginning of a message get a `>` before them, one more
/// than they have; a blank line ends it. On any error the file has its old length again.
///
/// # Errors
/// Opening, locking (30 s), writing or forcing out failed.
pub fn append(path: &Path, heading: &[u8], message: &Message, durability: Durability) -> io::Result<()> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let lock = Lock::within(file, LOCK_PATIENCE)?
        .ok_or_else(|| io::Error::new(io::ErrorKind::TimedOut, "another program holds the lock"))?;
    let meta = lock.file().metadata()?;
    let old_length = meta.len();
    let result = write(lock.file(), heading, message).and_then(|()| {
        // A device (/dev/null) cannot be forced out.
        if meta.is_file() { durability.sync_file(lock.file()) } else { Ok(()) }
    });
    if result.is_err() && meta.is_file() {
        // The error that matters is the first one.
        let _ = lock.file().set_len(old_length);
    }
    if result.is_ok() && old_length == 0 && meta.is_file() {
        return durability.sync_parent(path);
    }
    result
}

fn write(file: &File, heading: &[u8], message: &Message) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(64 * 1024, file);
    out.write_all(heading)?;
    let mut reader = BufReader::with_capacity(64 * 1024, message.rewound()?);
    let (mut piece, mut at_line_start) = (Vec::new(), true);
    loop {
        piece.clear();
        if io::Read::take(&mut reader, PIECE).read_until(b'\n', &mut piece)? == 0 {
            break;
        }
        if at_line_start && looks_like_from(&piece) {
            out.write_all(b">")?;
        }
        out.write_all(&piece)?;
        at_line_start = piece.ends_with(b"\n");
    }
    out.write_all(if at_line_start { b"\n" } else { b"\n\n" })?;
    out.flush()
}

/// `>*From `
fn looks_like_from(line: &[u8]) -> bool {
    let start = line.iter().position(|&b| b != b'>').unwrap_or(line.len());
    line[start..].starts_with(b"From ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn appended(before: &str, message: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("Mailbox");
        std::fs::write(&path, before).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(message.as_bytes()).unwrap();
        append(&path, b"From x\n", &Message::new(file), Durability::default()).unwrap();
        std::fs::read_to_string(&path).unwrap()
    }

    #[test]
    fn from_lines_are_quoted_and_the_end_is_a_blank_line() {
        assert_eq!(
            appended("old\n\n", "S: x\n\nFrom me\n>From you\n From z\nFromage\n"),
            "old\n\nFrom x\nS: x\n\n>From me\n>>From you\n From z\nFromage\n\n"
        );
        assert_eq!(appended("", "no end"), "From x\nno end\n\n");
        assert_eq!(appended("", ""), "From x\n\n");
    }

    #[test]
    fn dev_null_takes_mail() {
        let message = Message::new(tempfile::tempfile().unwrap());
        append(Path::new("/dev/null"), b"From x\n", &message, Durability::default()).unwrap();
    }

    #[test]
    fn a_full_disk_leaves_the_old_length() {
        let message = Message::new(tempfile::tempfile().unwrap());
        assert!(append(Path::new("/dev/full"), b"From x\n", &message, Durability::default()).is_err());
    }
}
