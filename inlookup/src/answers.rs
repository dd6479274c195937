//! The questions and their answers: what a worker does, without sockets.
//!
//! ```text
//! address ─► real domain ─► remembered? ─► account row, alias lines ─► Known ─► user, mailbox
//! login, password ─► too many failures? ─► account row ─► hash (its own, or that of a nobody) ─► standing ─► verdict
//! ```
//!
//! Facts about addresses are remembered (also "nothing there"); what decides a login never is, so a
//! changed password, flag or limit counts at once. A failure of the source is passed on as it is,
//! never remembered and never counted as a failed login.

use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use accounts::password::{self, Work};
use accounts::{Address, Answer, Domain, DomainName, Entry, Limits, SecretBytes, ServiceFlags};
use lookup::mail::{Mailbox, Quota, UserStatus, Verdict};
use unix::{Gid, Uid};

use crate::counters::{Count, Counters};
use crate::nobody::{Nobodies, SAMPLE, Sample};
use crate::service::Kind;
use crate::settings::CacheSettings;
use crate::source::Source;
use crate::throttle::{Limits as FailureLimits, Throttle};
use serve::Expiring;

/// What all workers share.
#[derive(Debug)]
pub struct Shared {
    /// Counters.
    pub counters: Counters,
    cache: CacheSettings,
    relay_lifetime: Duration,
    facts: Mutex<Facts>,
    throttle: Mutex<Throttle>,
    nobodies: Mutex<Nobodies>,
}

/// What is remembered.
#[derive(Debug)]
struct Facts {
    known: Expiring<Arc<Known>>,
    /// How often something was forgotten: an answer that was looked up before that is not remembered.
    forgotten: u64,
}

/// What is remembered about an address, under the name it was asked by.
#[derive(Debug)]
struct Known {
    /// The address in its real domain; empty when it is in none of ours.
    real: Vec<u8>,
    what: What,
}

#[derive(Debug)]
enum What {
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
            facts: Mutex::new(Facts { known: Expiring::new(cache.capacity), forgotten: 0 }),
            throttle: Mutex::new(Throttle::new(limits)),
            nobodies: Mutex::default(),
        }
    }

    /// Forgets what is remembered about an address (`user@domain`), a whole domain, or everything
    /// (an empty name). What was asked by another name of the domain is forgotten with the real one.
    pub fn forget(&self, name: &[u8]) {
        let name = name.to_ascii_lowercase();
        // A new password may be of another scheme.
        locked(&self.nobodies).clear();
        let mut facts = locked(&self.facts);
        facts.forgotten += 1;
        if name.is_empty() {
            facts.known.clear();
        } else if name.contains(&b'@') {
            facts.known.retain(|key, known| key != name && known.real != name);
        } else {
            facts.known.retain(|key, known| domain_of(key) != name && domain_of(&known.real) != name);
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
        locked(&self.facts).known.len()
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
        Ok(match &self.known(address, now)?.what {
            What::Nothing => UserStatus::Absent,
            What::Alias(_) => UserStatus::Alias,
            What::Account(mailbox) if !mailbox.active => UserStatus::Inactive,
            What::Account(mailbox) if is_over_quota(mailbox) => UserStatus::OverQuota,
            What::Account(_) => UserStatus::Found,
        })
    }

    /// Where mail for this address goes. A name that is an alias only has the ids of its domain and
    /// no home.
    ///
    /// # Errors
    /// Cannot tell.
    pub fn mailbox(&mut self, address: &[u8], now: Now) -> Answer<Option<Mailbox>> {
        Ok(match &self.known(address, now)?.what {
            What::Nothing => None,
            What::Alias(mailbox) | What::Account(mailbox) => Some(mailbox.clone()),
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
        let resolved = self.resolve(login.address)?;
        // Also where there is an account: the questions to the store must not tell either.
        let nobody = self.work_of_nobody(resolved.as_ref().map(|(_, d)| &d.real), &key, now.instant);
        let found = match &resolved {
            Some((address, domain)) => self.source.account(address, domain)?,
            None => None,
        };
        let field = found.as_ref().map(|f| f.account.combined_password());
        let right = password::verify_or(field.as_ref().map(SecretBytes::expose), password, &nobody)?;
        if !right {
            self.shared.counters.add(Count::Failed);
            locked(&self.shared.throttle).failed(&key, login.remote_host, now.instant);
            return Ok(if found.is_some() { Verdict::Wrong } else { Verdict::Absent });
        }
        locked(&self.shared.throttle).succeeded(&key, login.remote_host, now.instant);
        self.standing(found, login.service, now)
    }

    /// The work that a login for `address` does when there is nothing to check it against: that of the accounts
    /// of its real domain, or of all when that has none or is not ours.
    pub fn work_of_nobody(&mut self, domain: Option<&DomainName>, address: &[u8], now: Instant) -> Work {
        let sample = match domain {
            Some(domain) => self.sample(Some(domain), now).filter(|s| !s.is_empty()),
            None => None,
        };
        let sample = sample.or_else(|| self.sample(None, now));
        sample.and_then(|s| locked(&self.shared.nobodies).choose(&s, address)).unwrap_or_default()
    }

    /// `None`: the source cannot tell. That must not refuse a login which can be checked.
    fn sample(&mut self, domain: Option<&DomainName>, now: Instant) -> Option<Sample> {
        let key = domain.map_or(&b""[..], DomainName::as_bytes);
        let kept = locked(&self.shared.nobodies).sample(key, now);
        if kept.is_some() {
            return kept;
        }
        let sample = self.source.works(domain, SAMPLE).ok()?;
        Some(locked(&self.shared.nobodies).keep(key, sample, now))
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
        if !account.active || flags.contains(Kind::of(service).refusing_flag()) {
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
        let mailbox = Mailbox { flags: flags.bits(), ..mailbox_of(&found, Vec::new()) };
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

    fn known(&mut self, address: &[u8], now: Now) -> Answer<Arc<Known>> {
        let Ok(parsed) = Address::parse(address) else {
            // It needs no looking up, and must not fill the memory.
            return Ok(Arc::new(Known { real: Vec::new(), what: What::Nothing }));
        };
        let key = parsed.to_string().into_bytes();
        let forgotten = {
            let facts = locked(&self.shared.facts);
            if let Some(known) = facts.known.get(&key, now.instant) {
                self.shared.counters.add(Count::Hit);
                return Ok(Arc::clone(known));
            }
            facts.forgotten
        };
        let known = Arc::new(self.load(address)?);
        let lifetime = match known.what {
            What::Nothing => self.shared.cache.negative,
            What::Alias(_) | What::Account(_) => self.shared.cache.positive,
        };
        let mut facts = locked(&self.shared.facts);
        if facts.forgotten == forgotten {
            facts.known.insert(key, Arc::clone(&known), lifetime, now.instant);
        }
        drop(facts);
        Ok(known)
    }

    fn load(&mut self, address: &[u8]) -> Answer<Known> {
        let Some((address, domain)) = self.resolve(address)? else {
            return Ok(Known { real: Vec::new(), what: What::Nothing });
        };
        let found = self.source.account(&address, &domain)?;
        let aliases = self.source.aliases(&address)?;
        let real = address.to_string().into_bytes();
        let what = match found {
            Some(found) => What::Account(mailbox_of(&found, aliases)),
            None if aliases.is_empty() => What::Nothing,
            None => What::Alias(Mailbox {
                address: real.clone(),
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
        };
        Ok(Known { real, what })
    }
}

fn domain_of(address: &[u8]) -> &[u8] {
    address.rsplit(|&b| b == b'@').next().unwrap_or_default()
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

/// A time limit of the limits table has been reached.
fn is_past(limit: Option<i64>, now: Now) -> bool {
    limit.is_some_and(|end| u64::try_from(end).is_ok_and(|end| end <= now.unix))
}

/// What a panic of another worker leaves in these tables is complete, so the lock is taken anyway.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
