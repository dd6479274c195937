//! Files that must survive a power cut.
//!
//! A file is safe when its data is on the disk *and* the directory entry that names it is. Nobody
//! else in the workspace calls fsync: the order lives here.
//!
//! [`replace`] and [`write_new`] are whole changes. Changes of several steps, as the queue makes
//! them, go through a [`Disk`], below which a test can put [`Faults`]: a full disk, or a machine
//! that stops between two steps.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid};

use crate::gather::Gather;

/// What is forced to the disk, from USE_FSYNC, USE_FDATASYNC and USE_SYNCDIR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Durability {
    /// How file contents are forced out.
    pub data: DataSync,
    /// Are directories forced out after an entry was made, renamed or removed?
    pub directories: bool,
}

/// How file contents are forced out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataSync {
    /// fsync(2).
    Full,
    /// fdatasync(2): contents and what is needed to read them.
    Data,
    /// Not at all. Mail that was acknowledged can be lost.
    Off,
}

impl Default for Durability {
    fn default() -> Self {
        Self { data: DataSync::Full, directories: true }
    }
}

impl Durability {
    /// What switches that may be given say: USE_FSYNC, USE_FDATASYNC, USE_SYNCDIR or their control files.
    ///
    /// Everything is forced out unless it is switched off: contents by `fsync` off (`fdatasync`
    /// on wins over it), directories by `directories` off or, where that is not given, together
    /// with the contents.
    #[must_use]
    pub fn chosen(fsync: Option<bool>, fdatasync: Option<bool>, directories: Option<bool>) -> Self {
        let data = match (fdatasync, fsync) {
            (Some(true), _) => DataSync::Data,
            (_, Some(false)) => DataSync::Off,
            (_, None | Some(true)) => DataSync::Full,
        };
        Self { data, directories: directories.unwrap_or(data != DataSync::Off) }
    }

    /// Is everything forced out, contents and directories?
    #[must_use]
    pub fn is_full(self) -> bool {
        self.data != DataSync::Off && self.directories
    }

    /// Forces a file's contents out.
    ///
    /// # Errors
    /// EIO, ENOSPC, EDQUOT: what was written may be lost.
    pub fn sync_file(self, file: &File) -> io::Result<()> {
        match self.data {
            DataSync::Full => file.sync_all(),
            DataSync::Data => file.sync_data(),
            DataSync::Off => Ok(()),
        }
    }

    /// Forces the directory that holds `entry` out.
    ///
    /// # Errors
    /// EIO. A file system that has no fsync for directories (EINVAL) is not an error.
    pub fn sync_parent(self, entry: &Path) -> io::Result<()> {
        if !self.directories {
            return Ok(());
        }
        sync_directory(parent(entry))
    }
}

/// Forces a directory out.
///
/// # Errors
/// As [`Durability::sync_parent`].
pub fn sync_directory(dir: &Path) -> io::Result<()> {
    match File::open(dir)?.sync_all() {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        other => other,
    }
}

pub(crate) fn parent(entry: &Path) -> &Path {
    match entry.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    }
}

/// Owner to give to a new file.
pub type Owner = Option<(Uid, Gid)>;

/// Makes `path` hold exactly `contents`: readers see the old file or the new one, whole, at any
/// time and after any crash.
///
/// The new file is written beside the old one under a name that starts with a dot, forced out,
/// renamed over it, and the directory forced out.
///
/// # Errors
/// Any step failed; the old file is still there and the temporary one is removed.
pub fn replace(path: &Path, contents: &[u8], mode: u32, owner: Owner) -> io::Result<()> {
    let temporary = beside(path)?;
    let result =
        write_new(&temporary, contents, mode, owner).and_then(|()| std::fs::rename(&temporary, path));
    if let Err(e) = result {
        // The error that matters is the first one.
        let _ = std::fs::remove_file(&temporary);
        return Err(e);
    }
    Durability::default().sync_parent(path)
}

/// Creates `path`, which must not exist, with `contents`, forced out (its directory is not).
///
/// # Errors
/// It exists, or any step failed; a file that was created is removed again.
pub fn write_new(path: &Path, contents: &[u8], mode: u32, owner: Owner) -> io::Result<()> {
    let mut file = create_new(path, mode)?;
    let result = (|| {
        // The umask may have taken bits away from `mode`.
        nix::sys::stat::fchmod(file.as_fd(), nix::sys::stat::Mode::from_bits_truncate(mode))?;
        if let Some((uid, gid)) = owner {
            fchown(&file, Some(uid.as_raw()), Some(gid.as_raw()))?;
        }
        file.write_all(contents)?;
        file.sync_all()
    })();
    if result.is_err() {
        let _ = std::fs::remove_file(path);
    }
    result
}

/// Opens a file that must not exist yet, for reading and writing; the umask applies to `mode`.
///
/// # Errors
/// It exists, or as open(2).
pub fn create_new(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(path)
}

/// One step of a change on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A file is created.
    Create,
    /// Bytes are written.
    Write,
    /// A file's contents are forced out.
    SyncFile,
    /// A file gets another name.
    Link,
    /// A name is removed.
    Unlink,
    /// A directory is forced out.
    SyncDirectory,
}

/// What may go wrong below a [`Disk`].
pub trait Faults: Sync {
    /// Called before each step; an error takes the place of the step.
    ///
    /// # Errors
    /// What the step shall fail with.
    fn before(&self, step: Step, path: &Path) -> io::Result<()>;
}

/// Nothing goes wrong but what the kernel says.
#[derive(Debug, Clone, Copy)]
pub struct NoFaults;

impl Faults for NoFaults {
    fn before(&self, _: Step, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

/// The steps of durable changes, with a place for faults below them.
#[derive(Clone, Copy)]
pub struct Disk<'f> {
    durability: Durability,
    faults: &'f dyn Faults,
    gather: Option<&'f Gather>,
}

impl std::fmt::Debug for Disk<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disk").field("durability", &self.durability).finish_non_exhaustive()
    }
}

impl Disk<'static> {
    /// The real disk.
    #[must_use]
    pub fn new(durability: Durability) -> Self {
        Self { durability, faults: &NoFaults, gather: None }
    }
}

impl<'f> Disk<'f> {
    /// A disk where things go wrong.
    #[must_use]
    pub fn with_faults(durability: Durability, faults: &'f dyn Faults) -> Self {
        Self { durability, faults, gather: None }
    }

    /// The same disk, forced out together with what others are at who share `gather`.
    #[must_use]
    pub fn gathering(self, gather: &'f Gather) -> Self {
        Self { gather: Some(gather), ..self }
    }

    /// The same disk, where nobody shares a wait.
    #[must_use]
    pub fn alone(self) -> Self {
        Self { gather: None, ..self }
    }

    /// Creates a file that must not exist, see [`create_new`].
    ///
    /// # Errors
    /// As open(2).
    pub fn create_new(self, path: &Path, mode: u32) -> io::Result<File> {
        self.faults.before(Step::Create, path)?;
        create_new(path, mode)
    }

    /// Writes all bytes to a file.
    ///
    /// # Errors
    /// As write(2).
    pub fn write(self, path: &Path, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        self.faults.before(Step::Write, path)?;
        file.write_all(bytes)
    }

    /// Writes all bytes at an offset of a file.
    ///
    /// # Errors
    /// As pwrite(2).
    pub fn write_at(self, path: &Path, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.faults.before(Step::Write, path)?;
        std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
    }

    /// Forces a file's contents out.
    ///
    /// # Errors
    /// As [`Durability::sync_file`].
    pub fn sync_file(self, path: &Path, file: &File) -> io::Result<()> {
        self.faults.before(Step::SyncFile, path)?;
        if self.durability.data != DataSync::Off && self.gather.is_some_and(|g| g.flush(path)) {
            return Ok(());
        }
        self.durability.sync_file(file)
    }

    /// Gives the file `old` the further name `new`.
    ///
    /// # Errors
    /// As link(2).
    pub fn link(self, old: &Path, new: &Path) -> io::Result<()> {
        self.faults.before(Step::Link, new)?;
        std::fs::hard_link(old, new)
    }

    /// Removes a name; `Ok(false)` when there was none.
    ///
    /// # Errors
    /// As unlink(2), ENOENT excepted.
    pub fn unlink(self, path: &Path) -> io::Result<bool> {
        self.faults.before(Step::Unlink, path)?;
        match std::fs::remove_file(path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Forces the directory that holds `entry` out.
    ///
    /// # Errors
    /// As [`Durability::sync_parent`].
    pub fn sync_parent(self, entry: &Path) -> io::Result<()> {
        self.faults.before(Step::SyncDirectory, parent(entry))?;
        if self.durability.directories && self.gather.is_some_and(|g| g.flush(entry)) {
            return Ok(());
        }
        self.durability.sync_parent(entry)
    }

    /// Gives the finished file `temporary` the name `path`, which must not exist yet.
    ///
    /// | step | if the machine stops right after |
    /// |---|---|
    /// | the contents of `temporary` are forced out (by the caller) | a stray temporary file |
    /// | `path` is linked | either name or both; contents whole |
    /// | the directory of `path` is forced out | `path` is there for good |
    /// | `temporary` is removed | done |
    ///
    /// # Errors
    /// `path` exists, or a step failed; neither name is left behind then.
    pub fn publish(self, temporary: &Path, path: &Path) -> io::Result<()> {
        let result = self.link(temporary, path).and_then(|()| {
            self.sync_parent(path).inspect_err(|_| {
                // It may or may not have reached the disk: take it back, so that "failed" is true.
                let _ = self.unlink(path);
            })
        });
        // A second name of a published file is only litter.
        let _ = self.unlink(temporary);
        result
    }
}

fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.{:x}", std::process::id(), crate::clock::since_epoch().as_nanos()));
    Ok(path.with_file_name(temporary))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn replace_sets_mode_and_leaves_no_temporary() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        replace(&path, b"one", 0o600, None).unwrap();
        replace(&path, b"two", 0o666, None).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn fix_15_everything_is_forced_out_unless_switched_off() {
        let chosen = |a, b, c| {
            let d = Durability::chosen(a, b, c);
            (d.data, d.directories)
        };
        assert_eq!(chosen(None, None, None), (DataSync::Full, true));
        assert_eq!(chosen(Some(false), None, None), (DataSync::Off, false));
        assert_eq!(chosen(Some(false), Some(true), None), (DataSync::Data, true));
        assert_eq!(chosen(None, Some(false), Some(false)), (DataSync::Full, false));
        assert_eq!(chosen(Some(false), None, Some(true)), (DataSync::Off, true));
    }

    #[test]
    fn a_fault_takes_the_place_of_its_step() {
        struct NoLinks;
        impl Faults for NoLinks {
            fn before(&self, step: Step, _: &Path) -> io::Result<()> {
                if step == Step::Link { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::with_faults(Durability::default(), &NoLinks);
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let mut file = disk.create_new(&a, 0o600).unwrap();
        disk.write(&a, &mut file, b"x").unwrap();
        disk.sync_file(&a, &file).unwrap();
        assert_eq!(disk.link(&a, &b).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(disk.unlink(&a).unwrap() && !disk.unlink(&a).unwrap() && !b.exists());
    }

    #[test]
    fn publish_never_overwrites_and_leaves_no_temporary() {
        let dir = tempfile::tempdir().unwrap();
        let (temporary, path) = (dir.path().join("t"), dir.path().join("f"));
        write_new(&temporary, b"one", 0o600, None).unwrap();
        Disk::new(Durability::default()).publish(&temporary, &path).unwrap();
        write_new(&temporary, b"two", 0o600, None).unwrap();
        let error = Disk::new(Durability::default()).publish(&temporary, &path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        assert!(!temporary.exists());
    }

    #[test]
    fn failed_replace_keeps_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("inside"), b"x").unwrap();
        assert!(replace(&path, b"two", 0o600, None).is_err());
        assert_eq!(std::fs::read(path.join("inside")).unwrap(), b"x");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
