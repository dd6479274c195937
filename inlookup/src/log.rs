//! Lines on stderr. They never hold a password.

use std::fmt;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Failures of the store are logged at most once in this time.
const REST: Duration = Duration::from_secs(5);

/// Where the daemon's lines go.
#[derive(Debug)]
pub struct Log {
    program: &'static str,
    verbose: bool,
    failures: Mutex<Failures>,
}

#[derive(Debug, Default)]
struct Failures {
    last: Option<Instant>,
    held_back: u64,
}

impl Log {
    /// Lines that begin with this program's name; every question is logged when `verbose`.
    #[must_use]
    pub fn new(program: &'static str, verbose: bool) -> Self {
        Self { program, verbose, failures: Mutex::default() }
    }

    /// Is every question logged?
    #[must_use]
    pub fn is_verbose(&self) -> bool {
        self.verbose
    }

    /// One line. A closed stderr must not stop the daemon, so a failure to write is dropped.
    pub fn line(&self, text: fmt::Arguments<'_>) {
        let _ = std::io::stderr().write_all(format!("{}: {text}\n", self.program).as_bytes());
    }

    /// A failure of the store. When it fails for every question, a line now and then says how many.
    pub fn failure(&self, why: &dyn fmt::Display, now: Instant) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.last.is_some_and(|last| now.saturating_duration_since(last) < REST) {
            failures.held_back += 1;
            return;
        }
        let held_back = std::mem::take(&mut failures.held_back);
        failures.last = Some(now);
        drop(failures);
        match held_back {
            0 => self.line(format_args!("warning: cannot tell: {why}")),
            n => self.line(format_args!("warning: cannot tell: {why} (and {n} more)")),
        }
    }
}
