//! Which dot-qmail file.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Longest file that is obeyed, in bytes.
const SIZE_MAX: u64 = 1 << 20;

/// A dot-qmail file that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DotFile {
    /// Its path, below the home directory.
    pub path: PathBuf,
    /// What is in it.
    pub text: Vec<u8>,
    /// Its execute bit says that it holds forwards only.
    pub forwards_only: bool,
    /// For a `-default` file: where in the extension the part begins that `default` stands for.
    pub default_at: Option<usize>,
}

/// The mail cannot be delivered now: a file cannot be trusted or read.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// It is there, but cannot be opened or read. It is never taken for absent.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may write it.
    #[error("{} is writable for others (mode {mode:04o}); take the write permission away", path.display())]
    Writable {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is no plain file, or too long for one.
    #[error("{} is not a plain file of at most {SIZE_MAX} bytes", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
}

/// The extension as file names have it: lower case, dots as colons, so that no `..` can be made.
#[must_use]
pub fn safe_extension(ext: &[u8]) -> Vec<u8> {
    ext.to_ascii_lowercase().iter().map(|&b| if b == b'.' { b':' } else { b }).collect()
}

/// The names to try, in order; with each the place in the extension that `default` stands for.
#[must_use]
pub fn candidates(dash: &[u8], ext: &[u8]) -> Vec<(Vec<u8>, Option<usize>)> {
    if dash.is_empty() {
        return vec![(b".qmail".to_vec(), None)];
    }
    let safe = safe_extension(ext);
    let base = [b".qmail", dash].concat();
    let mut names = vec![([&base[..], &safe].concat(), None)];
    // Behind every dash from right to left, and before everything.
    let places = (0..safe.len()).rev().filter(|&i| safe[i] == b'-').map(|i| i + 1).chain([0]);
    names.extend(places.map(|at| ([&base[..], &safe[..at], b"default"].concat(), Some(at))));
    names
}

/// Opens the first candidate that exists, below `home`. `untrusted` are the permission bits that
/// must not be set (002).
///
/// # Errors
/// A candidate exists but cannot be obeyed; a later one is not tried then.
pub fn find(home: &Path, dash: &[u8], ext: &[u8], untrusted: u32) -> Result<Option<DotFile>, FindError> {
    for (name, default_at) in candidates(dash, ext) {
        let path = home.join(OsStr::from_bytes(&name));
        if let Some(file) = open(&path)? {
            let (text, forwards_only) = check(&path, file, untrusted)?;
            return Ok(Some(DotFile { path, text, forwards_only, default_at }));
        }
    }
    Ok(None)
}

/// Is there a file with this name below `home`?
///
/// # Errors
/// It cannot be told.
pub fn exists(home: &Path, name: &[u8]) -> Result<bool, FindError> {
    let path = home.join(OsStr::from_bytes(name));
    match std::fs::metadata(&path) {
        Ok(_) => Ok(true),
        Err(e) if is_absence(&e) => Ok(false),
        Err(source) => Err(FindError::Unreadable { path, source }),
    }
}

fn open(path: &Path) -> Result<Option<File>, FindError> {
    match OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if is_absence(&e) => Ok(None),
        Err(source) => Err(FindError::Unreadable { path: path.to_path_buf(), source }),
    }
}

/// No such file; a file where a directory would have to be; a name no file can have.
fn is_absence(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ENAMETOOLONG))
}

fn check(path: &Path, mut file: File, untrusted: u32) -> Result<(Vec<u8>, bool), FindError> {
    let unreadable = |source| FindError::Unreadable { path: path.to_path_buf(), source };
    let meta = file.metadata().map_err(unreadable)?;
    if !meta.is_file() || meta.len() > SIZE_MAX {
        return Err(FindError::NotAFile { path: path.to_path_buf() });
    }
    let mode = meta.permissions().mode() & 0o7777;
    if mode & untrusted != 0 {
        return Err(FindError::Writable { path: path.to_path_buf(), mode });
    }
    let mut text = Vec::new();
    (&mut file).take(SIZE_MAX).read_to_end(&mut text).map_err(unreadable)?;
    Ok((text, mode & 0o100 != 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(dash: &str, ext: &str) -> Vec<String> {
        let all = candidates(dash.as_bytes(), ext.as_bytes());
        all.into_iter().map(|(n, _)| String::from_utf8(n).unwrap()).collect()
    }

    #[test]
    fn the_order_of_names() {
        assert_eq!(names("", ""), [".qmail"]);
        assert_eq!(names("-", ""), [".qmail-", ".qmail-default"]);
        assert_eq!(names("-", "Foo.Bar-x"), [".qmail-foo:bar-x", ".qmail-foo:bar-default", ".qmail-default"]);
        assert_eq!(names("-", "a-b-c").len(), 4);
    }

    fn home() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn put(dir: &tempfile::TempDir, name: &str, mode: u32) {
        let path = dir.path().join(name);
        std::fs::write(&path, name).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_first_that_exists_and_what_default_stands_for() {
        let dir = home();
        put(&dir, ".qmail-a-default", 0o700);
        put(&dir, ".qmail-default", 0o600);
        let found = find(dir.path(), b"-", b"a-B-c", 0o002).unwrap().unwrap();
        assert_eq!(found.text, b".qmail-a-default");
        assert_eq!((found.default_at, found.forwards_only), (Some(2), true));
        let found = find(dir.path(), b"-", b"b", 0o002).unwrap().unwrap();
        assert_eq!((found.default_at, found.forwards_only), (Some(0), false));
        assert!(find(dir.path(), b"", b"", 0o002).unwrap().is_none());
    }

    #[test]
    fn fix_48_which_bits_are_untrusted_is_a_setting() {
        let dir = home();
        put(&dir, ".qmail-x", 0o664);
        assert!(find(dir.path(), b"-", b"x", 0o002).unwrap().is_some());
        assert!(matches!(find(dir.path(), b"-", b"x", 0o022), Err(FindError::Writable { .. })));
        put(&dir, ".qmail-x", 0o602);
        assert!(matches!(find(dir.path(), b"-", b"x", 0o002), Err(FindError::Writable { .. })));
    }

    #[test]
    fn what_cannot_be_read_is_not_absent() {
        let dir = home();
        put(&dir, ".qmail-default", 0o600);
        std::os::unix::fs::symlink(".qmail-x", dir.path().join(".qmail-x")).unwrap();
        assert!(matches!(find(dir.path(), b"-", b"x", 2), Err(FindError::Unreadable { .. })));
        std::fs::create_dir(dir.path().join(".qmail-d")).unwrap();
        assert!(matches!(find(dir.path(), b"-", b"d", 2), Err(FindError::NotAFile { .. })));
        // A file where a directory would have to be is absence.
        assert!(find(dir.path(), b"-", b"default/x", 2).unwrap().is_some());
        assert!(find(dir.path(), b"-", &[b'a'; 5000], 2).unwrap().is_some());
    }

    proptest! {
        #[test]
        fn no_extension_leaves_the_home(ext in prop::collection::vec(prop::sample::select(&b"./-aA"[..]), 0..20)) {
            for (name, at) in candidates(b"-", &ext) {
                prop_assert!(!name.windows(2).any(|w| w == b".."));
                prop_assert!(name.starts_with(b".qmail-"));
                prop_assert!(at.is_none_or(|at| at <= ext.len()));
            }
        }
    }
}
