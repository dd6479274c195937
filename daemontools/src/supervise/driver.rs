//! Performs what the machine decides. No policy here.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use program::{Environment, Exit};
use tai::Label;
use unix::child::{Ending, Launch};
use unix::clock::Deadline;
use unix::process::Handle;
use unix::signals::Signals;
use unix::wait::Interest;
use unix::{Errno, Pid, Signal};

use super::Settings;
use super::machine::{Action, Death, Event, Machine, Script, Target, Why};
use super::state_dir::{Error, SERVICE_LINE_AT, StateDir, create_down_file};
use crate::envdir;
use crate::status::{Record, Wait, Want};

/// What is read from the control FIFO in one turn.
const CONTROL_BATCH: usize = 512;
const STATE: &str = "supervise";

/// Runs until told to exit.
pub(super) fn run(settings: &Settings<'_>) -> Exit {
    match Driver::start(settings) {
        Ok(mut driver) => driver.serve(),
        Err((exit, message)) => {
            report(settings, "fatal", &message);
            exit
        }
    }
}

/// The service process.
#[derive(Debug)]
enum Service {
    None,
    /// Our child.
    Child(Pid),
    /// The child of an earlier supervise.
    Survivor(Handle),
}

struct Driver<'a> {
    settings: &'a Settings<'a>,
    signals: Signals,
    state: StateDir,
    machine: Machine,
    since: Label,
    labels: tai::Ascending,
    service: Service,
    script: Option<Pid>,
    started: Instant,
    exited: bool,
}

impl<'a> Driver<'a> {
    fn start(settings: &'a Settings<'a>) -> Result<Self, (Exit, String)> {
        let temporary = |what: &str| {
            let what = what.to_owned();
            move |e: io::Error| (Exit::TEMPORARY, format!("{what}: {e}"))
        };
        let wanted = [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP];
        let signals = Signals::listen(&wanted).map_err(temporary("unable to catch signals"))?;
        unix::signals::forget_ignored().map_err(temporary("unable to catch signals"))?;
        std::env::set_current_dir(&settings.dir)
            .map_err(temporary("unable to change to the service directory"))?;
        let want = match fs::metadata("down") {
            Ok(_) => Want::Down,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Want::Up,
            Err(e) => return Err(temporary("unable to look for the file down")(e)),
        };
        fs::metadata("run").map_err(temporary("unable to find the file run"))?;
        let mut labels = tai::Ascending::default();
        let since = labels.label(unix::clock::since_epoch());
        let record = Record {
            since,
            pid: None,
            paused: false,
            want,
            wait: Wait::None,
            supervise: Some(std::process::id()),
        };
        let state = StateDir::open(Path::new(STATE), &record).map_err(|e| match e {
            Error::Busy(_) => (Exit::PERMANENT, e.to_string()),
            Error::Io { .. } => (Exit::TEMPORARY, e.to_string()),
        })?;
        Ok(Self {
            settings,
            signals,
            state,
            machine: Machine::new(want, settings.stop_signal),
            since,
            labels,
            service: Service::None,
            script: None,
            started: Instant::now(),
            exited: false,
        })
    }

    fn serve(&mut self) -> Exit {
        if let Some(survivor) = self.state.survivor() {
            let pid = survivor.pid().as_raw().unsigned_abs();
            self.warn(&format!(
                "taking charge of process {pid}, which an earlier supervise has left running"
            ));
            self.service = Service::Survivor(survivor);
            self.feed(Event::Adopted { pid, kill_after: kill_after() });
        }
        self.feed(Event::Begin);
        while !self.exited {
            if let Err(e) = self.turn() {
                self.warn(&format!("unable to wait for events: {e}"));
            }
        }
        Exit::OK
    }

    /// Waits for something to happen and deals with it.
    fn turn(&mut self) -> io::Result<()> {
        let deadline =
            self.machine.deadline().map(|at| Deadline::after(at.saturating_sub(self.started.elapsed())));
        let mut fds =
            vec![(self.signals.as_fd(), Interest::Read), (self.state.control.as_fd(), Interest::Read)];
        if let Service::Survivor(handle) = &self.service {
            fds.push((handle.as_fd(), Interest::Read));
        }
        let ready = unix::wait::ready(&fds, deadline)?;
        if ready[0].read {
            self.take_signals()?;
        }
        if ready.get(2).is_some_and(|r| r.read) {
            self.service = Service::None;
            self.feed(Event::Ended(Death::Unknown));
        }
        if ready[1].read {
            self.take_commands()?;
        }
        self.feed(Event::Tick);
        if !self.exited && !self.state.is_current() {
            self.renew_state();
        }
        Ok(())
    }

    fn take_signals(&mut self) -> io::Result<()> {
        while let Some(signal) = self.signals.take() {
            match signal {
                Signal::SIGTERM | Signal::SIGINT => self.feed(Event::Terminate),
                Signal::SIGQUIT => self.feed(Event::Abandon),
                // SIGCHLD: below, for one signal may stand for many children. SIGHUP: nothing to reload.
                _ => {}
            }
        }
        while let Some((pid, ending)) = unix::child::reap()? {
            self.child_ended(pid, ending);
        }
        Ok(())
    }

    fn child_ended(&mut self, pid: Pid, ending: Ending) {
        if matches!(self.service, Service::Child(service) if service == pid) {
            self.info(&match ending {
                Ending::Exited(code) => format!("pid {pid} exited with code {code}"),
                Ending::Killed(signal) => format!("pid {pid} killed by signal {signal}"),
            });
            self.service = Service::None;
            self.feed(Event::Ended(Death::Known(ending)));
        } else if self.script == Some(pid) {
            self.script = None;
            if !ending.is_success() {
                self.warn(&format!("script ended badly: {ending:?}"));
            }
            self.feed(Event::ScriptEnded { success: ending.is_success() });
        }
    }

    fn take_commands(&mut self) -> io::Result<()> {
        let mut bytes = [0; CONTROL_BATCH];
        match self.state.control.read(&mut bytes) {
            Ok(n) => {
                bytes[..n].iter().for_each(|&b| self.feed(Event::Control(b)));
                if n < bytes.len() {
                    self.feed(Event::ControlDrained);
                }
                Ok(())
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Gives an event to the machine, performs its actions, and feeds their outcome back.
    fn feed(&mut self, event: Event) {
        let mut next = Some(event);
        let mut actions = Vec::new();
        while let Some(event) = next.take() {
            self.machine.handle(event, self.started.elapsed(), &mut actions);
            for action in std::mem::take(&mut actions) {
                next = self.perform(action).or(next);
            }
        }
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Start(why) => return Some(self.start_service(why)),
            Action::RunScript(script) => return Some(self.start_script(script)),
            Action::KillScript => {
                if let Some(pid) = self.script {
                    self.warn("script takes too long or is of no use any more: killing it");
                    let _ = nix::sys::signal::killpg(pid, Signal::SIGKILL);
                }
            }
            Action::Signal(target, signal) => self.send(target, signal),
            Action::Publish(new_state) => {
                if new_state {
                    self.since = self.labels.label(unix::clock::since_epoch());
                }
                if let Err(e) = self.state.publish(&self.record()) {
                    self.warn(&format!("unable to write supervise/status: {e}"));
                }
            }
            Action::CreateDownFile => {
                if let Err(e) = create_down_file() {
                    self.warn(&format!("unable to create the file down: {e}"));
                }
            }
            Action::Exit => self.exited = true,
        }
        None
    }

    fn record(&self) -> Record {
        Record {
            since: self.since,
            pid: self.machine.pid(),
            paused: self.machine.paused(),
            want: self.machine.want(),
            wait: Wait::None,
            supervise: Some(std::process::id()),
        }
    }

    fn start_service(&mut self, why: Why) -> Event {
        if let Err(e) = self.state.forget_service() {
            self.warn(&format!("unable to write supervise/service: {e}"));
        }
        let started = self.launch_service(why);
        match started {
            Ok(pid) => {
                self.info(&format!("pid {pid} started: {}", why.text()));
                self.service = Service::Child(pid);
                Event::Started { pid: pid.as_raw().unsigned_abs(), kill_after: kill_after() }
            }
            Err(e) => {
                self.warn(&format!("unable to start run: {e}"));
                match e.raw_os_error() {
                    Some(libc::EAGAIN | libc::ENOMEM) => Event::ForkFailed,
                    _ => Event::StartFailed,
                }
            }
        }
    }

    fn launch_service(&self, why: Why) -> io::Result<Pid> {
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
        let mut launch = Launch::new("./run")
            .args([self.settings.dir.as_os_str(), OsStr::new(why.text())])
            .env_exactly(environment.into_vec())
            .record(self.state.service.as_fd(), SERVICE_LINE_AT)?;
        if self.settings.process_group {
            launch = launch.new_process_group();
        }
        launch.start()
    }

    /// Made anew for each start: a copy would be kept by every supervise all the time.
    fn environment(&self) -> Environment {
        self.with_parent(self.settings.environment.clone())
    }

    fn with_parent(&self, mut environment: Environment) -> Environment {
        environment.set("PPID", std::process::id().to_string());
        environment
    }

    fn start_script(&mut self, script: Script) -> Event {
        let dir = self.settings.dir.clone();
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
                self.script = Some(pid);
                Event::ScriptStarted { limit }
            }
            Err(e) => {
                self.warn(&format!("unable to run {name}: {e}"));
                Event::ScriptAbsent
            }
        }
    }

    /// The number cannot belong to anybody else: it is our unreaped child, or a held process.
    fn send(&self, target: Target, signal: Signal) {
        let pid = match &self.service {
            Service::None => return,
            Service::Child(pid) => *pid,
            Service::Survivor(handle) => handle.pid(),
        };
        if target == Target::Group && nix::sys::signal::killpg(pid, signal) != Err(Errno::ESRCH) {
            return;
        }
        let sent = match &self.service {
            Service::Survivor(handle) => handle.signal(signal),
            _ => nix::sys::signal::kill(pid, signal).map_err(io::Error::from),
        };
        if let Err(e) = sent {
            self.warn(&format!("unable to send {signal} to {pid}: {e}"));
        }
    }

    /// Somebody removed the state directory under us: make another one and go on.
    fn renew_state(&mut self) {
        match StateDir::open(Path::new(STATE), &self.record()) {
            Ok(state) => {
                self.warn("supervise/ had been removed: made it again");
                self.state = state;
                // The file that tells a later supervise about the running service is gone with it.
                if let Some(pid) = self.machine.pid()
                    && let Err(e) = self.state.remember_service(pid)
                {
                    self.warn(&format!("unable to write supervise/service: {e}"));
                }
            }
            // Not there to be used (yet): said once by the reader of the log, tried at the next event.
            Err(e) => self.info(&format!("supervise/ has been removed: {e}")),
        }
    }

    fn warn(&self, message: &str) {
        if !self.settings.silent {
            report(self.settings, "warning", message);
        }
    }

    fn info(&self, message: &str) {
        if self.settings.verbose {
            report(self.settings, "info", message);
        }
    }
}

fn report(settings: &Settings<'_>, level: &str, message: &str) {
    use io::Write as _;
    // Nobody may be reading the log; that must not stop the service.
    let _ = writeln!(io::stderr(), "{}: supervise: {level}: {message}", settings.label);
}

fn number_in(file: &str) -> Option<u64> {
    fs::read_to_string(file).ok()?.lines().next()?.trim().parse().ok()
}

fn seconds(file: &str) -> Option<Duration> {
    number_in(file).map(Duration::from_secs)
}

fn kill_after() -> Option<Duration> {
    number_in("timeout-kill").filter(|&ms| ms > 0).map(Duration::from_millis)
}
