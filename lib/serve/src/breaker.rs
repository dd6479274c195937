//! A store that does not answer must not hold every worker.
//!
//! ```text
//! closed ── a question failed after `slow` ──► open: "cannot tell" at once
//!    ▲                                           │ after `rest`
//!    └── it answered, or failed fast ── one worker asks, the others go on failing
//! ```
//!
//! A failure that comes fast (connection refused) holds nobody and does not open it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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
    /// As `question`, and at once the error of `open` while it is open.
    pub fn ask<T, E>(
        &self,
        open: impl FnOnce() -> E,
        question: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let start = Instant::now();
        let Some(mut pass) = self.enter(start) else { return Err(open()) };
        let answer = question();
        let hung = answer.is_err() && start.elapsed() >= self.slow;
        pass.outcome = Some(hung);
        drop(pass);
        answer
    }

    fn enter(&self, now: Instant) -> Option<Pass<'_>> {
        let mut state = self.state();
        let probe = match state.open_until {
            None => false,
            Some(until) if now >= until && !state.probing => true,
            Some(_) => return None,
        };
        state.probing |= probe;
        Some(Pass { breaker: self, probe, outcome: None })
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

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(1000);

    type Outcome = Result<(), &'static str>;

    fn fail() -> Outcome {
        Err("away")
    }

    fn never() -> Outcome {
        panic!("nobody was to be asked")
    }

    fn ask(breaker: &Breaker, question: impl FnOnce() -> Outcome) -> Outcome {
        breaker.ask(|| "open", question)
    }

    #[test]
    fn fast_failures_do_not_open_it() {
        let breaker = Breaker::new(LONG, LONG);
        assert!(ask(&breaker, fail).is_err());
        assert!(ask(&breaker, || Ok(())).is_ok());
    }

    #[test]
    fn a_hanging_store_is_left_alone_for_a_while() {
        let breaker = Breaker::new(Duration::ZERO, LONG);
        assert!(ask(&breaker, fail).is_err());
        assert!(ask(&breaker, never) == Err("open"));
    }

    #[test]
    fn after_the_rest_one_asks_and_the_others_wait_for_the_outcome() {
        let breaker = Breaker::new(Duration::ZERO, Duration::ZERO);
        assert!(ask(&breaker, fail).is_err());
        let outcome = ask(&breaker, || {
            assert!(ask(&breaker, never).is_err());
            fail()
        });
        assert!(outcome.is_err());
        assert!(ask(&breaker, || Ok(())).is_ok());
        assert!(breaker.state().open_until.is_none() && !breaker.state().probing);
    }

    #[test]
    fn a_panic_while_asking_does_not_close_it_for_ever() {
        let breaker = Breaker::new(Duration::ZERO, Duration::ZERO);
        assert!(ask(&breaker, fail).is_err());
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| ask(&breaker, never)));
        assert!(panicked.is_err());
        assert!(ask(&breaker, || Ok(())).is_ok());
    }
}
