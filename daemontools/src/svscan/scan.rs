//! Reading the scan directory, and being told when to read it again.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

use super::machine::Entry;
use super::own_log::OWN;

/// The longest name of a service or logger, `/log` included.
const MAX_NAME: usize = 255;

/// What is in the scan directory.
#[derive(Debug)]
pub(super) struct Directory {
    /// Service directories, by name.
    pub(super) entries: Vec<Entry>,
    /// Names of services that are disabled, without the dot in front.
    pub(super) disabled: Vec<Vec<u8>>,
}

/// Reads the current directory. Entries that cannot be looked at are reported and left out.
pub(super) fn read(warn: &mut dyn FnMut(&str)) -> io::Result<Directory> {
    let (mut entries, mut disabled) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(".")? {
        let entry = entry?;
        let name = entry.file_name();
        if name.len() + "/log".len() > MAX_NAME || name == OWN {
            continue;
        }
        if let Some(enabled) = name.as_bytes().strip_prefix(b".") {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                disabled.push(enabled.to_vec());
            }
            continue;
        }
        match look(&name) {
            Ok(Some(entry)) => entries.push(entry),
            Ok(None) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => warn(&format!("unable to look at {}: {e}", name.as_bytes().escape_ascii())),
        }
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Directory { entries, disabled })
}

fn look(name: &OsStr) -> io::Result<Option<Entry>> {
    let dir = Path::new(name);
    let meta = fs::metadata(dir)?;
    if !meta.is_dir() {
        return Ok(None);
    }
    let complete = match fs::metadata(dir.join("run")) {
        Ok(run) => run.is_file() && run.permissions().mode() & 0o111 != 0,
        Err(e) if e.kind() == io::ErrorKind::NotFound => false,
        Err(e) => return Err(e),
    };
    Ok(Some(Entry {
        name: name.as_bytes().to_vec(),
        id: (meta.dev(), meta.ino()),
        has_log: fs::symlink_metadata(dir.join("log")).is_ok(),
        complete,
        down: fs::metadata(dir.join("down")).is_ok(),
    }))
}

/// Tells when the scan directory, or a directory in it that is not complete yet, has changed.
#[derive(Debug)]
pub(super) struct Watch {
    inotify: Inotify,
    partial: Vec<(Vec<u8>, WatchDescriptor)>,
}

impl Watch {
    pub(super) fn current_directory() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let changes = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_ONLYDIR;
        inotify.add_watch(".", changes)?;
        Ok(Self { inotify, partial: Vec::new() })
    }

    /// Forgets what was announced; a scan follows.
    pub(super) fn drain(&self) {
        while self.inotify.read_events().is_ok_and(|events| !events.is_empty()) {}
    }

    /// Watches exactly these directories for the rest of their contents. If one is new, the answer is
    /// true, and the directory is to be read once more: the rest may have come before the watch.
    pub(super) fn partial(&mut self, names: &[&[u8]]) -> bool {
        let mut new = false;
        self.partial.retain(|(name, descriptor)| {
            let keep = names.contains(&name.as_slice());
            if !keep {
                // It is gone when the directory is.
                let _ = self.inotify.rm_watch(*descriptor);
            }
            keep
        });
        let changes = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_ATTRIB;
        for name in names {
            if self.partial.iter().all(|(known, _)| known != name)
                && let Ok(descriptor) = self.inotify.add_watch(Path::new(OsStr::from_bytes(name)), changes)
            {
                self.partial.push((name.to_vec(), descriptor));
                new = true;
            }
        }
        new
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}
