//! The loop: waits for descriptors and time, carries out what the scheduler says.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use mta_queue::layout::{Channel, MessageId, Part, Queue};
use mta_queue::spawn_protocol::{Report, Request, Verdict};
use program::{Environment, Exit, Invocation, Loader};
use unix::Signal;
use unix::clock::Deadline;
use unix::durable::Disk;
use unix::fd::Raw;
use unix::signals::Signals;
use unix::wait::{Interest, Ready, ready};

use super::bounce::{TOO_OLD, entry};
use super::files::{Files, Info, Recipients};
use super::schedule::{is_last, next_try};
use super::scheduler::{Action, Delivery, Known, Scheduler};
use super::settings::{Reread, Settings, log_lock_file};
use super::spawner::Spawner;
use super::sweep::{Walk, is_garbage};
use super::verp::sender_for;
use crate::clean::Command;
use crate::cleaner::Cleaner;
use crate::log::{Line, Log, delivery as delivery_number};

/// Actions carried out before descriptors are looked at again.
const ACTIONS: usize = 100;
/// Longest sleep in seconds, so that a clock that jumps is noticed.
const LONGEST_SLEEP: u64 = 300;
/// Seconds between searches for garbage.
const BETWEEN_SWEEPS: u64 = 76_431;
/// Seconds that todo-proc may take to end.
const TODO_PATIENCE: u64 = 60;

/// A pass that is open: what all its deliveries share.
#[derive(Debug)]
struct Pass {
    id: MessageId,
    info: Info,
    recipients: Recipients,
}

/// The pipe from todo-proc.
#[derive(Debug)]
struct Todo {
    to: OwnedFd,
    from: OwnedFd,
    buffer: Vec<u8>,
    ended: bool,
    told_to_end: Option<Deadline>,
}

pub(super) struct Driver<'a> {
    pub(super) settings: Settings,
    pub(super) queue: Queue,
    pub(super) name: Vec<u8>,
    pub(super) sbin: PathBuf,
    pub(super) bounce_environment: Vec<(OsString, OsString)>,
    pub(super) log: Log,
    pub(super) scheduler: Scheduler,
    environment: &'a Environment,
    spawners: [Spawner; 2],
    passes: [Option<Pass>; 2],
    /// Addresses of running deliveries, by delivery number.
    addresses: [Vec<Vec<u8>>; 2],
    cleaner: Cleaner,
    todo: Todo,
    signals: Signals,
    start_walk: Option<Walk>,
    garbage_walk: Option<Walk>,
    next_sweep: u64,
    status: Vec<u8>,
}

/// From here on no signal ends the process at a bad time.
pub(super) fn listen() -> io::Result<Signals> {
    unix::signals::ignore(Signal::SIGUSR1)?;
    unix::signals::ignore(Signal::SIGUSR2)?;
    Signals::listen(&[Signal::SIGTERM, Signal::SIGHUP, Signal::SIGALRM, Signal::SIGINT])
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
        loop {
            let now = unix::clock::unix_seconds();
            let busy = self.act(now)?;
            self.status();
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

    /// Carries out what is due; is there more to do at once?
    fn act(&mut self, now: u64) -> io::Result<bool> {
        for _ in 0..ACTIONS {
            match self.scheduler.next(now) {
                Some(action) => self.perform(action, now)?,
                None => return self.background(now),
            }
        }
        Ok(true)
    }

    fn perform(&mut self, action: Action, now: u64) -> io::Result<()> {
        match action {
            Action::Open(channel, id) => self.open(channel, id, now),
            Action::NextRecipient(channel) => self.next_recipient(channel, now),
            Action::Remove(channel, id) => self.remove(channel, id, now),
            Action::Finish(id) => self.finish(id, now)?,
        }
        Ok(())
    }

    pub(super) fn files(&self) -> Files<'_> {
        Files { queue: &self.queue, disk: Disk::new(self.settings.reread.durability) }
    }

    fn open(&mut self, channel: Channel, id: MessageId, now: u64) {
        let opened = (|| {
            let info = self.files().info(id)?;
            if !self.files().has(Part::Mess, id)? {
                return Err(io::Error::other("its mess file is missing; stop the queue and run queue-fix"));
            }
            Ok((info, self.files().recipients(channel, id)?))
        })();
        match opened {
            Ok((info, recipients)) => {
                let lifetime = match info.sender.is_empty() {
                    true => self.settings.bounce_lifetime,
                    false => self.settings.lifetime,
                };
                let (retry, last) = (next_try(info.birth, now, channel), is_last(info.birth, now, lifetime));
                self.passes[channel.index()] = Some(Pass { id, info, recipients });
                self.scheduler.opened(channel, id, retry, last);
            }
            Err(e) => {
                self.warn(&format!("cannot open message {id}: {e}; trying again later"));
                self.scheduler.channel_trouble(channel, id, now);
            }
        }
    }

    fn next_recipient(&mut self, channel: Channel, now: u64) {
        let Some(pass) = &mut self.passes[channel.index()] else {
            return self.scheduler.pass_over(channel);
        };
        match pass.recipients.next() {
            Ok(Some((offset, address))) => {
                if let Some((slot, delivery)) = self.scheduler.recipient(channel, offset) {
                    self.start_delivery(channel, slot, delivery, address);
                }
            }
            Ok(None) => {
                self.passes[channel.index()] = None;
                self.scheduler.pass_over(channel);
            }
            Err(e) => {
                let name = self.queue.name(Part::Recipients(channel), pass.id);
                self.passes[channel.index()] = None;
                self.warn(&format!("cannot read {name}: {e}; trying again later"));
                self.scheduler.pass_broken(channel, now);
            }
        }
    }

    fn start_delivery(&mut self, channel: Channel, slot: u16, delivery: Delivery, address: Vec<u8>) {
        let Some(pass) = &self.passes[channel.index()] else { return };
        let request = Request {
            number: slot,
            message: self.queue.mess_name(delivery.id).into_bytes(),
            sender: sender_for(&pass.info.sender, &address),
            extra_header: pass.info.extra_header.clone(),
            exported: pass.info.exported.clone(),
            recipient: address.clone(),
        };
        let line = Line::new("starting delivery ")
            .text(&delivery_number(delivery.log_number, self.settings.ident.as_deref()))
            .text(": msg ")
            .value(delivery.id)
            .text(" to ")
            .text(channel.name())
            .text(" ")
            .safe(&address)
            .text(" ")
            .safe(&self.name);
        self.log.line(line);
        self.addresses[channel.index()][usize::from(slot)] = address;
        if self.spawners[channel.index()].request(&request).is_err() {
            // Records end at NUL, so this cannot be; the recipient is tried again all the same.
            self.alert("a recipient holds a NUL");
            self.scheduler.settle(channel, slot, true);
        }
    }

    fn remove(&mut self, channel: Channel, id: MessageId, now: u64) {
        let other = match channel {
            Channel::Local => Channel::Remote,
            Channel::Remote => Channel::Local,
        };
        let removed = self
            .files()
            .remove(Part::Recipients(channel), id)
            .and_then(|()| self.files().has(Part::Recipients(other), id));
        match removed {
            Ok(other) => self.scheduler.removed(id, other, now),
            Err(e) => {
                let name = self.queue.name(Part::Recipients(channel), id);
                self.warn(&format!("cannot remove {name}: {e}; trying again later"));
                self.scheduler.channel_trouble(channel, id, now);
            }
        }
    }

    /// A slice of what has no hurry.
    fn background(&mut self, now: u64) -> io::Result<bool> {
        if self.scheduler.is_exiting() {
            return Ok(false);
        }
        if let Some(mut walk) = self.start_walk.take() {
            match walk.slice() {
                Ok(Some(ids)) => {
                    ids.into_iter().for_each(|id| self.load(id, now));
                    self.start_walk = Some(walk);
                }
                Ok(None) => self.tell_todo(b'C')?,
                Err(e) => {
                    self.alert(&format!("{e}; its messages wait for the next start"));
                    self.start_walk = Some(walk);
                }
            }
            return Ok(true);
        }
        if self.garbage_walk.is_none() && now >= self.next_sweep {
            self.garbage_walk = Some(Walk::over(&self.queue, Part::Mess));
            self.next_sweep = now + BETWEEN_SWEEPS;
        }
        let Some(mut walk) = self.garbage_walk.take() else {
            return Ok(false);
        };
        match walk.slice() {
            Ok(Some(ids)) => {
                for id in ids {
                    if is_garbage(&self.queue, id, self.settings.ossified, now).unwrap_or(false) {
                        self.clean(Command::Message(id))?;
                    }
                }
                self.garbage_walk = Some(walk);
            }
            Ok(None) => return Ok(false),
            Err(e) => {
                self.warn(&e.to_string());
                self.garbage_walk = Some(walk);
            }
        }
        Ok(true)
    }

    fn load(&mut self, id: MessageId, now: u64) {
        // A todo-proc that died while sorting sorts again; what it left does not count.
        let known = match self.files().has(Part::Todo, id) {
            Ok(true) => return,
            Ok(false) => self.files().known(id),
            Err(e) => Err(e),
        };
        match known {
            Ok(known) => self.scheduler.known(id, known, now),
            Err(e) => {
                self.warn(&format!("cannot look at message {id}: {e}; trying again later"));
                self.scheduler.finish_later(id, now);
            }
        }
    }

    pub(super) fn clean(&mut self, command: Command) -> io::Result<bool> {
        if self.scheduler.is_exiting() {
            // The files are found again at the next start.
            return Ok(true);
        }
        match self.cleaner.obey(command) {
            Ok(done) => Ok(done),
            Err(e) => {
                self.lost_cleaner(&e)?;
                Ok(true)
            }
        }
    }

    fn lost_cleaner(&mut self, why: &io::Error) -> io::Result<()> {
        self.alert(&format!("lost qmail-clean connection: {why} ... dying"));
        self.begin_exit()
    }

    // Events.

    fn sleep(&self, now: u64) -> u64 {
        let mut until = self.scheduler.wake().unwrap_or(u64::MAX);
        if !self.scheduler.is_exiting() {
            until = until.min(self.next_sweep);
        }
        until.saturating_sub(now).min(LONGEST_SLEEP)
    }

    fn wait(&mut self, seconds: u64) -> io::Result<()> {
        let mut deadline = Deadline::after(Duration::from_secs(seconds));
        if let Some(told) = self.todo.told_to_end.filter(|_| !self.todo.ended) {
            deadline = deadline.min(told);
        }
        let mut fds: Vec<(BorrowedFd<'_>, Interest)> = vec![(self.signals.as_fd(), Interest::Read)];
        // While exiting nothing is asked of it any more.
        let watch_cleaner = !self.scheduler.is_exiting();
        fds.extend(watch_cleaner.then(|| self.cleaner.watched()));
        let todo = fds.len();
        fds.extend((!self.todo.ended).then(|| (self.todo.from.as_fd(), Interest::Read)));
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
        if spawners > todo && found[todo].read {
            self.read_todo()?;
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
        match loader.finish(reread) {
            Ok(reread) => {
                self.settings.reread = reread;
                self.apply_limits();
            }
            Err(program::Problems(all)) => {
                all.iter().for_each(|p| self.alert(&format!("{p}; keeping the old controls")));
            }
        }
        self.tell_todo(b'H')
    }

    fn apply_limits(&mut self) {
        for channel in Channel::BOTH {
            let reread = &self.settings.reread;
            let limit = if reread.hold[channel.index()] { 0 } else { reread.limits[channel.index()] };
            self.scheduler.set_limit(channel, limit);
        }
    }

    fn tell_todo(&mut self, byte: u8) -> io::Result<()> {
        if self.todo.ended {
            return Ok(());
        }
        // A todo-proc that is gone shows at once as EOF on the other pipe.
        match Raw(self.todo.to.as_fd()).write_all(&[byte]) {
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(e),
            _ => Ok(()),
        }
    }

    fn read_todo(&mut self) -> io::Result<()> {
        let mut piece = [0u8; 16 * 1024];
        let n = match Raw(self.todo.from.as_fd()).read(&mut piece) {
            Ok(n) => n,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        if n == 0 {
            self.todo.ended = true;
            if !self.scheduler.is_exiting() {
                self.alert("lost todo-proc connection ... dying");
                self.begin_exit()?;
            }
            return Ok(());
        }
        self.todo.buffer.extend_from_slice(&piece[..n]);
        let mut buffer = std::mem::take(&mut self.todo.buffer);
        let mut start = 0;
        while let Some(length) = buffer[start..].iter().position(|&b| b == 0) {
            self.todo_message(&buffer[start..start + length])?;
            start += length + 1;
        }
        buffer.drain(..start);
        self.todo.buffer = buffer;
        Ok(())
    }

    fn todo_message(&mut self, message: &[u8]) -> io::Result<()> {
        let now = unix::clock::unix_seconds();
        match message {
            [b'L', text @ ..] => self.log.raw(text),
            [b'X'] => self.todo.ended = true,
            [b'D', letter @ (b'L' | b'R' | b'B' | b'X'), id @ ..] => {
                let Some(id) = MessageId::parse(id) else {
                    self.warn("todo-proc speaks nonsense");
                    return Ok(());
                };
                let due = |on: bool| on.then_some(now);
                let known = Known { due: [due(b"LB".contains(letter)), due(b"RB".contains(letter))] };
                self.scheduler.known(id, known, now);
            }
            _ => self.warn("todo-proc speaks nonsense"),
        }
        Ok(())
    }

    fn write_to_spawners(&mut self) {
        for channel in Channel::BOTH {
            let spawner = &mut self.spawners[channel.index()];
            // A spawner that is gone shows as EOF on the other pipe.
            if spawner.is_alive() && spawner.write().is_err() {
                self.lost_spawner(channel);
            }
        }
    }

    fn lost_spawner(&mut self, channel: Channel) {
        if !self.spawners[channel.index()].is_alive() {
            return;
        }
        self.spawners[channel.index()].give_up();
        self.scheduler.close(channel);
        self.alert(&format!("lost spawn connection ({}) ... dying", channel.name()));
        // The one place that cannot pass an error on: todo-proc then sees EOF when we are gone.
        let _ = self.begin_exit();
    }

    fn read_reports(&mut self, channel: Channel) -> io::Result<()> {
        match self.spawners[channel.index()].read() {
            Ok(Some(reports)) => reports.into_iter().for_each(|r| self.report(channel, r)),
            Ok(None) | Err(_) => self.lost_spawner(channel),
        }
        Ok(())
    }

    fn report(&mut self, channel: Channel, report: Report) {
        let Some(delivery) = self.scheduler.delivery(channel, report.number) else {
            self.warn(&format!(
                "{} spawner reports on delivery {}, which does not run",
                channel.name(),
                report.number
            ));
            return;
        };
        let number = delivery_number(delivery.log_number, self.settings.ident.as_deref());
        let mut text = report.text;
        let (word, deferred) = match report.verdict {
            None => {
                let line = Line::new("delivery ")
                    .text(&number)
                    .text(": report mangled, will defer: ")
                    .safe(&self.name);
                self.log.line(line);
                return self.scheduler.settle(channel, report.number, true);
            }
            Some(Verdict::Success) => ("success", false),
            Some(Verdict::Deferral) if !delivery.last => ("deferral", true),
            Some(Verdict::Deferral) => {
                if !text.ends_with(b"\n") {
                    text.push(b'\n');
                }
                text.extend_from_slice(TOO_OLD);
                ("failure", false)
            }
            Some(Verdict::Failure) => ("failure", false),
        };
        let line = Line::new("delivery ").text(&number).text(": ").text(word).text(": ");
        self.log.line(line.safe(&text).text(" ").safe(&self.name));
        let recorded = deferred || self.record(channel, report.number, &delivery, word == "failure", &text);
        self.addresses[channel.index()][usize::from(report.number)] = Vec::new();
        self.scheduler.settle(channel, report.number, deferred || !recorded);
    }

    /// Writes a final result down; `false` when the delivery has to be repeated because that failed.
    fn record(
        &mut self,
        channel: Channel,
        slot: u16,
        delivery: &Delivery,
        failure: bool,
        text: &[u8],
    ) -> bool {
        let id = delivery.id;
        if failure {
            let address = &self.addresses[channel.index()][usize::from(slot)];
            let bytes = entry(&self.settings.reread.virtualdomains, address, text);
            if let Err(e) = self.files().add_failure(id, &bytes) {
                self.alert(&format!("cannot write bounce/{id}: {e}; delivering again later"));
                return false;
            }
        }
        if let Err(e) = self.files().mark_done(channel, id, delivery.offset) {
            self.alert(&format!(
                "cannot mark a recipient of message {id}: {e}; a restart would deliver again"
            ));
        }
        true
    }

    // The end.

    fn begin_exit(&mut self) -> io::Result<()> {
        if self.scheduler.is_exiting() {
            return Ok(());
        }
        self.scheduler.exit();
        self.tell_todo(b'X')?;
        self.todo.told_to_end = Some(Deadline::after(Duration::from_secs(TODO_PATIENCE)));
        Ok(())
    }

    fn is_over(&mut self) -> io::Result<bool> {
        if !self.scheduler.is_exiting() || !self.scheduler.is_quiet() || self.scheduler.wake() == Some(0) {
            return Ok(false);
        }
        Ok(self.todo.ended || self.todo.told_to_end.is_some_and(Deadline::passed))
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

    // The log.

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
    if let Some(program) = environment.get("BOUNCEQUEUE").map(OsString::from) {
        environment.set("QMAILQUEUE", program);
    }
    environment.to_vec()
}
