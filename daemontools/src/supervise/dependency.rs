//! The file `wait`: other services that must be up before this one is started.
//!
//! ```text
//! 5            seconds that the other services get after they have come up
//! database     a service beside this one, or an absolute path
//! lookup       any number of further ones
//! ```

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::state_path::Places;
use crate::status::{Record, Want};
use crate::{client, fifo};

/// Seconds when the first line says more than the status record can hold.
const TOO_MANY: u16 = 60;
/// Longer files are not read to their end.
const MAX_FILE: u64 = 64 * 1024;
/// How far wait files are followed in search of a cycle.
const MAX_DEPTH: usize = 64;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependencies {
    /// How long the others get.
    pub settle: Duration,
    /// Who they are, as named.
    pub services: Vec<PathBuf>,
}

impl Dependencies {
    /// Reads the file; `None` when it asks for nothing.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut lines = text.split(|&b| b == b'\n');
        let settle = Duration::from_secs(u64::from(seconds(lines.next()?)));
        // The first of them must be there; further ones may be followed by empty lines.
        let mut names = lines.map(<[u8]>::trim_ascii_end);
        let first = names.next().filter(|n| !n.is_empty())?;
        let services = std::iter::once(first)
            .chain(names.filter(|n| !n.is_empty()))
            .filter(|n| !n.contains(&0))
            .map(|n| PathBuf::from(OsStr::from_bytes(n)))
            .collect();
        Some(Self { settle, services })
    }

    /// Those of the service directory `dir`; `None` also when its file cannot be read.
    #[must_use]
    pub fn of(dir: &Path) -> Option<Self> {
        let mut text = Vec::new();
        File::open(dir.join("wait")).ok()?.take(MAX_FILE).read_to_end(&mut text).ok()?;
        Self::parse(&text)
    }

    /// The directories of the others, from that of this service.
    pub fn directories<'a>(&'a self, dir: &'a Path) -> impl Iterator<Item = PathBuf> + 'a {
        self.services.iter().map(move |s| if s.is_absolute() { s.clone() } else { dir.join("..").join(s) })
    }
}

/// Leading decimal digits, as the original reads them.
fn seconds(line: &[u8]) -> u16 {
    let digits = line.iter().take_while(|b| b.is_ascii_digit());
    let value = digits.fold(0u32, |n, &b| n.saturating_mul(10).saturating_add(u32::from(b - b'0')));
    u16::try_from(value).ok().filter(|&n| i16::try_from(n).is_ok()).unwrap_or(TOO_MANY)
}

/// May the service be started, as far as the others are concerned?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Nothing is waited for.
    Clear,
    /// One of them is not up (and ready, if it says when it is).
    NotUp,
    /// They are up, but one has come up so recently that it gets this long.
    Settling(Duration),
}

/// What a service that is up still gets, by the wall clock: none for one that came up long ago.
fn left(settle: Duration, record: &Record, now: Duration) -> Duration {
    let since = record.since.to_unix().unwrap_or_default();
    // A clock that was set back makes it come up in the future; it has just done so then.
    settle.saturating_sub(now.saturating_sub(since))
}

/// Is that one up? `Ok(None)`: it is, and has no status record.
fn is_up(state: &Path, up_fifo: &OsStr) -> io::Result<Option<Answer>> {
    let up = state.join(up_fifo);
    let has_fifo = up.exists();
    if has_fifo && fifo::writer(&up)?.is_none() {
        return Ok(Some(Answer::NotUp));
    }
    // Supervisors of the original have no such FIFO; theirs is the record alone.
    if !has_fifo && !client::is_running(state)? {
        return Ok(Some(Answer::NotUp));
    }
    Ok(None)
}

/// Looks at all of them now (time since 1970).
#[must_use]
pub fn look(
    dependencies: &Dependencies,
    dir: &Path,
    places: &Places,
    up_fifo: &OsStr,
    now: Duration,
) -> Answer {
    let mut longest = Duration::ZERO;
    for other in dependencies.directories(dir) {
        if !other.exists() {
            continue;
        }
        let state = places.of_client(&other);
        match is_up(&state, up_fifo) {
            Ok(None) => {}
            // What cannot be looked at is not known to be up.
            Ok(Some(_)) | Err(_) => return Answer::NotUp,
        }
        match client::record(&state) {
            Ok(record) if record.is_ready() && !record.paused && record.want != Want::Down => {
                longest = longest.max(left(dependencies.settle, &record, now));
            }
            // A program that is no supervise holds a FIFO open and nothing else.
            Err(e) if e.kind() == io::ErrorKind::NotFound && state.join(up_fifo).exists() => {}
            _ => return Answer::NotUp,
        }
    }
    if longest.is_zero() { Answer::Clear } else { Answer::Settling(longest) }
}

/// Does this service wait for itself, through the wait files of others?
#[must_use]
pub fn is_cyclic(dir: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
    let Some(own) = identity(dir) else { return false };
    let mut seen = vec![own];
    let mut level = vec![dir.to_owned()];
    for _ in 0..MAX_DEPTH {
        let mut next = Vec::new();
        for dir in &level {
            let Some(dependencies) = Dependencies::of(dir) else { continue };
            for other in dependencies.directories(dir) {
                match identity(&other) {
                    Some(found) if found == own => return true,
                    Some(found) if !seen.contains(&found) => {
                        seen.push(found);
                        next.push(other);
                    }
                    _ => {}
                }
            }
        }
        level = next;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tai::Label;

    fn parsed(text: &str) -> Option<(u64, Vec<String>)> {
        let found = Dependencies::parse(text.as_bytes())?;
        let names = found.services.iter().map(|s| s.to_str().unwrap().to_owned()).collect();
        Some((found.settle.as_secs(), names))
    }

    #[test]
    fn files() {
        let one = |seconds| Some((seconds, vec!["db".to_owned()]));
        assert_eq!(parsed("5\ndb\n"), one(5));
        assert_eq!(parsed("5\ndb"), one(5));
        assert_eq!(parsed("32767\ndb"), one(32767));
        assert_eq!(parsed("32768\ndb"), one(60));
        assert_eq!(parsed("99999999999999999999\ndb"), one(60));
        assert_eq!(parsed("x\ndb"), one(0));
        assert_eq!(
            parsed("0\ndb\n\n/s/other \nthird\n"),
            Some((0, ["db", "/s/other", "third"].map(str::to_owned).to_vec()))
        );
        for nothing in ["", "5", "5\n", "5\n\ndb"] {
            assert_eq!(parsed(nothing), None, "{nothing:?}");
        }
        let dependencies = Dependencies::parse(b"1\ndb\n/s/x").unwrap();
        let directories: Vec<_> = dependencies.directories(Path::new(".")).collect();
        assert_eq!(directories, [Path::new("./../db"), Path::new("/s/x")]);
    }

    #[test]
    fn time_is_given_to_those_who_have_just_come_up() {
        let now = Duration::from_secs(1000);
        let up = |since| Record {
            pid: Some(5),
            ..Record::down(Label::from_unix(Duration::from_secs(since)), Want::Up)
        };
        let settle = Duration::from_secs(10);
        assert_eq!(left(settle, &up(1000), now), settle);
        assert_eq!(left(settle, &up(997), now), Duration::from_secs(7));
        assert_eq!(left(settle, &up(980), now), Duration::ZERO);
        assert_eq!(left(settle, &up(4600), now), settle, "the clock was set back");
    }

    #[test]
    fn cycles() {
        let dir = tempfile::tempdir().unwrap();
        let service = |name: &str, wait: &str| {
            let service = dir.path().join(name);
            fs::create_dir_all(&service).unwrap();
            fs::write(service.join("wait"), wait).unwrap();
            service
        };
        let a = service("a", "1\nb\n");
        service("b", "1\nx\nc\n");
        let c = service("c", "1\nd\n");
        assert!(!is_cyclic(&a));
        service("d", "1\na\n");
        assert!(is_cyclic(&a) && is_cyclic(&c));
        service("d", "1\nb\n");
        assert!(!is_cyclic(&a), "it is not part of the cycle that it waits for");
        assert!(is_cyclic(&c));
        service("d", "1\nd\n");
        assert!(is_cyclic(&dir.path().join("d")));
    }

    proptest! {
        #[test]
        fn parse_never_panics(text: Vec<u8>) {
            if let Some(found) = Dependencies::parse(&text) {
                prop_assert!(found.settle <= Duration::from_secs(32767));
                prop_assert!(found.services.iter().all(|s| !s.as_os_str().is_empty()));
            }
        }

        #[test]
        fn what_is_written_is_read(t in 0u16..32768, names in proptest::collection::vec("[a-z/.-]{1,9}", 1..5)) {
            let text = format!("{t}\n{}\n", names.join("\n"));
            let found = Dependencies::parse(text.as_bytes()).unwrap();
            prop_assert_eq!(found.settle.as_secs(), u64::from(t));
            prop_assert_eq!(found.services, names.iter().map(PathBuf::from).collect::<Vec<_>>());
        }
    }
}
