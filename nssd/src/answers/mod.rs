//! Questions and their answers, remembered for a while. No sockets here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use accounts::{Address, Answer, Domain, DomainName, Entry, Unavailable};
use lookup::Key;
use lookup::frame::MAX_FRAME;
use lookup::identity::{Map, Page, Record, Reply, Request};
use serve::Expiring;

use crate::policy::{Enumeration, Policy, Unfit};
use crate::source::Source;

/// Rows that are read for one page at a time.
const PAGE_ROWS: u32 = 256;

/// Bytes of records in a page; leaves room for the cursor and the header.
const PAGE_BYTES: usize = MAX_FRAME - 1024;

/// For how long answers are remembered, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// For how long; zero: not at all.
    pub positive: Duration,
    /// For how long "no such" is; zero: not at all.
    pub negative: Duration,
    /// At most so many answers.
    pub capacity: usize,
}

/// What the daemon goes by until the next reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Which records there are.
    pub policy: Policy,
    /// How answers are remembered.
    pub lifetimes: Lifetimes,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    /// Root: shadow records, and enumeration by default.
    pub is_root: bool,
    /// Root or the mail system's own user: flush and status.
    pub is_administrator: bool,
}

/// Counters.
#[derive(Debug, Default)]
pub struct Counters {
    /// Answers from memory.
    pub hits: AtomicU64,
    /// Answers from the source.
    pub misses: AtomicU64,
    /// Questions that could not be answered.
    pub unavailable: AtomicU64,
}

/// What all workers share.
#[derive(Debug)]
pub struct Answers {
    rules: RwLock<Arc<Rules>>,
    cache: Mutex<Expiring<Reply>>,
    /// Grows with every flush: an answer that was looked up before one is not remembered after it.
    epoch: AtomicU64,
    reloads: AtomicU64,
    /// Counters.
    pub counters: Counters,
}

/// Something that exists and has no record is not found, and somebody should know.
pub type Complaint<'a> = &'a dyn Fn(&dyn std::fmt::Display);

impl Answers {
    /// Nothing remembered yet.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        let cache = Mutex::new(Expiring::new(rules.lifetimes.capacity));
        let rules = RwLock::new(Arc::new(rules));
        Self {
            rules,
            cache,
            epoch: AtomicU64::new(0),
            reloads: AtomicU64::new(0),
            counters: Counters::default(),
        }
    }

    /// New rules; everything remembered is forgotten.
    pub fn reload(&self, rules: Rules) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        *self.cache() = Expiring::new(rules.lifetimes.capacity);
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
        self.reloads.fetch_add(1, Ordering::SeqCst);
    }

    /// The rules of now.
    #[must_use]
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// How often the rules were replaced.
    #[must_use]
    pub fn reloads(&self) -> u64 {
        self.reloads.load(Ordering::SeqCst)
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Answers one question. Answers to questions by name or id may come from memory.
    ///
    /// # Errors
    /// The source cannot tell.
    pub fn answer(
        &self,
        source: &mut impl Source,
        asker: Asker,
        request: &Request<'_>,
        now: Instant,
        complain: Complaint<'_>,
    ) -> Answer<Reply> {
        let rules = self.rules();
        match *request {
            Request::Flush(key) if asker.is_administrator => {
                self.flush(key);
                return Ok(Reply::Done);
            }
            Request::ShadowByName(_) | Request::Page { map: Map::Shadow, .. } if !asker.is_root => {
                return Ok(Reply::Refused);
            }
            // The daemon itself answers that one.
            Request::Flush(_) | Request::Status => return Ok(Reply::Refused),
            _ => {}
        }
        // Another worker may have learned it while this one was busy.
        if let Some(reply) = self.recall(request, now) {
            return Ok(reply);
        }
        let worker = Worker { policy: &rules.policy, source, complain };
        let Some(key) = cache_key(request) else {
            return self.count(worker.answer(request, asker));
        };
        let epoch = self.epoch();
        let reply = self.count(worker.answer(request, asker))?;
        let absent = reply == Reply::Absent;
        let lifetime = if absent { rules.lifetimes.negative } else { rules.lifetimes.positive };
        let mut cache = self.cache();
        if epoch == self.epoch() {
            cache.insert(key, reply.clone(), lifetime, now);
        }
        Ok(reply)
    }

    /// The answer that is remembered for this question, which everybody may ask.
    pub fn recall(&self, request: &Request<'_>, now: Instant) -> Option<Reply> {
        let reply = self.cache().get(&cache_key(request)?, now).cloned()?;
        self.counters.hits.fetch_add(1, Ordering::Relaxed);
        Some(reply)
    }

    /// Forgets what is remembered about `key`.
    pub fn flush(&self, key: Key<'_>) {
        let mut cache = self.cache();
        self.epoch.fetch_add(1, Ordering::SeqCst);
        match key {
            // The same account may be remembered under alias domains, and by its id.
            Key::Address(address) => {
                let local = local_part(&address.to_ascii_lowercase()).to_vec();
                cache.retain(|key, _| key.first() == Some(&BY_NAME) && local_part(&key[1..]) != local);
            }
            Key::Domain(_) | Key::All => cache.clear(),
        }
    }

    /// How many answers are remembered.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.cache().len()
    }

    fn count<T>(&self, answer: Answer<T>) -> Answer<T> {
        let counter = if answer.is_ok() { &self.counters.misses } else { &self.counters.unavailable };
        counter.fetch_add(1, Ordering::Relaxed);
        answer
    }

    /// A panic elsewhere leaves the table whole, so a poisoned lock is as good as any.
    fn cache(&self) -> MutexGuard<'_, Expiring<Reply>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// First byte of the keys of answers about an address.
const BY_NAME: u8 = 1;

/// Under what an answer is remembered; shadow records, pages and so on are not, nor is what cannot
/// be there anyway.
fn cache_key(request: &Request<'_>) -> Option<Vec<u8>> {
    let key = |tag: u8, name: &[u8], tail: &[u8]| [&[tag], name, tail].concat();
    match *request {
        Request::UserByName(name) => {
            Some(key(BY_NAME, Address::parse(name).ok()?.to_string().as_bytes(), b""))
        }
        Request::GroupsOf(name) => {
            Some(key(BY_NAME, Address::parse(name).ok()?.to_string().as_bytes(), b" groups"))
        }
        Request::GroupByName(name) => Some(key(2, DomainName::parse(name).ok()?.as_bytes(), b"")),
        Request::UserById(id) => Some(key(3, &id.to_be_bytes(), b"")),
        Request::GroupById(id) => Some(key(4, &id.to_be_bytes(), b"")),
        Request::ShadowByName(_) | Request::Page { .. } | Request::Flush(_) | Request::Status => None,
    }
}

fn local_part(address: &[u8]) -> &[u8] {
    address.split(|&b| b == b'@').next().unwrap_or_default()
}

/// One question under one policy.
struct Worker<'a, S> {
    policy: &'a Policy,
    source: &'a mut S,
    complain: Complaint<'a>,
}

impl<S: Source> Worker<'_, S> {
    fn answer(mut self, request: &Request<'_>, asker: Asker) -> Answer<Reply> {
        let policy = self.policy;
        match *request {
            Request::UserByName(name) => self.by_name(name, |a, e| policy.user(a, e).map(Reply::User)),
            Request::ShadowByName(name) => self.by_name(name, |a, e| policy.shadow(a, e).map(Reply::Shadow)),
            Request::GroupsOf(name) => self.by_name(name, |a, e| {
                policy.user(a, e)?;
                let gid = e.domain.ids.gid;
                let also = policy.check_group(gid).is_ok() && gid != e.ids.gid;
                Ok(if also { Reply::Groups(vec![gid]) } else { Reply::Absent })
            }),
            Request::UserById(uid) if policy.check_user(uid).is_ok() => {
                let entry = self.source.account_by_uid(uid)?;
                Ok(entry.map_or(Reply::Absent, |e| {
                    self.fit(&e.account.address, policy.user(&e.account.address, &e).map(Reply::User))
                }))
            }
            Request::GroupByName(name) => {
                let domain = self.source.domain(name)?;
                Ok(domain.map_or(Reply::Absent, |d| self.fit(&d.name, policy.group(&d).map(Reply::Group))))
            }
            Request::GroupById(gid) if policy.check_group(gid).is_ok() => self.group_by_id(gid),
            Request::Page { map, cursor } => self.page(map, cursor, asker),
            Request::UserById(_) | Request::GroupById(_) | Request::Flush(_) | Request::Status => {
                Ok(Reply::Absent)
            }
        }
    }

    fn by_name(
        &mut self,
        name: &[u8],
        record: impl FnOnce(&Address, &Entry) -> Result<Reply, Unfit>,
    ) -> Answer<Reply> {
        // A name that is no address cannot be an account.
        let Ok(address) = Address::parse(name) else { return Ok(Reply::Absent) };
        let entry = self.source.account(&address)?;
        Ok(entry.map_or(Reply::Absent, |e| self.fit(&address, record(&address, &e))))
    }

    /// A group id that several domains share is the group of none of them.
    fn group_by_id(&mut self, gid: u32) -> Answer<Reply> {
        let domains = self.source.domains()?;
        let mut owners = domains.iter().filter(|d| !d.is_alias() && d.ids.gid == gid);
        Ok(match (owners.next(), owners.next()) {
            (Some(only), None) => self.fit(&only.name, self.policy.group(only).map(Reply::Group)),
            _ => Reply::Absent,
        })
    }

    fn page(&mut self, map: Map, cursor: &[u8], asker: Asker) -> Answer<Reply> {
        let allowed = match self.policy.enumeration {
            Enumeration::Off => false,
            Enumeration::Root => asker.is_root,
            Enumeration::All => true,
        };
        let policy = self.policy;
        match map {
            Map::Passwd => self.accounts(allowed, cursor, |a, e| policy.user(a, e)).map(Reply::Users),
            Map::Shadow => self.accounts(allowed, cursor, |a, e| policy.shadow(a, e)).map(Reply::Shadows),
            Map::Group => self.groups(allowed, cursor).map(Reply::GroupPage),
        }
    }

    fn accounts<T: Record>(
        &mut self,
        allowed: bool,
        cursor: &[u8],
        record: impl Fn(&Address, &Entry) -> Result<T, Unfit>,
    ) -> Answer<Page<T>> {
        let mut page = Filling::new();
        let mut after = Address::parse(cursor).ok();
        // A cursor that is no address is none of ours.
        if !allowed || (after.is_none() && !cursor.is_empty()) {
            return Ok(page.last());
        }
        let mut more = true;
        while more && page.records.is_empty() {
            let rows = self.source.accounts(after.as_ref(), PAGE_ROWS)?;
            for entry in &rows.entries {
                let address = &entry.account.address;
                match record(address, entry) {
                    Ok(record) if page.is_full_for(&record) => return Ok(page.continued(&after)),
                    Ok(record) => page.add(record),
                    Err(unfit) => (self.complain)(&format!("{address}: {unfit}")),
                }
                after = Some(address.clone());
            }
            more = rows.next.is_some();
            after = rows.next;
        }
        Ok(page.continued(&after))
    }

    fn groups(&mut self, allowed: bool, cursor: &[u8]) -> Answer<Page<lookup::identity::Group>> {
        let mut page = Filling::new();
        if !allowed {
            return Ok(page.last());
        }
        let domains = self.source.domains()?;
        let real: Vec<&Domain> = domains.iter().filter(|d| !d.is_alias()).collect();
        let start = match real.iter().position(|d| d.name.as_bytes() == cursor) {
            Some(at) => at + 1,
            None if cursor.is_empty() => 0,
            // The domain where the last page ended is gone.
            None => return Err(Unavailable::new("domains", "the list changed while it was read")),
        };
        let mut last = None;
        for domain in real.into_iter().skip(start) {
            match self.policy.group(domain) {
                Ok(group) if page.is_full_for(&group) => return Ok(page.continued(&last)),
                Ok(group) => {
                    page.add(group);
                    last = Some(domain.name.clone());
                }
                Err(unfit) => (self.complain)(&format!("{}: {unfit}", domain.name)),
            }
        }
        Ok(page.last())
    }

    fn fit(&self, name: &dyn std::fmt::Display, record: Result<Reply, Unfit>) -> Reply {
        record.unwrap_or_else(|unfit| {
            (self.complain)(&format!("{name}: {unfit}"));
            Reply::Absent
        })
    }
}

/// A page while it is filled.
struct Filling<T> {
    records: Vec<T>,
    bytes: usize,
}

impl<T: Record> Filling<T> {
    fn new() -> Self {
        Self { records: Vec::new(), bytes: 0 }
    }

    fn is_full_for(&self, record: &T) -> bool {
        self.bytes + record.size() > PAGE_BYTES
    }

    fn add(&mut self, record: T) {
        self.bytes += record.size();
        self.records.push(record);
    }

    fn continued(self, after: &Option<impl std::fmt::Display>) -> Page<T> {
        Page {
            records: self.records,
            next: after.as_ref().map(|a| a.to_string().into_bytes()).unwrap_or_default(),
        }
    }

    fn last(self) -> Page<T> {
        Page { records: self.records, next: Vec::new() }
    }
}

#[cfg(test)]
mod tests;
