//! One queue on the disk: what lies where, who owns it.
//!
//! A message is known by the inode number of its `mess` file. Large directories are split: the
//! message `id` lies in the subdirectory `id % split`. `todo` and `intd` are split too when the
//! queue is made that way ("bigtodo").
//!
//! | state | files | meaning |
//! |---|---|---|
//! | S1 | none | not here |
//! | S2 | mess | arriving, or garbage |
//! | S3 | mess, intd | arriving, or garbage |
//! | S4 | mess, todo (intd, info, local, remote maybe) | queued |
//! | S5 | mess, info (local, remote, bounce maybe) | sorted into deliveries |

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Subdirectories of a split directory unless CONFSPLIT or the queue itself says otherwise; also the most.
pub const SPLIT_MAX: u32 = 151;

/// A message's number: the inode of its `mess` file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u64);

impl std::fmt::Display for MessageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl MessageId {
    /// Reads decimal digits, nothing else.
    #[must_use]
    pub fn parse(digits: &[u8]) -> Option<Self> {
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        std::str::from_utf8(digits).ok()?.parse().ok().map(Self)
    }
}

/// How a queue is divided into subdirectories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Number of subdirectories of a split directory, 1 to [`SPLIT_MAX`].
    pub split: u32,
    /// Are `todo` and `intd` split?
    pub bigtodo: bool,
}

impl Shape {
    /// The shape of the queue in `root`: what CONFSPLIT and BIGTODO say where they say something,
    /// else what the directories show.
    ///
    /// # Errors
    /// The directories cannot be looked at.
    pub fn of(root: &Path, confsplit: Option<&[u8]>, bigtodo: Option<&[u8]>) -> io::Result<Self> {
        let split = match number(confsplit).filter(|&n| n > 0) {
            Some(n) => n.min(SPLIT_MAX),
            None => split_on_disk(root)?,
        };
        let bigtodo = match number(bigtodo) {
            Some(n) => n > 0,
            None => exists(&root.join("todo/0"))?,
        };
        Ok(Self { split, bigtodo })
    }
}

fn number(value: Option<&[u8]>) -> Option<u32> {
    std::str::from_utf8(value?).ok()?.trim().parse().ok()
}

fn split_on_disk(root: &Path) -> io::Result<u32> {
    let mess = root.join("mess");
    if exists(&mess.join((SPLIT_MAX - 1).to_string()))? {
        return Ok(SPLIT_MAX);
    }
    for n in 0..SPLIT_MAX {
        if !exists(&mess.join(n.to_string()))? {
            return Ok(n.max(1));
        }
    }
    Ok(SPLIT_MAX)
}

/// Does the path exist? A missing path is `Ok(false)`, every other trouble an error.
///
/// # Errors
/// It cannot be told.
pub fn exists(path: &Path) -> io::Result<bool> {
    match std::fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// The two ways of delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// On this host.
    Local,
    /// To other hosts.
    Remote,
}

impl Channel {
    /// Both, in the order of the log lines.
    pub const BOTH: [Self; 2] = [Self::Local, Self::Remote];

    /// `local` or `remote`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Remote => "remote",
        }
    }

    /// 0 or 1, for tables.
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::Local => 0,
            Self::Remote => 1,
        }
    }
}

/// What a message may have on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// The message's bytes.
    Mess,
    /// The envelope, being written.
    Intd,
    /// The envelope, committed.
    Todo,
    /// Sender, once sorted; its mtime is the birth of the message.
    Info,
    /// Recipients of one channel; its mtime is the time of the next try.
    Recipients(Channel),
    /// Permanent failures so far.
    Bounce,
}

impl Part {
    /// Every part.
    pub const ALL: [Self; 7] = [
        Self::Mess,
        Self::Intd,
        Self::Todo,
        Self::Info,
        Self::Recipients(Channel::Local),
        Self::Recipients(Channel::Remote),
        Self::Bounce,
    ];

    /// The directory's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mess => "mess",
            Self::Intd => "intd",
            Self::Todo => "todo",
            Self::Info => "info",
            Self::Recipients(channel) => channel.name(),
            Self::Bounce => "bounce",
        }
    }

    /// Is it divided into subdirectories in a queue of this shape?
    #[must_use]
    pub fn is_split(self, shape: Shape) -> bool {
        match self {
            Self::Mess | Self::Info | Self::Recipients(_) => true,
            Self::Intd | Self::Todo => shape.bigtodo,
            Self::Bounce => false,
        }
    }
}

/// A queue directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    root: PathBuf,
    shape: Shape,
}

impl Queue {
    /// The queue in `root`; an empty path means the current directory.
    pub fn new(root: impl Into<PathBuf>, shape: Shape) -> Self {
        Self { root: root.into(), shape }
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// How it is divided.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Number of the subdirectory of a message.
    #[must_use]
    pub fn subdirectory(&self, id: MessageId) -> u64 {
        id.0 % u64::from(self.shape.split)
    }

    /// Name of a part below the queue directory, as in `mess/3/154`, also used in protocols.
    #[must_use]
    pub fn name(&self, part: Part, id: MessageId) -> String {
        if part.is_split(self.shape) {
            format!("{}/{}/{id}", part.name(), self.subdirectory(id))
        } else {
            format!("{}/{id}", part.name())
        }
    }

    /// `N/id`: the message file below `mess`, as the spawn protocol names it.
    #[must_use]
    pub fn mess_name(&self, id: MessageId) -> String {
        format!("{}/{id}", self.subdirectory(id))
    }

    /// Path of a part.
    #[must_use]
    pub fn path(&self, part: Part, id: MessageId) -> PathBuf {
        self.root.join(self.name(part, id))
    }

    /// The directories that hold a part, with their subdirectory number when split.
    pub fn directories(&self, part: Part) -> impl Iterator<Item = (Option<u32>, PathBuf)> + use<> {
        let base = self.root.join(part.name());
        let split = part.is_split(self.shape).then_some(self.shape.split);
        (0..split.unwrap_or(1)).map(move |n| match split {
            Some(_) => (Some(n), base.join(n.to_string())),
            None => (None, base.clone()),
        })
    }

    /// The wake-up pipe.
    #[must_use]
    pub fn trigger(&self) -> PathBuf {
        self.root.join("lock/trigger")
    }

    /// The file whose lock says that a sender runs.
    #[must_use]
    pub fn send_mutex(&self) -> PathBuf {
        self.root.join("lock/sendmutex")
    }

    /// Wakes todo-proc. A pull that gets lost only delays until the next periodic scan.
    pub fn pull_trigger(&self) {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let flags = nix::fcntl::OFlag::O_NONBLOCK.bits();
        let open = std::fs::OpenOptions::new().write(true).custom_flags(flags).open(self.trigger());
        if let Ok(mut fifo) = open {
            // Nobody reading, or the pipe full: either way todo-proc will look.
            let _ = fifo.write(&[0]);
        }
    }
}

/// The numbers of the files in a directory; names that are no numbers are left out.
///
/// # Errors
/// The directory cannot be read; a missing one is an error too.
pub fn ids_in(directory: &Path) -> io::Result<Vec<MessageId>> {
    use std::os::unix::ffi::OsStrExt;
    let mut ids = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        ids.extend(MessageId::parse(entry?.file_name().as_bytes()));
    }
    Ok(ids)
}

/// Is this file the message it is named after?
///
/// # Errors
/// It cannot be looked at.
pub fn is_named_by_inode(path: &Path, id: MessageId) -> io::Result<bool> {
    Ok(std::fs::symlink_metadata(path)?.ino() == id.0)
}

/// Users that own parts of a queue; their group is always `qmail`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The injection half.
    Qmailq,
    /// The sending half.
    Qmails,
    /// The remote half.
    Qmailr,
}

impl Owner {
    /// The user's name.
    #[must_use]
    pub fn user(self) -> &'static str {
        match self {
            Self::Qmailq => "qmailq",
            Self::Qmails => "qmails",
            Self::Qmailr => "qmailr",
        }
    }
}

/// A directory of a queue.
#[derive(Debug, Clone, Copy)]
pub struct DirectoryRow {
    /// Name below the queue; empty for the queue itself.
    pub name: &'static str,
    /// The part it holds, which says whether it is split.
    pub part: Option<Part>,
    /// Who owns it.
    pub owner: Owner,
    /// Its mode, and that of its subdirectories.
    pub mode: u32,
    /// The mode of the files in it.
    pub file_mode: u32,
}

const fn row(
    name: &'static str,
    part: Option<Part>,
    owner: Owner,
    mode: u32,
    file_mode: u32,
) -> DirectoryRow {
    DirectoryRow { name, part, owner, mode, file_mode }
}

/// Directories of a queue.
pub static DIRECTORIES: &[DirectoryRow] = &[
    row("", None, Owner::Qmailq, 0o750, 0),
    row("pid", None, Owner::Qmailq, 0o700, 0o644),
    row("mess", Some(Part::Mess), Owner::Qmailq, 0o750, 0o644),
    row("intd", Some(Part::Intd), Owner::Qmailq, 0o700, 0o644),
    row("todo", Some(Part::Todo), Owner::Qmailq, 0o750, 0o644),
    row("info", Some(Part::Info), Owner::Qmails, 0o700, 0o600),
    row("local", Some(Part::Recipients(Channel::Local)), Owner::Qmails, 0o700, 0o600),
    row("remote", Some(Part::Recipients(Channel::Remote)), Owner::Qmails, 0o700, 0o600),
    row("bounce", Some(Part::Bounce), Owner::Qmails, 0o700, 0o600),
    row("lock", None, Owner::Qmailq, 0o750, 0),
];

/// What a special file of `lock/` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockFile {
    /// A plain file of this many bytes at least.
    Plain(u64),
    /// A named pipe.
    Fifo,
}

/// Files of `lock/`: name, kind, owner, mode.
pub static LOCK_FILES: &[(&str, LockFile, Owner, u32)] = &[
    ("lock/sendmutex", LockFile::Plain(0), Owner::Qmails, 0o600),
    ("lock/tcpto", LockFile::Plain(2048), Owner::Qmailr, 0o644),
    ("lock/trigger", LockFile::Fifo, Owner::Qmails, 0o622),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_shape() {
        let queue = |bigtodo| Queue::new("/q", Shape { split: 23, bigtodo });
        let id = MessageId(100);
        assert_eq!(queue(false).path(Part::Mess, id), Path::new("/q/mess/8/100"));
        assert_eq!(queue(false).name(Part::Todo, id), "todo/100");
        assert_eq!(queue(true).name(Part::Todo, id), "todo/8/100");
        assert_eq!(queue(true).name(Part::Bounce, id), "bounce/100");
        assert_eq!(queue(true).directories(Part::Todo).count(), 23);
        assert_eq!(queue(false).directories(Part::Todo).last(), Some((None, PathBuf::from("/q/todo"))));
    }

    #[test]
    fn shape_is_seen_on_the_disk_unless_variables_say_it() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..23 {
            std::fs::create_dir_all(dir.path().join(format!("mess/{n}"))).unwrap();
        }
        std::fs::create_dir(dir.path().join("todo")).unwrap();
        let shape = |s: Option<&[u8]>, b: Option<&[u8]>| Shape::of(dir.path(), s, b).unwrap();
        assert_eq!(shape(None, None), Shape { split: 23, bigtodo: false });
        assert_eq!(shape(Some(b"999"), Some(b"1")), Shape { split: 151, bigtodo: true });
        std::fs::create_dir(dir.path().join("todo/0")).unwrap();
        assert!(shape(Some(b""), None).bigtodo);
    }

    #[test]
    fn only_digits_are_message_numbers() {
        assert_eq!(MessageId::parse(b"17"), Some(MessageId(17)));
        for wrong in [&b""[..], b"1a", b"-1", b"+1", b" 1", b"99999999999999999999999"] {
            assert_eq!(MessageId::parse(wrong), None, "{wrong:?}");
        }
    }
}
