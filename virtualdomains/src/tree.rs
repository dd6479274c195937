//! Directories made and removed without following links.
//!
//! Homes lie below directories that mail users may write to, so nothing here uses a path of more than one
//! component: each step goes from an open directory to an entry of it, and an entry that is a symbolic
//! link is never entered. A new directory is given away only through the descriptor of the one just made.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::dir::Dir as Listing;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, fchown, geteuid, unlinkat};
use unix::durable::Owner;

/// Deepest directory tree that is removed.
const DEEPEST: usize = 200;

/// An open directory.
#[derive(Debug)]
pub(crate) struct Dir(OwnedFd);

fn flags() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW
}

impl Dir {
    /// Opens a directory whose path is trusted (an administrator's setting); links in it are followed.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(open(path, flags() - OFlag::O_NOFOLLOW, Mode::empty())?))
    }

    /// The directory `name` in this one; `None` when there is none.
    pub(crate) fn existing(&self, name: &OsStr) -> io::Result<Option<Self>> {
        match openat(&self.0, name, flags(), Mode::empty()) {
            Ok(fd) => Ok(Some(Self(fd))),
            Err(Errno::ENOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// The directory `name` in this one, made when it is not there; was it made? One that was there keeps
    /// owner and mode.
    pub(crate) fn child(&self, name: &OsStr, mode: u32, owner: Owner) -> io::Result<(Self, bool)> {
        match mkdirat(&self.0, name, Mode::from_bits_truncate(0o700)) {
            Ok(()) => {}
            Err(Errno::EEXIST) => {
                let found = self.existing(name)?;
                return found.map(|d| (d, false)).ok_or_else(|| Errno::ENOENT.into());
            }
            Err(e) => return Err(e.into()),
        }
        let made = Self(openat(&self.0, name, flags(), Mode::empty())?);
        // Somebody who may write here could have put another directory in its place.
        if fstat(&made.0)?.st_uid != geteuid().as_raw() {
            return Err(io::Error::other("the new directory was exchanged"));
        }
        if let Some((uid, gid)) = owner {
            fchown(&made.0, Some(uid), Some(gid))?;
        }
        fchmod(&made.0, Mode::from_bits_truncate(mode))?;
        nix::unistd::fsync(&self.0)?;
        Ok((made, true))
    }

    /// Removes the entry `name` with everything below it; `false` when there is none. A link is removed, not
    /// followed; another file system mounted below is an error.
    pub(crate) fn remove(&self, name: &OsStr) -> io::Result<bool> {
        let device = fstat(&self.0)?.st_dev;
        let removed = remove(self.0.as_fd(), name, device, 0)?;
        nix::unistd::fsync(&self.0)?;
        Ok(removed)
    }

    /// Removes the directory `name` if it is empty; `false` when it is not or is not there.
    pub(crate) fn remove_empty(&self, name: &OsStr) -> io::Result<bool> {
        match unlinkat(&self.0, name, UnlinkatFlags::RemoveDir) {
            Ok(()) => Ok(true),
            Err(Errno::ENOENT | Errno::ENOTEMPTY | Errno::EEXIST) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// The contents of the file `name`; `None` when there is none. A link, a pipe or a file of more than 4 KiB
    /// is an error: whoever owns this directory must not make root read another file, or wait.
    pub(crate) fn read(&self, name: &OsStr) -> io::Result<Option<Vec<u8>>> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let fd = match openat(&self.0, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::ENOENT) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let entry = fstat(&fd)?;
        let kind = SFlag::from_bits_truncate(entry.st_mode) & SFlag::S_IFMT;
        if kind != SFlag::S_IFREG || entry.st_size > 4096 {
            return Err(io::Error::other("expected a plain file of at most 4 KiB"));
        }
        unix::fd::read_to_end_limited(&mut std::fs::File::from(fd), 4096).map(Some)
    }

    /// Makes `name`, which must not exist, a symbolic link to `target`.
    pub(crate) fn link(&self, name: &OsStr, target: &OsStr) -> io::Result<()> {
        nix::unistd::symlinkat(target, &self.0, name)?;
        Ok(nix::unistd::fsync(&self.0)?)
    }

    /// Creates a file that must not exist.
    pub(crate) fn write_new(&self, name: &OsStr, contents: &[u8], mode: u32, owner: Owner) -> io::Result<()> {
        use std::io::Write;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = std::fs::File::from(openat(&self.0, name, flags, Mode::from_bits_truncate(0o600))?);
        file.write_all(contents)?;
        if let Some((uid, gid)) = owner {
            fchown(&file, Some(uid), Some(gid))?;
        }
        fchmod(&file, Mode::from_bits_truncate(mode))?;
        unix::durable::Durability::default().sync_file(&file)?;
        Ok(nix::unistd::fsync(&self.0)?)
    }
}

fn remove(parent: std::os::fd::BorrowedFd<'_>, name: &OsStr, device: u64, depth: usize) -> io::Result<bool> {
    let entry = match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(entry) => entry,
        Err(Errno::ENOENT) => return Ok(false),
        Err(e) => return Err(e.into()),
    };
    if SFlag::from_bits_truncate(entry.st_mode) & SFlag::S_IFMT != SFlag::S_IFDIR {
        unlinkat(parent, name, UnlinkatFlags::NoRemoveDir)?;
        return Ok(true);
    }
    if depth > DEEPEST {
        return Err(io::Error::other("directories nested too deep to be removed"));
    }
    let fd = openat(parent, name, flags(), Mode::empty())?;
    if fstat(&fd)?.st_dev != device {
        return Err(io::Error::other("another file system is mounted below; unmount it first"));
    }
    let mut listing = Listing::from_fd(fd.try_clone()?)?;
    let mut names = Vec::new();
    for entry in listing.iter() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    for name in names {
        remove(fd.as_fd(), OsStr::from_bytes(&name), device, depth + 1)?;
    }
    unlinkat(parent, name, UnlinkatFlags::RemoveDir)?;
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
        assert!(top.write_new(OsStr::new("home"), b"", 0o600, None).is_err());
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
        assert_eq!(read("f").unwrap().unwrap(), b"text");
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
        top.write_new(OsStr::new("f"), b"x", 0o640, None).unwrap();
        assert!(top.write_new(OsStr::new("f"), b"y", 0o640, None).is_err());
        assert_eq!(std::fs::read(dir.path().join("f")).unwrap(), b"x");
    }
}
