//! Finding svscans and their services.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use unix::Pid;

use crate::client;
use crate::state_path::Places;
use crate::status::{Record, Wait, Want};
use crate::svscan::pid_file;

/// A running svscan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scan {
    /// Its scan directory.
    pub(super) dir: PathBuf,
    pub(super) pid: Pid,
    /// When it was started, since 1970; `None` when that cannot be told.
    pub(super) since: Option<Duration>,
}

/// Services or loggers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Main,
    Log,
}

/// What a service is doing. The order is that of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    /// Its state is for its owner only.
    Unreadable,
    Unsupervised,
    Down,
    Waiting,
    Paused,
    Up,
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// Name below the scan directory.
    pub(super) name: String,
    pub(super) state: State,
    pub(super) pid: Option<u32>,
    pub(super) supervise: Option<u32>,
    pub(super) since: Option<Duration>,
    /// Is the present state not the one that is wanted?
    pub(super) remark: &'static str,
}

/// The svscan of `only`, or all that can be found.
pub(super) fn scans(
    places: &Places,
    only: Option<&Path>,
    usual: &Path,
    complain: &mut dyn FnMut(String),
) -> Vec<Scan> {
    let mut found: Vec<Scan> = Vec::new();
    let mut add = |scan: Option<Scan>| {
        if let Some(scan) = scan
            && found.iter().all(|known| known.pid != scan.pid)
        {
            found.push(scan);
        }
    };
    let wanted = only.map(|dir| dir.canonicalize().unwrap_or_else(|_| dir.to_owned()));
    let mut ask = |state: &Path| {
        pid_file::running(state).unwrap_or_else(|e| {
            complain(format!("{}: {e}", state.join(pid_file::NAME).display()));
            None
        })
    };
    if let Some(run) = places.run()
        && let Some(pid) = ask(run)
    {
        // Whose it is only its working directory tells; that of others is not for everybody.
        let dir = working_directory(pid).unwrap_or_else(|| usual.to_owned());
        add(Some(Scan { dir, pid, since: modified(run) }));
    }
    let local = |dir: &Path, pid| Scan { dir: dir.to_owned(), pid, since: modified(dir) };
    let dir = wanted.as_deref().unwrap_or(usual);
    add(ask(dir).map(|pid| local(dir, pid)));
    if wanted.is_none() {
        for pid in all_processes() {
            let Some(dir) = working_directory(pid) else { continue };
            if pid_file::running(&dir).is_ok_and(|holder| holder == Some(pid)) {
                add(Some(local(&dir, pid)));
            }
        }
    }
    found.retain(|scan| wanted.as_ref().is_none_or(|dir| scan.dir == *dir));
    found
}

/// The numbers of all processes.
pub(super) fn all_processes() -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw);
    let mut all: Vec<Pid> = entries.filter_map(number).collect();
    all.sort_by_key(|pid| pid.as_raw());
    all
}

fn working_directory(pid: Pid) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/cwd")).ok()
}

fn modified(state: &Path) -> Option<Duration> {
    let time = fs::metadata(state.join(pid_file::NAME)).and_then(|meta| meta.modified()).ok()?;
    time.duration_since(UNIX_EPOCH).ok()
}

/// All services or loggers of a scan directory.
pub(super) fn services(
    scan: &Scan,
    kind: Kind,
    places: &Places,
    complain: &mut dyn FnMut(String),
) -> Vec<Row> {
    let mut rows = Vec::new();
    for path in directories(&scan.dir, complain) {
        let dir = match kind {
            Kind::Main => path,
            Kind::Log if path.join("log").is_dir() => path.join("log"),
            Kind::Log => continue,
        };
        let name =
            dir.strip_prefix(&scan.dir).unwrap_or(&dir).as_os_str().as_bytes().escape_ascii().to_string();
        match look(&dir, places) {
            Ok(record) => rows.push(row(name, record, dir.join("down").exists())),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                rows.push(Row { state: State::Unreadable, ..row(name, None, false) });
            }
            Err(e) => complain(format!("{}: {e}", dir.display())),
        }
    }
    // svscan's own logger belongs to the loggers.
    let own = scan.dir.join(".svscan/log");
    if kind == Kind::Log
        && let Ok(Some(record)) = look(&own, places)
    {
        rows.push(row(".svscan/log".to_owned(), Some(record), false));
    }
    rows
}

/// The service directories.
pub(super) fn directories(scan_directory: &Path, complain: &mut dyn FnMut(String)) -> Vec<PathBuf> {
    let entries = match fs::read_dir(scan_directory) {
        Ok(entries) => entries,
        Err(e) => {
            complain(format!("{}: {e}", scan_directory.display()));
            return Vec::new();
        }
    };
    let visible = |entry: &fs::DirEntry| !entry.file_name().as_bytes().starts_with(b".");
    entries.flatten().filter(visible).map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// What supervise says about a service; `None` when none runs there. Who may not open its FIFO takes the
/// record as it is.
pub(super) fn look(dir: &Path, places: &Places) -> io::Result<Option<Record>> {
    let state = places.of_client(dir);
    match client::is_running(&state) {
        Ok(false) => return Ok(None),
        Err(e) if e.kind() != io::ErrorKind::PermissionDenied => return Err(e),
        _ => {}
    }
    client::record(&state).map(Some)
}

fn row(name: String, record: Option<Record>, down_file: bool) -> Row {
    let Some(record) = record else {
        return Row { name, state: State::Unsupervised, pid: None, supervise: None, since: None, remark: "" };
    };
    let state = match record.pid {
        Some(_) if record.paused => State::Paused,
        Some(_) => State::Up,
        None if record.wait != Wait::None => State::Waiting,
        None => State::Down,
    };
    let remark = match (record.pid, record.want) {
        (Some(_), Want::Down) => "want down",
        (None, Want::Up) => "want up",
        (Some(_), _) if down_file => "normally down",
        (None, _) if !down_file => "normally up",
        _ => "",
    };
    Row { name, state, pid: record.pid, supervise: record.supervise, since: record.since.to_unix(), remark }
}
