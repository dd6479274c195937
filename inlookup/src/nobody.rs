//! What a login for nobody costs.
//!
//! Time must not tell which accounts exist. So a login that has nothing to be checked against (no such account,
//! a locked one) does the work that it would do if it were one of the accounts of its domain: each such
//! address stands for one of a sample of them, always the same as long as that is there. Where all accounts
//! have one scheme and cost, that is the work of each; where they differ, those who do not exist differ
//! in the same proportion.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::{Duration, Instant};

use accounts::Address;
use accounts::password::Work;
use serve::Expiring;

/// How many accounts of a domain are looked at.
pub const SAMPLE: u32 = 64;
/// How long a sample lasts.
const LIFETIME: Duration = Duration::from_secs(600);
/// Samples that are kept, one for each domain.
const DOMAINS: usize = 1024;

/// Some accounts, and what checking a password of each costs.
pub type Sample = Arc<[(Address, Work)]>;

/// The samples.
#[derive(Debug)]
pub struct Nobodies {
    samples: Expiring<Sample>,
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
    pub fn sample(&self, domain: &[u8], now: Instant) -> Option<Sample> {
        self.samples.get(domain, now).map(Arc::clone)
    }

    /// Keeps the sample of a domain.
    pub fn keep(&mut self, domain: &[u8], sample: Vec<(Address, Work)>, now: Instant) -> Sample {
        let sample: Sample = sample.into();
        self.samples.insert(domain.to_vec(), Arc::clone(&sample), LIFETIME, now);
        sample
    }

    /// Forgets all samples.
    pub fn clear(&mut self) {
        self.samples.clear();
    }

    /// The work that is done for this address; `None` when the sample is empty.
    #[must_use]
    pub fn choose(&self, sample: &[(Address, Work)], address: &[u8]) -> Option<Work> {
        // Each account has a number of its own for each address, and the highest counts: an account that comes or
        // goes changes nothing for those that stand for another one.
        let highest = sample.iter().max_by_key(|(account, _)| {
            self.order.hash_one((account.local(), account.domain().as_str(), address))
        });
        highest.map(|(_, work)| work.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(stored: &str) -> Work {
        Work::of(stored.as_bytes()).unwrap()
    }

    fn sample(schemes: &[&str]) -> Vec<(Address, Work)> {
        let address = |n: usize| Address::parse(format!("account{n}@example.com").as_bytes()).unwrap();
        schemes.iter().enumerate().map(|(n, s)| (address(n), work(s))).collect()
    }

    #[test]
    fn an_address_stands_for_the_same_account_as_long_as_that_is_there() {
        const SCHEMES: [&str; 4] = ["$6$a$b", "$y$j9T$a$b", "$2b$12$abcdefghijklmnopqrstuu", "$5$a$b"];
        let nobodies = Nobodies::default();
        let all = sample(&SCHEMES);
        let chosen =
            |sample: &[_], n: u32| nobodies.choose(sample, format!("u{n}@example.com").as_bytes()).unwrap();
        for (_, expected) in &all {
            assert!((0..1000).any(|n| chosen(&all, n) == *expected), "{expected:?}");
        }
        let fewer = &all[..3];
        for n in 0..1000 {
            let (before, after) = (chosen(&all, n), chosen(fewer, n));
            assert!(
                before == after || before == all[3].1,
                "only who stood for the last one stands for another"
            );
        }
        assert_eq!(nobodies.choose(&[], b"a@example.com"), None);
    }

    #[test]
    fn samples_last_for_their_time() {
        let mut nobodies = Nobodies::default();
        let now = Instant::now();
        nobodies.keep(b"example.com", sample(&["$6$a$b"]), now);
        assert!(nobodies.sample(b"example.com", now + LIFETIME - Duration::from_secs(1)).is_some());
        assert!(nobodies.sample(b"example.com", now + LIFETIME).is_none());
        assert!(nobodies.sample(b"other.example", now).is_none());
    }
}
