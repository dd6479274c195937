//! A log directory: `current`, rotation, recovery.
//!
//! ```text
//! current (0644) ──fsync, rename──► previous (0744) ──link──► @label.s
//!                                      │ with a processor
//!                                      ├─0──► sh -c cmd ──1──► processed ──fsync, 0744, link──► @label.s
//!                          state ──4──►┘       └─5──► newstate ──rename──► state
//! ```
//!
//! The owner's x bit says that a file is complete and on the disk. A directory in which a multilog was killed is put
//! in order at the next start; what may be truncated becomes `@label.u`. No step loses a byte that was
//! written, and none keeps it twice: that holds for a stop after each of them.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tai::Ascending;
use unix::child::{Ending, Launch, wait_for};
use unix::durable::Durability;
use unix::lock::Lock;

use super::cut::cut;
use super::script::DirSpec;

/// The shortest name of a finished file: `@` and the label.
const MIN_FINISHED: usize = tai::TEXT_LEN;

/// Why a finished file has its suffix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Complete and on the disk.
    Safe,
    /// Was being written when multilog was killed.
    Unfinished,
}

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("unable to {step} {}: {source}", path.display())]
pub struct Error {
    step: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// What is asked for beside the script.
#[derive(Debug, Clone)]
pub struct Options {
    /// How hard is the disk asked.
    pub durability: Durability,
    /// The environment of processors.
    pub environment: program::Environment,
}

/// An open log directory.
#[derive(Debug)]
pub struct LogDir {
    spec: DirSpec,
    options: Options,
    current: File,
    written: u64,
    /// The rotation that is under way, so that a failed step is tried again and no other.
    stage: Stage,
    _lock: Lock,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Writing,
    Due,
    Renamed,
    Reopened,
    Filtered,
    Processed,
}

impl LogDir {
    /// Makes and locks the directory and puts it in order after a crash.
    ///
    /// # Errors
    /// Another multilog uses it, or a step failed.
    pub fn open(spec: &DirSpec, options: &Options, labels: &mut Ascending) -> Result<Self, Error> {
        let at = |step, name: &str| {
            let path = spec.path.join(name);
            move |source| Error { step, path, source }
        };
        match fs::DirBuilder::new().mode(0o755).create(&spec.path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            other => other.map_err(at("make directory", ""))?,
        }
        let lock = Lock::try_exclusive(&spec.path.join("lock"), 0o600)
            .map_err(at("lock", "lock"))?
            .ok_or_else(|| at("lock", "lock")(io::Error::other("another multilog is running here")))?;
        let path = |name: &str| spec.path.join(name);
        let current = if is_complete(&path("current")).map_err(at("look at", "current"))? {
            let current = append(&path("current")).map_err(at("open", "current"))?;
            chmod(&path("current"), 0o644).map_err(at("chmod", "current"))?;
            current
        } else {
            recover(spec, labels)?;
            append(&path("current"))
                .and_then(|file| chmod(&path("current"), 0o644).map(|()| file))
                .map_err(at("create", "current"))?
        };
        let written = current.metadata().map_err(at("look at", "current"))?.len();
        let (spec, options) = (spec.clone(), options.clone());
        Ok(Self { spec, options, current, written, stage: Stage::Writing, _lock: lock })
    }

    /// Appends, finishing files on the way. Returns how much of `bytes` was taken before the error, if
    /// there was one; after a pause the caller goes on with the rest.
    pub fn append(&mut self, bytes: &[u8], labels: &mut Ascending) -> (usize, Result<(), Error>) {
        let mut taken = 0;
        while taken < bytes.len() || self.stage != Stage::Writing {
            match self.step(&bytes[taken..], labels) {
                Ok(n) => taken += n,
                Err(e) => return (taken, Err(e)),
            }
        }
        (taken, Ok(()))
    }

    fn step(&mut self, bytes: &[u8], labels: &mut Ascending) -> Result<usize, Error> {
        if self.stage != Stage::Writing {
            self.rotate(labels)?;
        }
        if bytes.is_empty() {
            return Ok(0);
        }
        let plan = cut(self.spec.size, self.written, bytes);
        let n = match (&self.current).write(&bytes[..plan.write]) {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(0),
            Err(e) => return Err(self.error("write to", "current", e)),
        };
        self.written += u64::try_from(n).unwrap_or(0);
        if plan.complete && n == plan.write {
            self.stage = Stage::Due;
        }
        Ok(n)
    }

    /// Finishes the current file now, unless it is empty.
    ///
    /// # Errors
    /// A step failed; calling again, or [`LogDir::append`], goes on with it.
    pub fn rotate_now(&mut self, labels: &mut Ascending) -> Result<(), Error> {
        if self.stage == Stage::Writing {
            if self.written == 0 {
                return Ok(());
            }
            self.stage = Stage::Due;
        }
        self.rotate(labels)
    }

    /// One step after the other; each is done once.
    fn rotate(&mut self, labels: &mut Ascending) -> Result<(), Error> {
        let (current, previous) = (self.path("current"), self.path("previous"));
        if self.stage == Stage::Due {
            self.sync_current()?;
            fs::rename(&current, &previous).map_err(|e| self.error("rename", "current", e))?;
            self.stage = Stage::Renamed;
        }
        if self.stage == Stage::Renamed {
            let file = append(&current).map_err(|e| self.error("create", "current", e))?;
            chmod(&current, 0o644).map_err(|e| self.error("chmod", "current", e))?;
            chmod(&previous, 0o744).map_err(|e| self.error("chmod", "previous", e))?;
            self.current = file;
            self.written = 0;
            self.stage = Stage::Reopened;
        }
        if self.stage == Stage::Reopened {
            if let Some(command) = &self.spec.processor {
                self.process(command)?;
            }
            self.stage = Stage::Filtered;
        }
        if self.stage == Stage::Filtered {
            if self.spec.processor.is_some() {
                remove(&previous).map_err(|e| self.error("remove", "previous", e))?;
                fs::rename(self.path("newstate"), self.path("state"))
                    .map_err(|e| self.error("rename", "newstate", e))?;
            }
            self.stage = Stage::Processed;
        }
        let done = if self.spec.processor.is_some() { "processed" } else { "previous" };
        finish(&self.spec, done, Fate::Safe, labels)?;
        self.sync_directory()?;
        self.stage = Stage::Writing;
        Ok(())
    }

    fn process(&self, command: &std::ffi::OsStr) -> Result<(), Error> {
        let fresh = |name: &'static str| {
            let path = self.path(name);
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o644)
                .open(path)
                .map_err(|e| self.error("create", name, e))
        };
        let open = |name: &'static str| File::open(self.path(name)).map_err(|e| self.error("open", name, e));
        let (input, state) = (open("previous")?, open("state")?);
        let (output, new_state) = (fresh("processed")?, fresh("newstate")?);
        let run = || -> io::Result<Ending> {
            let pid = Launch::new("/bin/sh")
                .args([std::ffi::OsStr::new("-c"), command])
                .env_exactly(self.options.environment.to_vec())
                .directory(&self.spec.path)
                .descriptor(input.as_fd(), 0)?
                .descriptor(output.as_fd(), 1)?
                .descriptor(state.as_fd(), 4)?
                .descriptor(new_state.as_fd(), 5)?
                .start()?;
            wait_for(pid)
        };
        match run().map_err(|e| self.error("run the processor on", "previous", e))? {
            Ending::Exited(0) => {}
            other => {
                let failed = io::Error::other(format!("the processor failed: {other:?}"));
                return Err(self.error("process", "previous", failed));
            }
        }
        let durability = self.options.durability;
        durability.sync_file(&output).map_err(|e| self.error("fsync", "processed", e))?;
        chmod(&self.path("processed"), 0o744).map_err(|e| self.error("chmod", "processed", e))?;
        durability.sync_file(&new_state).map_err(|e| self.error("fsync", "newstate", e))
    }

    /// Leaves the current file complete and on the disk.
    ///
    /// # Errors
    /// A step failed; the file then counts as unfinished at the next start.
    pub fn close(&mut self, labels: &mut Ascending) -> Result<(), Error> {
        if self.stage != Stage::Writing {
            self.rotate(labels)?;
        }
        self.sync_current()?;
        chmod(&self.path("current"), 0o744).map_err(|e| self.error("chmod", "current", e))
    }

    /// Where it is.
    #[must_use]
    pub fn location(&self) -> &Path {
        &self.spec.path
    }

    fn sync_current(&self) -> Result<(), Error> {
        self.options.durability.sync_file(&self.current).map_err(|e| self.error("fsync", "current", e))
    }

    fn sync_directory(&self) -> Result<(), Error> {
        let entry = self.path("current");
        self.options.durability.sync_parent(&entry).map_err(|e| self.error("fsync", "", e))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.spec.path.join(name)
    }

    fn error(&self, step: &'static str, name: &str, source: io::Error) -> Error {
        Error { step, path: self.path(name), source }
    }
}

/// Puts a directory in order in which a multilog was killed, or which is new.
fn recover(spec: &DirSpec, labels: &mut Ascending) -> Result<(), Error> {
    let at = |step, name: &str| {
        let path = spec.path.join(name);
        move |source| Error { step, path, source }
    };
    let path = |name: &str| spec.path.join(name);
    for name in ["state", "newstate"] {
        remove(&path(name)).map_err(at("remove", name))?;
    }
    if is_complete(&path("processed")).map_err(at("look at", "processed"))? {
        remove(&path("previous")).map_err(at("remove", "previous"))?;
        finish(spec, "processed", Fate::Safe, labels)?;
    } else {
        remove(&path("processed")).map_err(at("remove", "processed"))?;
        finish(spec, "previous", Fate::Unfinished, labels)?;
    }
    finish(spec, "current", Fate::Unfinished, labels)?;
    let state = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(path("state"));
    state.map(drop).map_err(at("create", "state"))
}

/// Gives a file its final name and removes the oldest ones above the number to keep.
fn finish(spec: &DirSpec, name: &str, fate: Fate, labels: &mut Ascending) -> Result<(), Error> {
    let path = spec.path.join(name);
    let at = |step| {
        let path = path.clone();
        move |source| Error { step, path, source }
    };
    let links = match fs::metadata(&path) {
        Ok(meta) => meta.nlink(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(at("look at")(e)),
    };
    // With two links it has its final name already, and we were killed before the next step.
    if links == 1 {
        link_finished(spec, &path, fate, labels).map_err(at("link"))?;
    }
    remove(&path).map_err(at("remove"))?;
    prune(spec).map_err(at("remove old files beside"))
}

fn link_finished(spec: &DirSpec, path: &Path, fate: Fate, labels: &mut Ascending) -> io::Result<()> {
    let suffix = if fate == Fate::Safe { "s" } else { "u" };
    loop {
        let label = labels.label(unix::clock::since_epoch()).text();
        let name = format!("{}.{suffix}", String::from_utf8_lossy(&label));
        match fs::hard_link(path, spec.path.join(name)) {
            // Each label is later than the last.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other,
        }
    }
}

fn prune(spec: &DirSpec) -> io::Result<()> {
    let mut old = Vec::new();
    for entry in fs::read_dir(&spec.path)? {
        let name = entry?.file_name();
        let bytes = name.as_encoded_bytes();
        if bytes.starts_with(b"@") && bytes.len() >= MIN_FINISHED {
            old.push(name);
        }
    }
    old.sort();
    let surplus = (old.len() + 1).saturating_sub(spec.keep);
    old.iter().take(surplus).try_for_each(|name| remove(&spec.path.join(name)))
}

/// Removes a file; that it is gone already is as good.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn is_complete(path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(meta) => Ok(meta.mode() & 0o100 != 0),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

fn chmod(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests;
