//! Performs what the machine decides. No policy here.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use program::{Environment, Exit};
use unix::child::Launch;
use unix::clock::Deadline;
use unix::signals::Signals;
use unix::wait::Interest;
use unix::{Pid, Signal};

use super::Settings;
use super::machine::{Action, Event, Machine, Role, SlotId};
use super::scan::{self, Watch};
use crate::{envdir, fifo, svok};

/// Without inotify, and after a scan that failed.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
const PID_FILE: &str = ".svscan.pid";
const OWN: &str = ".svscan";
/// How long svscan's own logger may take to read to the end.
const OWN_LOG_PATIENCE: Duration = Duration::from_secs(10);

/// Runs until told to stop.
pub(super) fn run(settings: &Settings) -> Exit {
    match Driver::start(settings) {
        Ok(mut driver) => driver.serve(),
        Err(message) => {
            report("fatal", &message);
            Exit::TEMPORARY
        }
    }
}

/// What a slot holds.
struct Service {
    name: Vec<u8>,
    pipe: Option<(OwnedFd, OwnedFd)>,
}

struct Driver<'a> {
    settings: &'a Settings,
    verbose: bool,
    silent: bool,
    environment: Environment,
    supervise: PathBuf,
    signals: Signals,
    watch: Option<Watch>,
    machine: Machine,
    services: BTreeMap<SlotId, Service>,
    own_log: Option<Pid>,
    next_scan: Option<Deadline>,
    started: Instant,
    exited: bool,
    _lock: Flock<File>,
}

impl<'a> Driver<'a> {
    fn start(settings: &'a Settings) -> Result<Self, String> {
        use Signal::{SIGCHLD, SIGHUP, SIGINT, SIGPWR, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
        unix::fd::sanitize_standard().map_err(|e| format!("unable to open /dev/null: {e}"))?;
        let signals = Signals::listen(&[SIGCHLD, SIGTERM, SIGINT, SIGPWR, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2])
            .map_err(|e| format!("unable to catch signals: {e}"))?;
        let dir = settings.dir.display();
        std::env::set_current_dir(&settings.dir).map_err(|e| format!("unable to change to {dir}: {e}"))?;
        let here = std::env::current_dir().map_err(|e| format!("unable to tell the path of {dir}: {e}"))?;
        let lock = single_instance().map_err(|e| format!("{dir}: {e}"))?;
        let mut environment = settings.environment.clone();
        environment.set("PPID", std::process::id().to_string());
        environment.set("SCANDIR", here.as_os_str());
        environment.set("PWD", here.as_os_str());
        let mut driver = Self {
            settings,
            verbose: settings.verbose,
            silent: settings.silent,
            environment,
            supervise: supervise_program(),
            signals,
            watch: None,
            machine: Machine::new(settings.limits),
            services: BTreeMap::new(),
            own_log: None,
            next_scan: None,
            started: Instant::now(),
            exited: false,
            _lock: lock,
        };
        match Watch::current_directory() {
            Ok(watch) => driver.watch = Some(watch),
            Err(e) => driver.warn(&format!("unable to watch {dir}, reading it every 5 seconds instead: {e}")),
        }
        if settings.own_log {
            driver.start_own_log().map_err(|e| format!("unable to start {OWN}/log: {e}"))?;
        }
        Ok(driver)
    }

    fn serve(&mut self) -> Exit {
        self.scan();
        self.notify("READY=1\n");
        while !self.exited {
            if let Err(e) = self.turn() {
                self.warn(&format!("unable to wait for events: {e}"));
            }
        }
        if self.machine.stopping() {
            self.stop_own_log();
        }
        Exit::OK
    }

    fn turn(&mut self) -> io::Result<()> {
        let machine =
            self.machine.deadline().map(|at| Deadline::after(at.saturating_sub(self.started.elapsed())));
        let scan = self.next_scan.filter(|_| !self.machine.stopping());
        let deadline = [machine, scan].into_iter().flatten().min();
        let mut fds = vec![(self.signals.as_fd(), Interest::Read)];
        fds.extend(self.watch.iter().map(|w| (w.as_fd(), Interest::Read)));
        let ready = unix::wait::ready(&fds, deadline)?;
        let mut rescan = scan.is_some_and(Deadline::passed);
        if ready[0].read {
            rescan |= self.take_signals()?;
        }
        if ready.get(1).is_some_and(|r| r.read)
            && let Some(watch) = &self.watch
        {
            watch.drain();
            rescan = true;
        }
        self.feed(Event::Tick);
        if rescan && !self.machine.stopping() {
            self.scan();
        }
        Ok(())
    }

    /// Should the directory be read again?
    fn take_signals(&mut self) -> io::Result<bool> {
        let mut rescan = false;
        while let Some(signal) = self.signals.take() {
            match signal {
                Signal::SIGTERM | Signal::SIGINT | Signal::SIGPWR => {
                    self.notify("STOPPING=1\n");
                    self.feed(Event::Terminate);
                }
                Signal::SIGQUIT => self.feed(Event::Abandon),
                Signal::SIGHUP => rescan = true,
                Signal::SIGUSR1 => self.verbose = !self.verbose,
                Signal::SIGUSR2 => self.silent = !self.silent,
                _ => {}
            }
        }
        while let Some((pid, ending)) = unix::child::reap()? {
            self.info(&format!("supervise {pid} ended: {ending:?}"));
            if self.own_log == Some(pid) {
                self.own_log = None;
            }
            self.feed(Event::Ended(pid));
        }
        if self.settings.own_log && self.own_log.is_none() && !self.machine.stopping() {
            self.restart_own_log();
        }
        Ok(rescan)
    }

    fn scan(&mut self) {
        let mut complaints = Vec::new();
        let entries = scan::read(&mut |c| complaints.push(c.to_owned()));
        complaints.iter().for_each(|c| self.warn(c));
        let interval = match entries {
            Ok(entries) => {
                if let Some(watch) = &mut self.watch {
                    let partial = entries.iter().filter(|e| !e.complete);
                    watch.partial(&partial.map(|e| e.name.as_slice()).collect::<Vec<_>>());
                }
                self.feed(Event::Scanned(entries));
                let fallback = self.watch.is_none().then_some(POLL_INTERVAL);
                self.settings.interval.into_iter().chain(fallback).min()
            }
            Err(e) => {
                self.warn(&format!("unable to read the directory: {e}"));
                Some(POLL_INTERVAL)
            }
        };
        self.next_scan = interval.map(Deadline::after);
    }

    fn feed(&mut self, event: Event) {
        let mut events = vec![event];
        let mut actions = Vec::new();
        while !events.is_empty() {
            for event in std::mem::take(&mut events) {
                self.machine.handle(event, self.started.elapsed(), &mut actions);
            }
            for action in std::mem::take(&mut actions) {
                events.extend(self.perform(action));
            }
        }
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Open { slot, name, has_log } => return self.open(slot, name, has_log),
            Action::Start(slot, role) => return Some(self.start_supervise(slot, role)),
            Action::Look(slot, role) => {
                return Some(if self.is_supervised(slot, role) {
                    Event::Foreign(slot, role)
                } else {
                    Event::Gone(slot, role)
                });
            }
            Action::Signal(pid, signal) => {
                // It is our unreaped child; gone already is what was wanted.
                let _ = nix::sys::signal::kill(pid, signal);
            }
            Action::Command(slot, role, byte) => self.command(slot, role, byte),
            Action::ClosePipe(slot) => {
                if let Some(service) = self.services.get_mut(&slot) {
                    service.pipe = None;
                }
            }
            Action::Close(slot) => {
                self.services.remove(&slot);
            }
            Action::TooMany(name) => {
                let limit = self.settings.limits.slots;
                self.warn(&format!("{}: more than {limit} services; raise -n", name.escape_ascii()));
            }
            Action::Exit => self.exited = true,
        }
        None
    }

    fn open(&mut self, slot: SlotId, name: Vec<u8>, has_log: bool) -> Option<Event> {
        let pipe = if has_log {
            match pipe_or_more_descriptors() {
                Ok(pipe) => Some(pipe),
                Err(e) => {
                    self.warn(&format!("unable to make a pipe for {}: {e}", name.escape_ascii()));
                    self.next_scan.get_or_insert(Deadline::after(POLL_INTERVAL));
                    return Some(Event::OpenFailed(slot));
                }
            }
        } else {
            None
        };
        self.services.insert(slot, Service { name, pipe });
        None
    }

    fn start_supervise(&self, slot: SlotId, role: Role) -> Event {
        let Some(service) = self.services.get(&slot) else { return Event::StartFailed(slot, role) };
        if self.is_supervised(slot, role) {
            self.warn(&format!("{}: supervise is running already", described(&service.name, role)));
            return Event::Foreign(slot, role);
        }
        match self.launch(service, role) {
            Ok(pid) => {
                self.info(&format!("supervise {pid} started for {}", described(&service.name, role)));
                Event::Started(slot, role, pid)
            }
            Err(e) => {
                self.warn(&format!("unable to start supervise for {}: {e}", described(&service.name, role)));
                Event::StartFailed(slot, role)
            }
        }
    }

    /// Cannot tell counts as no: supervise itself will find out.
    fn is_supervised(&self, slot: SlotId, role: Role) -> bool {
        let dir = self.services.get(&slot).map(|service| directory(&service.name, role));
        dir.is_some_and(|dir| svok::is_supervised(&dir).unwrap_or(false))
    }

    fn launch(&self, service: &Service, role: Role) -> io::Result<Pid> {
        let name = OsString::from_vec(service.name.clone());
        let dir = directory(&service.name, role);
        let mut environment = self.environment.clone();
        environment.set(if role == Role::Main { "MAIN_SV" } else { "SV_PWD" }, name.as_os_str());
        let svars = dir.join(".svars");
        if svars.is_dir() {
            envdir::read(&svars, envdir::OnUnreadable::Fail)
                .map_err(io::Error::other)?
                .apply(&mut environment);
        }
        let launch = Launch::new(&self.supervise).arg0("supervise").env_exactly(environment.to_vec());
        let launch = match (role, &service.pipe) {
            (Role::Main, None) => launch.args([name]),
            (Role::Main, Some((_, write))) => launch.args([name]).descriptor(write.as_fd(), 1)?,
            (Role::Log, pipe) => {
                let launch = launch.directory(Path::new(&name)).args([OsStr::new("log"), name.as_os_str()]);
                match pipe {
                    Some((read, _)) => launch.descriptor(read.as_fd(), 0)?,
                    None => launch,
                }
            }
        };
        launch.start()
    }

    fn command(&self, slot: SlotId, role: Role, byte: u8) {
        let Some(service) = self.services.get(&slot) else { return };
        let control = directory(&service.name, role).join("supervise/control");
        let written = match fifo::writer(&control) {
            Ok(Some(mut control)) => control.write_all(&[byte]),
            Ok(None) => Err(io::ErrorKind::NotFound.into()),
            Err(e) => Err(e),
        };
        if let Err(e) = written {
            self.warn(&format!("unable to control {}: {e}", described(&service.name, role)));
        }
    }

    /// Our own output, and that of services without a logger, goes to `.svscan/log` from here on.
    fn start_own_log(&mut self) -> io::Result<()> {
        let (read, write) = unix::fd::pipe()?;
        let service = Service { name: OWN.into(), pipe: Some((read, write)) };
        self.own_log = Some(self.launch(&service, Role::Log)?);
        if let Some((_, write)) = &service.pipe {
            nix::unistd::dup2_stdout(write)?;
            nix::unistd::dup2_stderr(write)?;
        }
        self.services.insert(SlotId(u64::MAX), service);
        Ok(())
    }

    fn restart_own_log(&mut self) {
        let Some(service) = self.services.get(&SlotId(u64::MAX)) else { return };
        match self.launch(service, Role::Log) {
            Ok(pid) => self.own_log = Some(pid),
            Err(e) => self.warn(&format!("unable to start {OWN}/log: {e}")),
        }
    }

    /// Lets our own logger read to the end, which comes when nobody holds the pipe any more.
    fn stop_own_log(&mut self) {
        let Some(pid) = self.own_log else { return };
        if let Ok(null) = OpenOptions::new().write(true).open("/dev/null") {
            let _ = nix::unistd::dup2_stdout(&null);
            let _ = nix::unistd::dup2_stderr(&null);
        }
        self.command(SlotId(u64::MAX), Role::Log, b'x');
        self.services.clear();
        let mut deadline = Deadline::after(OWN_LOG_PATIENCE);
        let mut steps = [Signal::SIGTERM, Signal::SIGKILL].into_iter();
        while self.own_log.is_some() {
            while self.signals.take().is_some() {}
            while let Ok(Some((ended, _))) = unix::child::reap() {
                self.own_log = self.own_log.filter(|&own| own != ended);
            }
            if self.own_log.is_none() {
                return;
            }
            if deadline.passed() {
                let Some(signal) = steps.next() else { return };
                let _ = nix::sys::signal::kill(pid, signal);
                deadline = Deadline::after(OWN_LOG_PATIENCE);
            }
            let _ = unix::wait::one(self.signals.as_fd(), Interest::Read, deadline);
        }
    }

    fn notify(&self, message: &str) {
        let Some(path) = &self.settings.notify_socket else { return };
        if let Err(e) = unix::notify::send(path, message) {
            self.warn(&format!("unable to notify {}: {e}", path.display()));
        }
    }

    fn warn(&self, message: &str) {
        if !self.silent {
            report("warning", message);
        }
    }

    fn info(&self, message: &str) {
        if self.verbose {
            report("info", message);
        }
    }
}

fn report(level: &str, message: &str) {
    // Nobody may be reading; that must not stop the services.
    let _ = writeln!(io::stderr(), "svscan: {level}: {message}");
}

fn directory(name: &[u8], role: Role) -> PathBuf {
    let dir = PathBuf::from(OsStr::from_bytes(name));
    match role {
        Role::Main => dir,
        Role::Log => dir.join("log"),
    }
}

fn described(name: &[u8], role: Role) -> String {
    format!("{}{}", name.escape_ascii(), if role == Role::Log { "/log" } else { "" })
}

/// The supervise beside this executable, else the one in PATH.
fn supervise_program() -> PathBuf {
    let beside = unix::host::executable().ok().map(|exe| exe.with_file_name("supervise"));
    beside.filter(|p| p.exists()).unwrap_or_else(|| PathBuf::from("supervise"))
}

/// One svscan for each directory: the lock is the truth, the contents are for readers.
fn single_instance() -> Result<Flock<File>, String> {
    let open =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o644).open(PID_FILE);
    let file = open.map_err(|e| format!("unable to open {PID_FILE}: {e}"))?;
    let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((_, nix::errno::Errno::EAGAIN)) => {
            let holder = fs::read(PID_FILE).unwrap_or_default();
            let holder =
                holder.trim_ascii_end().rsplit(|&b| b == b'\n').next().unwrap_or_default().escape_ascii();
            return Err(format!("already running, pid {holder}"));
        }
        Err((_, e)) => return Err(format!("unable to lock {PID_FILE}: {e}")),
    };
    let pid = std::process::id();
    let mut contents = pid.to_ne_bytes().to_vec();
    contents.extend(format!("\n{pid}\n").bytes());
    lock.set_len(0)
        .and_then(|()| (&*lock).write_all(&contents))
        .map_err(|e| format!("unable to write {PID_FILE}: {e}"))?;
    Ok(lock)
}

/// A pipe; when descriptors run out, the soft limit is raised to the hard one first.
fn pipe_or_more_descriptors() -> io::Result<(OwnedFd, OwnedFd)> {
    match unix::fd::pipe() {
        Err(e) if e.raw_os_error() == Some(libc::EMFILE) => {
            let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
            if soft >= hard {
                return Err(e);
            }
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
            unix::fd::pipe()
        }
        other => other,
    }
}
