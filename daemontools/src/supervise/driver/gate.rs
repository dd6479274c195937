//! What may be in the way of a start: services that this one depends on, and what is left of it.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::{Driver, small_file};
use crate::supervise::dependency::{self, Answer, Dependencies};
use crate::supervise::machine::{Event, Gate};
use crate::supervise::policy::Backoff;

/// How often a lock that is held is reported.
const REPORT_AGAIN: Duration = Duration::from_secs(60);

impl Driver<'_> {
    pub(super) fn check_gate(&mut self) -> Event {
        let backoff = small_file("backoff").map_or_else(
            || Some(Backoff::default()),
            |text| {
                let backoff = Backoff::parse(&text);
                if backoff.is_none() {
                    self.warn("file backoff: expected min max factor (ms ms number): using 1000 1000 1");
                }
                backoff
            },
        );
        Event::Gate { gate: self.gate(), backoff: backoff.unwrap_or_default() }
    }

    fn gate(&mut self) -> Gate {
        match self.others() {
            Answer::NotUp => return Gate::Service,
            Answer::Settling(left) => return Gate::Settling(left),
            Answer::Clear => {}
        }
        self.lock = None;
        if small_file("lock-fd").is_none() {
            return Gate::Open;
        }
        match self.state.service_lock() {
            Ok(Some(file)) => {
                self.lock = Some(file);
                self.lock_reported = None;
                Gate::Open
            }
            Ok(None) => {
                if self.lock_reported.is_none_or(|at| at.elapsed() >= REPORT_AGAIN) {
                    self.lock_reported = Some(Instant::now());
                    self.warn("a process of an earlier instance holds service-lock: waiting for its end");
                }
                Gate::Locked
            }
            Err(e) => {
                self.warn(&format!("unable to lock service-lock: {e}: starting without it"));
                Gate::Open
            }
        }
    }

    fn others(&mut self) -> Answer {
        let here = Path::new(".");
        let Some(dependencies) = Dependencies::of(here) else { return Answer::Clear };
        if dependency::is_cyclic(here) {
            if !std::mem::replace(&mut self.cycle_reported, true) {
                self.warn("file wait: the service waits for itself through others: not waiting");
            }
            return Answer::Clear;
        }
        let now = unix::clock::since_epoch();
        let (places, up_fifo) = (&self.settings.places, &self.settings.up_fifo);
        let answer = dependency::look(&dependencies, here, places, up_fifo, now);
        if answer == Answer::NotUp && self.others.is_none() {
            self.others = self.watch(&dependencies);
            // It may have come up in between.
            return dependency::look(&dependencies, here, places, up_fifo, unix::clock::since_epoch());
        }
        answer
    }

    /// Hears of changes; without that there is the clock.
    fn watch(&self, dependencies: &Dependencies) -> Option<Inotify> {
        let watch = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok()?;
        let changes = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CREATE;
        for other in dependencies.directories(Path::new(".")) {
            let _ = watch.add_watch(&self.settings.places.of_client(&other), changes);
        }
        Some(watch)
    }
}
