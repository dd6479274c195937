//! Directories made and removed without following links, and without root's rights where others may write.
//!
//! Homes lie below directories that mail users may write to, so nothing here uses a path of more than one
//! component: each step goes from an open directory to an entry of it, and an entry that is a symbolic
//! link is never entered. What root does inside a directory is done with the rights of the user who owns it:
//! whatever that user put there, root does nothing that they could not have done themselves. A new
//! directory for somebody else is given away through its descriptor.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use accounts::UnixIds;
use nix::dir::Dir as Listing;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat, fstatat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, geteuid, unlinkat};
use unix::durable::Owner;
use unix::privilege::with_files_of;

/// Deepest directory tree that is removed.
const DEEPEST: usize = 200;

/// A group that nothing belongs to.
const NOGROUP: u32 = 65_534;

/// Whose rights count in a directory.
#[derive(Debug, Clone, Copy)]
enum Hand {
    /// Those of its owner.
    Owner,
    /// Those of this user, whoever owns it.
    User(UnixIds),
}

impl Hand {
    fn ids(self, dir: &OwnedFd) -> io::Result<UnixIds> {
        match self {
            Self::User(ids) => Ok(ids),
            Self::Owner => {
                let dir = fstat(dir)?;
                // Owning a directory of root's group does not make anybody a member of it.
                let gid = if dir.st_gid == 0 { NOGROUP } else { dir.st_gid };
                Ok(UnixIds { uid: dir.st_uid, gid })
            }
        }
    }

    /// Does something in a directory.
    fn work<T>(self, dir: &OwnedFd, work: impl FnOnce() -> nix::Result<T>) -> io::Result<T> {
        let UnixIds { uid, gid } = self.ids(dir)?;
        Ok(with_files_of(Uid::from_raw(uid), Gid::from_raw(gid), work)??)
    }
}

/// An open directory.
#[derive(Debug)]
pub(crate) struct Dir(OwnedFd, Hand);

fn flags() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW
}

impl Dir {
    /// Opens a directory whose path is trusted (an administrator's setting); links in it are followed.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(open(path, flags() - OFlag::O_NOFOLLOW, Mode::empty())?, Hand::Owner))
    }

    /// Opens a directory in a trusted one; it is not a link itself.
    pub(crate) fn open_entry(path: &Path) -> io::Result<Self> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Errno::EINVAL.into());
        };
        Self::open(parent)?.existing(name)?.ok_or_else(|| Errno::ENOENT.into())
    }

    /// Opens a directory whose path comes from this user: it is reached, and everything in it and below is
    /// done, with the rights of that user alone.
    pub(crate) fn open_for(path: &Path, ids: UnixIds) -> io::Result<Self> {
        let opened = with_files_of(Uid::from_raw(ids.uid), Gid::from_raw(ids.gid), || {
            open(path, flags() - OFlag::O_NOFOLLOW, Mode::empty())
        });
        Ok(Self(opened??, Hand::User(ids)))
    }

    fn work<T>(&self, work: impl FnOnce() -> nix::Result<T>) -> io::Result<T> {
        self.1.work(&self.0, work)
    }

    /// The directory `name` in this one; `None` when there is none.
    pub(crate) fn existing(&self, name: &OsStr) -> io::Result<Option<Self>> {
        match enter(&self.0, self.1, name) {
            Ok(fd) => Ok(Some(Self(fd, self.1))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The directory `name` in this one, made when it is not there; was it made? One that was there keeps
    /// owner and mode.
    pub(crate) fn child(&self, name: &OsStr, mode: u32, owner: Owner) -> io::Result<(Self, bool)> {
        let made = self.work(|| match mkdirat(&self.0, name, Mode::from_bits_truncate(0o700)) {
            Ok(()) => openat(&self.0, name, flags(), Mode::empty()).map(Some),
            Err(Errno::EEXIST) => Ok(None),
            Err(e) => Err(e),
        })?;
        let Some(made) = made else {
            let found = self.existing(name)?;
            return found.map(|d| (d, false)).ok_or_else(|| Errno::ENOENT.into());
        };
        let exchanged = || io::Error::other("the new directory was exchanged");
        // Somebody who may write here could have put another directory in its place.
        let maker = if geteuid().is_root() { self.1.ids(&self.0)?.uid } else { geteuid().as_raw() };
        if fstat(&made)?.st_uid != maker {
            return Err(exchanged());
        }
        if let Some((uid, gid)) = owner {
            fchown(&made, Some(uid), Some(gid))?;
            fchmod(&made, Mode::from_bits_truncate(0o700))?;
            // An empty directory of the maker's is as good as the one that was made. From here on only the
            // new owner can put something there.
            if uid.as_raw() != maker && !entries(&made)?.is_empty() {
                return Err(exchanged());
            }
        }
        fchmod(&made, Mode::from_bits_truncate(mode))?;
        nix::unistd::fsync(&self.0)?;
        Ok((Self(made, self.1), true))
    }

    /// Removes the entry `name` with everything below it; `false` when there is none. A link is removed, not
    /// followed; another file system mounted below is an error.
    pub(crate) fn remove(&self, name: &OsStr) -> io::Result<bool> {
        let device = fstat(&self.0)?.st_dev;
        let removed = remove(&self.0, self.1, name, device, 0)?;
        nix::unistd::fsync(&self.0)?;
        Ok(removed)
    }

    /// Removes the directory `name` if it is empty; `false` when it is not or is not there.
    pub(crate) fn remove_empty(&self, name: &OsStr) -> io::Result<bool> {
        self.work(|| match unlinkat(&self.0, name, UnlinkatFlags::RemoveDir) {
            Ok(()) => Ok(true),
            Err(Errno::ENOENT | Errno::ENOTEMPTY | Errno::EEXIST) => Ok(false),
            Err(e) => Err(e),
        })
    }

    /// The contents of the file `name`, and whether it is root's alone; `None` when there is none. A link, a pipe
    /// or a file of more than 4 KiB is an error: whoever owns this directory must not make root read
    /// another file, or wait.
    pub(crate) fn read(&self, name: &OsStr) -> io::Result<Option<(Vec<u8>, bool)>> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let opened = self.work(|| match openat(&self.0, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::ENOENT) => Ok(None),
            Err(e) => Err(e),
        })?;
        let Some(fd) = opened else {
            return Ok(None);
        };
        let entry = fstat(&fd)?;
        let kind = SFlag::from_bits_truncate(entry.st_mode) & SFlag::S_IFMT;
        if kind != SFlag::S_IFREG || entry.st_size > 4096 {
            return Err(io::Error::other("expected a plain file of at most 4 KiB"));
        }
        let bytes = unix::fd::read_to_end_limited(&mut std::fs::File::from(fd), 4096)?;
        // One with a second name was put elsewhere by root.
        Ok(Some((bytes, entry.st_uid == 0 && entry.st_nlink == 1)))
    }

    /// Makes `name`, which must not exist, a symbolic link to `target`.
    pub(crate) fn link(&self, name: &OsStr, target: &OsStr) -> io::Result<()> {
        self.work(|| nix::unistd::symlinkat(target, &self.0, name))?;
        Ok(nix::unistd::fsync(&self.0)?)
    }

    /// Creates a file that must not exist, for the owner of this directory.
    pub(crate) fn write_new(&self, name: &OsStr, contents: &[u8], mode: u32) -> io::Result<()> {
        self.fill(self.work(|| self.create(name))?, contents, mode)
    }

    /// Creates a file that must not exist and that the owner of this directory cannot write to: it belongs to
    /// whoever runs this.
    pub(crate) fn write_new_of_own(&self, name: &OsStr, contents: &[u8], mode: u32) -> io::Result<()> {
        self.fill(self.create(name)?, contents, mode)
    }

    fn create(&self, name: &OsStr) -> nix::Result<OwnedFd> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(&self.0, name, flags, Mode::from_bits_truncate(0o600))
    }

    fn fill(&self, file: OwnedFd, contents: &[u8], mode: u32) -> io::Result<()> {
        use std::io::Write;
        let mut file = std::fs::File::from(file);
        file.write_all(contents)?;
        fchmod(&file, Mode::from_bits_truncate(mode))?;
        unix::durable::Durability::default().sync_file(&file)?;
        Ok(nix::unistd::fsync(&self.0)?)
    }
}

/// Names in an open directory.
fn entries(dir: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut listing = Listing::from_fd(dir.try_clone()?)?;
    let mut names = Vec::new();
    for entry in listing.iter() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

/// Opens a directory in another one.
fn enter(parent: &OwnedFd, hand: Hand, name: &OsStr) -> io::Result<OwnedFd> {
    let open = || openat(parent, name, flags(), Mode::empty());
    match (hand.work(parent, open), hand) {
        // It belongs to somebody else than its parent, or its owner shut it. To step into it, root's rights do
        // no harm; what is done there is done with those of its owner.
        (Err(e), Hand::Owner) if e.kind() == io::ErrorKind::PermissionDenied => Ok(open()?),
        (opened, _) => opened,
    }
}

fn remove(parent: &OwnedFd, hand: Hand, name: &OsStr, device: u64, depth: usize) -> io::Result<bool> {
    let look = || match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(entry) => Ok(Some(entry)),
        Err(Errno::ENOENT) => Ok(None),
        Err(e) => Err(e),
    };
    let Some(entry) = hand.work(parent, look)? else {
        return Ok(false);
    };
    if SFlag::from_bits_truncate(entry.st_mode) & SFlag::S_IFMT != SFlag::S_IFDIR {
        hand.work(parent, || unlinkat(parent, name, UnlinkatFlags::NoRemoveDir))?;
        return Ok(true);
    }
    if depth > DEEPEST {
        return Err(io::Error::other("directories nested too deep to be removed"));
    }
    let fd = enter(parent, hand, name)?;
    if fstat(&fd)?.st_dev != device {
        return Err(io::Error::other("another file system is mounted below; unmount it first"));
    }
    let names = entries(&fd)?;
    if !names.is_empty() {
        // One that its owner shut is removed all the same; where this fails, the next step says why.
        let _ = hand.work(&fd, || fchmod(&fd, Mode::from_bits_truncate(0o700)));
    }
    for name in names {
        remove(&fd, hand, OsStr::from_bytes(&name), device, depth + 1)?;
    }
    hand.work(parent, || unlinkat(parent, name, UnlinkatFlags::RemoveDir))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn removal_follows_no_link_and_takes_everything() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("kept"), "x").unwrap();
        std::fs::create_dir_all(dir.path().join("home/Maildir/new")).unwrap();
        std::fs::write(dir.path().join("home/Maildir/new/m"), "x").unwrap();
        symlink(outside.path(), dir.path().join("home/link")).unwrap();
        symlink(outside.path(), dir.path().join("alias")).unwrap();
        let top = Dir::open(dir.path()).unwrap();
        assert!(top.remove(OsStr::new("home")).unwrap());
        assert!(top.remove(OsStr::new("alias")).unwrap());
        assert!(!top.remove(OsStr::new("home")).unwrap());
        assert!(outside.path().join("kept").exists());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_link_in_the_place_of_a_directory_is_not_entered() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        symlink(outside.path(), dir.path().join("home")).unwrap();
        let top = Dir::open(dir.path()).unwrap();
        assert!(top.child(OsStr::new("home"), 0o700, None).is_err());
        assert!(top.existing(OsStr::new("home")).is_err());
        assert!(top.write_new(OsStr::new("home"), b"", 0o600).is_err());
    }

    #[test]
    fn only_small_plain_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let top = Dir::open(dir.path()).unwrap();
        let read = |name: &str| top.read(OsStr::new(name));
        std::fs::write(dir.path().join("f"), "text").unwrap();
        std::fs::write(dir.path().join("large"), [b'x'; 5000]).unwrap();
        symlink(dir.path().join("f"), dir.path().join("link")).unwrap();
        nix::unistd::mkfifo(&dir.path().join("fifo"), Mode::S_IRWXU).unwrap();
        assert_eq!(read("f").unwrap().unwrap().0, b"text");
        assert!(read("none").unwrap().is_none());
        for bad in ["large", "link", "fifo"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_there_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let top = Dir::open(dir.path()).unwrap();
        assert!(top.child(OsStr::new("a"), 0o751, None).unwrap().1);
        assert!(!top.child(OsStr::new("a"), 0o700, None).unwrap().1);
        top.write_new(OsStr::new("f"), b"x", 0o640).unwrap();
        assert!(top.write_new(OsStr::new("f"), b"y", 0o640).is_err());
        assert_eq!(std::fs::read(dir.path().join("f")).unwrap(), b"x");
    }
}
