//! The state directory of a service, `supervise/`: lock, FIFOs, status, and who the service process is.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use unix::Pid;
use unix::lock::Lock;
use unix::notify::Receiver;
use unix::process;

use super::tally::{self, Death};
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
    /// Kept open: it tells when something in it is removed.
    directory: File,
    /// Which boot of the machine this is.
    boot: String,
    identity: (u64, u64),
    lock: Option<Lock>,
    /// Reading end of the commands.
    pub control: File,
    _control_writer: File,
    status: File,
    ok: Option<File>,
    /// Holds the boot and the /proc/PID/stat line of the service process.
    pub service: File,
    up: Option<File>,
    down: Option<File>,
    /// Where the service says that it is ready, once that was asked for.
    pub notices: Option<Receiver>,
}

/// Bytes at the start of `supervise/service` before the line of /proc/PID/stat: boot id and newline.
pub const SERVICE_LINE_AT: i64 = 37;
/// Longer than any line of /proc/PID/stat.
const SERVICE_LINE_MAX: usize = 1024;
/// The lock that is handed on to the service, so that whatever is left of it can be noticed.
const SERVICE_LOCK: &str = "service-lock";
/// The last deaths.
pub const TALLY: &str = "death_tally";
/// What the service says about itself, for people.
pub const MESSAGE: &str = "message";
const NOTICES: &str = "notify";
/// The longest path of a socket, without the NUL.
const MAX_SOCKET_PATH: usize = 107;

/// Everything that may be in the directory.
pub const NAMES: [&str; 11] =
    ["control", "ok", "status", "up", "dn", "service", SERVICE_LOCK, TALLY, MESSAGE, NOTICES, "lock"];
/// What a supervise that finds another place for its state takes along.
pub const KEPT: [&str; 3] = ["service", "status", TALLY];

impl StateDir {
    /// Makes what is missing and takes the lock, unless it is the one `held` already;
    /// [`StateDir::announce`] completes it.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn open(path: &Path, held: Option<Lock>) -> Result<Self, Error> {
        let at = |source: io::Error, name: &str| Error::Io { path: path.join(name), source };
        make_directory(path).map_err(|e| at(e, ""))?;
        let directory = File::open(path).map_err(|e| at(e, ""))?;
        let lock = match held.filter(|lock| is_same(lock.file(), &path.join("lock"))) {
            Some(lock) => lock,
            None => Lock::try_exclusive(&path.join("lock"), 0o600)
                .map_err(|e| at(e, "lock"))?
                .ok_or_else(|| Error::Busy(path.join("lock")))?,
        };
        let make = |name: &str| fifo::make(&path.join(name)).map_err(|e| at(e, name));
        make("control")?;
        let control = fifo::reader(&path.join("control")).map_err(|e| at(e, "control"))?;
        let control_writer = fifo::writer(&path.join("control"))
            .map_err(|e| at(e, "control"))?
            .ok_or_else(|| at(io::ErrorKind::NotFound.into(), "control"))?;
        let status = open_plain(&path.join("status"), 0o644).map_err(|e| at(e, "status"))?;
        let service = open_plain(&path.join("service"), 0o600).map_err(|e| at(e, "service"))?;
        ["up", "dn", "ok"].into_iter().try_for_each(make)?;
        let meta = directory.metadata().map_err(|e| at(e, ""))?;
        // Without these events the next one of another kind does.
        let _ = unix::fd::signal_removals(directory.as_fd());
        Ok(Self {
            path: path.to_owned(),
            directory,
            boot: process::boot_id().unwrap_or_default(),
            identity: (meta.dev(), meta.ino()),
            lock: Some(lock),
            control,
            _control_writer: control_writer,
            status,
            ok: None,
            service,
            up: None,
            down: None,
            notices: None,
        })
    }

    /// Opens `ok`: a client that finds it open may rely on the rest, so the status must have been
    /// published before.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn announce(&mut self) -> Result<(), Error> {
        let path = self.path.join("ok");
        self.ok = Some(fifo::reader(&path).map_err(|source| Error::Io { path, source })?);
        Ok(())
    }

    /// Gives the lock up to a [`StateDir::open`] that is to replace this one.
    pub fn hand_over(&mut self) -> Option<Lock> {
        self.lock.take()
    }

    /// Is the directory we hold still the one that clients find?
    #[must_use]
    pub fn is_current(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.identity)
            && ["control", "ok", "status"].iter().all(|name| self.path.join(name).exists())
    }

    /// Gives `up` or `dn` its reader and writes the record in one call.
    ///
    /// # Errors
    /// The record cannot be written (disk full); the FIFOs are set all the same.
    pub fn publish(&mut self, record: &Record) -> io::Result<()> {
        let reader = |name: &str| fifo::reader(&self.path.join(name)).ok();
        if record.is_ready() {
            self.up = self.up.take().or_else(|| reader("up"));
        } else {
            self.up = None;
        }
        if record.pid.is_none() {
            self.down = self.down.take().or_else(|| reader("dn"));
        } else {
            self.down = None;
        }
        let bytes = record.encode();
        match self.status.write_at(&bytes, 0)? {
            n if n == bytes.len() => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    /// The service process that an earlier supervise left running, if it is.
    #[must_use]
    pub fn survivor(&self) -> Option<process::Handle> {
        let bytes = fs::read(self.path.join("service")).ok()?;
        let (boot, line) = bytes.split_at_checked(usize::try_from(SERVICE_LINE_AT).ok()?)?;
        if self.boot.is_empty() || boot.strip_suffix(b"\n")? != self.boot.as_bytes() {
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
        // Never shortened: on a disk that is full by now there is still room for the next line.
        let mut bytes = format!("{:36}\n", self.boot).into_bytes();
        bytes.resize(bytes.len() + SERVICE_LINE_MAX, b'\n');
        self.service.write_all_at(&bytes, 0)
    }

    /// The lock for the next instance of the service; `Ok(None)` while a process of an earlier one has it.
    ///
    /// # Errors
    /// It cannot be opened or locked.
    pub fn service_lock(&self) -> io::Result<Option<File>> {
        let file = open_plain(&self.path.join(SERVICE_LOCK), 0o600)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(e)) => Err(e),
        }
    }

    /// Adds a death to the tally, which keeps `max` of them.
    ///
    /// # Errors
    /// Disk full.
    pub fn count_death(&self, death: Death, max: usize) -> io::Result<()> {
        let path = self.path.join(TALLY);
        if max == 0 {
            return Ok(());
        }
        let before = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(e),
        };
        let bytes = tally::with(&before, death, max);
        let file = open_plain(&path, 0o644)?;
        file.write_all_at(&bytes, 0)?;
        if bytes.len() < before.len() {
            file.set_len(u64::try_from(bytes.len()).map_err(io::Error::other)?)?;
        }
        Ok(())
    }

    /// Opens the socket that the service may talk to, and says how the service names it.
    ///
    /// The directory is made passable: the service may run as another user. What else is in it has
    /// modes of its own.
    ///
    /// # Errors
    /// As bind(2); the path is too long for a socket.
    pub fn listen(&mut self) -> io::Result<PathBuf> {
        let path = self.path.canonicalize()?.join(NOTICES);
        if path.as_os_str().len() > MAX_SOCKET_PATH {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{}: too long for a socket; SUPERVISEDIR can shorten it", path.display()),
            ));
        }
        if self.notices.is_none() || !path.exists() {
            self.notices = Some(Receiver::bind(&self.directory, NOTICES)?);
            self.directory.set_permissions(Permissions::from_mode(0o711))?;
        }
        Ok(path)
    }

    /// Keeps what the service says about itself; `None` forgets it.
    ///
    /// # Errors
    /// Disk full.
    pub fn keep_message(&self, message: Option<&[u8]>) -> io::Result<()> {
        let path = self.path.join(MESSAGE);
        match message {
            Some(message) => fs::write(path, message),
            None => match fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
                _ => Ok(()),
            },
        }
    }
}

/// The directory, also where a symbolic link points to nothing yet.
///
/// # Errors
/// As mkdir(2).
pub fn make_directory(path: &Path) -> io::Result<()> {
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

fn is_same(file: &File, path: &Path) -> bool {
    let identity = |m: fs::Metadata| (m.dev(), m.ino());
    file.metadata().is_ok_and(|held| fs::metadata(path).is_ok_and(|found| identity(held) == identity(found)))
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
