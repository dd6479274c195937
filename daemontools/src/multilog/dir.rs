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
//! in order at the next start (`recovery`); what may be truncated becomes `@label.u`. No step loses a byte that
//! was written, and none keeps it twice: that holds for a stop after each of them.
//!
//! Files are created readable for the owner alone and get their permissions when they are open.

mod finished;
mod processor;
mod recovery;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tai::Ascending;
use unix::durable::Durability;
use unix::lock::Lock;

use super::cut::cut;
use super::script::{DirSpec, Processor};
use finished::{Fate, finish, remove};
use processor::Running;

/// The owner's x bit: complete and on the disk.
const COMPLETE: u32 = 0o100;

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
    /// What becomes of the file before the current one.
    previous: Option<Fading>,
    _lock: Lock,
}

/// How far the current file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Writing,
    Due,
    Renamed,
}

/// How far the file before the current one is on its way to its final name.
#[derive(Debug)]
enum Fading {
    /// It is `previous`, complete.
    Whole,
    /// The processor works on it.
    InProcess(Running),
    /// `processed` is complete.
    Processed,
    /// Only its final name is missing.
    Nameless,
}

impl LogDir {
    /// Makes and locks the directory and puts it in order after a crash.
    ///
    /// # Errors
    /// Another multilog uses it, or a step failed.
    pub fn open(spec: &DirSpec, options: &Options, labels: &mut Ascending) -> Result<Self, Error> {
        let at = |step, name: &str| error_at(spec, step, name);
        match fs::DirBuilder::new().mode(0o755).create(&spec.path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            other => other.map_err(at("make directory", ""))?,
        }
        let lock = Lock::try_exclusive(&spec.path.join("lock"), 0o600)
            .map_err(at("lock", "lock"))?
            .ok_or_else(|| at("lock", "lock")(io::Error::other("another multilog is running here")))?;
        let path = spec.path.join("current");
        let step = if recovery::is_complete(&path).map_err(at("look at", "current"))? {
            "open"
        } else {
            recovery::recover(spec, labels)?;
            "create"
        };
        let current = append(&path).map_err(at(step, "current"))?;
        chmod(&path, spec.mode).map_err(at("chmod", "current"))?;
        let written = current.metadata().map_err(at("look at", "current"))?.len();
        let (spec, options) = (spec.clone(), options.clone());
        Ok(Self { spec, options, current, written, stage: Stage::Writing, previous: None, _lock: lock })
    }

    /// Appends, finishing files on the way. Returns how much of `bytes` was taken before the error, if
    /// there was one; after a pause the caller goes on with the rest.
    pub fn append(&mut self, bytes: &[u8], labels: &mut Ascending) -> (usize, Result<(), Error>) {
        let mut taken = 0;
        while taken < bytes.len() || self.is_rotating() {
            match self.step(&bytes[taken..], labels) {
                Ok(n) => taken += n,
                Err(e) => return (taken, Err(e)),
            }
        }
        (taken, Ok(()))
    }

    fn step(&mut self, bytes: &[u8], labels: &mut Ascending) -> Result<usize, Error> {
        if self.is_rotating() {
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
        if !self.is_rotating() {
            if self.written == 0 {
                return Ok(());
            }
            self.stage = Stage::Due;
        }
        self.rotate(labels)
    }

    /// Goes on with the file before the current one as far as that is possible without waiting for
    /// its processor.
    ///
    /// # Errors
    /// A step failed; it is tried again by the next call of this, or when the next file is full.
    pub fn attend(&mut self, labels: &mut Ascending) -> Result<(), Error> {
        self.fade(false, labels)
    }

    /// Is there something to be done before the next byte is written?
    fn is_rotating(&self) -> bool {
        self.stage != Stage::Writing || (self.previous.is_some() && !self.in_background())
    }

    fn in_background(&self) -> bool {
        matches!(self.spec.processor, Some(Processor::Command { background: true, .. }))
    }

    /// One step after the other; each is done once.
    fn rotate(&mut self, labels: &mut Ascending) -> Result<(), Error> {
        if self.stage != Stage::Writing {
            let (current, previous) = (self.path("current"), self.path("previous"));
            if self.stage == Stage::Due {
                // There is place for one file before the current one.
                self.fade(true, labels)?;
                self.sync_current()?;
                fs::rename(&current, &previous).map_err(|e| self.error("rename", "current", e))?;
                self.stage = Stage::Renamed;
            }
            let file = append(&current).map_err(|e| self.error("create", "current", e))?;
            chmod(&current, self.spec.mode).map_err(|e| self.error("chmod", "current", e))?;
            chmod(&previous, self.spec.mode | COMPLETE).map_err(|e| self.error("chmod", "previous", e))?;
            self.current = file;
            self.written = 0;
            self.stage = Stage::Writing;
            self.previous = Some(Fading::Whole);
        }
        self.fade(!self.in_background(), labels)
    }

    /// Brings the file before the current one to its final name; without `wait`, as far as its
    /// processor is.
    fn fade(&mut self, wait: bool, labels: &mut Ascending) -> Result<(), Error> {
        while let Some(fading) = self.previous.take() {
            // A step that fails is repeated from here.
            self.previous = Some(Fading::Whole);
            self.previous = match fading {
                Fading::Whole => Some(match &self.spec.processor {
                    None => Fading::Nameless,
                    Some(Processor::Gzip) => self.compress()?,
                    Some(Processor::Command { command, .. }) => Fading::InProcess(self.process(command)?),
                }),
                Fading::InProcess(running) => match self.outcome(running, wait)? {
                    Fading::InProcess(running) => {
                        self.previous = Some(Fading::InProcess(running));
                        return Ok(());
                    }
                    further => Some(further),
                },
                Fading::Processed => {
                    self.previous = Some(Fading::Processed);
                    self.replace_previous()?;
                    Some(Fading::Nameless)
                }
                Fading::Nameless => {
                    self.previous = Some(Fading::Nameless);
                    let name = if self.spec.processor.is_some() { "processed" } else { "previous" };
                    finish(&self.spec, name, Fate::Safe, labels)?;
                    self.sync_directory()?;
                    None
                }
            };
        }
        Ok(())
    }

    /// Leaves the current file complete and on the disk, once the one before it is.
    ///
    /// # Errors
    /// A step failed; calling again goes on with it. Otherwise the current file counts as unfinished at
    /// the next start.
    pub fn close(&mut self, labels: &mut Ascending) -> Result<(), Error> {
        if self.stage != Stage::Writing {
            self.rotate(labels)?;
        }
        self.fade(true, labels)?;
        self.sync_current()?;
        chmod(&self.path("current"), self.spec.mode | COMPLETE).map_err(|e| self.error("chmod", "current", e))
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
        error_at(&self.spec, step, name)(source)
    }
}

/// What to make of an error of this step with this file.
fn error_at(spec: &DirSpec, step: &'static str, name: &str) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = spec.path.join(name);
    move |source| Error { step, path, source }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

fn chmod(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests;
