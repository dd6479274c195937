//! The life of one service as a pure state machine: events in, actions out, time passed in.
//!
//! ```text
//!            pending start, floor of 1 s passed, init done
//!   Down ───────────────────────────────────────────────► Starting ──Started──► Up
//!    ▲                                                        │                 │
//!    └────────────StartFailed (pending again)─────────────────┘                 │ d, r, TERM: shutdown
//!    └───────────────────────────Ended (alert when unexpected)◄─────────────────┘ script, then signals
//! ```
//!
//! At most one service process and at most one script exist at any time. The driver performs every
//! action at once and in order, and feeds the outcome of `Start` and `RunScript` back before anything
//! else. Time is monotonic, counted from any fixed moment.

mod events;

use std::time::Duration;

use unix::Signal;

use crate::status::Want;
use events::plain_signal;
pub use events::{Action, Death, Event, Script, Target, Why};

/// No two starts of the service are closer than this.
pub const START_FLOOR: Duration = Duration::from_secs(1);
/// After a fork that failed.
pub const FORK_RETRY: Duration = Duration::from_secs(60);
/// After `init` failed.
pub const INIT_RETRY: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Main {
    Down,
    Starting(Why),
    Up { pid: u32, kill_after: Option<Duration> },
}

#[derive(Debug, Clone, Copy)]
struct Stop {
    target: Target,
    restart: bool,
    kill_at: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
struct Running {
    script: Script,
    kill_at: Option<Duration>,
}

/// The state of one service.
#[derive(Debug)]
pub struct Machine {
    stop_signal: Signal,
    want: Want,
    main: Main,
    paused: bool,
    pending: Option<Why>,
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
            pending: None,
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

    /// Process id of the service while it is up.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        match self.main {
            Main::Up { pid, .. } => Some(pid),
            Main::Down | Main::Starting(_) => None,
        }
    }

    /// Is it stopped by a signal of the operator?
    #[must_use]
    pub fn paused(&self) -> bool {
        self.paused
    }

    /// When [`Event::Tick`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let start = (self.main == Main::Down && self.pending.is_some() && self.script.is_none())
            .then_some(self.not_before);
        let script = self.script.and_then(|s| s.kill_at);
        let stop = self.stop.and_then(|s| s.kill_at);
        [start, script, stop].into_iter().flatten().min()
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
                out.push(Action::Publish(true));
            }
            Event::Adopted { pid, kill_after } => {
                self.initialised = true;
                self.main = Main::Up { pid, kill_after };
                out.push(Action::Publish(true));
            }
            Event::Started { pid, kill_after } => {
                self.main = Main::Up { pid, kill_after };
                out.push(Action::Publish(true));
            }
            Event::StartFailed => self.start_failed(None, now),
            Event::ForkFailed => self.start_failed(Some(Why::SystemFailure), now + FORK_RETRY),
            Event::ScriptStarted { limit } => {
                if let Some(running) = &mut self.script {
                    running.kill_at = limit.map(|l| now + l);
                }
            }
            Event::ScriptAbsent => self.script_done(true, now, out),
            Event::ScriptEnded { success } => self.script_done(success, now, out),
            Event::Ended(death) => self.ended(death, out),
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

    fn control(&mut self, byte: u8, target: Target, out: &mut Vec<Action>) {
        match byte {
            b'u' => self.want_up(Want::Up, Why::ManualStartup, out),
            b'o' => self.want_up(Want::Once, Why::OneTime, out),
            b'd' => self.want_down(target, out),
            b'D' => {
                out.push(Action::CreateDownFile);
                self.want_down(target, out);
            }
            b'Q' => {
                out.push(Action::CreateDownFile);
                self.want_up(Want::Once, Why::OneTime, out);
            }
            b'r' if self.main == Main::Down => self.want_up(Want::Up, Why::ManualRestart, out),
            b'r' => {
                self.want = Want::Up;
                out.push(Action::Publish(false));
                self.begin_stop(target, true, out);
            }
            b'x' => self.exiting = true,
            b'G' => self.group_next = true,
            b'p' => self.pause(target, out),
            b'c' => self.resume(target, out),
            b'P' => self.pause(Target::Group, out),
            b'C' => self.resume(Target::Group, out),
            b'K' => self.signal(Target::Group, Signal::SIGKILL, out),
            _ => {
                if let Some(signal) = plain_signal(byte) {
                    self.signal(target, signal, out);
                }
            }
        }
    }

    fn want_up(&mut self, want: Want, why: Why, out: &mut Vec<Action>) {
        self.want = want;
        out.push(Action::Publish(false));
        if self.main == Main::Down {
            self.pending = Some(why);
        }
    }

    fn want_down(&mut self, target: Target, out: &mut Vec<Action>) {
        self.want = Want::Down;
        self.pending = None;
        out.push(Action::Publish(false));
        self.begin_stop(target, false, out);
    }

    fn begin_stop(&mut self, target: Target, restart: bool, out: &mut Vec<Action>) {
        let Some(pid) = self.pid() else { return };
        let kill_at = self.stop.and_then(|s| s.kill_at);
        self.stop = Some(Stop { target, restart, kill_at });
        if self.script.is_none() {
            self.run_script(Script::Shutdown { pid }, out);
        }
    }

    fn send_stop(&mut self, now: Duration, out: &mut Vec<Action>) {
        let Main::Up { kill_after, .. } = self.main else { return };
        let Some(stop) = &mut self.stop else { return };
        stop.kill_at = stop.kill_at.or(kill_after.map(|after| now + after));
        let target = stop.target;
        out.push(Action::Signal(target, self.stop_signal));
        out.push(Action::Signal(target, Signal::SIGCONT));
        if std::mem::take(&mut self.paused) {
            out.push(Action::Publish(false));
        }
    }

    fn pause(&mut self, target: Target, out: &mut Vec<Action>) {
        self.signal(target, Signal::SIGSTOP, out);
        if self.pid().is_some() {
            self.paused = true;
            out.push(Action::Publish(false));
        }
    }

    fn resume(&mut self, target: Target, out: &mut Vec<Action>) {
        self.signal(target, Signal::SIGCONT, out);
        if self.pid().is_some() {
            self.paused = false;
            out.push(Action::Publish(false));
        }
    }

    fn signal(&self, target: Target, signal: Signal, out: &mut Vec<Action>) {
        if self.pid().is_some() {
            out.push(Action::Signal(target, signal));
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

    fn start_failed(&mut self, why: Option<Why>, not_before: Duration) {
        if let Main::Starting(last) = self.main {
            self.main = Main::Down;
            self.not_before = self.not_before.max(not_before);
            // A one-time start that the system refused is still owed; one whose run failed is not.
            if self.want == Want::Up || (why.is_some() && self.want == Want::Once) {
                self.pending = Some(why.unwrap_or(last));
            }
        }
    }

    fn ended(&mut self, death: Death, out: &mut Vec<Action>) {
        let Main::Up { pid, .. } = self.main else { return };
        self.main = Main::Down;
        self.paused = false;
        let stop = self.stop.take();
        out.push(Action::Publish(true));
        if self.want != Want::Up || self.exiting {
            return;
        }
        match stop {
            Some(stop) => {
                self.pending = Some(if stop.restart { Why::ManualRestart } else { Why::ManualStartup });
            }
            None => {
                self.pending = Some(Why::AbnormalStartup);
                self.run_script(Script::Alert { pid, death }, out);
            }
        }
    }

    fn expire(&mut self, now: Duration, out: &mut Vec<Action>) {
        if let Some(running) = &mut self.script
            && running.kill_at.is_some_and(|at| at <= now)
        {
            running.kill_at = None;
            out.push(Action::KillScript);
        }
        if let Some(stop) = &mut self.stop
            && stop.kill_at.is_some_and(|at| at <= now)
        {
            // Once is enough: nothing survives it but a process in the kernel's hands.
            stop.kill_at = None;
            out.push(Action::Signal(stop.target, Signal::SIGKILL));
        }
    }

    /// Starts what is due and leaves when told to.
    fn settle(&mut self, now: Duration, out: &mut Vec<Action>) {
        if self.main != Main::Down {
            return;
        }
        if self.exiting {
            // A shutdown script still has work to do; the others have lost their purpose.
            if !matches!(self.script, Some(Running { script: Script::Shutdown { .. }, .. })) {
                self.leave(out);
            }
            return;
        }
        if self.script.is_some() || now < self.not_before {
            return;
        }
        let Some(why) = self.pending else { return };
        if !self.initialised {
            self.run_script(Script::Init, out);
            return;
        }
        self.pending = None;
        self.not_before = now + START_FLOOR;
        self.main = Main::Starting(why);
        out.push(Action::Start(why));
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
