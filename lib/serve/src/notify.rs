//! Telling the service manager.

use std::io::Write;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// A manager that does not listen is none of a daemon's business.
fn tell(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}

/// READY=1, and a newline on the descriptor that waits for one.
pub fn ready(descriptor: Option<i32>) {
    tell(&[NotifyState::Ready]);
    if let Some(fd) = descriptor.and_then(unix::fd::inherited) {
        // The reader may have gone away; it then does not want to know.
        let _ = std::fs::File::from(fd).write_all(b"\n");
    }
}

/// RELOADING=1 around `work`.
pub fn reloading(work: impl FnOnce()) {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
    work();
    tell(&[NotifyState::Ready]);
}

/// STOPPING=1.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Pings from the serving loop, so that a loop that hangs is noticed.
#[derive(Debug)]
pub struct Watchdog {
    every: Option<Duration>,
    next: Instant,
}

impl Watchdog {
    /// As the service manager wants it; nothing without one.
    #[must_use]
    pub fn of_this_process(now: Instant) -> Self {
        Self { every: sd_notify::watchdog_enabled().map(|d| d / 2), next: now }
    }

    /// When to ping next.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.every.map(|_| self.next)
    }

    /// Pings when it is time.
    pub fn ping(&mut self, now: Instant) {
        if let Some(every) = self.every
            && now >= self.next
        {
            tell(&[NotifyState::Watchdog]);
            self.next = now + every;
        }
    }
}
