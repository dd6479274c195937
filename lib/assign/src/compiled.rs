//! The compiled form, `users/cdb`.
//!
//! Keys: `!` local NUL for an exact line, `!` prefix for a prefix, both in lower case; the empty key
//! holds the bytes in which prefixes end. Values: [`Entry::encode`].

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use unix::durable::Owner;

use crate::Entry;
use crate::text::{Line, Match, TextError, parse};

/// Why assignments cannot be compiled or asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is wrong; the compiled file was not touched.
    #[error("{}: {source}", path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// The line and what is wrong with it.
        source: TextError,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The compiled file cannot answer.
    #[error("{}: {source}; qmail-newu compiles this file", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// Why.
        source: cdb::Error,
    },
    /// There are assignments, but nobody compiled them or the result was removed.
    #[error("{}: missing, though {} has assignments; compile them with qmail-newu", path.display(), text.display())]
    Missing {
        /// The compiled file.
        path: PathBuf,
        /// The text.
        text: PathBuf,
    },
    /// A record of the compiled file makes no sense.
    #[error("{}: the record for {} makes no sense; compile it again with qmail-newu", path.display(), local.escape_ascii())]
    Record {
        /// The file.
        path: PathBuf,
        /// The local part asked for.
        local: Vec<u8>,
    },
}

fn key(matches: &Match) -> Vec<u8> {
    let (local, end): (_, &[u8]) = match matches {
        Match::Exact(local) => (local, b"\0"),
        Match::Prefix(prefix) => (prefix, b""),
    };
    [b"!", &local.to_ascii_lowercase()[..], end].concat()
}

/// [`key`] backwards; `None` for the record of the prefixes' last bytes.
fn matches(key: &[u8]) -> Option<Match> {
    let local = key.strip_prefix(b"!")?;
    Some(match local.strip_suffix(b"\0") {
        Some(local) => Match::Exact(local.to_vec()),
        None => Match::Prefix(local.to_vec()),
    })
}

/// The database of these lines.
///
/// # Errors
/// It would be too large.
pub fn compile(lines: &[Line]) -> Result<cdb::Builder, cdb::Full> {
    let mut builder = cdb::Builder::new();
    let mut breaks = BTreeSet::new();
    for line in lines {
        if let Match::Prefix(prefix) = &line.matches {
            breaks.extend(prefix.to_ascii_lowercase().last());
        }
        builder.add(&key(&line.matches), &line.entry.encode())?;
    }
    builder.add(b"", &breaks.into_iter().collect::<Vec<u8>>())?;
    Ok(builder)
}

/// Compiles `directory/assign` into `directory/cdb`, durably and at once: readers see the old
/// database or the new one. This is what qmail-newu does.
///
/// # Errors
/// See [`Error`]; the old database is still there.
pub fn rebuild(directory: &Path, owner: Owner) -> Result<(), Error> {
    let (text, compiled) = (directory.join("assign"), directory.join("cdb"));
    let bytes = std::fs::read(&text).map_err(|source| Error::File { path: text.clone(), source })?;
    let lines = parse(&bytes).map_err(|source| Error::Text { path: text, source })?;
    let failed = |source| Error::File { path: compiled.clone(), source };
    let builder = compile(&lines).map_err(|e| failed(io::Error::other(e.to_string())))?;
    builder.replace(&compiled, 0o644, owner).map_err(failed)
}

/// A compiled file, open for questions.
#[derive(Debug)]
pub struct Assignments {
    path: PathBuf,
    reader: cdb::Reader,
}

impl Assignments {
    /// Opens `directory/cdb`; `Ok(None)` when nothing is assigned: there is no such file, and no `assign` with
    /// lines beside it. A file that is missing beside assignments cannot tell: to say that nobody is there
    /// would bounce everybody's mail.
    ///
    /// # Errors
    /// It exists but cannot be used, or it should exist.
    pub fn open(directory: &Path) -> Result<Option<Self>, Error> {
        let (path, text) = (directory.join("cdb"), directory.join("assign"));
        match cdb::Reader::open(&path) {
            Ok(Some(reader)) => return Ok(Some(Self { path, reader })),
            Ok(None) => {}
            Err(source) => return Err(Error::Database { path, source }),
        }
        let bytes = match std::fs::read(&text) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::File { path: text, source }),
        };
        match parse(&bytes) {
            Ok(lines) if lines.is_empty() => Ok(None),
            Ok(_) => Err(Error::Missing { path, text }),
            Err(source) => Err(Error::Text { path: text, source }),
        }
    }

    /// What is assigned to a local part; `Ok(None)` when nothing is.
    ///
    /// # Errors
    /// The file cannot answer.
    pub fn find(&self, local: &[u8]) -> Result<Option<Entry>, Error> {
        let mut key = vec![b'!'];
        key.extend(local.to_ascii_lowercase());
        // A NUL in the local part would make an exact key of a prefix key.
        if local.contains(&0) {
            return Ok(None);
        }
        key.push(0);
        if let Some(value) = self.get(&key)? {
            return self.entry(&value, local).map(Some);
        }
        key.pop();
        let breaks = self.get(b"")?.unwrap_or_default();
        for end in (1..=key.len()).rev() {
            if end > 1 && !breaks.contains(&key[end - 1]) {
                continue;
            }
            if let Some(value) = self.get(&key[..end])? {
                let mut entry = self.entry(&value, local)?;
                entry.ext.extend_from_slice(&local[end - 1..]);
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// The line `+prefix` itself; `Ok(None)` when there is none, though shorter ones may match.
    ///
    /// # Errors
    /// The file cannot answer.
    pub fn prefix(&self, prefix: &[u8]) -> Result<Option<Line>, Error> {
        // As in `find`.
        if prefix.contains(&0) {
            return Ok(None);
        }
        let matches = Match::Prefix(prefix.to_ascii_lowercase());
        let Some(value) = self.get(&key(&matches))? else { return Ok(None) };
        Ok(Some(Line { matches, entry: self.entry(&value, prefix)? }))
    }

    /// All lines, in their order, local parts in lower case.
    ///
    /// # Errors
    /// Items: the file cannot answer.
    pub fn lines(&self) -> impl Iterator<Item = Result<Line, Error>> + '_ {
        self.reader.records().filter_map(|record| {
            let record = match record {
                Ok(record) => record,
                Err(source) => return Some(Err(Error::Database { path: self.path.clone(), source })),
            };
            let matches = matches(&record.key)?;
            Some(self.entry(&record.value, &record.key).map(|entry| Line { matches, entry }))
        })
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.reader.get(key).map_err(|source| Error::Database { path: self.path.clone(), source })
    }

    fn entry(&self, value: &[u8], local: &[u8]) -> Result<Entry, Error> {
        let nonsense = || Error::Record { path: self.path.clone(), local: local.to_vec() };
        Entry::decode(value).ok_or_else(nonsense)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(text: &str) -> (tempfile::TempDir, Assignments) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("assign"), text).unwrap();
        rebuild(dir.path(), None).unwrap();
        let assignments = Assignments::open(dir.path()).unwrap().unwrap();
        (dir, assignments)
    }

    fn found(a: &Assignments, local: &str) -> Option<(String, String)> {
        let text = |b: Vec<u8>| String::from_utf8(b).unwrap();
        a.find(local.as_bytes()).unwrap().map(|e| (text(e.user), text(e.ext)))
    }

    #[test]
    fn exact_before_prefix_and_the_longest_prefix() {
        let (_dir, a) = compiled(
            "=Joe:joe:1:1:/h:::\n+joe-:joex:1:1:/h:-::\n+joe-work-:work:1:1:/h:-:w:\n\
             +x.org-:x.org:5:5:/d:-::\n+:catch:9:9:/c:-::\n.\n",
        );
        let is =
            |l: &str, user: &str, ext: &str| assert_eq!(found(&a, l), Some((user.into(), ext.into())), "{l}");
        is("JOE", "joe", "");
        is("joe-List", "joex", "List");
        is("joe-work-A", "work", "wA");
        is("joe-work", "joex", "work");
        is("x.org-Tom", "x.org", "Tom");
        is("other", "catch", "other");
        is("", "catch", "");
    }

    #[test]
    fn lines_come_back() {
        let text = "=Joe:joe:1:1:/h:::\n+X.org-:x.org:5:5:/d:-::\n+:catch:9:9:/c:-::\n.\n";
        let (_dir, a) = compiled(text);
        let lines: Vec<u8> = a.lines().flat_map(|l| l.unwrap().to_text()).collect();
        let expected = "=joe:joe:1:1:/h:::\n+x.org-:x.org:5:5:/d:-::\n+:catch:9:9:/c:-::\n";
        assert_eq!(String::from_utf8_lossy(&lines), expected);
        assert_eq!(a.prefix(b"X.ORG-").unwrap().unwrap().domain(), Some(b"x.org".to_vec()));
        for other in [&b"joe"[..], b"joe\0", b"x.org-a", b"y.org-"] {
            assert_eq!(a.prefix(other).unwrap(), None);
        }
    }

    #[test]
    fn without_catch_all_there_is_nobody() {
        let (_dir, a) = compiled("+x.org-:x.org:5:5:/d:-::\n.\n");
        assert_eq!(found(&a, "x.org"), None);
        assert_eq!(found(&a, "x.organism-y"), None);
        assert_eq!(a.find(b"x.org-\0").unwrap(), None);
    }

    #[test]
    fn a_bad_text_leaves_the_old_database() {
        let (dir, _) = compiled("=a:a:1:1:/h:::\n.\n");
        let before = std::fs::read(dir.path().join("cdb")).unwrap();
        std::fs::write(dir.path().join("assign"), "=a:a:1:1:/h:::\n").unwrap();
        let error = rebuild(dir.path(), None).unwrap_err();
        assert!(error.to_string().contains("assign: line 2: "), "{error}");
        assert_eq!(std::fs::read(dir.path().join("cdb")).unwrap(), before);
    }

    #[test]
    fn a_missing_database_is_nobody_only_when_nothing_is_assigned() {
        let (dir, _) = compiled("+x.org-:x.org:5:5:/d:-::\n.\n");
        std::fs::remove_file(dir.path().join("cdb")).unwrap();
        let error = Assignments::open(dir.path()).unwrap_err();
        assert!(matches!(error, Error::Missing { .. }));
        assert!(
            error.to_string().ends_with("assign has assignments; compile them with qmail-newu"),
            "{error}"
        );
        std::fs::write(dir.path().join("assign"), "no assignments at all\n").unwrap();
        assert!(matches!(Assignments::open(dir.path()), Err(Error::Text { .. })));
        std::fs::write(dir.path().join("assign"), ".\n").unwrap();
        assert!(Assignments::open(dir.path()).unwrap().is_none());
    }

    #[test]
    fn damage_is_not_nobody() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Assignments::open(dir.path()).unwrap().is_none());
        let mut builder = cdb::Builder::new();
        builder.add(b"!joe\0", b"joe\0x\0y\0/h\0\0\0").unwrap();
        builder.replace(&dir.path().join("cdb"), 0o644, None).unwrap();
        let a = Assignments::open(dir.path()).unwrap().unwrap();
        assert!(matches!(a.find(b"joe"), Err(Error::Record { .. })));
    }
}
