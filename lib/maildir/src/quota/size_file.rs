//! The `maildirsize` file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use super::{Quota, usage_of_tree};

/// Longest file that is read at all.
const READ_MAX: u64 = 1 << 20;
/// How long another program may hold the lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);

/// What a mailbox holds. Sums may be negative when programs disagree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes.
    pub bytes: i64,
    /// Messages.
    pub messages: i64,
}

/// When the sums are recalculated, and of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Age in seconds from which the file is not trusted (MAILDIRSIZE_MAX_AGE).
    pub max_age: u64,
    /// Size in bytes from which it is rewritten (MAILDIRSIZE_MAX_SIZE).
    pub max_size: u64,
    /// Does the trash count? (INCLUDE_TRASH)
    pub include_trash: bool,
    /// Trust the file whatever its age and size (FAST_QUOTA).
    pub fast: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self { max_age: 43_200, max_size: 8192, include_trash: false, fast: false }
    }
}

/// May a message be added?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It fits; this is the usage without it.
    Fits(Usage),
    /// It does not fit, but the mailbox is not over its limits yet.
    Full(Usage),
    /// The mailbox was over its limits before.
    Over(Usage),
}

/// What a `maildirsize` file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contents {
    /// The limits it was written under.
    pub quota: Quota,
    /// The sums of its lines.
    pub usage: Usage,
}

impl Contents {
    /// Reads the file's bytes; `None` when they are damaged.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut lines = text.lines();
        let quota = lines.next()?.trim().parse().ok()?;
        let mut usage = Usage::default();
        for line in lines {
            let mut words = line.split_ascii_whitespace();
            let (Some(bytes), Some(messages), None) = (words.next(), words.next(), words.next()) else {
                return None;
            };
            usage.bytes = usage.bytes.checked_add(bytes.parse().ok()?)?;
            usage.messages = usage.messages.checked_add(messages.parse().ok()?)?;
        }
        Some(Self { quota, usage })
    }
}

/// Would a message of `size` bytes fit into the Maildir under `quota`?
///
/// The file is recalculated when it cannot be trusted, and always before "no" is said, unless the
/// policy is fast. `now` is seconds since 1970.
///
/// # Errors
/// The mailbox cannot be looked at, or another program holds the lock too long: not a verdict.
pub fn check(maildir: &Path, quota: Quota, size: u64, now: u64, policy: Policy) -> io::Result<Verdict> {
    if !quota.is_limited() {
        return Ok(Verdict::Fits(Usage::default()));
    }
    let (usage, fresh) = match trusted(maildir, quota, now, policy)? {
        Some(usage) => (usage, false),
        None => (recalculate(maildir, quota, policy)?, true),
    };
    let verdict = judge(quota, usage, size);
    if fresh || policy.fast || matches!(verdict, Verdict::Fits(_)) {
        return Ok(verdict);
    }
    Ok(judge(quota, recalculate(maildir, quota, policy)?, size))
}

fn judge(quota: Quota, usage: Usage, size: u64) -> Verdict {
    let exceeds = |limit: Option<u64>, used: i64, more: u64| {
        limit.is_some_and(|l| u64::try_from(used).unwrap_or(0).saturating_add(more) > l)
    };
    if exceeds(quota.bytes, usage.bytes, 0) || exceeds(quota.messages, usage.messages, 0) {
        Verdict::Over(usage)
    } else if exceeds(quota.bytes, usage.bytes, size) || exceeds(quota.messages, usage.messages, 1) {
        Verdict::Full(usage)
    } else {
        Verdict::Fits(usage)
    }
}

/// The usage as the file has it, when it can be trusted.
fn trusted(maildir: &Path, quota: Quota, now: u64, policy: Policy) -> io::Result<Option<Usage>> {
    let mut file = match File::open(path(maildir)) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    lock(&file, false)?;
    let meta = file.metadata()?;
    let changed = u64::try_from(meta.mtime()).unwrap_or(0);
    let stale = now.saturating_sub(changed) > policy.max_age || meta.size() > policy.max_size;
    if (stale && !policy.fast) || meta.size() > READ_MAX {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    (&mut file).take(READ_MAX).read_to_end(&mut bytes)?;
    let contents = Contents::parse(&bytes);
    let good = |c: &Contents| c.quota == quota && c.usage.bytes >= 0 && c.usage.messages >= 0;
    Ok(contents.filter(good).map(|c| c.usage))
}

/// Adds the mailbox up and rewrites the file under these limits.
///
/// # Errors
/// The mailbox cannot be read or the file not be written.
pub fn recalculate(maildir: &Path, quota: Quota, policy: Policy) -> io::Result<Usage> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path(maildir))?;
    lock(&file, true)?;
    let usage = usage_of_tree(maildir, policy.include_trash)?;
    file.set_len(0)?;
    file.rewind()?;
    // One write: a reader without our lock sees the old file, nothing, or all of it.
    file.write_all(format!("{quota}\n{} {}\n", usage.bytes, usage.messages).as_bytes())?;
    Ok(usage)
}

/// Notes that messages were added (or removed, with negative numbers), if there is a file; without
/// one the next [`check`] makes it.
///
/// # Errors
/// The file cannot be written.
pub fn add(maildir: &Path, bytes: i64, messages: i64) -> io::Result<()> {
    let opened = OpenOptions::new().append(true).custom_flags(libc::O_NOFOLLOW).open(path(maildir));
    let mut file = match opened {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    lock(&file, true)?;
    file.write_all(format!("{bytes} {messages}\n").as_bytes())
}

fn path(maildir: &Path) -> std::path::PathBuf {
    maildir.join("maildirsize")
}

fn lock(file: &File, exclusive: bool) -> io::Result<()> {
    if unix::lock::record_lock_within(file, exclusive, LOCK_PATIENCE)? {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "maildirsize: another program holds the lock"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const QUOTA: Quota = Quota { bytes: Some(100), messages: Some(3) };

    fn mailbox() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        crate::make(dir.path(), None).unwrap();
        dir
    }

    fn verdict(dir: &Path, size: u64) -> Verdict {
        check(dir, QUOTA, size, unix::clock::unix_seconds(), Policy::default()).unwrap()
    }

    fn file(dir: &Path) -> String {
        std::fs::read_to_string(path(dir)).unwrap()
    }

    #[test]
    fn the_file_is_made_counted_and_trusted() {
        let dir = mailbox();
        add(dir.path(), 10, 1).unwrap();
        assert!(!path(dir.path()).exists(), "only the check makes the file");
        assert_eq!(verdict(dir.path(), 100), Verdict::Fits(Usage::default()));
        add(dir.path(), 60, 1).unwrap();
        assert_eq!(file(dir.path()), "100S,3C\n0 0\n60 1\n");
        assert_eq!(verdict(dir.path(), 40), Verdict::Fits(Usage { bytes: 60, messages: 1 }));
    }

    #[test]
    fn no_is_said_only_after_looking() {
        let dir = mailbox();
        std::fs::write(path(dir.path()), "100S,3C\n99 1\n").unwrap();
        assert_eq!(verdict(dir.path(), 10), Verdict::Fits(Usage::default()));
        assert_eq!(file(dir.path()), "100S,3C\n0 0\n");
        std::fs::write(dir.path().join("new/a,S=95"), "").unwrap();
        assert_eq!(verdict(dir.path(), 101), Verdict::Full(Usage { bytes: 95, messages: 1 }));
        std::fs::write(dir.path().join("new/b,S=6"), "").unwrap();
        assert_eq!(verdict(dir.path(), 200), Verdict::Over(Usage { bytes: 101, messages: 2 }));
    }

    #[test]
    fn message_count_is_a_limit_too() {
        let dir = mailbox();
        for name in ["a,S=1", "b,S=1", "c,S=1"] {
            std::fs::write(dir.path().join("cur").join(name), "").unwrap();
        }
        assert_eq!(verdict(dir.path(), 1), Verdict::Full(Usage { bytes: 3, messages: 3 }));
    }

    #[test]
    fn damage_other_limits_and_age_force_a_recount() {
        let dir = mailbox();
        std::fs::write(dir.path().join("new/a,S=5"), "").unwrap();
        for text in
            ["", "100S,3C\nx y\n", "50S\n1 1\n", "100S,3C\n-9 1\n", "100S,3C\n99999999999999999999 1\n"]
        {
            std::fs::write(path(dir.path()), text).unwrap();
            assert_eq!(verdict(dir.path(), 1), Verdict::Fits(Usage { bytes: 5, messages: 1 }), "{text}");
        }
        std::fs::write(path(dir.path()), "100S,3C\n0 0\n").unwrap();
        let late = unix::clock::unix_seconds() + 50_000;
        let old = check(dir.path(), QUOTA, 1, late, Policy::default()).unwrap();
        assert_eq!(old, Verdict::Fits(Usage { bytes: 5, messages: 1 }));
    }

    #[test]
    fn trouble_is_not_a_verdict() {
        let dir = mailbox();
        std::fs::create_dir(path(dir.path())).unwrap();
        assert!(check(dir.path(), QUOTA, 1, 0, Policy::default()).is_err());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Contents::parse(&bytes);
        }
    }
}
