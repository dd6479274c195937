//! `/etc/indimail/lookup.conf`: where the NSS and PAM modules find the daemons.
//!
//! The modules live in programs of any user, so they take these values from a file that only root
//! can write, never from the environment. One setting a line, `#` begins a comment line:
//!
//! ```text
//! nssd_socket /run/indimail/nssd.sock
//! nssd_map /run/indimail/nssd.map
//! inlookup_socket /run/indimail/inlookup.sock
//! timeout 1000
//! login_timeout 5000
//! ```
//!
//! `nssd_map` is the map of users that `nssd` publishes, or `off`; where the line is absent, it is beside the socket.
//! `timeout` is for one question of the NSS module in all, `login_timeout` for one of the PAM module
//! (a password hash takes its time); both in milliseconds, 100 to 30000. Every line may be absent, and
//! so may the file.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
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
    /// The map that `nssd` publishes; `None`: it is not read.
    pub nssd_map: Option<PathBuf>,
    /// Where `inlookup` listens.
    pub inlookup_socket: PathBuf,
    /// How long one question of the NSS module may take; `None`: its own default.
    pub timeout: Option<Duration>,
    /// How long one question of the PAM module may take; `None`: its own default.
    pub login_timeout: Option<Duration>,
}

/// Why the file does not count. A module then has no daemon to ask: it cannot tell.
#[derive(Debug)]
pub struct ConfError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What can be wrong with the file.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It is there and cannot be read.
    #[error("{0}")]
    Unreadable(io::Error),
    /// Somebody else than root can write it, or it is no file.
    #[error("must be a file that belongs to root and is writable by root only")]
    NotRoots,
    /// A line of it, counted from 1, is wrong.
    #[error("line {0}: {1}")]
    Line(usize, String),
    /// It is longer than 16 KiB.
    #[error("too long")]
    TooLong,
}

impl std::fmt::Display for ConfError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.path.display();
        match &self.fault {
            Fault::Line(line, why) => write!(f, "{path}:{line}: {why}"),
            fault => write!(f, "{path}: {fault}"),
        }
    }
}

impl std::error::Error for ConfError {}

impl Default for Conf {
    fn default() -> Self {
        let nssd_socket = PathBuf::from(crate::identity::DEFAULT_SOCKET);
        Self {
            nssd_map: Some(map_beside(&nssd_socket)),
            nssd_socket,
            inlookup_socket: PathBuf::from(crate::mail::DEFAULT_SOCKET),
            timeout: None,
            login_timeout: None,
        }
    }
}

impl Conf {
    /// Reads [`PATH`]; an absent file gives the defaults.
    ///
    /// # Errors
    /// It is there and does not count.
    pub fn load() -> Result<Self, ConfError> {
        Self::load_from(Path::new(PATH))
    }

    /// Reads the file with this name; an absent one gives the defaults.
    ///
    /// # Errors
    /// It is there and does not count.
    pub fn load_from(path: &Path) -> Result<Self, ConfError> {
        let read = match open(path) {
            Ok(file) => Self::read(file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(Fault::Unreadable(e)),
        };
        read.map_err(|fault| ConfError { path: path.to_owned(), fault })
    }

    fn read(file: File) -> Result<Self, Fault> {
        let meta = file.metadata().map_err(Fault::Unreadable)?;
        if !meta.is_file() || meta.uid() != 0 || meta.mode() & 0o022 != 0 {
            return Err(Fault::NotRoots);
        }
        let mut bytes = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(Fault::Unreadable)?;
        Self::parse(&bytes)
    }

    /// Reads the file's bytes.
    ///
    /// # Errors
    /// A line is wrong, or there are too many bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        if u64::try_from(bytes.len()).map_or(true, |n| n > MAX_FILE) {
            return Err(Fault::TooLong);
        }
        let mut conf = Self::default();
        let mut map = None;
        for (index, line) in bytes.split(|&b| b == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            conf.set(line, &mut map).map_err(|why| Fault::Line(index.saturating_add(1), why))?;
        }
        conf.nssd_map = map.unwrap_or_else(|| Some(map_beside(&conf.nssd_socket)));
        Ok(conf)
    }

    fn set(&mut self, line: &[u8], map: &mut Option<Option<PathBuf>>) -> Result<(), String> {
        let mut words = line.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty());
        let name = words.next().unwrap_or_default();
        let value = words.next().filter(|_| words.next().is_none());
        let shown = name.escape_ascii();
        let path = || {
            let path = value.map(|v| Path::new(std::ffi::OsStr::from_bytes(v))).filter(|p| p.is_absolute());
            path.map(Path::to_owned).ok_or_else(|| format!("{shown}: expected one /PATH"))
        };
        let time = || {
            let time = value.and_then(milliseconds);
            time.ok_or_else(|| format!("{shown}: expected MILLISECONDS, 100 to 30000")).map(Some)
        };
        match name {
            b"nssd_socket" => self.nssd_socket = path()?,
            b"nssd_map" if value == Some(b"off") => *map = Some(None),
            b"nssd_map" => *map = Some(Some(path()?)),
            b"inlookup_socket" => self.inlookup_socket = path()?,
            b"timeout" => self.timeout = time()?,
            b"login_timeout" => self.login_timeout = time()?,
            _ => {
                return Err(format!(
                    "unknown key {shown}: expected nssd_socket, nssd_map, inlookup_socket, timeout or login_timeout"
                ));
            }
        }
        Ok(())
    }
}

/// Where the map of a daemon is that listens on this socket: `nssd.map` for `nssd.sock`.
#[must_use]
pub fn map_beside(socket: &Path) -> PathBuf {
    socket.with_extension("map")
}

fn milliseconds(value: &[u8]) -> Option<Duration> {
    let number = std::str::from_utf8(value).ok()?.parse().ok()?;
    (100..=30_000).contains(&number).then(|| Duration::from_millis(number))
}

/// A FIFO in its place must not stop the program that asks, and where standard descriptors are closed
/// the file must not become one of them.
fn open(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(unix::fd::NONBLOCK).open(path)?;
    Ok(File::from(unix::fd::above_standard(file.into())?))
}

/// For fuzzing: any bytes as the file.
pub fn fuzz_conf(bytes: &[u8]) {
    if let Ok(conf) = Conf::parse(bytes) {
        assert!(conf.nssd_socket.is_absolute() && conf.inlookup_socket.is_absolute());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_set_values_and_the_rest_keeps_its_default() {
        let conf = Conf::parse(b"# c\n\n  nssd_socket\t/a/b \ntimeout 250\nlogin_timeout 7000\n").unwrap();
        assert_eq!(conf.nssd_socket, Path::new("/a/b"));
        assert_eq!(conf.inlookup_socket, Path::new(crate::mail::DEFAULT_SOCKET));
        assert_eq!(conf.timeout, Some(Duration::from_millis(250)));
        assert_eq!(conf.login_timeout, Some(Duration::from_millis(7000)));
        assert_eq!(Conf::parse(b"").unwrap(), Conf::default());
        assert_eq!(conf.nssd_map.as_deref(), Some(Path::new("/a/b.map")));
        let map = |text: &[u8]| Conf::parse(text).unwrap().nssd_map;
        assert_eq!(map(b"nssd_map /m\nnssd_socket /a/s.sock\n").as_deref(), Some(Path::new("/m")));
        assert_eq!(map(b"nssd_socket /a/s.sock\n").as_deref(), Some(Path::new("/a/s.map")));
        assert_eq!(map(b"nssd_map off\n"), None);
    }

    #[test]
    fn wrong_lines_are_numbered() {
        for bad in [
            "nssd_socket run/x",
            "nssd_map run/x",
            "nssd_map",
            "nssd_socket",
            "timeout 99",
            "timeout 30001",
            "timeout x",
            "login_timeout 1",
            "shiny 1",
            "timeout 100 200",
        ] {
            let text = format!("# first\n{bad}\n");
            assert!(matches!(Conf::parse(text.as_bytes()), Err(Fault::Line(2, _))), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = Conf::parse(&bytes);
        }
    }

    #[test]
    fn only_a_file_that_is_root_s_alone_is_believed() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lookup.conf");
        assert_eq!(Conf::load_from(&path).unwrap(), Conf::default());
        std::fs::write(&path, "nssd_socket /mine\n").unwrap();
        let mode = |m| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(m)).unwrap();
        mode(0o644);
        assert_eq!(Conf::load_from(&path).unwrap().nssd_socket, Path::new("/mine"), "tests run as root");
        for writable in [0o664, 0o646] {
            mode(writable);
            assert!(matches!(Conf::load_from(&path), Err(ConfError { fault: Fault::NotRoots, .. })));
        }
        mode(0o644);
        std::os::unix::fs::chown(&path, Some(4711), None).unwrap();
        assert!(matches!(Conf::load_from(&path), Err(ConfError { fault: Fault::NotRoots, .. })));
        assert!(matches!(Conf::load_from(dir.path()), Err(ConfError { fault: Fault::NotRoots, .. })));
    }
}
