//! Counters of the daemon's life, for the status line.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// user questions
    User,
    /// mailbox questions
    Mailbox,
    /// domain questions
    Domain,
    /// relay questions
    Relay,
    /// password checks
    Authenticate,
    /// account standing checks
    Account,
    /// answers from memory
    Hit,
    /// wrong passwords and unknown accounts
    Failed,
    /// answers "later"
    Throttled,
    /// questions that could not be answered
    Unavailable,
    /// questions refused because of who asked
    Refused,
}

const NAMES: [(Count, &str); 11] = [
    (Count::User, "user"),
    (Count::Mailbox, "mailbox"),
    (Count::Domain, "domain"),
    (Count::Relay, "relay"),
    (Count::Authenticate, "authenticate"),
    (Count::Account, "account"),
    (Count::Hit, "hit"),
    (Count::Failed, "failed"),
    (Count::Throttled, "throttled"),
    (Count::Unavailable, "unavailable"),
    (Count::Refused, "refused"),
];

/// The counters, shared by all workers.
#[derive(Debug)]
pub struct Counters {
    start: Instant,
    values: [AtomicU64; NAMES.len()],
}

impl Counters {
    /// All zero.
    #[must_use]
    pub fn new(start: Instant) -> Self {
        Self { start, values: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// Counts one.
    pub fn add(&self, what: Count) {
        self.values[what as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The number so far.
    #[must_use]
    pub fn get(&self, what: Count) -> u64 {
        self.values[what as usize].load(Ordering::Relaxed)
    }

    /// Names and values, in a fixed order.
    pub fn rows(&self) -> impl Iterator<Item = (&'static str, u64)> {
        NAMES.iter().map(|&(what, name)| (name, self.get(what)))
    }

    /// How long they have been counting.
    #[must_use]
    pub fn uptime(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counter_has_its_own_place_and_name() {
        let counters = Counters::new(Instant::now());
        for (n, (what, _)) in NAMES.iter().enumerate() {
            assert_eq!(*what as usize, n);
        }
        counters.add(Count::Hit);
        let counted: Vec<_> = counters.rows().filter(|(_, value)| *value > 0).collect();
        assert_eq!(counted, [("hit", 1)]);
    }
}
