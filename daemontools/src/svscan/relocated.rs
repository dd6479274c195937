//! State below `/run/svscan` follows a service that is disabled (renamed to a name with a dot in front)
//! or enabled again, so that clients find it under the new name.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use crate::fifo;

/// Renames what is to be renamed: `enabled` and `disabled` are the names in the scan directory, the
/// latter without the dot.
pub(super) fn follow(run: &Path, enabled: &[&[u8]], disabled: &[Vec<u8>], warn: &mut dyn FnMut(&str)) {
    for name in disabled.iter().filter(|name| !enabled.contains(&name.as_slice())) {
        rename(run, OsStr::from_bytes(name), &dotted(name), warn);
    }
    for name in enabled.iter().filter(|name| !disabled.iter().any(|d| d == *name)) {
        rename(run, &dotted(name), OsStr::from_bytes(name), warn);
    }
}

fn dotted(name: &[u8]) -> OsString {
    OsString::from_vec([b".", name].concat())
}

/// Nothing to rename is fine. What stands in the way goes if no supervise runs on it.
fn rename(run: &Path, from: &OsStr, to: &OsStr, warn: &mut dyn FnMut(&str)) {
    let (from, to) = (run.join(from), run.join(to));
    if !from.exists() {
        return;
    }
    let mut renamed = fs::rename(&from, &to);
    if renamed.is_err() && !is_in_use(&to) {
        renamed = fs::remove_dir_all(&to).and_then(|()| fs::rename(&from, &to));
    }
    match renamed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            warn(&format!("unable to rename {} to {}: {e}", from.display(), to.display()));
        }
        _ => {}
    }
}

/// Cannot tell counts as yes.
fn is_in_use(state: &Path) -> bool {
    ["supervise/ok", "log/supervise/ok"].iter().any(|ok| !matches!(fifo::writer(&state.join(ok)), Ok(None)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_follows_there_and_back() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path();
        let make = |name: &str| {
            fs::create_dir_all(run.join(name).join("supervise")).unwrap();
            fifo::make(&run.join(name).join("supervise/ok")).unwrap();
        };
        let names = || {
            let mut all: Vec<_> =
                fs::read_dir(run).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            all.sort();
            all.join(" ")
        };
        let mut complaints = Vec::new();
        make("a");
        make("b");
        follow(run, &[b"b"], &[b"a".to_vec()], &mut |c| complaints.push(c.to_owned()));
        assert_eq!(names(), ".a b");
        follow(run, &[b"a", b"b"], &[], &mut |c| complaints.push(c.to_owned()));
        assert_eq!(names(), "a b");
        // A copy under both names: the one that is enabled keeps its state.
        follow(run, &[b"a", b"b"], &[b"a".to_vec()], &mut |c| complaints.push(c.to_owned()));
        assert_eq!(names(), "a b");
        // What is left from before is in the way, unless it is in use.
        make(".a");
        follow(run, &[b"b"], &[b"a".to_vec()], &mut |c| complaints.push(c.to_owned()));
        assert_eq!(names(), ".a b");
        assert!(complaints.is_empty(), "{complaints:?}");
        make("a");
        let _reader = fifo::reader(&run.join(".a/supervise/ok")).unwrap();
        follow(run, &[b"b"], &[b"a".to_vec()], &mut |c| complaints.push(c.to_owned()));
        assert_eq!((names().as_str(), complaints.len()), (".a a b", 1));
    }
}
