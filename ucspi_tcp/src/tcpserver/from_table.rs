//! Rules from a table of MySQL: a process of our own that follows the table and keeps a rules database.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use unix::child::Launch;
use unix::clock::Deadline;
use unix::wait::{Interest, one};
use unix::{Pid, Signal};

use super::settings::Settings;

/// The executable, in the directory of ours.
const EXECUTABLE: &str = "tcprules-sql";
/// How often it looks, in seconds.
const INTERVAL: &str = "2";
/// How long its first answer is waited for before connections are accepted.
const FIRST_ANSWER: Duration = Duration::from_secs(10);
/// Before it is started again.
const RESTART_PAUSE: Duration = Duration::from_secs(5);

/// The process and its directory.
#[derive(Debug)]
pub(super) struct FromTable {
    conf: PathBuf,
    port: u16,
    directory: PathBuf,
    pid: Option<Pid>,
    /// Its input: it ends when we do, however that happens.
    _alive: Option<OwnedFd>,
    pub(super) again: Option<Deadline>,
}

impl FromTable {
    /// Starts it and waits a moment for the first rules. Called when the server is the user it will be.
    pub(super) fn start(conf: &Path, port: u16, settings: &Settings) -> io::Result<Self> {
        let set = settings.environment.get("TMPDIR").filter(|d| !d.is_empty());
        let parent = Path::new(set.unwrap_or(OsStr::new("/tmp")));
        let directory = nix::unistd::mkdtemp(&parent.join("tcpserver.XXXXXX"))?;
        let mut this = Self { conf: conf.to_owned(), port, directory, pid: None, _alive: None, again: None };
        let answer = this.launch(settings)?;
        // A table that does not answer must not keep the server from starting: it drops connections meanwhile.
        one(answer.as_fd(), Interest::Read, Deadline::after(FIRST_ANSWER))?;
        Ok(this)
    }

    /// The rules database.
    pub(super) fn path(&self) -> PathBuf {
        self.directory.join("rules.cdb")
    }

    fn launch(&mut self, settings: &Settings) -> io::Result<OwnedFd> {
        let (input, alive) = unix::fd::pipe()?;
        let (answer, output) = unix::fd::pipe()?;
        let pid = Launch::new(unix::host::executable()?.with_file_name(EXECUTABLE))
            .args(["--follow", INTERVAL])
            .args([&self.conf])
            .args([self.port.to_string()])
            .args([self.path()])
            .env_exactly(settings.environment.to_vec())
            .descriptor(input.as_fd(), 0)?
            .descriptor(output.as_fd(), 1)?
            .start()?;
        self.pid = Some(pid);
        self._alive = Some(alive);
        self.again = None;
        Ok(answer)
    }

    /// A child ended: was it this one? It will be started again.
    pub(super) fn ended(&mut self, pid: Pid) -> bool {
        if self.pid != Some(pid) {
            return false;
        }
        self.pid = None;
        self.again = Some(Deadline::after(RESTART_PAUSE));
        true
    }

    /// Starts it again when it is time.
    pub(super) fn restart_if_due(&mut self, settings: &Settings) -> io::Result<()> {
        if self.again.is_some_and(|d| d.passed()) {
            self.again = Some(Deadline::after(RESTART_PAUSE));
            self.launch(settings)?;
        }
        Ok(())
    }

    /// Look at once.
    pub(super) fn reload(&self) {
        if let Some(pid) = self.pid {
            // It may have ended just now.
            let _ = nix::sys::signal::kill(pid, Signal::SIGHUP);
        }
    }
}

impl Drop for FromTable {
    fn drop(&mut self) {
        // It ends when its input does; a file it writes meanwhile goes with the directory at the next start of
        // the machine at the latest.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
