//! `/etc/indimail/lookup.conf`: where the NSS and PAM modules find the daemons.
//!
//! The modules live in programs of any user, so they take these values from a file that only root
//! can write, never from the environment. One setting a line, `#` begins a comment line:
//!
//! ```text
//! nssd_socket /run/indimail/nssd.sock
//! inlookup_socket /run/indimail/inlookup.sock
//! timeout 1000
//! ```
//!
//! `timeout` is in milliseconds, 100 to 30000, for one question in all. Every line may be absent, and
//! so may the file.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file.
pub const PATH: &str = "/etc/indimail/lookup.conf";
/// Bytes of the file, at most.
const MAX_FILE: u64 = 16 * 1024;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conf {
    /// Where `nssd` listens.
    pub nssd_socket: PathBuf,
    /// Where `inlookup` listens.
    pub inlookup_socket: PathBuf,
    /// How long one question may take; `None`: each module has its own default.
    pub timeout: Option<Duration>,
}

/// Why the file does not count. A module then has no daemon to ask: it cannot tell.
#[derive(Debug, thiserror::Error)]
pub enum ConfError {
    /// It is there and cannot be read.
    #[error("{PATH}: {0}")]
    Unreadable(io::Error),
    /// Somebody else than root can write it.
    #[error("{PATH}: must belong to root and be writable by root only")]
    NotRoots,
    /// A line of it is wrong.
    #[error(
        "{PATH}:{0}: expected nssd_socket /PATH, inlookup_socket /PATH or timeout MILLISECONDS (100 to 30000)"
    )]
    Line(usize),
    /// It is longer than 16 KiB.
    #[error("{PATH}: too long")]
    TooLong,
}

impl Default for Conf {
    fn default() -> Self {
        Self {
            nssd_socket: PathBuf::from(crate::identity::DEFAULT_SOCKET),
            inlookup_socket: PathBuf::from(crate::mail::DEFAULT_SOCKET),
            timeout: None,
        }
    }
}

impl Conf {
    /// Reads [`PATH`]; an absent file gives the defaults.
    ///
    /// # Errors
    /// It is there and does not count.
    pub fn load() -> Result<Self, ConfError> {
        let file = match File::open(PATH) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(ConfError::Unreadable(e)),
        };
        let meta = file.metadata().map_err(ConfError::Unreadable)?;
        if meta.uid() != 0 || meta.mode() & 0o022 != 0 {
            return Err(ConfError::NotRoots);
        }
        let mut bytes = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(ConfError::Unreadable)?;
        Self::parse(&bytes)
    }

    /// Reads the file's bytes.
    ///
    /// # Errors
    /// A line is wrong, or there are too many bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfError> {
        if u64::try_from(bytes.len()).map_or(true, |n| n > MAX_FILE) {
            return Err(ConfError::TooLong);
        }
        let mut conf = Self::default();
        for (index, line) in bytes.split(|&b| b == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            conf.set(line).ok_or(ConfError::Line(index.saturating_add(1)))?;
        }
        Ok(conf)
    }

    fn set(&mut self, line: &[u8]) -> Option<()> {
        let mut words = line.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty());
        let (name, value) = (words.next()?, words.next()?);
        if words.next().is_some() {
            return None;
        }
        let path = || {
            let path = Path::new(std::ffi::OsStr::from_bytes(value));
            path.is_absolute().then(|| path.to_owned())
        };
        match name {
            b"nssd_socket" => self.nssd_socket = path()?,
            b"inlookup_socket" => self.inlookup_socket = path()?,
            b"timeout" => {
                let milliseconds = std::str::from_utf8(value).ok()?.parse().ok()?;
                if !(100..=30_000).contains(&milliseconds) {
                    return None;
                }
                self.timeout = Some(Duration::from_millis(milliseconds));
            }
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_set_values_and_the_rest_keeps_its_default() {
        let conf = Conf::parse(b"# c\n\n  nssd_socket\t/a/b \ntimeout 250\n").unwrap();
        assert_eq!(conf.nssd_socket, Path::new("/a/b"));
        assert_eq!(conf.inlookup_socket, Path::new(crate::mail::DEFAULT_SOCKET));
        assert_eq!(conf.timeout, Some(Duration::from_millis(250)));
        assert_eq!(Conf::parse(b"").unwrap(), Conf::default());
    }

    #[test]
    fn wrong_lines_are_numbered() {
        for bad in [
            "nssd_socket run/x",
            "nssd_socket",
            "timeout 99",
            "timeout 30001",
            "timeout x",
            "shiny 1",
            "timeout 100 200",
        ] {
            let text = format!("# first\n{bad}\n");
            assert!(matches!(Conf::parse(text.as_bytes()), Err(ConfError::Line(2))), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = Conf::parse(&bytes);
        }
    }
}
