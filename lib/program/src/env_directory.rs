//! Variables from files: one file of a directory is one variable.
//!
//! | file | meaning |
//! |---|---|
//! | `NAME` | the first line without blanks at its end, NUL as newline; an empty file removes the variable |
//! | `.envfile` | lines `name=value`, `name` (remove), `# comment`; read first |
//! | `.envdir` | a directory, or a file naming directories, read in the same way; loops are noticed |

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::Environment;

/// The kernel takes no longer string in an environment.
const MAX_VALUE: u64 = 128 * 1024;

/// What to do about a file that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnUnreadable {
    /// It is an error.
    Fail,
    /// It counts as not there.
    Ignore,
}

/// A directory cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("unable to read {}: {why}", path.display())]
pub struct Error {
    /// The file or directory.
    pub path: PathBuf,
    /// Why.
    pub why: String,
}

/// Changes to an environment, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes(Vec<(OsString, Option<OsString>)>);

impl Changes {
    /// Makes the changes.
    pub fn apply(&self, environment: &mut Environment) {
        self.apply_with_prefix(OsStr::new(""), environment);
    }

    /// Makes the changes to the variables whose names begin with `prefix` and go on as the changes have it.
    pub fn apply_with_prefix(&self, prefix: &OsStr, environment: &mut Environment) {
        for (name, value) in &self.0 {
            let name = OsString::from_iter([prefix, name]);
            match value {
                Some(value) => environment.set(name, value.clone()),
                None => environment.remove(name),
            }
        }
    }

    fn set(&mut self, name: &[u8], value: Option<&[u8]>) {
        let os = |b: &[u8]| OsString::from_vec(b.to_vec());
        self.0.push((os(name), value.map(os)));
    }
}

/// Reads the changes that `dir` asks for.
///
/// # Errors
/// Something cannot be read, or a name holds `=`.
pub fn read(dir: &Path, on_unreadable: OnUnreadable) -> Result<Changes, Error> {
    read_with(dir, on_unreadable, io::Error::to_string)
}

/// As [`read`], with the caller's words for the system's errors.
///
/// # Errors
/// As [`read`].
pub fn read_with(
    dir: &Path,
    on_unreadable: OnUnreadable,
    phrase: fn(&io::Error) -> String,
) -> Result<Changes, Error> {
    let mut reader = Reader { on_unreadable, phrase, seen: BTreeSet::new(), changes: Changes::default() };
    reader.directory(dir)?;
    Ok(reader.changes)
}

struct Reader {
    on_unreadable: OnUnreadable,
    phrase: fn(&io::Error) -> String,
    seen: BTreeSet<(u64, u64)>,
    changes: Changes,
}

impl Reader {
    fn directory(&mut self, dir: &Path) -> Result<(), Error> {
        let meta = fs::metadata(dir).map_err(|e| self.error(dir, &e))?;
        if !self.seen.insert((meta.dev(), meta.ino())) {
            return Ok(());
        }
        let mut names = fs::read_dir(dir)
            .and_then(|entries| entries.map(|e| e.map(|e| e.file_name())).collect::<io::Result<Vec<_>>>())
            .map_err(|e| self.error(dir, &e))?;
        names.sort();
        let has = |name: &str| names.iter().any(|n| n == name);
        if has(".envfile") {
            let path = dir.join(".envfile");
            if let Some(text) = self.tolerate(read_bounded(&path).map_err(|e| self.error(&path, &e)))? {
                self.envfile(&text);
            }
        }
        if has(".envdir") {
            self.others(&dir.join(".envdir"))?;
        }
        for name in names.iter().filter(|n| !n.as_bytes().starts_with(b".")) {
            let path = dir.join(name);
            if name.as_bytes().contains(&b'=') {
                return Err(Error { path, why: "a variable's name cannot hold =".into() });
            }
            if let Some(content) = self.tolerate(read_bounded(&path).map_err(|e| self.error(&path, &e)))? {
                let value = value(&content);
                self.changes.set(name.as_bytes(), value.as_deref());
            }
        }
        Ok(())
    }

    /// `.envdir`: a directory, or a file that names some.
    fn others(&mut self, path: &Path) -> Result<(), Error> {
        if path.is_dir() {
            return self.directory(path);
        }
        let Some(list) = self.tolerate(read_bounded(path).map_err(|e| self.error(path, &e)))? else {
            return Ok(());
        };
        let base = path.parent().unwrap_or(Path::new("."));
        for line in list.split(|&b| b == b'\n').map(<[u8]>::trim_ascii).filter(|l| !l.is_empty()) {
            self.directory(&base.join(OsStr::from_bytes(line)))?;
        }
        Ok(())
    }

    fn envfile(&mut self, text: &[u8]) {
        for line in text.split(|&b| b == b'\n').map(<[u8]>::trim_ascii_start) {
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            match line.iter().position(|&b| b == b'=') {
                Some(0) => {}
                Some(at) => self.changes.set(&line[..at], Some(&line[at + 1..])),
                None => self.changes.set(line.trim_ascii_end(), None),
            }
        }
    }

    fn error(&self, path: &Path, e: &io::Error) -> Error {
        Error { path: path.to_owned(), why: (self.phrase)(e) }
    }

    fn tolerate<T>(&self, answer: Result<T, Error>) -> Result<Option<T>, Error> {
        match (answer, self.on_unreadable) {
            (Ok(value), _) => Ok(Some(value)),
            (Err(_), OnUnreadable::Ignore) => Ok(None),
            (Err(e), OnUnreadable::Fail) => Err(e),
        }
    }
}

/// The value in a file; `None` removes the variable.
fn value(content: &[u8]) -> Option<Vec<u8>> {
    if content.is_empty() {
        return None;
    }
    let line = content.split(|&b| b == b'\n').next().unwrap_or_default();
    let end = line.iter().rposition(|&b| b != b' ' && b != b'\t').map_or(0, |at| at + 1);
    Some(line[..end].iter().map(|&b| if b == 0 { b'\n' } else { b }).collect())
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    // A FIFO that nobody writes to is empty and must not be waited for.
    let file = fs::OpenOptions::new().read(true).custom_flags(unix::fd::NONBLOCK).open(path)?;
    file.take(MAX_VALUE + 1).read_to_end(&mut content)?;
    if u64::try_from(content.len()).is_ok_and(|n| n <= MAX_VALUE) {
        return Ok(content);
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("longer than {MAX_VALUE} bytes")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::symlink;

    fn environment(dir: &Path) -> Vec<(String, String)> {
        let mut env = Environment::from_iter([("OLD", "old"), ("GONE", "x")]);
        read(dir, OnUnreadable::Fail).unwrap().apply(&mut env);
        env.iter().map(|(n, v)| (n.to_str().unwrap().into(), v.to_str().unwrap().into())).collect()
    }

    #[test]
    fn values() {
        assert_eq!(value(b""), None, "an empty file removes");
        assert_eq!(value(b"\n").as_deref(), Some(&b""[..]), "an empty line sets to nothing");
        assert_eq!(value(b"a b \t\nc\n").as_deref(), Some(&b"a b"[..]));
        assert_eq!(value(b"a\0b").as_deref(), Some(&b"a\nb"[..]));
        assert_eq!(value(&[b'x'; 1000]).unwrap().len(), 1000);
    }

    #[test]
    fn directories_files_and_links_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let (d, other, third) = (dir.path().join("d"), dir.path().join("other"), dir.path().join("third"));
        for d in [&d, &other, &third] {
            fs::create_dir(d).unwrap();
        }
        fs::write(d.join("A"), "from d\n").unwrap();
        fs::write(d.join("GONE"), "").unwrap();
        fs::write(d.join(".hidden"), "x").unwrap();
        fs::write(d.join(".envfile"), "# c\nA=file\nF=kept  \nOLD\nLAST=end").unwrap();
        fs::write(d.join(".envdir"), "../other\n../third\n").unwrap();
        fs::write(other.join("A"), "other").unwrap();
        fs::write(other.join("B"), "other").unwrap();
        symlink(&d, other.join(".envdir")).unwrap();
        fs::write(third.join("B"), "third").unwrap();
        let want = [("A", "from d"), ("B", "third"), ("F", "kept  "), ("LAST", "end")];
        assert_eq!(environment(&d), want.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }

    #[test]
    fn what_cannot_be_read_is_an_error_unless_ignored() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("SUB")).unwrap();
        fs::write(dir.path().join("A"), "1").unwrap();
        assert!(read(dir.path(), OnUnreadable::Fail).unwrap_err().to_string().contains("SUB"));
        assert_eq!(read(dir.path(), OnUnreadable::Ignore).unwrap().0.len(), 1);
        assert!(read(Path::new("/nonexistent"), OnUnreadable::Ignore).is_err());
        fs::remove_dir(dir.path().join("SUB")).unwrap();
        fs::write(dir.path().join("X=Y"), "1").unwrap();
        assert!(read(dir.path(), OnUnreadable::Fail).is_err());
    }

    proptest! {
        #[test]
        fn values_never_hold_nul_or_trailing_blanks(content: Vec<u8>) {
            if let Some(value) = value(&content) {
                prop_assert!(!value.contains(&0));
                prop_assert!(!matches!(value.last(), Some(b' ' | b'\t')));
            }
        }
    }
}
