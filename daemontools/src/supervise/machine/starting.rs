//! The way to a start: how soon, after what, and what may be in the way.

use std::time::Duration;

use super::{Action, Gate, Machine, Main, Passage, Running, Script, Since, Waiting, Why};
use crate::status::{Wait, Want};
use crate::supervise::policy::Backoff;

/// After a fork that failed.
pub const FORK_RETRY: Duration = Duration::from_secs(60);
/// After `init` failed.
pub const INIT_RETRY: Duration = Duration::from_secs(60);
/// How often the others are looked at, also when nothing is heard of them.
const WAIT_POLL: Duration = Duration::from_secs(1);
/// A lock says nothing when it is given up.
const LOCK_POLL: Duration = Duration::from_millis(200);

impl Machine {
    /// When the next step to a start is due.
    pub(super) fn start_due(&self) -> Option<Duration> {
        if self.main != Main::Down || self.pending.is_none() || self.script.is_some() {
            return None;
        }
        Some(self.waiting.map_or(self.not_before, |w| w.again.max(self.not_before)))
    }

    /// Starts what is due and leaves when told to.
    pub(super) fn settle(&mut self, now: Duration, out: &mut Vec<Action>) {
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
        let Some(why) = self.pending else {
            self.passage = Passage::Unknown;
            if self.waiting.take().is_some() {
                out.push(Action::Publish(Since::Now));
            }
            return;
        };
        if self.script.is_some() || self.start_due().is_none_or(|due| due > now) {
            return;
        }
        if !self.initialised {
            self.run_script(Script::Init, out);
            return;
        }
        match self.passage {
            Passage::Asked => {}
            Passage::Unknown => {
                self.passage = Passage::Asked;
                out.push(Action::CheckGate);
            }
            Passage::Open => self.start(why, now, out),
        }
    }

    fn start(&mut self, why: Why, now: Duration, out: &mut Vec<Action>) {
        self.passage = Passage::Unknown;
        if self.waiting.take().is_some() {
            out.push(Action::Publish(Since::Before));
        }
        self.pending = None;
        if matches!(why, Why::AbnormalStartup | Why::SystemFailure) {
            self.restarts = self.restarts.saturating_add(1);
        }
        self.last_start = Some(now);
        self.not_before = now + self.backoff.delay(self.failures);
        self.main = Main::Starting(why);
        out.push(Action::Start(why));
    }

    /// An operator does not wait for what failures have earned, only for the least time between starts.
    pub(super) fn start_soon(&mut self) {
        self.failures = 0;
        self.not_before = self.last_start.map_or(Duration::ZERO, |at| at + self.backoff.min());
    }

    pub(super) fn gate(&mut self, gate: Gate, backoff: Backoff, now: Duration, out: &mut Vec<Action>) {
        if self.passage != Passage::Asked {
            return;
        }
        self.backoff = backoff;
        let before = self.waiting;
        let waiting = |wait, again: Duration, until| Some(Waiting { wait, again, until });
        let next = match gate {
            Gate::Open => None,
            Gate::Service => waiting(Wait::ForService, now + WAIT_POLL, None),
            Gate::Locked => waiting(Wait::ForLock, now + LOCK_POLL, None),
            Gate::Settling(left) => {
                // By the monotonic clock from here on: the other one may be stepped.
                let until = before.and_then(|w| w.until).unwrap_or(now + left).min(now + left);
                let left = until.saturating_sub(now);
                let seconds = u16::try_from(left.as_millis().div_ceil(1000)).unwrap_or(u16::MAX);
                waiting(Wait::Seconds(seconds), until.min(now + WAIT_POLL), Some(until))
                    .filter(|_| seconds > 0)
            }
        };
        let Some(next) = next else {
            if let Some(waiting) = &mut self.waiting {
                waiting.again = now;
            }
            self.passage = Passage::Open;
            return;
        };
        self.passage = Passage::Unknown;
        self.waiting = Some(next);
        match before {
            None => out.push(Action::Publish(Since::Now)),
            Some(before) if before.wait != next.wait => out.push(Action::Publish(Since::Before)),
            Some(_) => {}
        }
    }

    pub(super) fn look_again(&mut self, now: Duration) {
        if let Some(waiting) = &mut self.waiting {
            waiting.again = waiting.again.min(now);
        }
    }

    pub(super) fn start_failed(&mut self, why: Option<Why>, not_before: Duration) {
        let Main::Starting(last) = self.main else { return };
        self.main = Main::Down;
        self.failures = self.failures.saturating_add(1);
        self.not_before = self.not_before.max(not_before);
        // A one-time start that the system refused is still owed; one whose run failed is not.
        if self.want == Want::Up || (why.is_some() && self.want == Want::Once) {
            self.pending = Some(why.unwrap_or(last));
        }
    }

    /// How soon the next start may be, after an end that was asked for or not.
    pub(super) fn note_end(&mut self, asked_for: bool, now: Duration) {
        let lasted = self.last_start.is_none_or(|at| now >= at + self.backoff.max());
        if asked_for || lasted {
            self.start_soon();
        } else {
            self.failures = self.failures.saturating_add(1);
        }
    }
}
