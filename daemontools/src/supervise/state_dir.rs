//! The directory `supervise/` of a service: lock, FIFOs, status, and who the service process is.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use unix::Pid;
use unix::lock::Lock;
use unix::process;

use crate::fifo;
use crate::status::Record;

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another supervise holds the lock.
    #[error("unable to lock {}: another supervise is running here", .0.display())]
    Busy(PathBuf),
    /// Something cannot be created or opened.
    #[error("unable to set up {}: {source}", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The open state directory of a running supervise.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    identity: (u64, u64),
    _lock: Lock,
    /// Reading end of the commands.
    pub control: File,
    _control_writer: File,
    status: File,
    _ok: File,
    /// Holds the boot and the /proc/PID/stat line of the service process.
    pub service: File,
    up: Option<File>,
    down: Option<File>,
}

/// Bytes at the start of `supervise/service` before the line of /proc/PID/stat: boot id and newline.
pub const SERVICE_LINE_AT: i64 = 37;

impl StateDir {
    /// Makes what is missing and takes the lock. `ok` is opened last: a client that finds it open may
    /// rely on the rest, so `first` is written before.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn open(path: &Path, first: &Record) -> Result<Self, Error> {
        let at = |source: io::Error, name: &str| Error::Io { path: path.join(name), source };
        make_directory(path).map_err(|e| at(e, ""))?;
        let lock = Lock::try_exclusive(&path.join("lock"), 0o600)
            .map_err(|e| at(e, "lock"))?
            .ok_or_else(|| Error::Busy(path.join("lock")))?;
        let make = |name: &str| fifo::make(&path.join(name)).map_err(|e| at(e, name));
        let reader = |name: &str| fifo::reader(&path.join(name)).map_err(|e| at(e, name));
        make("control")?;
        let control = reader("control")?;
        let control_writer = fifo::writer(&path.join("control"))
            .map_err(|e| at(e, "control"))?
            .ok_or_else(|| at(io::ErrorKind::NotFound.into(), "control"))?;
        let status = open_plain(&path.join("status"), 0o644).map_err(|e| at(e, "status"))?;
        let service = open_plain(&path.join("service"), 0o600).map_err(|e| at(e, "service"))?;
        make("up")?;
        make("dn")?;
        make("ok")?;
        let meta = fs::metadata(path).map_err(|e| at(e, ""))?;
        let mut state = Self {
            path: path.to_owned(),
            identity: (meta.dev(), meta.ino()),
            _lock: lock,
            control,
            _control_writer: control_writer,
            status,
            _ok: reader("up")?,
            service,
            up: None,
            down: None,
        };
        state.publish(first).map_err(|e| at(e, "status"))?;
        state._ok = reader("ok")?;
        Ok(state)
    }

    /// Is the directory we hold still the one that clients find?
    #[must_use]
    pub fn is_current(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.identity)
            && fs::symlink_metadata(self.path.join("control")).is_ok()
    }

    /// Writes the record in one call and gives `up` or `dn` its reader.
    ///
    /// # Errors
    /// The record cannot be written (disk full); the FIFOs are set all the same.
    pub fn publish(&mut self, record: &Record) -> io::Result<()> {
        let bytes = record.encode();
        let written = match self.status.write_at(&bytes, 0)? {
            n if n == bytes.len() => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        };
        let (open, closed, name) = match record.pid {
            Some(_) => (&mut self.up, &mut self.down, "up"),
            None => (&mut self.down, &mut self.up, "dn"),
        };
        *closed = None;
        if open.is_none() {
            *open = fifo::reader(&self.path.join(name)).ok();
        }
        written
    }

    /// The service process that an earlier supervise left running, if it is.
    #[must_use]
    pub fn survivor(&self) -> Option<process::Handle> {
        let bytes = fs::read(self.path.join("service")).ok()?;
        let (boot, line) = bytes.split_at_checked(usize::try_from(SERVICE_LINE_AT).ok()?)?;
        if boot.strip_suffix(b"\n")? != process::boot_id().ok()?.as_bytes() {
            return None;
        }
        let then = process::parse_stat(line)?;
        let pid = Pid::from_raw(then.pid);
        // First hold the process, then make sure that it is the one.
        let handle = process::Handle::open(pid).ok()?;
        let same = process::start_time(pid).ok()? == Some(then.start_time);
        same.then_some(handle)
    }

    /// Records a service process that is running already.
    ///
    /// # Errors
    /// /proc cannot be read, disk full.
    pub fn remember_service(&self, pid: u32) -> io::Result<()> {
        self.forget_service()?;
        let line = fs::read(format!("/proc/{pid}/stat"))?;
        self.service.write_all_at(&line, u64::try_from(SERVICE_LINE_AT).map_err(io::Error::other)?)
    }

    /// Forgets the service process; the next one is recorded under this boot.
    ///
    /// # Errors
    /// Disk full.
    pub fn forget_service(&self) -> io::Result<()> {
        self.service.set_len(0)?;
        let boot = process::boot_id().unwrap_or_default();
        self.service.write_all_at(format!("{boot:36}\n").as_bytes(), 0)
    }
}

/// The directory, also where a symbolic link points to nothing yet.
fn make_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let target = match fs::read_link(path) {
        Ok(target) => path.parent().unwrap_or(Path::new("")).join(target),
        Err(_) => path.to_owned(),
    };
    match fs::DirBuilder::new().mode(0o700).create(&target) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        other => other,
    }
}

fn open_plain(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(mode).open(path)
}

/// Creates the file `down`.
///
/// # Errors
/// As open(2).
pub fn create_down_file() -> io::Result<()> {
    OpenOptions::new().create(true).append(true).mode(0o644).open("down")?.flush()
}
