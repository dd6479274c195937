//! Files of 8-byte words that processes share as memory.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// Which file it is.
pub type Identity = (u64, u64);

/// A file as memory. It needs no open descriptor.
///
/// Whoever may shorten the file can end this process by it (SIGBUS); so only files of trusted owners are to be
/// mapped.
#[derive(Debug)]
pub struct Mapped {
    start: NonNull<AtomicU64>,
    words: usize,
    identity: Identity,
}

// SAFETY: it is only memory, read and written as atomic words.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// A file to be read.
    ///
    /// # Errors
    /// It is empty or no whole number of words, or as mmap(2).
    pub fn read(file: &File) -> io::Result<Self> {
        Self::new(file, ProtFlags::PROT_READ)
    }

    /// A file to be read and changed.
    ///
    /// # Errors
    /// As [`Mapped::read`].
    pub fn read_write(file: &File) -> io::Result<Self> {
        Self::new(file, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)
    }

    fn new(file: &File, protection: ProtFlags) -> io::Result<Self> {
        let meta = file.metadata()?;
        let bytes = usize::try_from(meta.len()).ok().filter(|n| n % 8 == 0 && isize::try_from(*n).is_ok());
        let bytes = bytes.and_then(NonZeroUsize::new);
        let bytes = bytes.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        // SAFETY: a new mapping where the kernel likes it, so no memory of anybody is touched.
        let start = unsafe { mmap(None, bytes, protection, MapFlags::MAP_SHARED, file, 0)? };
        Ok(Self { start: start.cast(), words: bytes.get() / 8, identity: (meta.dev(), meta.ino()) })
    }

    /// Its words. Those of a mapping made by [`Mapped::read`] must not be stored to.
    #[must_use]
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has so many words, begins at a page, and lives as long as `self`; other
        // processes may change it, which atomic words allow.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }

    /// The file it is of.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing that `words` lent outlives `self`.
        let _ = unsafe { munmap(self.start.cast(), self.words * 8) };
    }
}

/// Which file has this name now; no link is followed.
///
/// # Errors
/// As lstat(2).
pub fn identity(path: &Path) -> io::Result<Identity> {
    let meta = std::fs::symlink_metadata(path)?;
    Ok((meta.dev(), meta.ino()))
}

/// Opens a file that a trusted user made: root, or the owner of its directory, which nobody else can write.
/// No link is followed, and no FIFO waited for.
///
/// # Errors
/// As open(2); [`io::ErrorKind::PermissionDenied`] when the file or the directory is not as described.
pub fn open_trusted(path: &Path, write: bool) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .write(write)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)?;
    let file = File::from(crate::fd::above_standard(file.into())?);
    let meta = file.metadata()?;
    let others_cannot_write = |mode: u32| mode & 0o022 == 0;
    if !meta.is_file() || !others_cannot_write(meta.mode()) || meta.nlink() > 1 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let directory = std::fs::metadata(directory)?;
    if !others_cannot_write(directory.mode()) || (meta.uid() != 0 && meta.uid() != directory.uid()) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(file)
}

/// Makes the new file `temporary` ready to be shared as memory: `start` at its beginning, its room there for
/// certain, its mode `mode`, and all of it forced out.
///
/// # Errors
/// As pwrite(2), posix_fallocate(3), fchmod(2), fsync(2).
pub fn complete(temporary: &File, start: &[u8], mode: u32) -> io::Result<()> {
    temporary.write_all_at(start, 0)?;
    let length = i64::try_from(temporary.metadata()?.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
    nix::fcntl::posix_fallocate(temporary, 0, length)?;
    temporary.set_permissions(std::fs::Permissions::from_mode(mode))?;
    temporary.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn what_one_mapping_stores_the_other_sees_and_no_descriptor_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("map");
        let file = crate::durable::create_new(&path, 0o600).unwrap();
        complete(&file, &[1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0], 0o644).unwrap();
        let writer = Mapped::read_write(&file).unwrap();
        let reader = Mapped::read(&open_trusted(&path, false).unwrap()).unwrap();
        drop(file);
        writer.words()[1].store(7, Ordering::Release);
        assert_eq!(reader.words()[1].load(Ordering::Acquire), 7);
        assert_eq!((reader.words().len(), reader.identity()), (2, identity(&path).unwrap()));
    }

    #[test]
    fn files_of_no_whole_words_are_refused() {
        let file = tempfile::tempfile().unwrap();
        assert!(Mapped::read(&file).is_err());
        std::io::Write::write_all(&mut &file, b"123456789").unwrap();
        assert!(Mapped::read(&file).is_err());
    }

    #[test]
    fn only_a_file_of_root_or_of_the_directory_s_owner_is_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("map");
        std::fs::write(&path, [0; 8]).unwrap();
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let owner = |path: &Path, uid| std::os::unix::fs::chown(path, Some(uid), None).unwrap();
        mode(&path, 0o644);
        assert!(open_trusted(&path, false).is_ok());
        mode(&path, 0o664);
        assert!(open_trusted(&path, false).is_err());
        mode(&path, 0o644);
        owner(&path, 4711);
        assert!(open_trusted(&path, false).is_err());
        owner(dir.path(), 4711);
        assert!(open_trusted(&path, false).is_ok());
        mode(dir.path(), 0o1777);
        assert!(open_trusted(&path, false).is_err(), "anybody can rename there");
        mode(dir.path(), 0o755);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(open_trusted(&link, false).is_err());
        std::fs::hard_link(&path, dir.path().join("second")).unwrap();
        assert!(open_trusted(&path, false).is_err());
        assert!(open_trusted(dir.path(), false).is_err());
    }
}
