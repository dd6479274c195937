//! Control files: the reading rules every program shares.
//!
//! A control file is named; the name is looked up in the control directory unless it begins with
//! `/` or `.`. "Absent" is an answer, every other failure is an [`Error`] that names the file, and
//! nobody guesses. Data flow: [`Directory`] → bytes of one file → one of the shapes below
//! ([`Directory::line`], [`Directory::number`], [`Directory::list`], [`Directory::native`]) or a
//! keyed [`Map`].
//!
//! Every read goes to the file system: programs that want a stable view read once into their
//! settings and read again on SIGHUP.

mod map;

use std::io;
use std::path::{Path, PathBuf};

pub use map::Map;

/// Where control files live unless CONTROLDIR says otherwise.
pub const DEFAULT_DIRECTORY: &str = "/etc/indimail/control";
/// Where configuration lives unless SYSCONFDIR says otherwise.
pub const DEFAULT_SYSCONFDIR: &str = "/etc/indimail";

/// A control file could not be read or does not hold what it must.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It exists but cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line of it is wrong.
    #[error("{}:{line}: {message}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// What is wrong and what is expected.
        message: String,
    },
    /// It must exist.
    #[error("{}: missing: {hint}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What to put there.
        hint: &'static str,
    },
}

/// A directory of control files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory(PathBuf);

impl Directory {
    /// Control files below `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory that CONTROLDIR names: absolute as it is, relative ones below SYSCONFDIR.
    #[must_use]
    pub fn from_environment(controldir: Option<&Path>, sysconfdir: Option<&Path>) -> Self {
        let sysconf = sysconfdir.unwrap_or(Path::new(DEFAULT_SYSCONFDIR));
        // Joining an absolute path replaces the base.
        Self(controldir.map_or_else(|| sysconf.join("control"), |c| sysconf.join(c)))
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The path of the control file `name`.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        if name.starts_with(['/', '.']) { PathBuf::from(name) } else { self.0.join(name) }
    }

    /// All bytes of the file, `#` lines included; `None` when it does not exist.
    ///
    /// # Errors
    /// It exists but cannot be read.
    pub fn native(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let path = self.file(name);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Unreadable { path, source }),
        }
    }

    /// The first line without trailing blanks; `None` when the file does not exist.
    ///
    /// # Errors
    /// As [`Directory::native`].
    pub fn line(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.native(name)?.map(|b| trimmed(b.split(|&c| c == b'\n').next().unwrap_or_default()).to_vec()))
    }

    /// As [`Directory::line`], falling back to the first line of `me`, then to `literal`.
    ///
    /// # Errors
    /// As [`Directory::native`].
    pub fn line_or_me(&self, name: &str, literal: &str) -> Result<Vec<u8>, Error> {
        if let Some(line) = self.line(name)? {
            return Ok(line);
        }
        Ok(self.line("me")?.unwrap_or_else(|| literal.as_bytes().to_vec()))
    }

    /// The number at the start of the first line. A line that does not start with a number
    /// counts as absent, as qmail has it.
    ///
    /// # Errors
    /// As [`Directory::native`].
    pub fn number(&self, name: &str) -> Result<Option<u64>, Error> {
        let Some(line) = self.line(name)? else {
            return Ok(None);
        };
        let digits: String = line.iter().take_while(|b| b.is_ascii_digit()).map(|&b| char::from(b)).collect();
        Ok(digits.parse().ok())
    }

    /// The entries: lines without trailing blanks, empty lines and lines that begin with `#` dropped.
    ///
    /// # Errors
    /// As [`Directory::native`].
    pub fn list(&self, name: &str) -> Result<Option<Vec<Vec<u8>>>, Error> {
        Ok(self.native(name)?.map(|b| entries(&b).map(<[u8]>::to_vec).collect()))
    }

    /// The entries as a keyed map, see [`Map`].
    ///
    /// # Errors
    /// As [`Directory::native`].
    pub fn map(&self, name: &str) -> Result<Option<Map>, Error> {
        Ok(self.list(name)?.map(|l| Map::new(&l)))
    }
}

/// The entries of a list file's bytes.
pub fn entries(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|&c| c == b'\n').map(trimmed).filter(|l| !l.is_empty() && l[0] != b'#')
}

/// Without trailing blanks, tabs, carriage returns and newlines.
#[must_use]
pub fn trimmed(line: &[u8]) -> &[u8] {
    let end = line.iter().rposition(|b| !b" \t\r\n".contains(b)).map_or(0, |i| i + 1);
    &line[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, bytes: &[u8]) -> (tempfile::TempDir, Directory) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(name), bytes).unwrap();
        let control = Directory::new(dir.path());
        (dir, control)
    }

    #[test]
    fn line_is_the_first_and_trimmed() {
        let (_d, c) = with("me", b"mx.example.com \t\nsecond\n");
        assert_eq!(c.line("me").unwrap().unwrap(), b"mx.example.com");
        assert_eq!(c.line_or_me("other", "x").unwrap(), b"mx.example.com");
        assert_eq!(c.line("absent").unwrap(), None);
    }

    #[test]
    fn number_reads_leading_digits_or_is_absent() {
        let (_d, c) = with("n", b"604800 seconds\n");
        assert_eq!(c.number("n").unwrap(), Some(604_800));
        let (_d, c) = with("n", b"many\n");
        assert_eq!(c.number("n").unwrap(), None);
    }

    #[test]
    fn list_drops_comments_and_blank_lines() {
        let (_d, c) = with("locals", b"# c\n\na.example \nb.example");
        assert_eq!(c.list("locals").unwrap().unwrap(), [b"a.example".to_vec(), b"b.example".to_vec()]);
    }

    #[test]
    fn unreadable_is_not_absent() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("me")).unwrap();
        let error = Directory::new(dir.path()).line("me").unwrap_err();
        assert!(error.to_string().contains("/me: "), "{error}");
    }

    #[test]
    fn controldir_may_be_relative_to_sysconfdir() {
        let at = |c: Option<&str>, s: Option<&str>| {
            Directory::from_environment(c.map(Path::new), s.map(Path::new)).path().to_path_buf()
        };
        assert_eq!(at(None, None), Path::new("/etc/indimail/control"));
        assert_eq!(at(Some("c2"), None), Path::new("/etc/indimail/c2"));
        assert_eq!(at(Some("/x"), Some("/y")), Path::new("/x"));
    }
}
