//! Telling the service manager.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// A manager that does not listen is none of a daemon's business.
fn tell(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}

/// READY=1.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// RELOADING=1 around `work`.
pub(crate) fn reloading(work: impl FnOnce()) {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
    work();
    ready();
}

/// STOPPING=1.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Pings from the event loop, so that a loop that hangs is noticed.
#[derive(Debug)]
pub(crate) struct Watchdog {
    every: Option<Duration>,
    next: Instant,
}

impl Watchdog {
    /// As the service manager wants it; nothing without one.
    pub(crate) fn of_this_process(now: Instant) -> Self {
        Self { every: sd_notify::watchdog_enabled().map(|d| d / 2), next: now }
    }

    /// When to ping next.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.every.map(|_| self.next)
    }

    /// Pings when it is time.
    pub(crate) fn ping(&mut self, now: Instant) {
        if let Some(every) = self.every
            && now >= self.next
        {
            tell(&[NotifyState::Watchdog]);
            self.next = now + every;
        }
    }
}
