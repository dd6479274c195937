//! Starting the service and its scripts.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use program::Environment;
use unix::Pid;
use unix::child::{Ending, Launch};

use super::service::Service;
use super::{Driver, small_file};
use crate::envdir;
use crate::supervise::machine::{Death, Event, Limits, Script, Why};
use crate::supervise::policy;
use crate::supervise::state_dir::SERVICE_LINE_AT;

/// Sticky bit of `run`: orphans of the service are part of it.
const STICKY: u32 = 0o1000;

fn seconds(file: &str) -> Option<Duration> {
    small_file(file).and_then(|text| policy::number(&text)).map(Duration::from_secs)
}

fn milliseconds(file: &str) -> Option<Duration> {
    let number = small_file(file).and_then(|text| policy::number(&text));
    number.filter(|&ms| ms > 0).map(Duration::from_millis)
}

/// May the service talk to a socket?
pub(super) fn socket_wanted() -> bool {
    fs::exists("notify-socket").unwrap_or(false)
}

/// What the files of the service directory, which is the current one, say now.
pub(super) fn limits() -> Limits {
    let announces = small_file("notification-fd").is_some_and(|t| policy::descriptor(&t).is_some());
    Limits {
        kill_after: milliseconds("timeout-kill"),
        announces: announces || socket_wanted(),
        // Without the socket it has no way to say that it is alive.
        watchdog: milliseconds("watchdog").filter(|_| socket_wanted()),
    }
}

impl Driver<'_> {
    pub(super) fn start_service(&mut self, why: Why) -> Event {
        if let Err(e) = self.state.forget_service() {
            self.warn(&format!("unable to write {}/service: {e}", self.place.state.display()));
        }
        self.announcement = None;
        let _ = self.state.keep_message(None);
        let mut limits = limits();
        let started = self.launch_service(why, &mut limits);
        // What is left of it with us would keep it held after the service's end.
        self.lock = None;
        match started {
            Ok(pid) => {
                self.info(&format!("pid {pid} started: {}", why.text()));
                let group = (self.adopting || self.settings.process_group).then_some(pid);
                self.service = Service::Child { pid, group };
                Event::Started { pid: pid.as_raw().unsigned_abs(), limits }
            }
            Err(e) => {
                self.announcement = None;
                self.warn(&format!("unable to start run: {e}"));
                match e.raw_os_error() {
                    Some(libc::EAGAIN | libc::ENOMEM) => Event::ForkFailed,
                    _ => Event::StartFailed,
                }
            }
        }
    }

    fn launch_service(&mut self, why: Why, limits: &mut Limits) -> io::Result<Pid> {
        self.adopt_if_sticky()?;
        let mut environment = self.environment();
        if let Ok(meta) = fs::symlink_metadata("variables")
            && meta.is_dir()
        {
            if meta.permissions().mode() & 0o001 == 0 {
                environment = self.with_parent(Environment::default());
            }
            envdir::read(Path::new("variables"), envdir::OnUnreadable::Fail)
                .map_err(io::Error::other)?
                .apply(&mut environment);
        }
        if socket_wanted() {
            match self.state.listen() {
                Ok(path) => environment.set("NOTIFY_SOCKET", path),
                Err(e) => {
                    (limits.announces, limits.watchdog) = (false, None);
                    self.warn(&format!("unable to open the notification socket: {e}"));
                }
            }
            if let Some(watchdog) = limits.watchdog {
                environment.set("WATCHDOG_USEC", watchdog.as_micros().to_string());
            }
        } else {
            self.state.notices = None;
        }
        let mut launch = Launch::new("./run")
            .args([self.known_as(), OsStr::new(why.text())])
            .env_exactly(environment.into_vec())
            .record(self.state.service.as_fd(), SERVICE_LINE_AT)?;
        let lock_at = self.descriptor("lock-fd");
        if let Some(number) = lock_at
            && let Some(lock) = &self.lock
        {
            launch = launch.descriptor(lock.as_fd(), number)?;
        }
        if let Some(number) = self.descriptor("notification-fd") {
            if lock_at == Some(number) {
                self.warn("files lock-fd and notification-fd name the same descriptor: no lock is handed on");
            }
            let (read, write) = unix::fd::pipe()?;
            unix::fd::set_nonblocking(&read, true)?;
            launch = launch.descriptor(write.as_fd(), number)?;
            self.announcement = Some(read);
        }
        if self.settings.process_group || self.adopting {
            launch = launch.new_process_group();
        }
        launch.start()
    }

    fn adopt_if_sticky(&mut self) -> io::Result<()> {
        let sticky = fs::metadata("run")?.permissions().mode() & STICKY != 0;
        if sticky != self.adopting {
            unix::process::adopt_orphans(sticky)?;
            self.adopting = sticky;
        }
        Ok(())
    }

    /// The number in this file, when it is there and makes sense.
    fn descriptor(&self, file: &str) -> Option<i32> {
        let number = policy::descriptor(&small_file(file)?);
        if number.is_none() {
            self.warn(&format!("file {file}: expected the number of a descriptor, 3 to 1023"));
        }
        number
    }

    /// The service directory as the service is told.
    fn known_as(&self) -> &OsStr {
        self.place.relocated.as_ref().map_or(self.settings.dir.as_os_str(), |d| d.as_os_str())
    }

    /// Made anew for each start: a copy would be kept by every supervise all the time.
    fn environment(&self) -> Environment {
        self.with_parent(self.settings.environment.clone())
    }

    fn with_parent(&self, mut environment: Environment) -> Environment {
        environment.set("PPID", std::process::id().to_string());
        environment
    }

    pub(super) fn start_script(&mut self, script: Script) -> Event {
        let dir = self.known_as().to_owned();
        let number = |n: &dyn std::fmt::Display| OsString::from(n.to_string());
        let (name, args, limit) = match script {
            Script::Init => ("init", vec![], None),
            Script::Shutdown { pid } => {
                let limit = seconds("timeout-shutdown").unwrap_or(Duration::from_secs(300));
                ("shutdown", vec![dir, number(&pid)], Some(limit))
            }
            Script::Alert { pid, death } => {
                let limit = seconds("timeout-alert").unwrap_or(Duration::from_secs(5));
                let (code, how) = match death {
                    Death::Known(Ending::Exited(code)) => (code, "exited"),
                    Death::Known(Ending::Killed(signal)) => (signal, "stopped/signalled"),
                    Death::Unknown => (0, "unknown"),
                };
                ("alert", vec![dir, number(&pid), number(&code), how.into()], Some(limit))
            }
        };
        if fs::metadata(name).is_err() {
            return Event::ScriptAbsent;
        }
        let launch = Launch::new(format!("./{name}")).args(args).new_process_group();
        match launch.env_exactly(self.environment().into_vec()).start() {
            Ok(pid) => {
                self.note_script(pid);
                Event::ScriptStarted { limit }
            }
            Err(e) => {
                self.warn(&format!("unable to run {name}: {e}"));
                Event::ScriptAbsent
            }
        }
    }
}
