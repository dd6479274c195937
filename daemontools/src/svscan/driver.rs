//! Performs what the machine decides. No policy about services here.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use program::Exit;
use unix::child::Ending;
use unix::clock::Deadline;
use unix::signals::{Arrival, Signals};
use unix::wait::Interest;
use unix::{Pid, Signal};

use super::launcher::{self, Launcher, Service};
use super::limits::OpenFiles;
use super::machine::{Action, Event, Machine, Role, SlotId};
use super::own_log::{OWN, OwnLog};
use super::pid_file::Claim;
use super::scan::{self, Directory, Watch};
use super::voice::{self, Voice};
use super::{Settings, hooks, pid_file, relocated};

/// Without inotify, and after a scan that failed.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// Children that end in a row are one reason to read the directory, so many orphans cost little.
const AFTER_CHILD: Duration = Duration::from_millis(100);
/// Bytes of an orphan's command line in a message.
const COMMAND_LINE: usize = 127;

/// Runs until told to stop.
pub(super) fn run(settings: &Settings) -> Exit {
    match Driver::start(settings) {
        Ok(driver) => driver.serve(),
        Err(message) => {
            voice::fatal(&message);
            Exit::TEMPORARY
        }
    }
}

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    NotYet,
    /// `.svscan/shutdown` runs, for so long at most; then what was asked for follows.
    Script(Pid, Deadline),
    /// Services are being stopped, or are left running.
    Followed,
}

struct Driver<'a> {
    settings: &'a Settings,
    voice: Voice,
    launcher: Launcher,
    signals: Signals,
    watch: Option<Watch>,
    machine: Machine,
    services: BTreeMap<SlotId, Service>,
    own_log: Option<OwnLog>,
    /// The first scan waits for it.
    init: Option<Pid>,
    scanned: bool,
    next_scan: Option<Deadline>,
    started: Instant,
    end: End,
    exited: bool,
    claim: Claim,
}

impl<'a> Driver<'a> {
    fn start(settings: &'a Settings) -> Result<Self, String> {
        use Signal::{SIGCHLD, SIGHUP, SIGINT, SIGPWR, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
        unix::fd::sanitize_standard().map_err(|e| format!("unable to open /dev/null: {e}"))?;
        let caught = [SIGCHLD, SIGTERM, SIGINT, SIGPWR, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2];
        let signals = Signals::listen_with_realtime(&caught, &[POWER_OFF])
            .map_err(|e| format!("unable to catch signals: {e}"))?;
        let voice = Voice { verbose: settings.verbose, silent: settings.silent };
        if settings.new_session {
            // The leader of a process group has its session already.
            let _ = nix::unistd::setsid();
        }
        let dir = settings.dir.display();
        std::env::set_current_dir(&settings.dir).map_err(|e| format!("unable to change to {dir}: {e}"))?;
        let here = std::env::current_dir().map_err(|e| format!("unable to tell the path of {dir}: {e}"))?;
        let run = settings.places.run();
        let state = run.unwrap_or(Path::new("."));
        let claim =
            Claim::take(state, &here, Pid::this(), settings.first_process).map_err(|e| match (e, run) {
                (e @ pid_file::Error::Busy(_), Some(run)) => {
                    format!(
                        "{dir}: {e}, with its state in {}: set DISABLE_RUN for a second one",
                        run.display()
                    )
                }
                (e, _) => format!("{dir}: {e}"),
            })?;
        if !claim.is_published() {
            voice.warn(&format!("{dir}: no pid file can be written; the directory itself is locked"));
        }
        if let Err(e) = nix::sys::prctl::set_child_subreaper(true) {
            voice.warn(&format!("unable to take in orphans: {e}"));
        }
        let slots = settings.limits.slots;
        let limits =
            OpenFiles::raise(slots).map_err(|e| format!("unable to set the limit of open files: {e}"))?;
        if let Some(room) = limits.shortage(slots) {
            voice.warn(&format!(
                "the hard limit of open files has room for {room} services with loggers, not {slots}: raise it, or lower -n"
            ));
        }
        let mut environment = settings.environment.clone();
        environment.set("PPID", std::process::id().to_string());
        environment.set("SCANDIR", here.as_os_str());
        environment.set("PWD", here.as_os_str());
        hooks::forget_exit_code();
        let mut driver = Self {
            settings,
            voice,
            launcher: Launcher::new(environment, settings.places.clone(), limits),
            signals,
            watch: None,
            machine: Machine::new(settings.limits),
            services: BTreeMap::new(),
            own_log: None,
            init: None,
            scanned: false,
            next_scan: None,
            started: Instant::now(),
            end: End::NotYet,
            exited: false,
            claim,
        };
        if settings.own_log {
            let log =
                OwnLog::start(&driver.launcher).map_err(|e| format!("unable to start {OWN}/log: {e}"))?;
            driver.own_log = Some(log);
        }
        match Watch::current_directory() {
            Ok(watch) => driver.watch = Some(watch),
            Err(e) => voice.warn(&format!("unable to watch {dir}, reading it every 5 seconds instead: {e}")),
        }
        driver.start_init();
        Ok(driver)
    }

    fn start_init(&mut self) {
        let Some(launch) = self.settings.init.as_ref().and_then(hooks::InitCommand::launch) else { return };
        match self.launcher.start_program(launch) {
            Ok(pid) if self.settings.wait_for_init => self.init = Some(pid),
            Ok(_) => {}
            Err(e) => self.voice.warn(&format!("unable to run INITCMD: {e}")),
        }
    }

    fn serve(mut self) -> Exit {
        while !self.exited {
            if !self.scanned && self.init.is_none() && self.machine.is_running() {
                self.scanned = true;
                self.scan();
                self.notify("READY=1\n");
            }
            if let Err(e) = self.turn() {
                self.voice.warn(&format!("unable to wait for events: {e}"));
            }
        }
        let in_order = self.end == End::Followed;
        let code = if in_order { hooks::exit_code() } else { Ok(None) };
        let code = code.unwrap_or_else(|e| {
            self.voice.warn(&format!("unable to read {OWN}/exitcode: {e}"));
            None
        });
        if in_order {
            let others_write = !self.services.is_empty();
            self.services.clear();
            if let Some(log) = self.own_log.take() {
                log.stop(&self.launcher, &self.signals, others_write);
            }
        }
        self.claim.give_up();
        code.map_or(Exit::OK, Exit)
    }

    fn turn(&mut self) -> io::Result<()> {
        let machine =
            self.machine.deadline().map(|at| Deadline::after(at.saturating_sub(self.started.elapsed())));
        let scan = self.next_scan.filter(|_| self.machine.is_running());
        let own_log = self.own_log.as_ref().and_then(OwnLog::due);
        let script = match self.end {
            End::Script(_, limit) => Some(limit),
            _ => None,
        };
        let deadline = [machine, scan, own_log, script].into_iter().flatten().min();
        let mut fds = vec![(self.signals.as_fd(), Interest::Read)];
        fds.extend(self.watch.iter().map(|w| (w.as_fd(), Interest::Read)));
        let ready = unix::wait::ready(&fds, deadline)?;
        let mut rescan = scan.is_some_and(Deadline::passed);
        if ready[0].read {
            rescan |= self.take_signals();
            self.reap()?;
        }
        if ready.get(1).is_some_and(|r| r.read)
            && let Some(watch) = &self.watch
        {
            watch.drain();
            rescan = true;
        }
        if let Some(log) = &mut self.own_log {
            log.attend(&self.launcher, self.voice);
        }
        if let End::Script(pid, limit) = self.end
            && limit.passed()
        {
            self.voice.warn(&format!("{OWN}/shutdown takes too long and is killed"));
            // It is our unreaped child.
            let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
            self.follow();
        }
        self.feed(Event::Tick);
        if rescan && self.scanned && self.machine.is_running() {
            self.scan();
        }
        Ok(())
    }

    /// Should the directory be read again?
    fn take_signals(&mut self) -> bool {
        let mut rescan = false;
        while let Some(arrival) = self.signals.take_any() {
            match arrival {
                Arrival::Ordinary(Signal::SIGTERM | Signal::SIGINT | Signal::SIGPWR)
                | Arrival::RealTime(POWER_OFF) => self.begin_end(),
                Arrival::Ordinary(Signal::SIGQUIT) => self.feed(Event::Abandon),
                Arrival::Ordinary(Signal::SIGHUP) => rescan = true,
                Arrival::Ordinary(Signal::SIGUSR1) => self.voice.verbose = !self.voice.verbose,
                Arrival::Ordinary(Signal::SIGUSR2) => self.voice.silent = !self.voice.silent,
                Arrival::Ordinary(_) | Arrival::RealTime(_) => {}
            }
        }
        rescan
    }

    /// Takes all children that have ended, also those that are not ours.
    fn reap(&mut self) -> io::Result<()> {
        loop {
            // An ended process still has its name until it is reaped.
            let next = if self.voice.verbose { unix::child::ended()? } else { None };
            let name = next.filter(|&pid| !self.is_ours(pid)).map(command_line);
            let Some((pid, ending)) = unix::child::reap()? else { break };
            self.ended(pid, ending, name.as_deref());
            if self.settings.scan_on_child && self.scanned {
                self.next_scan = self.next_scan.into_iter().chain([Deadline::after(AFTER_CHILD)]).min();
            }
        }
        Ok(())
    }

    fn is_ours(&self, pid: Pid) -> bool {
        let script = matches!(self.end, End::Script(running, _) if running == pid);
        self.machine.knows(pid) || self.init == Some(pid) || script
    }

    fn ended(&mut self, pid: Pid, ending: Ending, orphan: Option<&str>) {
        let how = match ending {
            Ending::Exited(code) => format!("exited {code}"),
            Ending::Killed(signal) => format!("was killed by signal {signal}"),
        };
        if self.own_log.as_mut().is_some_and(|log| log.ended(pid)) {
            self.voice.info(&format!("supervise {pid} of {OWN}/log {how}"));
        } else if self.init == Some(pid) {
            self.init = None;
            self.voice.info(&format!("INITCMD {how}"));
        } else if matches!(self.end, End::Script(script, _) if script == pid) {
            if !ending.is_success() {
                self.voice.warn(&format!("{OWN}/shutdown {how}"));
            }
            self.follow();
        } else if self.machine.knows(pid) {
            self.voice.info(&format!("supervise {pid} {how}"));
            self.feed(Event::Ended(pid));
        } else {
            let name = orphan.unwrap_or("?");
            self.voice.info(&format!("orphan {pid} ({name}) {how}: completed last rites"));
        }
    }

    /// Told to stop.
    fn begin_end(&mut self) {
        if self.end != End::NotYet {
            return;
        }
        self.notify("STOPPING=1\n");
        let Some(launch) = hooks::shutdown() else { return self.follow() };
        match self.launcher.start_program(launch) {
            Ok(pid) => {
                self.end = End::Script(pid, Deadline::after(self.settings.limits.kill_services));
                self.feed(Event::Drain);
            }
            Err(e) => {
                self.voice.warn(&format!("unable to run {OWN}/shutdown: {e}"));
                self.follow();
            }
        }
    }

    /// The shutdown script, if there is one, has done its part.
    fn follow(&mut self) {
        self.end = End::Followed;
        self.feed(if self.settings.stop_services { Event::Terminate } else { Event::Abandon });
    }

    fn scan(&mut self) {
        self.next_scan = None;
        let interval = match self.read_directory() {
            Ok(Directory { entries, disabled }) => {
                if let Some(run) = self.settings.places.run() {
                    let enabled: Vec<_> = entries.iter().map(|e| e.name.as_slice()).collect();
                    let voice = self.voice;
                    relocated::follow(run, &enabled, &disabled, &mut |complaint| voice.warn(complaint));
                }
                self.feed(Event::Scanned(entries));
                let fallback = self.watch.is_none().then_some(POLL_INTERVAL);
                self.settings.interval.into_iter().chain(fallback).min()
            }
            Err(e) => {
                self.voice.warn(&format!("unable to read the directory: {e}"));
                Some(POLL_INTERVAL)
            }
        };
        // A pipe that could not be made has asked for another scan already.
        self.next_scan = self.next_scan.into_iter().chain(interval.map(Deadline::after)).min();
    }

    fn read_directory(&mut self) -> io::Result<Directory> {
        loop {
            let voice = self.voice;
            let directory = scan::read(&mut |complaint| voice.warn(complaint))?;
            let Some(watch) = &mut self.watch else { return Ok(directory) };
            let entries = directory.entries.iter();
            let partial: Vec<_> = entries.filter(|e| !e.complete).map(|e| e.name.as_slice()).collect();
            if !watch.partial(&partial) {
                return Ok(directory);
            }
        }
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
                let there = self.services.get(&slot).is_some_and(|s| self.launcher.is_supervised(s, role));
                return Some(if there { Event::Foreign(slot, role) } else { Event::Gone(slot, role) });
            }
            Action::Signal(pid, signal) => {
                // It is our unreaped child; gone already is what was wanted.
                let _ = nix::sys::signal::kill(pid, signal);
            }
            Action::Command(slot, role, byte) => {
                let service = self.services.get(&slot)?;
                match self.launcher.command(service, role, byte) {
                    Ok(true) => {}
                    Ok(false) => {
                        let name = launcher::described(service, role);
                        self.voice.info(&format!("{name}: supervise is not listening"));
                        return Some(Event::Unheard(slot, role));
                    }
                    Err(e) => {
                        let name = launcher::described(service, role);
                        self.voice.warn(&format!("unable to control {name}: {e}"));
                    }
                }
            }
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
                self.voice.warn(&format!("{}: more than {limit} services; raise -n", name.escape_ascii()));
            }
            Action::Exit => self.exited = true,
        }
        None
    }

    fn open(&mut self, slot: SlotId, name: Vec<u8>, has_log: bool) -> Option<Event> {
        let pipe = match has_log.then(unix::fd::pipe).transpose() {
            Ok(pipe) => pipe,
            Err(e) => {
                self.voice.warn(&format!("unable to make a pipe for {}: {e}", name.escape_ascii()));
                self.next_scan.get_or_insert(Deadline::after(POLL_INTERVAL));
                return Some(Event::OpenFailed(slot));
            }
        };
        self.services.insert(slot, Service { name, pipe });
        None
    }

    fn start_supervise(&self, slot: SlotId, role: Role) -> Event {
        let Some(service) = self.services.get(&slot) else { return Event::StartFailed(slot, role) };
        let described = launcher::described(service, role);
        if self.launcher.is_supervised(service, role) {
            self.voice.warn(&format!("{described}: supervise is running already"));
            return Event::Foreign(slot, role);
        }
        match self.launcher.start(service, role) {
            Ok(pid) => {
                self.voice.info(&format!("supervise {pid} started for {described}"));
                Event::Started(slot, role, pid)
            }
            Err(e) => {
                self.voice.warn(&format!("unable to start supervise for {described}: {e}"));
                Event::StartFailed(slot, role)
            }
        }
    }

    fn notify(&self, message: &str) {
        let Some(path) = &self.settings.notify_socket else { return };
        if let Err(e) = unix::notify::send(path, message) {
            self.voice.warn(&format!("unable to notify {}: {e}", path.display()));
        }
    }
}

/// SIGRTMIN plus this: what a container manager sends to its first process to stop it.
const POWER_OFF: i32 = 3;

/// The command line of a process, or its name in brackets when it has ended and has no more than that.
fn command_line(pid: Pid) -> String {
    let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let mut line = read("cmdline");
    line.truncate(COMMAND_LINE);
    while line.last() == Some(&0) {
        line.pop();
    }
    if line.is_empty() {
        return format!("[{}]", read("comm").trim_ascii_end().escape_ascii());
    }
    line.iter_mut().filter(|b| **b == 0).for_each(|b| *b = b' ');
    line.escape_ascii().to_string()
}
