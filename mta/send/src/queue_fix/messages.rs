//! Message files under their right names.
//!
//! A message's new number is the inode of its mess file. Renaming runs in two passes, so that no
//! two messages collide: first every part to `fix.NEW`, then to `NEW`; in each pass mess comes
//! last, so that after an interruption the message is found again with all its parts.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use mta_queue::layout::{DIRECTORIES, MessageId, Part};

use super::{FixError, Fixer, at};

const INTERIM: &str = "fix.";

/// Parts in the order in which they are renamed.
const ORDER: [Part; 7] =
    [Part::ALL[1], Part::ALL[2], Part::ALL[3], Part::ALL[4], Part::ALL[5], Part::ALL[6], Part::Mess];

/// Where each part of each message lies, under its plain or its interim name.
#[derive(Debug, Default)]
struct Index {
    plain: BTreeMap<MessageId, Vec<(Part, PathBuf)>>,
    interim: BTreeMap<MessageId, Vec<(Part, PathBuf)>>,
}

impl Index {
    fn read(fixer: &Fixer) -> Result<Self, FixError> {
        let mut index = Self::default();
        for part in ORDER {
            let base = fixer.queue.root().join(part.name());
            let mut subdirectories = Vec::new();
            index.add(part, &base, Some(&mut subdirectories)).map_err(at("read", &base))?;
            for directory in subdirectories {
                index.add(part, &directory, None).map_err(at("read", &directory))?;
            }
        }
        Ok(index)
    }

    fn add(
        &mut self,
        part: Part,
        directory: &Path,
        mut subdirectories: Option<&mut Vec<PathBuf>>,
    ) -> io::Result<()> {
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e),
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let kind = entry.file_type()?;
            if kind.is_dir() {
                if let Some(all) = subdirectories.as_deref_mut()
                    && MessageId::parse(name.as_bytes()).is_some()
                {
                    all.push(entry.path());
                }
            } else if let Some(id) = MessageId::parse(name.as_bytes()) {
                self.plain.entry(id).or_default().push((part, entry.path()));
            } else if let Some(id) =
                name.as_bytes().strip_prefix(INTERIM.as_bytes()).and_then(MessageId::parse)
            {
                self.interim.entry(id).or_default().push((part, entry.path()));
            }
        }
        Ok(())
    }
}

fn mess_of(files: &[(Part, PathBuf)]) -> Option<&Path> {
    files.iter().find(|(part, _)| *part == Part::Mess).map(|(_, path)| path.as_path())
}

impl Fixer {
    pub(super) fn messages(&mut self) -> Result<(), FixError> {
        self.rename_to_interim()?;
        self.rename_to_final()?;
        self.set_places()?;
        Ok(())
    }

    /// First pass: what is not named by its inode becomes `fix.INODE`, where it lies.
    fn rename_to_interim(&mut self) -> Result<(), FixError> {
        for (old, files) in Index::read(self)?.plain {
            let Some(mess) = mess_of(&files) else { continue };
            let new = MessageId(std::fs::symlink_metadata(mess).map_err(at("look at", mess))?.ino());
            if new == old {
                continue;
            }
            for (_, path) in &files {
                let target = path.with_file_name(format!("{INTERIM}{new}"));
                self.fix("rename (wrong inode)", path, || std::fs::rename(path, target))?;
            }
        }
        Ok(())
    }

    /// Second pass: `fix.INODE` becomes `INODE` in its place. Parts of a message whose mess file
    /// has arrived already were left by an interruption.
    fn rename_to_final(&mut self) -> Result<(), FixError> {
        for (id, files) in Index::read(self)?.interim {
            for (part, path) in files {
                let target = self.queue.path(part, id);
                self.fix("rename to its inode", &path, || std::fs::rename(&path, target))?;
            }
        }
        Ok(())
    }

    /// Moves what lies in the wrong subdirectory, removes what belongs to no message, mends owners.
    fn set_places(&mut self) -> Result<(), FixError> {
        for (id, files) in Index::read(self)?.plain {
            let orphan = mess_of(&files).is_none();
            for (part, path) in files {
                if orphan {
                    self.fix("remove (no such message)", &path, || std::fs::remove_file(&path))?;
                    continue;
                }
                let target = self.queue.path(part, id);
                if path != target {
                    self.fix("move to its subdirectory", &path, || std::fs::rename(&path, &target))?;
                }
                if let Some(row) = DIRECTORIES.iter().find(|row| row.part == Some(part)) {
                    let owner = self.owners.of(row.owner);
                    let now = if self.dry { &path } else { &target };
                    self.owner_and_mode(now, owner, row.file_mode)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
