//! A store that does not answer must not hold every worker.
//!
//! ```text
//! closed ── a question failed after `slow` ──► open: "cannot tell" at once
//!    ▲                                           │ after `rest`
//!    └── it answered, or failed fast ── one worker asks, the others go on failing
//! ```
//!
//! A failure that comes fast (connection refused) holds nobody and does not open it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use accounts::{Address, Answer, Domain, DomainName, Entry, Limits, Unavailable};

use crate::source::Source;

/// Shared by all workers of a store.
#[derive(Debug)]
pub struct Breaker {
    slow: Duration,
    rest: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open_until: Option<Instant>,
    probing: bool,
}

impl Breaker {
    /// Closed. A failure that took `slow` opens it for `rest`.
    #[must_use]
    pub fn new(slow: Duration, rest: Duration) -> Self {
        Self { slow, rest, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks, unless it is open.
    ///
    /// # Errors
    /// As `question`, and at once while it is open.
    pub fn ask<T>(&self, question: impl FnOnce() -> Answer<T>) -> Answer<T> {
        let start = Instant::now();
        let mut pass = self.enter(start)?;
        let answer = question();
        let hung = answer.is_err() && start.elapsed() >= self.slow;
        pass.outcome = Some(hung);
        drop(pass);
        answer
    }

    fn enter(&self, now: Instant) -> Answer<Pass<'_>> {
        let mut state = self.state();
        let probe = match state.open_until {
            None => false,
            Some(until) if now >= until && !state.probing => true,
            Some(_) => {
                return Err(Unavailable::new("account store", "it did not answer in time a moment ago"));
            }
        };
        state.probing |= probe;
        Ok(Pass { breaker: self, probe, outcome: None })
    }
}

/// One question on its way. Dropped without an outcome (a panic), it counts as one that hung.
struct Pass<'a> {
    breaker: &'a Breaker,
    probe: bool,
    outcome: Option<bool>,
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut state = self.breaker.state();
        if self.outcome.unwrap_or(true) {
            state.open_until = Some(Instant::now() + self.breaker.rest);
        } else if self.probe {
            state.open_until = None;
        }
        if self.probe {
            state.probing = false;
        }
    }
}

/// A source behind a breaker. Domains are a file and need none.
#[derive(Debug)]
pub struct Guarded<S> {
    source: S,
    breaker: Arc<Breaker>,
}

impl<S: Source> Guarded<S> {
    /// `source`, asked only while `breaker` lets it.
    pub fn new(source: S, breaker: Arc<Breaker>) -> Self {
        Self { source, breaker }
    }
}

impl<S: Source> Source for Guarded<S> {
    fn domain(&mut self, name: &DomainName) -> Answer<Option<Domain>> {
        self.source.domain(name)
    }

    fn account(&mut self, real: &Address, domain: &Domain) -> Answer<Option<Entry>> {
        self.breaker.ask(|| self.source.account(real, domain))
    }

    fn aliases(&mut self, real: &Address) -> Answer<Vec<Vec<u8>>> {
        self.breaker.ask(|| self.source.aliases(real))
    }

    fn limits(&mut self, entry: &Entry) -> Answer<Option<Limits>> {
        self.breaker.ask(|| self.source.limits(entry))
    }

    fn may_relay(&mut self, real: &Address, ip: &str, since: i64) -> Answer<bool> {
        self.breaker.ask(|| self.source.may_relay(real, ip, since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(1000);

    fn fail() -> Answer<()> {
        Err(Unavailable::new("store", "away"))
    }

    fn never() -> Answer<()> {
        panic!("nobody was to be asked")
    }

    #[test]
    fn fast_failures_do_not_open_it() {
        let breaker = Breaker::new(LONG, LONG);
        assert!(breaker.ask(fail).is_err());
        assert!(breaker.ask(|| Ok(())).is_ok());
    }

    #[test]
    fn a_hanging_store_is_left_alone_for_a_while() {
        let breaker = Breaker::new(Duration::ZERO, LONG);
        assert!(breaker.ask(fail).is_err());
        assert!(breaker.ask(never).unwrap_err().to_string().contains("a moment ago"));
    }

    #[test]
    fn after_the_rest_one_asks_and_the_others_wait_for_the_outcome() {
        let breaker = Breaker::new(Duration::ZERO, Duration::ZERO);
        assert!(breaker.ask(fail).is_err());
        let outcome = breaker.ask(|| {
            assert!(breaker.ask(never).is_err());
            fail()
        });
        assert!(outcome.is_err());
        assert!(breaker.ask(|| Ok(())).is_ok());
        assert!(breaker.state().open_until.is_none() && !breaker.state().probing);
    }

    #[test]
    fn a_panic_while_asking_does_not_close_it_for_ever() {
        let breaker = Breaker::new(Duration::ZERO, Duration::ZERO);
        assert!(breaker.ask(fail).is_err());
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| breaker.ask(never)));
        assert!(panicked.is_err());
        assert!(breaker.ask(|| Ok(())).is_ok());
    }
}
