//! The life of one service as a pure state machine: events in, actions out, time passed in.
//!
//! ```text
//!            pending start, floor passed, init done, gate open
//!   Down ───────────────────────────────────────────────► Starting ──Started──► Up
//!    ▲                                                        │                 │
//!    └────────────StartFailed (pending again)─────────────────┘                 │ d, r, TERM: shutdown
//!    └───────────────────────────Ended (alert when unexpected)◄─────────────────┘ script, then signals
//! ```
//!
//! At most one service process and at most one script exist at any time. The driver performs every
//! action at once and in order, and feeds the outcome of `CheckGate`, `Start` and `RunScript` back
//! before anything else. Time is monotonic, counted from any fixed moment.

mod control;
mod events;
mod starting;
mod stopping;

use std::time::Duration;

use unix::Signal;

use super::policy::Backoff;
use crate::status::{Wait, Want};
pub use events::{Action, Death, Event, Gate, Limits, Script, Since, Target, Why};
pub use starting::{FORK_RETRY, INIT_RETRY};
pub use stopping::HANG_KILL;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Main {
    Down,
    Starting(Why),
    Up(Instance),
}

/// The running service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instance {
    pid: u32,
    limits: Limits,
    ready: bool,
    stopping: bool,
    /// When it counts as hanging.
    hangs_at: Option<Duration>,
    /// When KILL follows ABRT.
    kill_at: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
struct Stop {
    target: Target,
    restart: bool,
    signalled: bool,
    killed: bool,
    kill_at: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
struct Running {
    script: Script,
    kill_at: Option<Duration>,
}

/// The way to the next start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passage {
    /// Nobody has asked yet.
    Unknown,
    /// The question is with the driver.
    Asked,
    Open,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    wait: Wait,
    again: Duration,
    /// End of the time that the others get.
    until: Option<Duration>,
}

/// The state of one service.
#[derive(Debug)]
pub struct Machine {
    stop_signal: Signal,
    want: Want,
    main: Main,
    paused: bool,
    failed: bool,
    restarts: u32,
    pending: Option<Why>,
    passage: Passage,
    waiting: Option<Waiting>,
    backoff: Backoff,
    /// Ends in a row that nobody asked for.
    failures: u32,
    last_start: Option<Duration>,
    not_before: Duration,
    initialised: bool,
    script: Option<Running>,
    stop: Option<Stop>,
    group_next: bool,
    exiting: bool,
    exited: bool,
}

impl Machine {
    /// A service that is down.
    #[must_use]
    pub fn new(want: Want, stop_signal: Signal) -> Self {
        Self {
            stop_signal,
            want,
            main: Main::Down,
            paused: false,
            failed: false,
            restarts: 0,
            pending: None,
            passage: Passage::Unknown,
            waiting: None,
            backoff: Backoff::default(),
            failures: 0,
            last_start: None,
            not_before: Duration::ZERO,
            initialised: false,
            script: None,
            stop: None,
            group_next: false,
            exiting: false,
            exited: false,
        }
    }

    /// What the operator wants.
    #[must_use]
    pub fn want(&self) -> Want {
        self.want
    }

    fn instance(&self) -> Option<&Instance> {
        match &self.main {
            Main::Up(instance) => Some(instance),
            Main::Down | Main::Starting(_) => None,
        }
    }

    /// Process id of the service while it is up.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.instance().map(|i| i.pid)
    }

    /// Is it up and going to say when it is ready?
    #[must_use]
    pub fn announces(&self) -> bool {
        self.instance().is_some_and(|i| i.limits.announces)
    }

    /// Has it said that it is ready?
    #[must_use]
    pub fn ready(&self) -> bool {
        self.instance().is_some_and(|i| i.ready)
    }

    /// Has it said that it is stopping?
    #[must_use]
    pub fn stopping(&self) -> bool {
        self.instance().is_some_and(|i| i.stopping)
    }

    /// Is it stopped by a signal of the operator?
    #[must_use]
    pub fn paused(&self) -> bool {
        self.paused
    }

    /// Has it asked not to be started again?
    #[must_use]
    pub fn failed(&self) -> bool {
        self.failed
    }

    /// How often it was started again after an end that nobody asked for.
    #[must_use]
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// What it waits for.
    #[must_use]
    pub fn wait(&self) -> Wait {
        self.waiting.map_or(Wait::None, |w| w.wait)
    }

    /// When [`Event::Tick`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let script = self.script.and_then(|s| s.kill_at);
        let stop = self.stop.and_then(|s| s.kill_at);
        let (hang, abort) = self.instance().map_or((None, None), |i| (i.hangs_at, i.kill_at));
        [self.start_due(), script, stop, hang, abort].into_iter().flatten().min()
    }

    /// Takes an event and says what to do, in order.
    pub fn handle(&mut self, event: Event, now: Duration, out: &mut Vec<Action>) {
        if self.exited {
            return;
        }
        match event {
            Event::Begin => {
                if self.want == Want::Up && self.main == Main::Down {
                    self.pending = Some(Why::AutoStartup);
                }
                // Of one that was found running, everything is known already.
                let since = if self.main == Main::Down { Since::Now } else { Since::Before };
                out.push(Action::Publish(since));
            }
            Event::Adopted { pid, limits, ready } => {
                self.initialised = true;
                self.up(pid, limits, now);
                if ready {
                    self.say(now, out, |i| !std::mem::replace(&mut i.ready, true), Since::Before);
                } else {
                    out.push(Action::Publish(Since::Before));
                }
            }
            Event::Gate { gate, backoff } => self.gate(gate, backoff, now, out),
            Event::LookAgain => self.look_again(now),
            Event::Started { pid, limits } => {
                self.up(pid, limits, now);
                out.push(Action::Publish(Since::Now));
            }
            Event::StartFailed => self.start_failed(None, now),
            Event::ForkFailed => self.start_failed(Some(Why::SystemFailure), now + FORK_RETRY),
            Event::Replaced { pid } => self.replaced(pid, out),
            Event::Ready => self.say(now, out, |i| !std::mem::replace(&mut i.ready, true), Since::ReadyNow),
            Event::Stopping => {
                self.say(now, out, |i| !std::mem::replace(&mut i.stopping, true), Since::Before);
            }
            Event::Alive => self.say(now, out, |_| false, Since::Before),
            Event::ScriptStarted { limit } => {
                if let Some(running) = &mut self.script {
                    running.kill_at = limit.map(|l| now + l);
                }
            }
            Event::ScriptAbsent => self.script_done(true, now, out),
            Event::ScriptEnded { success } => self.script_done(success, now, out),
            Event::Ended { death, permanent } => self.ended(death, permanent, now, out),
            Event::Control(byte) => {
                let target =
                    if std::mem::take(&mut self.group_next) { Target::Group } else { Target::Process };
                self.control(byte, target, out);
            }
            Event::ControlDrained => self.group_next = false,
            Event::Terminate => {
                self.exiting = true;
                self.want_down(Target::Process, out);
            }
            Event::Abandon => {
                self.leave(out);
                return;
            }
            Event::Tick => self.expire(now, out),
        }
        self.settle(now, out);
    }

    fn up(&mut self, pid: u32, limits: Limits, now: Duration) {
        // One that says when it is ready need not say before that it is alive.
        let hangs_at = limits.watchdog.filter(|_| !limits.announces).map(|after| now + after);
        self.main =
            Main::Up(Instance { pid, limits, ready: false, stopping: false, hangs_at, kill_at: None });
        self.failed = false;
    }

    /// The service has said something, which also shows that it is alive.
    fn say(
        &mut self,
        now: Duration,
        out: &mut Vec<Action>,
        note: impl Fn(&mut Instance) -> bool,
        since: Since,
    ) {
        let stopping = self.stop.is_some();
        let Main::Up(instance) = &mut self.main else { return };
        let news = note(instance);
        if instance.kill_at.is_none() && !stopping && (instance.ready || !instance.limits.announces) {
            instance.hangs_at = instance.limits.watchdog.map(|after| now + after);
        }
        if news {
            out.push(Action::Publish(since));
        }
    }

    fn run_script(&mut self, script: Script, out: &mut Vec<Action>) {
        self.script = Some(Running { script, kill_at: None });
        out.push(Action::RunScript(script));
    }

    fn script_done(&mut self, success: bool, now: Duration, out: &mut Vec<Action>) {
        match self.script.take().map(|r| r.script) {
            Some(Script::Init) if success => self.initialised = true,
            Some(Script::Init) => self.not_before = now + INIT_RETRY,
            Some(Script::Shutdown { .. }) => self.send_stop(now, out),
            Some(Script::Alert { .. }) | None => {}
        }
    }

    fn ended(&mut self, death: Death, permanent: bool, now: Duration, out: &mut Vec<Action>) {
        let Main::Up(Instance { pid, .. }) = self.main else { return };
        self.main = Main::Down;
        self.paused = false;
        let stop = self.stop.take();
        self.note_end(stop.is_some(), now);
        let give_up = permanent && stop.is_none() && self.want == Want::Up;
        if give_up {
            self.failed = true;
            self.want = Want::Down;
        }
        out.push(Action::Publish(Since::Now));
        if self.exiting {
            return;
        }
        match (stop, self.want) {
            (Some(stop), Want::Up) => {
                self.pending = Some(if stop.restart { Why::ManualRestart } else { Why::ManualStartup });
            }
            (None, Want::Up) => {
                self.pending = Some(Why::AbnormalStartup);
                self.run_script(Script::Alert { pid, death }, out);
            }
            _ if give_up => self.run_script(Script::Alert { pid, death }, out),
            _ => {}
        }
    }

    fn expire(&mut self, now: Duration, out: &mut Vec<Action>) {
        if let Some(running) = &mut self.script
            && running.kill_at.is_some_and(|at| at <= now)
        {
            running.kill_at = None;
            out.push(Action::KillScript);
        }
        self.expire_stop(now, out);
        self.expire_watchdog(now, out);
    }

    fn leave(&mut self, out: &mut Vec<Action>) {
        if self.script.take().is_some() {
            out.push(Action::KillScript);
        }
        self.exited = true;
        out.push(Action::Exit);
    }
}

#[cfg(test)]
mod tests;
