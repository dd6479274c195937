//! Directories and lock files.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use mta_queue::layout::{DIRECTORIES, DirectoryRow, LOCK_FILES, LockFile, MessageId, Part};
use unix::durable::sync_directory;
use unix::ids::Role;

use super::{FixError, Fixer, at};

impl Fixer {
    pub(super) fn skeleton(&mut self) -> Result<(), FixError> {
        for row in DIRECTORIES {
            let owner = self.owners.of(row.owner);
            for directory in self.row_directories(row) {
                self.directory(&directory, owner, row.mode)?;
            }
        }
        for &(name, kind, owner, mode) in LOCK_FILES {
            let path = self.queue.root().join(name);
            self.lock_file(&path, kind)?;
            self.owner_and_mode(&path, self.owners.of(owner), mode)?;
        }
        Ok(())
    }

    /// The directory of a row, then its subdirectories.
    fn row_directories(&self, row: &DirectoryRow) -> Vec<PathBuf> {
        let mut all = vec![self.queue.root().join(row.name)];
        if let Some(part) = row.part.filter(|p| p.is_split(self.queue.shape())) {
            all.extend(self.queue.directories(part).map(|(_, d)| d));
        }
        all
    }

    fn directory(&mut self, path: &Path, owner: Role, mode: u32) -> Result<(), FixError> {
        match std::fs::metadata(path) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => {
                let error = io::Error::new(io::ErrorKind::NotADirectory, "is not a directory: remove it");
                return Err(at("enter", path)(error));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.fix("create directory", path, || {
                    std::fs::create_dir_all(path)?;
                    chown(path, Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))?;
                    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
                })?;
            }
            Err(e) => return Err(at("look at", path)(e)),
        }
        self.owner_and_mode(path, owner, mode)
    }

    fn lock_file(&mut self, path: &Path, kind: LockFile) -> Result<(), FixError> {
        let found = match std::fs::symlink_metadata(path) {
            Ok(meta) => Some(meta),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(at("look at", path)(e)),
        };
        let right = found.as_ref().is_some_and(|meta| match kind {
            LockFile::Fifo => meta.file_type().is_fifo(),
            LockFile::Plain(size) => meta.is_file() && meta.size() >= size,
        });
        if right {
            return Ok(());
        }
        self.fix("create", path, || {
            match (kind, found) {
                // Grown in place: another process may have it open.
                (LockFile::Plain(size), Some(meta)) if meta.is_file() => {
                    return std::fs::File::options().write(true).open(path)?.set_len(size);
                }
                (_, Some(_)) => std::fs::remove_file(path)?,
                (_, None) => {}
            }
            match kind {
                LockFile::Fifo => {
                    Ok(nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(0o622))?)
                }
                LockFile::Plain(size) => unix::durable::create_new(path, 0o600)?.set_len(size),
            }
        })
    }

    /// Mends owner, group and mode of an existing file; a missing one (nothing may be changed) is passed over.
    pub(super) fn owner_and_mode(&mut self, path: &Path, owner: Role, mode: u32) -> Result<(), FixError> {
        let meta = match std::fs::metadata(path) {
            Ok(meta) => meta,
            Err(e) if e.kind() == io::ErrorKind::NotFound && self.dry => return Ok(()),
            Err(e) => return Err(at("look at", path)(e)),
        };
        let (uid, gid) = (owner.uid.as_raw(), owner.gid.as_raw());
        if (meta.uid(), meta.gid()) != (uid, gid) {
            self.fix("change owner of", path, || chown(path, Some(uid), Some(gid)))?;
        }
        if meta.mode() & 0o7777 != mode {
            self.fix("change mode of", path, || {
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
            })?;
        }
        Ok(())
    }

    /// Removes subdirectories that the queue does not use; their number tells programs its shape.
    pub(super) fn surplus(&mut self) -> Result<(), FixError> {
        for part in Part::ALL {
            let wanted: Vec<PathBuf> = self.queue.directories(part).map(|(_, d)| d).collect();
            let base = self.queue.root().join(part.name());
            let Ok(entries) = std::fs::read_dir(&base) else { continue };
            for entry in entries {
                let path = entry.map_err(at("read", &base))?.path();
                let number = path.file_name().and_then(|n| MessageId::parse(n.as_bytes()));
                if number.is_some() && path.is_dir() && !wanted.contains(&path) {
                    self.fix("remove directory", &path, || std::fs::remove_dir(&path))?;
                }
            }
        }
        Ok(())
    }

    /// Forces all directories of the queue out.
    pub(super) fn force_out(&self) -> Result<(), FixError> {
        for row in DIRECTORIES {
            for directory in self.row_directories(row) {
                sync_directory(&directory).map_err(at("force out", &directory))?;
            }
        }
        Ok(())
    }
}
