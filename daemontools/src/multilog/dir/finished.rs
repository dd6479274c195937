//! Finished files: their names, and how many of them are kept.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tai::Ascending;

use super::{DirSpec, Error, error_at};

/// The shortest name of a finished file: `@` and the label.
const MIN_FINISHED: usize = tai::TEXT_LEN;

/// Why a finished file has its suffix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Complete and on the disk.
    Safe,
    /// Was being written when multilog was killed.
    Unfinished,
}

/// Gives a file its final name and removes the oldest ones that are too many or too much.
pub(super) fn finish(spec: &DirSpec, name: &str, fate: Fate, labels: &mut Ascending) -> Result<(), Error> {
    let path = spec.path.join(name);
    let at = |step| error_at(spec, step, name);
    let links = match fs::metadata(&path) {
        Ok(meta) => meta.nlink(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(at("look at")(e)),
    };
    // With two links it has its final name already, and we were killed before the next step.
    if links == 1 {
        link_finished(spec, &path, fate, labels).map_err(at("link"))?;
    }
    remove(&path).map_err(at("remove"))?;
    prune(spec).map_err(at("remove old files beside"))
}

fn link_finished(spec: &DirSpec, path: &Path, fate: Fate, labels: &mut Ascending) -> io::Result<()> {
    loop {
        let label = labels.label(unix::clock::since_epoch()).text();
        let mut name = OsString::from(format!("{}.", String::from_utf8_lossy(&label)));
        name.push(if fate == Fate::Safe { spec.suffix.as_os_str() } else { "u".as_ref() });
        match fs::hard_link(path, spec.path.join(name)) {
            // Each label is later than the last.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other,
        }
    }
}

fn prune(spec: &DirSpec) -> io::Result<()> {
    let mut old = Vec::new();
    for entry in fs::read_dir(&spec.path)? {
        let entry = entry?;
        let name = entry.file_name();
        let bytes = name.as_encoded_bytes();
        if bytes.starts_with(b"@") && bytes.len() >= MIN_FINISHED {
            let size = if spec.total.is_none() { 0 } else { entry.metadata()?.len() };
            old.push((name, size));
        }
    }
    old.sort();
    let sizes: Vec<_> = old.iter().map(|&(_, size)| size).collect();
    let surplus = surplus(&sizes, spec.keep, spec.total);
    old.iter().take(surplus).try_for_each(|(name, _)| remove(&spec.path.join(name)))
}

/// How many of the oldest files are too many beside the current one, or too much? `sizes` go from old to new.
fn surplus(sizes: &[u64], keep: usize, total: Option<u64>) -> usize {
    let too_many = (sizes.len() + 1).saturating_sub(keep);
    let Some(total) = total else { return too_many };
    let mut room = total;
    let fitting = sizes.iter().rev().take_while(|&&size| match room.checked_sub(size) {
        Some(left) => {
            room = left;
            true
        }
        None => false,
    });
    too_many.max(sizes.len() - fitting.count())
}

/// Removes a file; that it is gone already is as good.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first() {
        assert_eq!(surplus(&[5, 5, 5], 10, None), 0);
        assert_eq!(surplus(&[5, 5, 5], 2, None), 2);
        assert_eq!(surplus(&[5, 5, 5], 10, Some(10)), 1);
        assert_eq!(surplus(&[1, 9, 5], 10, Some(13)), 2, "what is older than a file that goes, goes too");
        assert_eq!(surplus(&[5, 20], 10, Some(10)), 2);
        assert_eq!(surplus(&[], 2, Some(10)), 0);
    }
}
