//! When to look at which connection again.
//!
//! A heap with at most a few stale entries per key: moving a deadline later costs nothing (the old entry
//! is looked at early and put back), moving it earlier pushes one entry.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// Deadlines by key.
#[derive(Debug, Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(Instant, usize)>>,
}

impl Timers {
    /// Looks at `key` at `when`.
    pub fn push(&mut self, when: Instant, key: usize) {
        self.heap.push(Reverse((when, key)));
    }

    /// The earliest look.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((when, _))| *when)
    }

    /// The next key whose time has come.
    pub fn pop(&mut self, now: Instant) -> Option<usize> {
        let Reverse((when, key)) = *self.heap.peek()?;
        if when > now {
            return None;
        }
        self.heap.pop();
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn keys_come_in_order_of_time_and_not_before() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut timers = Timers::default();
        timers.push(at(30), 3);
        timers.push(at(10), 1);
        timers.push(at(20), 2);
        assert_eq!(timers.next(), Some(at(10)));
        assert_eq!(timers.pop(at(9)), None);
        assert_eq!(timers.pop(at(20)), Some(1));
        assert_eq!(timers.pop(at(20)), Some(2));
        assert_eq!(timers.pop(at(20)), None);
    }
}
