//! `/etc/indimail/lookup.conf`: where the modules find the daemons.
//!
//! Lines of `key value`; `#` begins a comment line. Keys: `nssd_socket PATH`, `inlookup_socket PATH`,
//! `timeout MILLISECONDS` (100 to 30000: how long one question may take). Modules run in foreign and in
//! set-id programs, so this file is believed only when root owns it and nobody else can write it, and
//! no environment variable is looked at. A line that cannot be used is passed over, and so is a file.

use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the file is.
pub const PATH: &str = "/etc/indimail/lookup.conf";

/// Bytes of the file that are read, at most.
const LIMIT: u64 = 4096;

/// What the modules need to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where `nssd` listens.
    pub nssd_socket: PathBuf,
    /// Where `inlookup` listens.
    pub inlookup_socket: PathBuf,
    /// How long one question may take; `None`: as the module likes (NSS 1 s, PAM 5 s).
    pub timeout: Option<Duration>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            nssd_socket: PathBuf::from(crate::identity::DEFAULT_SOCKET),
            inlookup_socket: PathBuf::from(crate::mail::DEFAULT_SOCKET),
            timeout: None,
        }
    }
}

impl Config {
    /// The file at [`PATH`], defaults where it says nothing.
    #[must_use]
    pub fn load() -> Self {
        Self::load_from(Path::new(PATH))
    }

    /// The file at `path`, when root owns it and nobody else can write it; else defaults.
    #[must_use]
    pub fn load_from(path: &Path) -> Self {
        read(path).map_or_else(Self::default, |text| Self::parse(&text))
    }

    /// Reads the text of the file.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let mut config = Self::default();
        for line in text.split(|&b| b == b'\n').map(<[u8]>::trim_ascii) {
            let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
            let (key, value) = line.split_at_checked(end).unwrap_or_default();
            let value = value.trim_ascii();
            match key {
                b"nssd_socket" => set_path(&mut config.nssd_socket, value),
                b"inlookup_socket" => set_path(&mut config.inlookup_socket, value),
                b"timeout" => config.timeout = milliseconds(value).or(config.timeout),
                _ => {}
            }
        }
        config
    }
}

fn set_path(path: &mut PathBuf, value: &[u8]) {
    if value.starts_with(b"/") && !value.contains(&0) {
        *path = PathBuf::from(std::ffi::OsStr::from_bytes(value));
    }
}

fn milliseconds(value: &[u8]) -> Option<Duration> {
    let number: u64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    (100..=30_000).contains(&number).then(|| Duration::from_millis(number))
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let mut options = std::fs::OpenOptions::new();
    // A FIFO in its place must not stop the program that asks.
    options.read(true).custom_flags(unix::fd::NONBLOCK);
    let file = unix::fd::above_standard(options.open(path).ok()?.into()).ok()?;
    let file = std::fs::File::from(file);
    let meta = file.metadata().ok()?;
    if !meta.is_file() || meta.uid() != 0 || meta.mode() & 0o022 != 0 {
        return None;
    }
    let mut text = Vec::new();
    file.take(LIMIT).read_to_end(&mut text).ok()?;
    Some(text)
}

/// For fuzzing: any bytes as the file.
pub fn fuzz_config(bytes: &[u8]) {
    let config = Config::parse(bytes);
    assert!(config.nssd_socket.is_absolute() && config.inlookup_socket.is_absolute());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_are_read_and_nonsense_is_passed_over() {
        let config = Config::parse(
            b"# sockets\nnssd_socket /a/b\n  inlookup_socket\t/c\ntimeout 250\ntimeout 5\nunknown x\n",
        );
        let expected = Config {
            nssd_socket: "/a/b".into(),
            inlookup_socket: "/c".into(),
            timeout: Some(Duration::from_millis(250)),
        };
        assert_eq!(config, expected);
        assert_eq!(Config::parse(b"nssd_socket relative\nnssd_socket\ntimeout -1"), Config::default());
    }

    #[test]
    fn only_a_file_that_is_root_s_alone_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lookup.conf");
        assert_eq!(Config::load_from(&path), Config::default());
        std::fs::write(&path, "nssd_socket /mine\n").unwrap();
        let mode = |m| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(m)).unwrap();
        mode(0o644);
        assert_eq!(Config::load_from(&path).nssd_socket, Path::new("/mine"), "tests run as root");
        mode(0o664);
        assert_eq!(Config::load_from(&path), Config::default());
        mode(0o646);
        assert_eq!(Config::load_from(&path), Config::default());
        mode(0o644);
        std::os::unix::fs::chown(&path, Some(4711), None).unwrap();
        assert_eq!(Config::load_from(&path), Config::default());
    }

    proptest! {
        #[test]
        fn any_text_gives_usable_settings(text in prop::collection::vec(any::<u8>(), 0..200)) {
            fuzz_config(&text);
            fuzz_config(&[b"nssd_socket ".as_slice(), &text].concat());
        }
    }
}
