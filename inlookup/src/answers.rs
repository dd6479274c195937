//! The questions and their answers: what a worker does, without sockets.
//!
//! ```text
//! address ─► real domain ─► remembered? ─► account row, alias lines ─► Facts ─► user, mailbox
//! login, password ─► too many failures? ─► account row ─► hash (always one) ─► standing ─► verdict
//! ```
//!
//! Facts about addresses are remembered (also "nothing there"); what decides a login never is, so a
//! changed password, flag or limit counts at once. A failure of the source is passed on as it is,
//! never remembered and never counted as a failed login.

use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use accounts::{Address, Answer, Domain, DomainName, Entry, Limits, ServiceFlags, password};
use lookup::mail::{Mailbox, Quota, UserStatus, Verdict};
use unix::{Gid, Uid};

use crate::counters::{Count, Counters};
use crate::expiring::Expiring;
use crate::service::refusing_flag;
use crate::settings::CacheSettings;
use crate::source::Source;
use crate::throttle::{Limits as FailureLimits, Throttle};

/// What all workers share.
#[derive(Debug)]
pub struct Shared {
    /// Counters.
    pub counters: Counters,
    cache: CacheSettings,
    relay_lifetime: Duration,
    facts: Mutex<Expiring<Arc<Facts>>>,
    throttle: Mutex<Throttle>,
}

/// What is known about an address.
#[derive(Debug)]
enum Facts {
    Nothing,
    Alias(Mailbox),
    Account(Mailbox),
}

/// Who wants to log in, where and from where.
#[derive(Debug, Clone, Copy)]
pub struct Login<'a> {
    /// `user@domain`.
    pub address: &'a [u8],
    /// The service's name.
    pub service: &'a [u8],
    /// The remote host; empty for a local login.
    pub remote_host: &'a [u8],
}

/// The present moment on both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For what ends.
    pub instant: Instant,
    /// Seconds since 1970, for what the store has.
    pub unix: u64,
}

impl Now {
    /// Reads both clocks.
    #[must_use]
    pub fn read() -> Self {
        Self { instant: Instant::now(), unix: unix::clock::unix_seconds() }
    }
}

impl Shared {
    /// Nothing remembered yet.
    #[must_use]
    pub fn new(cache: CacheSettings, limits: FailureLimits, relay_lifetime: Duration) -> Self {
        Self {
            counters: Counters::new(Instant::now()),
            cache,
            relay_lifetime,
            facts: Mutex::new(Expiring::new(cache.capacity)),
            throttle: Mutex::new(Throttle::new(limits)),
        }
    }

    /// Forgets what is remembered about an address (`user@domain`), a whole domain, or everything
    /// (an empty name).
    pub fn forget(&self, name: &[u8]) {
        let name = name.to_ascii_lowercase();
        let mut facts = locked(&self.facts);
        if name.is_empty() {
            facts.clear();
        } else if name.contains(&b'@') {
            facts.remove(&name);
        } else {
            facts.retain(|key| key.rsplit(|&b| b == b'@').next() != Some(&name[..]));
        }
    }

    /// Forgets everything, failures included.
    pub fn reset(&self) {
        self.forget(b"");
        locked(&self.throttle).clear();
    }

    /// How many answers are remembered.
    #[must_use]
    pub fn remembered(&self) -> usize {
        locked(&self.facts).len()
    }
}

/// A worker's answers.
#[derive(Debug)]
pub struct Answers<S> {
    source: S,
    shared: Arc<Shared>,
}

impl<S: Source> Answers<S> {
    /// A worker over its own source.
    pub fn new(source: S, shared: Arc<Shared>) -> Self {
        Self { source, shared }
    }

    /// Does this address exist, and can it receive mail?
    ///
    /// # Errors
    /// Cannot tell.
    pub fn user(&mut self, address: &[u8], now: Now) -> Answer<UserStatus> {
        Ok(match &*self.facts(address, now)? {
            Facts::Nothing => UserStatus::Absent,
            Facts::Alias(_) => UserStatus::Alias,
            Facts::Account(mailbox) if !mailbox.active => UserStatus::Inactive,
            Facts::Account(mailbox) if is_over_quota(mailbox) => UserStatus::OverQuota,
            Facts::Account(_) => UserStatus::Found,
        })
    }

    /// Where mail for this address goes. A name that is an alias only has the ids of its domain and
    /// no home.
    ///
    /// # Errors
    /// Cannot tell.
    pub fn mailbox(&mut self, address: &[u8], now: Now) -> Answer<Option<Mailbox>> {
        Ok(match &*self.facts(address, now)? {
            Facts::Nothing => None,
            Facts::Alias(mailbox) | Facts::Account(mailbox) => Some(mailbox.clone()),
        })
    }

    /// The real domain behind a domain of this host.
    ///
    /// # Errors
    /// Cannot tell.
    pub fn domain(&mut self, name: &[u8]) -> Answer<Option<Vec<u8>>> {
        let Ok(name) = DomainName::parse(name) else {
            return Ok(None);
        };
        Ok(self.source.domain(&name)?.map(|d| d.real.as_bytes().to_vec()))
    }

    /// Has this address logged in from `ip` lately, in a way that allows relaying?
    ///
    /// # Errors
    /// Cannot tell.
    pub fn relay(&mut self, address: &[u8], ip: &[u8], now: Now) -> Answer<bool> {
        let (Some((address, _)), Ok(ip)) = (self.resolve(address)?, std::str::from_utf8(ip)) else {
            return Ok(false);
        };
        let since = now.unix.saturating_sub(self.shared.relay_lifetime.as_secs());
        self.source.may_relay(&address, ip, i64::try_from(since).unwrap_or(i64::MAX))
    }

    /// Checks a password. Whether the account may use the service is told to those only who know it.
    ///
    /// # Errors
    /// Cannot tell.
    pub fn authenticate(&mut self, login: &Login<'_>, password: &[u8], now: Now) -> Answer<Verdict> {
        let key = login.address.to_ascii_lowercase();
        if locked(&self.shared.throttle).is_over(&key, login.remote_host, now.instant) {
            self.shared.counters.add(Count::Throttled);
            return Ok(Verdict::Later);
        }
        let found = self.find(login.address)?;
        let right = check(found.as_ref(), password)?;
        if !right {
            self.shared.counters.add(Count::Failed);
            locked(&self.shared.throttle).failed(&key, login.remote_host, now.instant);
            return Ok(if found.is_some() { Verdict::Wrong } else { Verdict::Absent });
        }
        locked(&self.shared.throttle).succeeded(&key);
        self.standing(found, login.service, now)
    }

    /// May this account use the service, whatever the password?
    ///
    /// # Errors
    /// Cannot tell.
    pub fn account(&mut self, address: &[u8], service: &[u8], now: Now) -> Answer<Verdict> {
        let found = self.find(address)?;
        self.standing(found, service, now)
    }

    fn standing(&mut self, found: Option<Entry>, service: &[u8], now: Now) -> Answer<Verdict> {
        let Some(found) = found else {
            return Ok(Verdict::Absent);
        };
        let account = &found.account;
        let limits = self.source.limits(&found)?.unwrap_or(Limits::NONE);
        let flags = limits.merge(account.flags);
        if !account.active || flags.contains(refusing_flag(service)) {
            return Ok(Verdict::Disabled);
        }
        if !account.flags.contains(ServiceFlags::OVERRIDE) {
            if is_past(limits.domain_expiry, now) {
                return Ok(Verdict::Expired);
            }
            if is_past(limits.password_expiry, now) {
                return Ok(Verdict::PasswordExpired);
            }
        }
        let aliases = self.source.aliases(&account.address)?;
        let mut mailbox = mailbox_of(&found, aliases);
        mailbox.flags = flags.bits();
        Ok(Verdict::Granted(mailbox))
    }

    /// The account itself, straight from the source.
    fn find(&mut self, address: &[u8]) -> Answer<Option<Entry>> {
        match self.resolve(address)? {
            Some((address, domain)) => self.source.account(&address, &domain),
            None => Ok(None),
        }
    }

    /// The address in its real domain. What cannot be an address, or is in no domain of this host, is
    /// nobody.
    fn resolve(&mut self, address: &[u8]) -> Answer<Option<(Address, Domain)>> {
        let Ok(address) = Address::parse(address) else {
            return Ok(None);
        };
        Ok(self.source.domain(address.domain())?.map(|d| (address.in_domain(&d.real), d)))
    }

    fn facts(&mut self, address: &[u8], now: Now) -> Answer<Arc<Facts>> {
        let key = address.to_ascii_lowercase();
        if let Some(facts) = locked(&self.shared.facts).get(&key, now.instant) {
            self.shared.counters.add(Count::Hit);
            return Ok(Arc::clone(facts));
        }
        let facts = Arc::new(self.load(address)?);
        let lifetime = match *facts {
            Facts::Nothing => self.shared.cache.negative,
            Facts::Alias(_) | Facts::Account(_) => self.shared.cache.positive,
        };
        locked(&self.shared.facts).insert(key, Arc::clone(&facts), lifetime, now.instant);
        Ok(facts)
    }

    fn load(&mut self, address: &[u8]) -> Answer<Facts> {
        let Some((address, domain)) = self.resolve(address)? else {
            return Ok(Facts::Nothing);
        };
        let found = self.source.account(&address, &domain)?;
        let aliases = self.source.aliases(&address)?;
        Ok(match found {
            Some(found) => Facts::Account(mailbox_of(&found, aliases)),
            None if aliases.is_empty() => Facts::Nothing,
            None => Facts::Alias(Mailbox {
                address: address.to_string().into_bytes(),
                uid: Uid::from_raw(domain.ids.uid),
                gid: Gid::from_raw(domain.ids.gid),
                home: Vec::new(),
                gecos: Vec::new(),
                quota: Quota::default(),
                flags: 0,
                active: true,
                alias_only: true,
                aliases,
            }),
        })
    }
}

fn mailbox_of(found: &Entry, aliases: Vec<Vec<u8>>) -> Mailbox {
    let account = &found.account;
    Mailbox {
        address: account.address.to_string().into_bytes(),
        uid: Uid::from_raw(found.ids.uid),
        gid: Gid::from_raw(found.ids.gid),
        home: account.home.as_os_str().as_bytes().to_vec(),
        gecos: account.gecos.clone().into_bytes(),
        quota: Quota { bytes: account.quota.bytes, messages: account.quota.messages },
        flags: account.flags.bits(),
        active: account.active,
        alias_only: false,
        aliases,
    }
}

fn is_over_quota(mailbox: &Mailbox) -> bool {
    ServiceFlags::from_bits(mailbox.flags).contains(ServiceFlags::BOUNCE_MAIL)
}

/// Checks a password. Where there is nothing to check it against, the work is done all the same, so
/// that time does not tell which accounts exist.
fn check(found: Option<&Entry>, given: &[u8]) -> Answer<bool> {
    let field = found.map(|f| f.account.combined_password());
    match &field {
        Some(field) if !field.expose().is_empty() => password::verify(field.expose(), given),
        _ => {
            password::verify_nobody(given);
            Ok(false)
        }
    }
}

/// A time limit of the limits table has been reached.
fn is_past(limit: Option<i64>, now: Now) -> bool {
    limit.is_some_and(|end| u64::try_from(end).is_ok_and(|end| end <= now.unix))
}

/// What a panic of another worker leaves in these tables is complete, so the lock is taken anyway.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
