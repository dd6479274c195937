//! Line-by-line edits of control files: whole, durable, and none when nothing changes.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use unix::durable::{self, Owner};
use unix::{Gid, Uid};

/// Mode of a new file.
const MODE: u32 = 0o644;
/// A file larger than this is not edited.
const LARGEST: u64 = 64 << 20;

/// What is in a file; nothing when it does not exist.
pub(super) fn text(path: &Path) -> io::Result<Vec<u8>> {
    match std::fs::metadata(path) {
        Ok(m) if m.len() > LARGEST => Err(io::Error::other("larger than 64 MiB")),
        Ok(_) => std::fs::read(path),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// The lines of a file, comments included.
fn lines(path: &Path) -> io::Result<Vec<Vec<u8>>> {
    let bytes = text(path)?;
    let mut lines: Vec<Vec<u8>> = bytes.split(|&b| b == b'\n').map(<[u8]>::to_vec).collect();
    if lines.last().is_some_and(Vec::is_empty) {
        lines.pop();
    }
    Ok(lines)
}

fn put_lines(path: &Path, lines: &[Vec<u8>], owner: Owner) -> io::Result<bool> {
    let text: Vec<u8> = lines.iter().flat_map(|l| l.iter().copied().chain([b'\n'])).collect();
    put(path, &text, owner)
}

/// Makes the file hold this text, keeping owner and mode of an old one; `false` when it did already.
pub(super) fn put(path: &Path, text: &[u8], owner: Owner) -> io::Result<bool> {
    let (mode, owner) = match std::fs::metadata(path) {
        Ok(m) => {
            if std::fs::read(path)? == text {
                return Ok(false);
            }
            let owner = owner.map(|_| (Uid::from_raw(m.uid()), Gid::from_raw(m.gid())));
            (m.permissions().mode() & 0o777, owner)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            if text.is_empty() {
                return Ok(false);
            }
            (MODE, owner)
        }
        Err(e) => return Err(e),
    };
    durable::replace(path, text, mode, owner).map(|()| true)
}

/// The key of a line: what stands before the first colon, in lower case and without trailing blanks.
fn key(line: &[u8]) -> Vec<u8> {
    let line = control::trimmed(line);
    let end = line.iter().position(|&b| b == b':').unwrap_or(line.len());
    line[..end].to_ascii_lowercase()
}

/// Adds `line` unless a line with the same key is there.
pub(super) fn add(path: &Path, line: &[u8], owner: Owner) -> io::Result<bool> {
    let mut all = lines(path)?;
    if all.iter().any(|l| key(l) == key(line)) {
        return Ok(false);
    }
    all.push(line.to_vec());
    put_lines(path, &all, owner)
}

/// Removes every line with this key.
pub(super) fn remove(path: &Path, wanted: &[u8], owner: Owner) -> io::Result<bool> {
    let mut all = lines(path)?;
    let before = all.len();
    all.retain(|l| key(l) != wanted.to_ascii_lowercase());
    if all.len() == before { Ok(false) } else { put_lines(path, &all, owner) }
}
