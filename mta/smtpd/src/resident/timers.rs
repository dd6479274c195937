//! When to look at which connection again: a heap in which old entries stay until their time comes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// Deadlines by key.
#[derive(Debug, Default)]
pub(crate) struct Timers(BinaryHeap<Reverse<(Instant, usize)>>);

impl Timers {
    /// Looks at `key` at `when`.
    pub(crate) fn push(&mut self, when: Instant, key: usize) {
        self.0.push(Reverse((when, key)));
    }

    /// The earliest look.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.peek().map(|Reverse((when, _))| *when)
    }

    /// The next key whose time has come.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<usize> {
        let Reverse((when, key)) = *self.0.peek()?;
        if when > now {
            return None;
        }
        self.0.pop();
        Some(key)
    }
}
