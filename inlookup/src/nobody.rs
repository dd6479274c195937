//! What a login for nobody costs.
//!
//! Time must not tell which accounts exist. So a login that has nothing to be checked against (no such account,
//! a locked one) does the work that it would do if it were one of the accounts of its domain: each such
//! address stands for one of a sample of them, always the same while the sample lasts. Where all accounts
//! have one scheme and cost, that is the work of each; where they differ, those who do not exist differ
//! in the same proportion.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::{Duration, Instant};

use accounts::password::Work;
use serve::Expiring;

/// How many accounts of a domain are looked at.
pub const SAMPLE: u32 = 64;
/// How long a sample lasts.
const LIFETIME: Duration = Duration::from_secs(600);
/// Samples that are kept, one for each domain.
const DOMAINS: usize = 1024;

/// The samples.
#[derive(Debug)]
pub struct Nobodies {
    samples: Expiring<Arc<[Work]>>,
    /// Which address stands for which account is not for others to know.
    order: RandomState,
}

impl Default for Nobodies {
    fn default() -> Self {
        Self { samples: Expiring::new(DOMAINS), order: RandomState::new() }
    }
}

impl Nobodies {
    /// The sample of a domain, if it is known; the empty name is all accounts.
    #[must_use]
    pub fn sample(&self, domain: &[u8], now: Instant) -> Option<Arc<[Work]>> {
        self.samples.get(domain, now).map(Arc::clone)
    }

    /// Keeps the sample of a domain.
    pub fn keep(&mut self, domain: &[u8], sample: Vec<Work>, now: Instant) -> Arc<[Work]> {
        let sample: Arc<[Work]> = sample.into();
        self.samples.insert(domain.to_vec(), Arc::clone(&sample), LIFETIME, now);
        sample
    }

    /// Forgets all samples.
    pub fn clear(&mut self) {
        self.samples.clear();
    }

    /// The work that is done for this address; `None` when the sample is empty.
    #[must_use]
    pub fn choose(&self, sample: &[Work], address: &[u8]) -> Option<Work> {
        let place = self.order.hash_one(address).checked_rem(u64::try_from(sample.len()).ok()?)?;
        sample.get(usize::try_from(place).ok()?).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(stored: &str) -> Work {
        Work::of(stored.as_bytes()).unwrap()
    }

    #[test]
    fn an_address_always_stands_for_the_same_account_and_all_are_stood_for() {
        let nobodies = Nobodies::default();
        let sample = [work("$6$a$b"), work("$y$j9T$a$b"), work("$2b$12$abcdefghijklmnopqrstuu")];
        let chosen = |n: u32| nobodies.choose(&sample, format!("u{n}@example.com").as_bytes()).unwrap();
        for expected in &sample {
            assert!((0..1000).any(|n| chosen(n) == *expected), "{expected:?}");
        }
        assert!((0..1000).all(|n| chosen(n) == chosen(n)));
        assert_eq!(nobodies.choose(&[], b"a@example.com"), None);
    }

    #[test]
    fn samples_last_for_their_time() {
        let mut nobodies = Nobodies::default();
        let now = Instant::now();
        nobodies.keep(b"example.com", vec![work("$6$a$b")], now);
        assert!(nobodies.sample(b"example.com", now + LIFETIME - Duration::from_secs(1)).is_some());
        assert!(nobodies.sample(b"example.com", now + LIFETIME).is_none());
        assert!(nobodies.sample(b"other.example", now).is_none());
    }
}
