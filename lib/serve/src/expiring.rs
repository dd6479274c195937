//! A table of bounded size whose entries end by themselves.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// What is remembered, at most `capacity` entries, each until its own time is over.
///
/// When the table is full the oldest entry makes room. Time is passed in. All operations are O(1),
/// amortised.
#[derive(Debug)]
pub struct Expiring<V> {
    capacity: usize,
    entries: HashMap<Vec<u8>, Entry<V>>,
    /// Keys by age. An entry that was replaced or removed leaves its old record here; the serial
    /// number tells.
    by_age: VecDeque<(u64, Vec<u8>)>,
    serial: u64,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    ends: Instant,
    serial: u64,
}

impl<V> Expiring<V> {
    /// An empty table; a capacity of 0 remembers nothing.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { capacity, entries: HashMap::new(), by_age: VecDeque::new(), serial: 0 }
    }

    /// The value, unless its time is over.
    pub fn get(&self, key: &[u8], now: Instant) -> Option<&V> {
        self.entries.get(key).filter(|e| e.ends > now).map(|e| &e.value)
    }

    /// The value to change in place (its end stays), unless its time is over.
    pub fn get_mut(&mut self, key: &[u8], now: Instant) -> Option<&mut V> {
        self.entries.get_mut(key).filter(|e| e.ends > now).map(|e| &mut e.value)
    }

    /// Remembers a value for `lifetime`; a lifetime of zero remembers nothing.
    pub fn insert(&mut self, key: Vec<u8>, value: V, lifetime: Duration, now: Instant) {
        if self.capacity == 0 || lifetime.is_zero() {
            self.entries.remove(&key);
            return;
        }
        self.serial += 1;
        let entry = Entry { value, ends: now + lifetime, serial: self.serial };
        self.by_age.push_back((self.serial, key.clone()));
        self.entries.insert(key, entry);
        while self.entries.len() > self.capacity {
            let Some((serial, key)) = self.by_age.pop_front() else { break };
            if self.entries.get(&key).is_some_and(|e| e.serial == serial) {
                self.entries.remove(&key);
            }
        }
        if self.by_age.len() > 2 * self.capacity {
            let entries = &self.entries;
            self.by_age.retain(|(serial, key)| entries.get(key).is_some_and(|e| e.serial == *serial));
        }
    }

    /// Forgets one entry.
    pub fn remove(&mut self, key: &[u8]) {
        self.entries.remove(key);
    }

    /// Forgets the entries that do not satisfy `keep`.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], &V) -> bool) {
        self.entries.retain(|key, entry| keep(key, &entry.value));
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.by_age.clear();
    }

    /// How many entries there are, those whose time is over included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Is there no entry?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn entries_end_at_their_time() {
        let start = Instant::now();
        let mut table = Expiring::new(10);
        table.insert(b"a".to_vec(), 1, 30 * SECOND, start);
        assert_eq!(table.get(b"a", start + 29 * SECOND), Some(&1));
        assert_eq!(table.get(b"a", start + 30 * SECOND), None);
        *table.get_mut(b"a", start).unwrap() = 2;
        assert_eq!(table.get(b"a", start), Some(&2));
    }

    #[test]
    fn zero_lifetime_and_zero_capacity_remember_nothing() {
        let now = Instant::now();
        let mut table = Expiring::new(10);
        table.insert(b"a".to_vec(), 1, SECOND, now);
        table.insert(b"a".to_vec(), 2, Duration::ZERO, now);
        assert!(table.is_empty());
        let mut none = Expiring::new(0);
        none.insert(b"a".to_vec(), 1, SECOND, now);
        assert!(none.is_empty());
    }

    #[test]
    fn the_oldest_makes_room_and_replacing_renews() {
        let now = Instant::now();
        let mut table = Expiring::new(3);
        for key in [b"a", b"b", b"c", b"a", b"d"] {
            table.insert(key.to_vec(), (), SECOND, now);
        }
        assert!(table.get(b"b", now).is_none());
        assert!([b"a", b"c", b"d"].iter().all(|k| table.get(*k, now).is_some()));
    }

    #[test]
    fn forgetting_is_by_key_by_rule_or_whole() {
        let now = Instant::now();
        let mut table = Expiring::new(9);
        for key in [&b"a@x"[..], b"b@x", b"c@y"] {
            table.insert(key.to_vec(), (), SECOND, now);
        }
        table.remove(b"a@x");
        table.retain(|k, ()| !k.ends_with(b"@y"));
        assert_eq!(table.len(), 1);
        table.clear();
        assert!(table.is_empty());
    }

    #[test]
    fn bookkeeping_stays_bounded() {
        let now = Instant::now();
        let mut table = Expiring::new(4);
        for n in 0..10_000u32 {
            let key = (n % 6).to_be_bytes().to_vec();
            table.insert(key.clone(), n, SECOND, now);
            if n % 3 == 0 {
                table.remove(&key);
            }
            assert!(table.len() <= 4 && table.by_age.len() <= 9);
        }
    }
}
