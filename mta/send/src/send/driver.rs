//! The loop: waits for descriptors and time, carries out what the scheduler says.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use mta_queue::layout::{Channel, MessageId, Part, Queue};
use program::{Environment, Exit, Invocation, Loader};
use sd_notify::NotifyState;
use unix::Signal;
use unix::clock::Deadline;
use unix::durable::Disk;
use unix::fd::Raw;
use unix::signals::Signals;
use unix::wait::{Interest, Ready, ready};

use super::files::{Files, Info, Recipients};
use super::injector::Injector;
use super::scheduler::Scheduler;
use super::settings::{Reread, Settings, log_lock_file};
use super::spawner::Spawner;
use super::sweep::{Unsorted, Walk};
use crate::cleaner::Cleaner;
use crate::log::{Line, Log};

/// Longest sleep in seconds, so that a clock that jumps is noticed.
const LONGEST_SLEEP: u64 = 300;
/// Seconds that todo-proc, and bounces that are on their way, may take to end.
const END_PATIENCE: u64 = 60;

/// A pass that is open: what all its deliveries share.
#[derive(Debug)]
pub(super) struct Pass {
    pub(super) id: MessageId,
    pub(super) info: Info,
    pub(super) recipients: Recipients,
}

/// The pipe from todo-proc.
#[derive(Debug)]
pub(super) struct Todo {
    pub(super) to: OwnedFd,
    pub(super) from: OwnedFd,
    pub(super) buffer: Vec<u8>,
    pub(super) ended: bool,
    pub(super) told_to_end: Option<Deadline>,
}

pub(super) struct Driver<'a> {
    pub(super) settings: Settings,
    pub(super) queue: Queue,
    pub(super) name: Vec<u8>,
    pub(super) sbin: PathBuf,
    pub(super) bounce_environment: Vec<(OsString, OsString)>,
    pub(super) log: Log,
    pub(super) scheduler: Scheduler,
    pub(super) environment: &'a Environment,
    pub(super) spawners: [Spawner; 2],
    pub(super) passes: [Option<Pass>; 2],
    /// Addresses of running deliveries, by delivery number.
    pub(super) addresses: [Vec<Vec<u8>>; 2],
    pub(super) cleaner: Cleaner,
    pub(super) bounces: Injector,
    pub(super) todo: Todo,
    pub(super) signals: Signals,
    pub(super) start_walk: Option<Walk>,
    /// Left to todo-proc at the start.
    pub(super) unsorted: Unsorted,
    pub(super) garbage_walk: Option<Walk>,
    pub(super) next_sweep: u64,
    pub(super) status: Vec<u8>,
}

/// From here on no signal ends the process at a bad time.
pub(super) fn listen() -> io::Result<Signals> {
    unix::signals::ignore(Signal::SIGUSR1)?;
    unix::signals::ignore(Signal::SIGUSR2)?;
    Signals::listen(&[Signal::SIGTERM, Signal::SIGHUP, Signal::SIGALRM, Signal::SIGINT])
}

/// Tells the service manager; one that does not listen is none of our business.
fn tell_manager(state: &NotifyState<'_>) {
    let _ = sd_notify::notify(std::slice::from_ref(state));
}

/// A problem before there is a driver.
pub(super) fn emergency(name: &[u8], problem: &str) {
    let line = Line::new("alert: qmail-send: ").safe(name).text(": cannot start: ").text(problem);
    let mut bytes = line.into_bytes();
    bytes.push(b'\n');
    // There is nowhere else to complain.
    let _ = Raw(io::stdin().as_fd()).write_all(&bytes);
}

impl<'a> Driver<'a> {
    pub(super) fn start(
        settings: Settings,
        invocation: &'a Invocation,
        queue: Queue,
        signals: Signals,
    ) -> io::Result<Self> {
        let fd = |number| {
            let fd = unix::fd::inherited(number).ok_or_else(|| {
                io::Error::other(format!("descriptor {number} is closed: started without qmail-start"))
            })?;
            unix::fd::set_cloexec(&fd, true)?;
            Ok::<_, io::Error>(fd)
        };
        let environment = &invocation.environment;
        let name = settings.place.short_name();
        let log = Log::new(fd(0)?, log_lock_file(&environment.control_directory()), settings.loglock);
        let gone = |what: &'static str| {
            move |e: io::Error| io::Error::new(e.kind(), format!("{what} is not there: {e}"))
        };
        let (local, local_max) = Spawner::greet(fd(1)?, fd(2)?).map_err(gone("qmail-lspawn"))?;
        let (remote, remote_max) = Spawner::greet(fd(3)?, fd(4)?).map_err(gone("qmail-rspawn"))?;
        let cleaner = Cleaner::new(fd(5)?, fd(6)?);
        let todo = Todo { to: fd(7)?, from: fd(8)?, buffer: Vec::new(), ended: false, told_to_end: None };
        unix::fd::set_nonblocking(&todo.from, true)?;
        let maxima = [local_max, remote_max];
        let mut driver = Self {
            start_walk: Some(Walk::over(&queue, Part::Info)),
            bounce_environment: bounce_environment(environment),
            sbin: invocation.layout.prefix().join("sbin"),
            scheduler: Scheduler::new(maxima),
            spawners: [local, remote],
            passes: [None, None],
            addresses: maxima.map(|m| vec![Vec::new(); usize::from(m)]),
            bounces: Injector::new()?,
            unsorted: Unsorted::default(),
            garbage_walk: None,
            next_sweep: unix::clock::unix_seconds(),
            status: Vec::new(),
            settings,
            queue,
            name,
            log,
            environment,
            cleaner,
            todo,
            signals,
        };
        driver.apply_limits();
        driver.greet();
        Ok(driver)
    }

    fn greet(&mut self) {
        let lock = if self.log.is_locking() { "enabled" } else { "disabled" };
        let line = Line::new("info: qmail-send: pid ")
            .value(std::process::id())
            .text(": ")
            .safe(self.settings.place.directory().as_os_str().as_encoded_bytes())
            .text(": ratelimit=OFF, loglock=")
            .text(lock)
            .text(", conf split=")
            .value(self.queue.shape().split);
        self.log.line(line);
    }

    pub(super) fn run(mut self) -> io::Result<Exit> {
        tell_manager(&NotifyState::Ready);
        loop {
            let now = unix::clock::unix_seconds();
            let busy = self.act(now)?;
            self.status();
            // A delivery that runs is in the log, whatever happens to this process.
            self.log.flush();
            self.write_to_spawners();
            if self.is_over()? {
                break;
            }
            self.log.flush();
            self.wait(if busy { 0 } else { self.sleep(now) })?;
        }
        self.write_down_due_times();
        let line = Line::new("info: qmail-send: pid ")
            .value(std::process::id())
            .text(" ")
            .safe(&self.name)
            .text(" exiting");
        self.log.line(line);
        self.log.flush();
        Ok(Exit::OK)
    }

    pub(super) fn files(&self) -> Files<'_> {
        Files { queue: &self.queue, disk: Disk::new(self.settings.reread.durability) }
    }

    pub(super) fn lost_cleaner(&mut self, why: &io::Error) -> io::Result<()> {
        self.alert(&format!("lost qmail-clean connection: {why} ... dying"));
        self.begin_exit()
    }

    fn sleep(&self, now: u64) -> u64 {
        let mut until = self.scheduler.wake().unwrap_or(u64::MAX);
        if !self.scheduler.is_exiting() {
            until = until.min(self.next_sweep).min(self.unsorted.due().unwrap_or(u64::MAX));
        }
        until.saturating_sub(now).min(LONGEST_SLEEP)
    }

    fn wait(&mut self, seconds: u64) -> io::Result<()> {
        let mut deadline = Deadline::after(Duration::from_secs(seconds));
        if let Some(told) = self.todo.told_to_end.filter(|_| !self.todo.ended || !self.bounces.is_idle()) {
            deadline = deadline.min(told);
        }
        let mut fds: Vec<(BorrowedFd<'_>, Interest)> = vec![(self.signals.as_fd(), Interest::Read)];
        // While exiting nothing is asked of it any more.
        let watch_cleaner = !self.scheduler.is_exiting();
        fds.extend(watch_cleaner.then(|| self.cleaner.watched()));
        let todo = fds.len();
        fds.extend((!self.todo.ended).then(|| (self.todo.from.as_fd(), Interest::Read)));
        let bounces = fds.len();
        fds.push((self.bounces.watched(), Interest::Read));
        let spawners = fds.len();
        let alive = Channel::BOTH.map(|c| self.spawners[c.index()].is_alive());
        for channel in Channel::BOTH.into_iter().filter(|c| alive[c.index()]) {
            fds.extend(self.spawners[channel.index()].interests());
        }
        let found: Vec<Ready> = ready(&fds, Some(deadline))?;
        if found[0].read {
            self.take_signals()?;
        }
        if watch_cleaner && found[1].closed {
            self.lost_cleaner(&io::Error::from(io::ErrorKind::UnexpectedEof))?;
        }
        if bounces > todo && found[todo].read {
            self.read_todo()?;
        }
        if found[bounces].read {
            self.take_bounces(unix::clock::unix_seconds())?;
        }
        let mut at = spawners;
        for channel in Channel::BOTH.into_iter().filter(|c| alive[c.index()]) {
            if found[at].read {
                self.read_reports(channel)?;
            }
            if found[at + 1].closed {
                self.lost_spawner(channel);
            }
            at += 2;
        }
        Ok(())
    }

    fn take_signals(&mut self) -> io::Result<()> {
        while let Some(signal) = self.signals.take() {
            match signal {
                Signal::SIGTERM => self.begin_exit()?,
                Signal::SIGHUP => self.reread()?,
                Signal::SIGALRM => self.scheduler.hurry(unix::clock::unix_seconds()),
                Signal::SIGINT => self.log.toggle_lock(),
                _ => {}
            }
        }
        Ok(())
    }

    fn reread(&mut self) -> io::Result<()> {
        let mut loader = Loader::new(self.environment);
        let reread = Reread::load(&mut loader, &self.name);
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            let _ = sd_notify::notify(&[NotifyState::Reloading, now]);
        }
        match loader.finish(reread) {
            Ok(reread) => {
                self.settings.reread = reread;
                self.apply_limits();
            }
            Err(program::Problems(all)) => {
                all.iter().for_each(|p| self.alert(&format!("{p}; keeping the old controls")));
            }
        }
        tell_manager(&NotifyState::Ready);
        self.tell_todo(b'H')
    }

    fn apply_limits(&mut self) {
        for channel in Channel::BOTH {
            let reread = &self.settings.reread;
            let limit = if reread.hold[channel.index()] { 0 } else { reread.limits[channel.index()] };
            self.scheduler.set_limit(channel, limit);
        }
    }

    pub(super) fn begin_exit(&mut self) -> io::Result<()> {
        if self.scheduler.is_exiting() {
            return Ok(());
        }
        tell_manager(&NotifyState::Stopping);
        self.scheduler.exit();
        self.bounces.exit();
        self.tell_todo(b'X')?;
        self.todo.told_to_end = Some(Deadline::after(Duration::from_secs(END_PATIENCE)));
        Ok(())
    }

    fn is_over(&mut self) -> io::Result<bool> {
        if !self.scheduler.is_exiting() || !self.scheduler.is_quiet() || self.scheduler.wake() == Some(0) {
            return Ok(false);
        }
        let all_ended = self.todo.ended && self.bounces.is_idle();
        Ok(all_ended || self.todo.told_to_end.is_some_and(Deadline::passed))
    }

    fn write_down_due_times(&mut self) {
        let waiting: Vec<_> = self.scheduler.waiting().collect();
        for (channel, id, due) in waiting {
            match self.files().set_due(channel, id, due) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    self.warn(&format!("cannot write down when message {id} is due: {e}"));
                }
                _ => {}
            }
        }
    }

    fn status(&mut self) {
        let [(local, locals), (remote, remotes)] = Channel::BOTH.map(|c| self.scheduler.load(c));
        let held = self.settings.reread.hold.contains(&true);
        let line = Line::new("status: local ")
            .value(local)
            .text("/")
            .value(locals)
            .text(" remote ")
            .value(remote)
            .text("/")
            .value(remotes)
            .text(if held { " (held) " } else { " " })
            .safe(&self.name)
            .text(if self.scheduler.is_exiting() { " exitasap" } else { "" })
            .into_bytes();
        if line != self.status {
            self.log.raw(&line);
            self.status = line;
        }
    }

    pub(super) fn alert(&mut self, text: &str) {
        let line = Line::new("alert: qmail-send: ").safe(&self.name).text(": ").text(text);
        self.log.line(line);
    }

    pub(super) fn warn(&mut self, text: &str) {
        let line = Line::new("warn: qmail-send: ").safe(&self.name).text(": ").text(text);
        self.log.line(line);
    }
}

/// The environment of the queue program for bounces: no filters, and BOUNCEQUEUE in charge.
fn bounce_environment(environment: &Environment) -> Vec<(OsString, OsString)> {
    let mut environment = environment.clone();
    environment.remove("FILTERARGS");
    environment.remove("SPAMFILTER");
    environment.remove("NOTIFY_SOCKET");
    if let Some(program) = environment.get("BOUNCEQUEUE").map(OsString::from) {
        environment.set("QMAILQUEUE", program);
    }
    environment.to_vec()
}
