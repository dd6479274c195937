//! Counts failed logins, so that guessing costs the guesser and not the host.
//!
//! Two counters, one for the account and one for the remote host, each over one window of time that
//! starts with the first failure. At the limit the answer is "later" at once: nothing is hashed,
//! nothing sleeps, and the right password is not told from a wrong one. Unknown accounts are counted
//! like known ones. A right password clears the account's counter but not the host's, else an
//! attacker with one account of his own could go on for ever. A limit of 0 switches a counter off.
//!
//! An account's counter does not count against a host from which its owner has logged in lately, so
//! that somebody else's guesses do not lock her out; the host's counter still does. The host itself
//! (no name, or a loopback address: a web mail, a proxy) is never counted as a host and never known.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serve::Expiring;

/// How many failures are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Failures of one account in a window; 0: no limit.
    pub account: u32,
    /// Failures from one remote host in a window; 0: no limit.
    pub host: u32,
    /// How long failures count.
    pub window: Duration,
}

/// The most accounts and hosts that are counted at a time; the oldest are forgotten first.
pub const CAPACITY: usize = 65_536;
/// How long a host is known as the owner's after a login.
pub const KNOWN: Duration = Duration::from_secs(24 * 3600);

/// The counters.
#[derive(Debug)]
pub struct Throttle {
    limits: Limits,
    accounts: Expiring<u32>,
    hosts: Expiring<u32>,
    /// Account and host of successful logins.
    known: Expiring<()>,
}

impl Throttle {
    /// No failures yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            accounts: Expiring::new(CAPACITY),
            hosts: Expiring::new(CAPACITY),
            known: Expiring::new(CAPACITY),
        }
    }

    /// Must this login wait? `host` is empty for a local login.
    #[must_use]
    pub fn is_over(&self, account: &[u8], host: &[u8], now: Instant) -> bool {
        let known = || !is_here(host) && self.known.get(&pair(account, host), now).is_some();
        (over(&self.accounts, account, self.limits.account, now) && !known())
            || (!is_here(host) && over(&self.hosts, host, self.limits.host, now))
    }

    /// A password was wrong, or the account unknown.
    pub fn failed(&mut self, account: &[u8], host: &[u8], now: Instant) {
        count(&mut self.accounts, account, self.limits.window, now);
        if !is_here(host) {
            count(&mut self.hosts, host, self.limits.window, now);
        }
    }

    /// A password was right.
    pub fn succeeded(&mut self, account: &[u8], host: &[u8], now: Instant) {
        self.accounts.remove(shortened(account));
        if !is_here(host) {
            self.known.insert(pair(account, host), (), KNOWN, now);
        }
    }

    /// Forgets all failures.
    pub fn clear(&mut self) {
        self.accounts.clear();
        self.hosts.clear();
    }
}

/// Is it this host, or a program on it that speaks for others?
fn is_here(host: &[u8]) -> bool {
    host.is_empty() || host == b"localhost" || address(host).is_some_and(|a| a.is_loopback())
}

fn address(host: &[u8]) -> Option<IpAddr> {
    std::str::from_utf8(host).ok()?.parse::<IpAddr>().ok().map(|a| a.to_canonical())
}

/// The IP address of a remote host, when it has one and is not this host.
#[must_use]
pub fn remote_address(host: &[u8]) -> Option<IpAddr> {
    address(host).filter(|a| !a.is_loopback())
}

/// Bytes of a name that are looked at, so that nobody fills the memory with long ones.
const NAME: usize = 320;

fn shortened(name: &[u8]) -> &[u8] {
    name.get(..NAME).unwrap_or(name)
}

fn pair(account: &[u8], host: &[u8]) -> Vec<u8> {
    [shortened(account), b"\0", shortened(host)].concat()
}

fn over(table: &Expiring<u32>, key: &[u8], limit: u32, now: Instant) -> bool {
    limit != 0 && table.get(shortened(key), now).is_some_and(|&n| n >= limit)
}

fn count(table: &mut Expiring<u32>, key: &[u8], window: Duration, now: Instant) {
    let key = shortened(key);
    match table.get_mut(key, now) {
        Some(n) => *n = n.saturating_add(1),
        None => table.insert(key.to_vec(), 1, window, now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(300);

    fn throttle(account: u32, host: u32) -> Throttle {
        Throttle::new(Limits { account, host, window: WINDOW })
    }

    #[test]
    fn an_account_is_over_at_its_limit_until_the_window_ends() {
        let now = Instant::now();
        let mut t = throttle(3, 0);
        for n in 0..3 {
            assert!(!t.is_over(b"a@x", b"", now), "after {n} failures");
            t.failed(b"a@x", b"", now + Duration::from_secs(n));
        }
        assert!(t.is_over(b"a@x", b"", now + Duration::from_secs(3)));
        assert!(!t.is_over(b"b@x", b"", now));
        // The window began with the first failure; later ones do not stretch it.
        assert!(!t.is_over(b"a@x", b"", now + WINDOW));
    }

    #[test]
    fn a_host_is_over_whatever_the_accounts_and_stays_so_after_a_success() {
        let now = Instant::now();
        let mut t = throttle(0, 2);
        t.failed(b"a@x", b"192.0.2.1", now);
        t.failed(b"b@x", b"192.0.2.1", now);
        t.succeeded(b"a@x", b"192.0.2.1", now);
        assert!(t.is_over(b"own@x", b"192.0.2.1", now));
        assert!(t.is_over(b"a@x", b"192.0.2.1", now));
        assert!(!t.is_over(b"own@x", b"192.0.2.2", now));
        assert!(!t.is_over(b"own@x", b"", now));
    }

    #[test]
    fn a_success_clears_the_account() {
        let now = Instant::now();
        let mut t = throttle(1, 0);
        t.failed(b"a@x", b"", now);
        assert!(t.is_over(b"a@x", b"", now));
        t.succeeded(b"a@x", b"", now);
        assert!(!t.is_over(b"a@x", b"", now));
    }

    #[test]
    fn guesses_do_not_lock_the_owner_out_where_she_is_known() {
        let now = Instant::now();
        let mut t = throttle(1, 0);
        t.succeeded(b"a@x", b"192.0.2.9", now);
        t.succeeded(b"a@x", b"", now);
        t.failed(b"a@x", b"198.51.100.1", now);
        assert!(t.is_over(b"a@x", b"198.51.100.1", now) && t.is_over(b"a@x", b"", now));
        assert!(!t.is_over(b"a@x", b"192.0.2.9", now));
        // Only hers, and not for ever.
        t.failed(b"b@x", b"198.51.100.1", now);
        assert!(t.is_over(b"b@x", b"192.0.2.9", now));
        let tomorrow = now + KNOWN;
        t.failed(b"a@x", b"198.51.100.1", tomorrow);
        assert!(t.is_over(b"a@x", b"192.0.2.9", tomorrow));
    }

    #[test]
    fn programs_on_this_host_that_speak_for_others_are_not_shut_out() {
        let now = Instant::now();
        let mut t = throttle(0, 1);
        for here in [&b""[..], b"127.0.0.1", b"127.8.9.1", b"::1", b"::ffff:127.0.0.1", b"localhost"] {
            t.failed(b"a@x", here, now);
            assert!(!t.is_over(b"a@x", here, now), "{}", here.escape_ascii());
        }
        t.failed(b"a@x", b"2001:db8::1", now);
        assert!(t.is_over(b"a@x", b"2001:db8::1", now));
    }

    #[test]
    fn zero_is_no_limit() {
        let now = Instant::now();
        let mut t = throttle(0, 0);
        for _ in 0..1000 {
            t.failed(b"a@x", b"h", now);
        }
        assert!(!t.is_over(b"a@x", b"h", now));
    }
}
