//! What a mailbox holds.

use std::ffi::OsStr;
use std::fs::DirEntry;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::Usage;

/// The size that a file name states: `...,S=SIZE` before the flags.
#[must_use]
pub fn size_in_name(name: &[u8]) -> Option<u64> {
    let base = name.split(|&b| b == b':').next().unwrap_or_default();
    let field = base.split(|&b| b == b',').skip(1).find_map(|f| f.strip_prefix(b"S="))?;
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// Adds up the messages in `cur` and `new` of a Maildir and of its folders.
///
/// Unless `include_trash`, the folder `.Trash` and messages with the flag T do not count.
///
/// # Errors
/// A directory cannot be read. Files that go away while we look are not errors.
pub fn usage_of_tree(maildir: &Path, include_trash: bool) -> io::Result<Usage> {
    let mut usage = Usage::default();
    add_folder(maildir, include_trash, &mut usage)?;
    for entry in entries(maildir)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_folder = name.as_bytes().starts_with(b".") && entry.path().join("cur").is_dir();
        if is_folder && (include_trash || !is_trash(&name)) {
            add_folder(&entry.path(), include_trash, &mut usage)?;
        }
    }
    Ok(usage)
}

fn is_trash(folder: &OsStr) -> bool {
    let name = folder.as_bytes();
    name == b".Trash" || name.starts_with(b".Trash.")
}

fn add_folder(folder: &Path, include_trash: bool, usage: &mut Usage) -> io::Result<()> {
    for sub in ["new", "cur"] {
        for entry in entries(&folder.join(sub))? {
            let entry = entry?;
            let name = entry.file_name();
            let hidden = name.as_bytes().starts_with(b".");
            if hidden || (!include_trash && name.as_bytes().ends_with(b"T") && has_flags(name.as_bytes())) {
                continue;
            }
            if let Some(size) = size(&entry, name.as_bytes())? {
                usage.bytes = usage.bytes.saturating_add(i64::try_from(size).unwrap_or(i64::MAX));
                usage.messages = usage.messages.saturating_add(1);
            }
        }
    }
    Ok(())
}

fn has_flags(name: &[u8]) -> bool {
    name.windows(3).any(|w| w == b":2,")
}

fn size(entry: &DirEntry, name: &[u8]) -> io::Result<Option<u64>> {
    if let Some(size) = size_in_name(name) {
        return Ok(Some(size));
    }
    match entry.metadata() {
        Ok(meta) => Ok(meta.is_file().then_some(meta.len())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn entries(dir: &Path) -> io::Result<Box<dyn Iterator<Item = io::Result<DirEntry>>>> {
    match std::fs::read_dir(dir) {
        Ok(entries) => Ok(Box::new(entries)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Box::new(std::iter::empty())),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_in_names() {
        assert_eq!(size_in_name(b"1.a,S=12:2,S"), Some(12));
        assert_eq!(size_in_name(b"1.a,S=12,W=13"), Some(12));
        assert_eq!(size_in_name(b"1.a,W=13,S=7"), Some(7));
        assert_eq!(size_in_name(b"S=12"), None);
        assert_eq!(size_in_name(b"1.a,S=x"), None);
    }

    #[test]
    fn folders_count_and_trash_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let make = |sub: &str, name: &str| {
            crate::make(&dir.path().join(sub), None).unwrap();
            std::fs::write(dir.path().join(sub).join("cur").join(name), "12345").unwrap();
        };
        make("", "a:2,S");
        make("", "b,S=100:2,");
        make("", "gone:2,ST");
        make(".Work", "c");
        make(".Trash", "d");
        let usage = |trash| usage_of_tree(dir.path(), trash).map(|u| (u.bytes, u.messages)).unwrap();
        assert_eq!(usage(false), (110, 3));
        assert_eq!(usage(true), (120, 5));
    }
}
