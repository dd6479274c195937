//! Performs what the machine decides. No policy here.
//!
//! - this module: the loop, signals, commands, the state directory;
//! - `gate`: what may be in the way of a start;
//! - `launch`: starting the service and the scripts;
//! - `service`: which process is the service, signals to it, its end;
//! - `hearing`: what the service says about itself.

mod gate;
mod hearing;
mod launch;
mod service;

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::inotify::Inotify;
use program::Exit;
use tai::Label;
use unix::child::Ending;
use unix::clock::Deadline;
use unix::signals::Signals;
use unix::wait::Interest;
use unix::{Pid, Signal};

use super::Settings;
use super::machine::{Action, Event, Machine, Since};
use super::relocation;
use super::state_dir::{Error, StateDir, create_down_file};
use crate::client;
use crate::state_path::Place;
use crate::status::{Readiness, Record, Want};
use service::Service;

/// What is read from the control FIFO in one turn.
const CONTROL_BATCH: usize = 512;
/// A status that could not be written must not stay wrong.
const REWRITE_AFTER: Duration = Duration::from_secs(1);
/// A directory that somebody is removing is made again when that is likely to be over.
const RENEW_AFTER: Duration = Duration::from_millis(100);
/// When it cannot be made again.
const RENEW_RETRY: Duration = Duration::from_secs(5);

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

/// What the loop waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Signals,
    Control,
    Survivor,
    Announcement,
    Notices,
    Others,
}

struct Driver<'a> {
    settings: &'a Settings<'a>,
    /// The last record of an earlier supervise about the service that still runs.
    inherited: Option<Record>,
    place: Place,
    signals: Signals,
    state: StateDir,
    machine: Machine,
    since: Label,
    ready_since: Label,
    last: Option<Ending>,
    labels: tai::Ascending,
    service: Service,
    /// Do orphans of the service come to us?
    adopting: bool,
    script: Option<Pid>,
    /// Groups of scripts whose orphans may have come to us, which are not of the service.
    script_groups: Vec<Pid>,
    /// Reading end of the pipe on which the service says that it is ready.
    announcement: Option<OwnedFd>,
    /// Changes in the state directories of services that are waited for.
    others: Option<Inotify>,
    /// The lock for the instance that is about to be started.
    lock: Option<File>,
    lock_reported: Option<Instant>,
    cycle_reported: bool,
    /// When a status that could not be written is written again.
    rewrite_at: Option<Instant>,
    /// When the state directory is made again.
    renew_at: Option<Instant>,
    started: Instant,
    exited: bool,
}

type Fatal = (Exit, String);

fn temporary(what: &str) -> impl Fn(io::Error) -> Fatal + use<'_> {
    move |e| (Exit::TEMPORARY, format!("{what}: {}", program::chain::phrase(&e)))
}

fn unusable(error: &Error) -> Fatal {
    let exit = if matches!(error, Error::Busy(_)) { Exit::PERMANENT } else { Exit::TEMPORARY };
    (exit, error.to_string())
}

impl<'a> Driver<'a> {
    fn start(settings: &'a Settings<'a>) -> Result<Self, Fatal> {
        let wanted = [
            Signal::SIGCHLD,
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGQUIT,
            Signal::SIGHUP,
            // Something in the state directory was removed.
            Signal::SIGIO,
        ];
        let signals = Signals::listen(&wanted).map_err(temporary("unable to catch signals"))?;
        unix::signals::forget_ignored().map_err(temporary("unable to catch signals"))?;
        // What supervise was started with beyond the standard descriptors is not for the service. (An
        // old kernel cannot do that; then it is.)
        let _ = unix::fd::set_cloexec_from(3);
        let here = |_| (Exit::TEMPORARY, "unable to find out the current directory".to_owned());
        let started_in = std::env::current_dir().map_err(here)?;
        std::env::set_current_dir(&settings.dir)
            .map_err(temporary(&format!("unable to chdir to {}", settings.dir.display())))?;
        let down = fs::exists("down").map_err(temporary("unable to look for the file down"))?;
        fs::metadata("run").map_err(temporary("unable to find the file run"))?;
        let service = std::env::current_dir().map_err(here)?;
        let place =
            settings.places.of_supervise(&settings.dir, &started_in, settings.parent.as_deref(), &service);
        relocation::make_place(&place).map_err(|e| unusable(&e))?;
        for complaint in relocation::clear(&place).map_err(|e| unusable(&e))? {
            report(settings, "warning", &complaint);
        }
        let before = client::record(&place.state).ok();
        let state = StateDir::open(&place.state, None).map_err(|e| unusable(&e))?;
        let survivor = state.survivor();
        let want = match (&survivor, before) {
            // The operator's last word about a service that runs on.
            (Some(survivor), Some(before))
                if before.pid.is_none_or(|p| p == survivor.pid().as_raw().unsigned_abs()) =>
            {
                before.want
            }
            _ if down => Want::Down,
            _ => Want::Up,
        };
        let mut labels = tai::Ascending::default();
        let since = labels.label(unix::clock::since_epoch());
        let pid = survivor.as_ref().map(|s| s.pid().as_raw().unsigned_abs());
        Ok(Self {
            settings,
            // What it left says more about the service than that it runs.
            inherited: before.filter(|b| b.pid.is_some() && b.pid == pid),
            place,
            signals,
            state,
            machine: Machine::new(want, settings.stop_signal),
            since,
            ready_since: since,
            last: None,
            labels,
            service: survivor.map_or(Service::None, Service::Survivor),
            adopting: false,
            script: None,
            script_groups: Vec::new(),
            announcement: None,
            others: None,
            lock: None,
            lock_reported: None,
            cycle_reported: false,
            rewrite_at: None,
            renew_at: None,
            started: Instant::now(),
            exited: false,
        })
    }

    fn serve(&mut self) -> Exit {
        // Published first: who finds `ok` open may read it.
        let adopted = self.service.pid();
        match adopted {
            Some(pid) => self.adopt(pid),
            None => self.publish(Since::Now),
        }
        if let Err(e) = self.state.announce() {
            report(self.settings, "fatal", &e.to_string());
            return Exit::TEMPORARY;
        }
        self.feed(Event::Begin);
        if self.inherited.is_some_and(|b| b.want == Want::Down) {
            // It was told to stop; whether it has got the signals nobody knows.
            self.feed(Event::Control(b'd'));
        }
        while !self.exited {
            if let Err(e) = self.turn() {
                self.warn(&format!("unable to wait for events: {e}"));
                // Whatever it is, it is not over at once.
                unix::wait::pause(RENEW_AFTER);
            }
        }
        Exit::OK
    }

    /// Takes charge of the service of an earlier supervise.
    fn adopt(&mut self, pid: Pid) {
        self.warn(&format!("taking charge of process {pid}, which an earlier supervise has left running"));
        let mut limits = launch::limits();
        let readiness = self.inherited.map_or(Readiness::Silent, |b| b.readiness);
        if let Some(before) = self.inherited {
            (self.since, self.last) = (before.since, before.last);
        }
        if let Readiness::Since(label) = readiness {
            self.ready_since = label;
        }
        // The pipe is gone with its reader; the socket is found again under its name.
        let heard = launch::socket_wanted() && self.state.listen().is_ok();
        limits.announces = readiness != Readiness::Silent && (heard || readiness != Readiness::Awaited);
        limits.watchdog = limits.watchdog.filter(|_| heard);
        let ready = matches!(readiness, Readiness::Since(_));
        self.feed(Event::Adopted { pid: pid.as_raw().unsigned_abs(), limits, ready });
    }

    /// Waits for something to happen and deals with it.
    fn turn(&mut self) -> io::Result<()> {
        let machine = self.machine.deadline().map(|at| at.saturating_sub(self.started.elapsed()));
        let left = |at: Instant| at.saturating_duration_since(Instant::now());
        let (rewrite, renewal) = (self.rewrite_at.map(left), self.renew_at.map(left));
        let deadline = [machine, rewrite, renewal].into_iter().flatten().min().map(Deadline::after);
        let ready = {
            let mut sources = vec![Source::Signals, Source::Control];
            let mut fds =
                vec![(self.signals.as_fd(), Interest::Read), (self.state.control.as_fd(), Interest::Read)];
            if let Service::Survivor(handle) = &self.service {
                sources.push(Source::Survivor);
                fds.push((handle.as_fd(), Interest::Read));
            }
            if let Some(pipe) = &self.announcement {
                sources.push(Source::Announcement);
                fds.push((pipe.as_fd(), Interest::Read));
            }
            if let Some(notices) = &self.state.notices {
                sources.push(Source::Notices);
                fds.push((notices.as_fd(), Interest::Read));
            }
            if let Some(others) = &self.others {
                sources.push(Source::Others);
                fds.push((others.as_fd(), Interest::Read));
            }
            let ready = unix::wait::ready(&fds, deadline)?;
            sources.retain({
                let mut ready = ready.iter();
                move |_| ready.next().is_some_and(|r| r.read)
            });
            sources
        };
        // What it has said before its end counts.
        if ready.contains(&Source::Announcement) {
            self.take_announcement();
        }
        if ready.contains(&Source::Notices) {
            self.take_notices();
        }
        if ready.contains(&Source::Signals) {
            self.take_signals()?;
        }
        if ready.contains(&Source::Survivor) {
            self.survivor_ended()?;
        }
        if ready.contains(&Source::Others) {
            if let Some(others) = &self.others {
                let _ = others.read_events();
            }
            self.feed(Event::LookAgain);
        }
        if ready.contains(&Source::Control) {
            self.take_commands()?;
        } else {
            self.feed(Event::ControlDrained);
        }
        self.feed(Event::Tick);
        if self.machine.wait() == crate::status::Wait::None {
            self.others = None;
        }
        self.look_after_state();
        if self.rewrite_at.is_some_and(|at| at <= Instant::now()) {
            self.publish(Since::Before);
        }
        Ok(())
    }

    fn take_signals(&mut self) -> io::Result<()> {
        while let Some(signal) = self.signals.take() {
            match signal {
                Signal::SIGTERM | Signal::SIGINT => self.feed(Event::Terminate),
                Signal::SIGQUIT => self.feed(Event::Abandon),
                // SIGCHLD: below, for one signal may stand for many children. SIGIO: at the end of the
                // turn. SIGHUP: nothing to reload.
                _ => {}
            }
        }
        self.reap()
    }

    fn reap(&mut self) -> io::Result<()> {
        if self.settings.verbose {
            while let Some((pid, signal)) = unix::child::stopped_or_continued()? {
                self.info(&match signal {
                    Some(signal) => format!("pid {pid} stopped by signal {signal}"),
                    None => format!("pid {pid} continued by signal {}", Signal::SIGCONT as i32),
                });
            }
        }
        while let Some((pid, ending)) = unix::child::reap()? {
            self.child_ended(pid, ending);
        }
        Ok(())
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
            Action::CheckGate => return Some(self.check_gate()),
            Action::Start(why) => return Some(self.start_service(why)),
            Action::RunScript(script) => return Some(self.start_script(script)),
            Action::KillScript => {
                if let Some(pid) = self.script {
                    self.warn("script takes too long or is of no use any more: killing it");
                    let _ = nix::sys::signal::killpg(pid, Signal::SIGKILL);
                }
            }
            Action::Signal(target, signal) => self.send(target, signal),
            Action::Publish(since) => self.publish(since),
            Action::ReportHang => {
                self.warn("the service has not shown in the time of the file watchdog that it is alive");
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

    fn publish(&mut self, since: Since) {
        match since {
            Since::Before => {}
            Since::Now => self.since = self.labels.label(unix::clock::since_epoch()),
            Since::ReadyNow => self.ready_since = self.labels.label(unix::clock::since_epoch()),
        }
        match self.state.publish(&self.record()) {
            Ok(()) => self.rewrite_at = None,
            Err(e) => {
                if self.rewrite_at.is_none() {
                    self.warn(&format!("unable to write {}/status: {e}", self.place.state.display()));
                }
                self.rewrite_at = Some(Instant::now() + REWRITE_AFTER);
            }
        }
    }

    fn record(&self) -> Record {
        let machine = &self.machine;
        Record {
            since: self.since,
            pid: machine.pid(),
            paused: machine.paused(),
            want: machine.want(),
            wait: machine.wait(),
            supervise: Some(std::process::id()),
            readiness: match (machine.ready(), machine.announces()) {
                (true, _) => Readiness::Since(self.ready_since),
                (false, true) => Readiness::Awaited,
                (false, false) => Readiness::Silent,
            },
            stopping: machine.stopping(),
            failed: machine.failed(),
            restarts: machine.restarts(),
            last: self.last,
        }
    }

    /// Has somebody removed the state directory under us? Then another one is made.
    fn look_after_state(&mut self) {
        if self.exited || self.state.is_current() {
            self.renew_at = None;
            return;
        }
        let now = Instant::now();
        let at = *self.renew_at.get_or_insert(now + RENEW_AFTER);
        if at > now {
            return;
        }
        match self.renew_state() {
            Ok(()) => {
                self.renew_at = None;
                self.warn(&format!("{} had been removed: made it again", self.place.state.display()));
            }
            // Not there to be used (yet).
            Err(e) => {
                self.renew_at = Some(now + RENEW_RETRY);
                self.info(&format!("the state directory has been removed: {e}"));
            }
        }
    }

    fn renew_state(&mut self) -> Result<(), Error> {
        relocation::make_place(&self.place)?;
        let held = self.state.hand_over();
        let mut state = StateDir::open(&self.place.state, held)?;
        state.notices = self.state.notices.take();
        self.state = state;
        self.publish(Since::Before);
        self.state.announce()?;
        // The file that tells a later supervise about the running service is gone with the old one.
        if let Some(pid) = self.machine.pid()
            && let Err(e) = self.state.remember_service(pid)
        {
            self.warn(&format!("unable to write {}/service: {e}", self.place.state.display()));
        }
        if self.state.notices.is_some()
            && let Err(e) = self.state.listen()
        {
            self.warn(&format!("unable to make the notification socket again: {e}"));
        }
        Ok(())
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

/// The longest of these files that is read.
const MAX_FILE: u64 = 4096;

/// A small file of the service directory; `None` when it cannot be read.
fn small_file(name: &str) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    File::open(Path::new(name)).ok()?.take(MAX_FILE).read_to_end(&mut text).ok()?;
    Some(text)
}
