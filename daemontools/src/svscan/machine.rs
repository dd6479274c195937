//! A directory of services as a pure state machine: scans and deaths in, starts and signals out.
//!
//! Each service has a slot: one supervise for it, one more for its logger, and a pipe between the two
//! that lives as long as the slot, so that neither side's restart loses a byte.
//!
//! Stopping goes in an order that keeps every line: the services first; when the supervise of a service
//! is gone, svscan closes its ends of the pipe and tells the logger's supervise to exit when the logger
//! does, which it does at the end of its input. Only what does not follow is forced.

use std::time::Duration;

use unix::{Pid, Signal};

/// No two starts of one supervise are closer than this.
pub const START_FLOOR: Duration = Duration::from_secs(1);
/// Until a supervise that has just been started is told again.
const TELL_AGAIN: Duration = Duration::from_millis(50);
/// From the KILL of a service to the KILL of its supervise.
const LAST_WORD: Duration = Duration::from_secs(1);

/// A directory that may be a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: Vec<u8>,
    /// Device and inode: what it *is*, whatever its name.
    pub id: (u64, u64),
    /// Is there a logger?
    pub has_log: bool,
    /// Can its `run` be executed? If not, it is not complete yet.
    pub complete: bool,
    /// Is there a file named `down`?
    pub down: bool,
}

/// Names a slot for as long as svscan runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotId(pub u64);

/// Which supervise of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// That of the service.
    Main,
    /// That of its logger.
    Log,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// The directory was read.
    Scanned(Vec<Entry>),
    /// Answer to [`Action::Start`].
    Started(SlotId, Role, Pid),
    /// Answer to [`Action::Start`].
    StartFailed(SlotId, Role),
    /// Answer to [`Action::Start`] or [`Action::Look`]: one that we did not start runs there, left by a
    /// svscan that was killed.
    Foreign(SlotId, Role),
    /// Answer to [`Action::Look`]: it is gone.
    Gone(SlotId, Role),
    /// Answer to [`Action::Open`]: there is no pipe for it now.
    OpenFailed(SlotId),
    /// Answer to [`Action::Command`]: nobody reads there (yet).
    Unheard(SlotId, Role),
    /// A child ended.
    Ended(Pid),
    /// Something else is about to stop the services: whatever ends from here on stays down.
    Drain,
    /// Stop everything, in order, then end.
    Terminate,
    /// End at once, leave everything running.
    Abandon,
    /// Time has passed.
    Tick,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A new slot; with a logger it needs a pipe.
    Open {
        /// Which.
        slot: SlotId,
        /// The directory's name.
        name: Vec<u8>,
        /// Is there a logger?
        has_log: bool,
    },
    /// Start a supervise.
    Start(SlotId, Role),
    /// Is the supervise that we did not start still there?
    Look(SlotId, Role),
    /// Send a signal to a supervise.
    Signal(Pid, Signal),
    /// Write a byte to the control of a supervise.
    Command(SlotId, Role, u8),
    /// Close the pipe.
    ClosePipe(SlotId),
    /// The slot is no more.
    Close(SlotId),
    /// There are more services than slots.
    TooMany(Vec<u8>),
    /// The end of svscan.
    Exit,
}

/// Limits, from the settings.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// At most this many slots.
    pub slots: usize,
    /// From TERM of the services to their KILL.
    pub kill_services: Duration,
    /// From the end of a service to the TERM of its logger; zero: never.
    pub stop_loggers: Duration,
}

/// One supervise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Process {
    /// There is none to be.
    None,
    /// To be started when the floor allows.
    Due(Duration),
    /// An answer is awaited.
    Starting,
    /// Running, and when it may be started again.
    Running(Pid, Duration),
    /// Running, but not our child; looked at again then.
    Foreign(Duration),
}

/// How far the forced end of a process has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Force {
    /// Nothing was said yet.
    None,
    /// Told to stop; the next step is due then, if ever.
    Asked(Option<Duration>),
    /// The service itself was killed; supervise is next.
    ServiceKilled(Duration),
    /// Killed.
    Killed,
}

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// Nothing is started any more.
    Draining,
    /// Everything is being stopped.
    Stopping,
    Exited,
}

#[derive(Debug)]
struct Slot {
    id: SlotId,
    name: Vec<u8>,
    identity: (u64, u64),
    present: bool,
    down: bool,
    main: Process,
    log: Process,
    main_force: Force,
    log_force: Force,
    /// When the supervise of the logger is to be told again to exit.
    tell_log: Option<Duration>,
}

/// The state of one scan directory.
#[derive(Debug)]
pub struct Machine {
    limits: Limits,
    slots: Vec<Slot>,
    next: u64,
    phase: Phase,
}

impl Machine {
    /// An empty directory.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, slots: Vec::new(), next: 0, phase: Phase::Running }
    }

    /// Are services still to be found and started?
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    /// Is this one of the supervises it knows?
    #[must_use]
    pub fn knows(&self, pid: Pid) -> bool {
        let is = |process: Process| matches!(process, Process::Running(running, _) if running == pid);
        self.slots.iter().any(|slot| is(slot.main) || is(slot.log))
    }

    /// How many services there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Are there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// When [`Event::Tick`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let of = |process: Process, force: Force| match (process, force) {
            (Process::Due(at) | Process::Foreign(at), _) => Some(at),
            (Process::Running(..), Force::Asked(at)) => at,
            (Process::Running(..), Force::ServiceKilled(at)) => Some(at),
            _ => None,
        };
        let all = self.slots.iter();
        all.flat_map(|s| [of(s.main, s.main_force), of(s.log, s.log_force), s.tell_log]).flatten().min()
    }

    /// Takes an event and says what to do, in order.
    pub fn handle(&mut self, event: Event, now: Duration, out: &mut Vec<Action>) {
        if self.phase == Phase::Exited {
            return;
        }
        match event {
            Event::Scanned(entries) if self.is_running() => self.scanned(&entries, now, out),
            Event::Scanned(_) | Event::Tick => {}
            Event::Started(id, role, pid) => {
                self.with(id, |slot| *slot.process(role) = Process::Running(pid, now + START_FLOOR));
            }
            Event::StartFailed(id, role) => {
                self.with(id, |slot| *slot.process(role) = Process::Due(now + START_FLOOR));
            }
            Event::Foreign(id, role) => {
                self.with(id, |slot| *slot.process(role) = Process::Foreign(now + START_FLOOR));
            }
            Event::Unheard(id, Role::Log) => self.with(id, |slot| {
                if slot.log_force != Force::None {
                    slot.tell_log = Some(now + TELL_AGAIN);
                }
            }),
            Event::Unheard(_, Role::Main) => {}
            Event::Gone(id, role) => self.with(id, |slot| *slot.process(role) = Process::Due(now)),
            Event::OpenFailed(id) => self.slots.retain(|s| s.id != id),
            Event::Ended(pid) => self.ended(pid),
            Event::Drain if self.phase == Phase::Stopping => {}
            Event::Drain => self.phase = Phase::Draining,
            Event::Terminate => self.phase = Phase::Stopping,
            Event::Abandon => {
                self.phase = Phase::Exited;
                out.push(Action::Exit);
                return;
            }
        }
        for at in 0..self.slots.len() {
            self.settle(at, now, out);
        }
        self.slots.retain(|slot| {
            let gone = slot.main == Process::None && slot.log == Process::None;
            if gone {
                out.push(Action::Close(slot.id));
            }
            !gone
        });
        if self.phase == Phase::Stopping && self.slots.is_empty() {
            self.phase = Phase::Exited;
            out.push(Action::Exit);
        }
    }

    fn with(&mut self, id: SlotId, change: impl FnOnce(&mut Slot)) {
        if let Some(slot) = self.slots.iter_mut().find(|s| s.id == id) {
            change(slot);
        }
    }

    fn scanned(&mut self, entries: &[Entry], now: Duration, out: &mut Vec<Action>) {
        for slot in &mut self.slots {
            slot.present = false;
        }
        for entry in entries {
            // A slot whose service has ended for good is no home for another one: its pipe is closed.
            let is_its =
                |s: &&mut Slot| s.identity == entry.id && s.name == entry.name && s.main != Process::None;
            if let Some(slot) = self.slots.iter_mut().find(is_its) {
                slot.present = true;
                if slot.down != entry.down {
                    slot.down = entry.down;
                    let command = if entry.down { b'd' } else { b'u' };
                    out.push(Action::Command(slot.id, Role::Main, command));
                }
            } else if entry.complete {
                if self.slots.len() >= self.limits.slots {
                    out.push(Action::TooMany(entry.name.clone()));
                    continue;
                }
                let slot = Slot {
                    id: SlotId(self.next),
                    name: entry.name.clone(),
                    identity: entry.id,
                    present: true,
                    down: entry.down,
                    main: Process::Due(now),
                    log: if entry.has_log { Process::Due(now) } else { Process::None },
                    main_force: Force::None,
                    log_force: Force::None,
                    tell_log: None,
                };
                self.next += 1;
                out.push(Action::Open { slot: slot.id, name: slot.name.clone(), has_log: entry.has_log });
                self.slots.push(slot);
            }
        }
    }

    fn ended(&mut self, pid: Pid) {
        for slot in &mut self.slots {
            for role in [Role::Main, Role::Log] {
                if let Process::Running(running, again) = *slot.process(role)
                    && running == pid
                {
                    *slot.process(role) = Process::Due(again);
                }
            }
        }
    }

    fn settle(&mut self, at: usize, now: Duration, out: &mut Vec<Action>) {
        let (phase, limits) = (self.phase, self.limits);
        let slot = &mut self.slots[at];
        let (id, present) = (slot.id, slot.present);
        let wanted = present && phase == Phase::Running;
        for role in [Role::Main, Role::Log] {
            match *slot.process(role) {
                Process::Due(_) if !wanted => *slot.process(role) = Process::None,
                Process::Foreign(_) if !present => *slot.process(role) = Process::None,
                Process::Due(at) if at <= now => {
                    *slot.process(role) = Process::Starting;
                    out.push(Action::Start(id, role));
                }
                Process::Foreign(at) if at <= now => {
                    *slot.process(role) = Process::Starting;
                    out.push(Action::Look(id, role));
                }
                _ => {}
            }
        }
        if phase == Phase::Stopping {
            slot.stop_service(now, limits, out);
        }
        // Nobody will write any more, because all ends or because the service was removed.
        if slot.main == Process::None {
            slot.stop_logger(now, limits, out);
        }
    }
}

impl Slot {
    fn process(&mut self, role: Role) -> &mut Process {
        match role {
            Role::Main => &mut self.main,
            Role::Log => &mut self.log,
        }
    }

    fn stop_service(&mut self, now: Duration, limits: Limits, out: &mut Vec<Action>) {
        if let (Process::Foreign(_), Force::None) = (self.main, self.main_force) {
            out.push(Action::Command(self.id, Role::Main, b'd'));
            out.push(Action::Command(self.id, Role::Main, b'x'));
            self.main_force = Force::Asked(None);
        }
        let Process::Running(pid, _) = self.main else { return };
        self.main_force = match self.main_force {
            Force::None => {
                out.push(Action::Signal(pid, Signal::SIGTERM));
                Force::Asked(Some(now + limits.kill_services))
            }
            force => kill_step(force, self.id, Role::Main, pid, now, out),
        };
    }

    /// The service is gone: let its logger read to the end.
    fn stop_logger(&mut self, now: Duration, limits: Limits, out: &mut Vec<Action>) {
        if let (Process::Foreign(_), Force::None) = (self.log, self.log_force) {
            // Its pipe is held by nobody else any more, so it reads to the end like ours.
            out.push(Action::Command(self.id, Role::Log, b'x'));
            self.log_force = Force::Asked(None);
        }
        let Process::Running(pid, _) = self.log else {
            self.tell_log = None;
            return;
        };
        if self.tell_log.is_some_and(|at| at <= now) {
            self.tell_log = None;
            out.push(Action::Command(self.id, Role::Log, b'x'));
        }
        let patience = (!limits.stop_loggers.is_zero()).then_some(limits.stop_loggers);
        self.log_force = match self.log_force {
            Force::None => {
                out.push(Action::Command(self.id, Role::Log, b'x'));
                out.push(Action::ClosePipe(self.id));
                Force::Asked(patience.map(|p| now + p))
            }
            Force::Asked(Some(at)) if at <= now => {
                out.push(Action::Signal(pid, Signal::SIGTERM));
                // The same patience once more, then as with a service.
                Force::ServiceKilled(now + limits.stop_loggers)
            }
            force @ (Force::Asked(_) | Force::ServiceKilled(_) | Force::Killed) => {
                kill_step(force, self.id, Role::Log, pid, now, out)
            }
        };
    }
}

/// After the patience: KILL the service, then its supervise.
fn kill_step(force: Force, id: SlotId, role: Role, pid: Pid, now: Duration, out: &mut Vec<Action>) -> Force {
    match force {
        Force::Asked(Some(at)) if at <= now => {
            out.push(Action::Command(id, role, b'k'));
            Force::ServiceKilled(now + LAST_WORD)
        }
        Force::ServiceKilled(at) if at <= now => {
            out.push(Action::Command(id, role, b'k'));
            out.push(Action::Signal(pid, Signal::SIGKILL));
            Force::Killed
        }
        other => other,
    }
}

#[cfg(test)]
mod tests;
