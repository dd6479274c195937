//! The map that the module reads instead of asking: built from the store, kept right, put in the place of the old
//! one.
//!
//! - A build reads the whole store once, on a connection of its own and with pauses, writes a new file beside the
//!   old one, and renames it. What changes meanwhile is noted, and read again before the rename.
//! - A flush of one address reads that account again and appends what it is now to the map that is published: every
//!   process sees it when the flush is answered.
//! - A flush of a domain or of everything tells all processes to ask the daemon until the next build is done.
//! - A refresh reads the whole store again, and appends only what differs: so changes that nobody told us
//!   about are found, and the file stays the same one for the processes that have it mapped.
//!
//! Readers believe a "no" only while the daemon lives and its last refresh is not long ago.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufWriter, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use accounts::{Address, Answer as Told, Unavailable};
use lookup::Key;
use snapshot::{Answer, Builder, Change, Changes, Header, Map, State};
use unix::map::Mapped;

use crate::policy::Policy;
use crate::rows::{Person, domain_rows, same_domains};
use crate::source::Source;

/// Rows that are read at a time.
const PAGE_ROWS: u32 = 256;
/// How often readers are told that the daemon lives.
const BEAT: Duration = Duration::from_millis(500);
/// For how long they believe it, in milliseconds.
const ALIVE: u64 = 2_000;
/// How long after a build that failed the next one is tried.
const AGAIN: Duration = Duration::from_secs(5);
/// A map whose room for changes is used so far, in percent, is built anew.
const CROWDED: u64 = 50;

/// Where the map is and how it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapSettings {
    /// The file.
    pub path: PathBuf,
    /// How often the store is read again.
    pub refresh: Duration,
    /// For how long the map counts after the last time it was compared with the store.
    pub limit: Duration,
}

/// A map that this daemon can change.
#[derive(Debug)]
struct Published {
    memory: Mapped,
    header: Header,
}

impl Published {
    fn open(file: &File) -> io::Result<Self> {
        let memory = Mapped::read_write(file)?;
        let header = Header::read(memory.words()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { memory, header })
    }

    fn map(&self) -> Map<'_> {
        Map::new(self.memory.words(), &self.header)
    }

    fn set(&self, state: State) {
        self.header.set_state(self.memory.words(), state);
    }

    fn append(&self, change: Change<'_>) -> bool {
        Changes::new(self.memory.words(), &self.header).append(change).is_ok()
    }
}

#[derive(Debug, Default)]
struct Inner {
    current: Option<Arc<Published>>,
    /// Readers of the current one were told to ask.
    asking: bool,
    /// A build is wanted.
    wanted: bool,
    /// Addresses that changed during the build that is going on.
    dirty: Option<BTreeSet<Address>>,
    generation: u64,
    /// When the current map was last the same as the store (milliseconds of the monotonic clock).
    confirmed: u64,
}

/// The published map.
#[derive(Debug)]
pub struct Publisher {
    settings: MapSettings,
    inner: Mutex<Inner>,
    wake: Condvar,
    over: AtomicBool,
}

/// A connection to the store and the rules of now, for one pass.
pub type Pass<S> = (S, Policy);

impl Publisher {
    /// Nothing is published yet; readers of what a former daemon left are told to ask.
    #[must_use]
    pub fn new(settings: MapSettings) -> Self {
        let mut inner = Inner { wanted: true, ..Inner::default() };
        let former = unix::map::open_trusted(&settings.path, true).and_then(|file| Published::open(&file));
        if let Ok(former) = former {
            former.set(State::Ask);
            inner.generation = former.header.generation;
            inner.current = Some(Arc::new(former));
            inner.asking = true;
        }
        let inner = Mutex::new(inner);
        Self { settings, inner, wake: Condvar::new(), over: AtomicBool::new(false) }
    }

    /// A panic elsewhere leaves it whole enough: what is not appended is found by the next refresh.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Readers shall ask until there is a new map.
    pub fn rebuild(&self) {
        let mut inner = self.lock();
        inner.wanted = true;
        inner.asking = true;
        if let Some(current) = &inner.current {
            current.set(State::Ask);
        }
        self.wake.notify_all();
    }

    /// Makes a change that was announced visible.
    pub fn flush(&self, key: Key<'_>, source: &mut impl Source, policy: &Policy) {
        match key {
            Key::Address(name) => {
                // What is no address has no record.
                if let Ok(address) = Address::parse(name) {
                    let mut inner = self.lock();
                    if let Some(dirty) = &mut inner.dirty {
                        dirty.insert(address.clone());
                    }
                    self.apply(&mut inner, &address, source, policy);
                }
            }
            Key::Domain(_) | Key::All => self.rebuild(),
        }
    }

    /// Reads one account again and appends what it is now, if that differs. The lock is held, so that what was read
    /// later is appended later.
    fn apply(&self, inner: &mut Inner, address: &Address, source: &mut impl Source, policy: &Policy) {
        let Some(current) = inner.current.clone() else { return };
        if inner.asking {
            return;
        }
        let done = put(&current, address, source, policy);
        if !done {
            inner.asking = true;
            current.set(State::Ask);
        }
        if !done || current.header.changes(current.memory.words()).1 > CROWDED {
            inner.wanted = true;
            self.wake.notify_all();
        }
    }

    /// Tells readers that the daemon lives, until it is over.
    pub fn beat(&self) {
        let mut inner = self.lock();
        while !self.over.load(Ordering::Relaxed) {
            self.tell_times(&inner);
            inner = self.wake.wait_timeout(inner, BEAT).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn tell_times(&self, inner: &Inner) {
        let Some(current) = inner.current.as_ref().filter(|_| inner.confirmed > 0) else { return };
        let milliseconds = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let until = |after: u64| inner.confirmed.saturating_add(after);
        let complete = until(milliseconds(self.settings.refresh).saturating_mul(2).saturating_add(60_000));
        let complete = complete.min(unix::clock::monotonic_milliseconds().saturating_add(ALIVE));
        current.header.set_times(current.memory.words(), complete, until(milliseconds(self.settings.limit)));
    }

    /// The daemon stops: a "no" of the map does not count from now on.
    pub fn stop(&self) {
        self.over.store(true, Ordering::Relaxed);
        let inner = self.lock();
        self.tell_times(&inner);
        if let Some(current) = &inner.current {
            let usable =
                inner.confirmed.saturating_add(u64::try_from(self.settings.limit.as_millis()).unwrap_or(0));
            current.header.set_times(current.memory.words(), 0, usable);
        }
        self.wake.notify_all();
    }

    /// Builds and refreshes until it is over. `open` gives the store for one pass, `say` what became of it.
    pub fn work<S: Source>(&self, open: impl Fn() -> Pass<S>, say: impl Fn(bool, &dyn Display)) {
        let mut due = Instant::now();
        while !self.over.load(Ordering::Relaxed) {
            let inner = self.lock();
            let now = Instant::now();
            if now < due && !(inner.wanted && inner.confirmed > 0) {
                let wait = due.saturating_duration_since(now);
                drop(self.wake.wait_timeout(inner, wait).unwrap_or_else(PoisonError::into_inner));
                continue;
            }
            let build = inner.wanted || inner.current.is_none();
            drop(inner);
            let (mut source, policy) = open();
            let done =
                if build { self.build(&mut source, &policy) } else { self.refresh(&mut source, &policy) };
            due = Instant::now() + if done.is_ok() { self.settings.refresh } else { AGAIN };
            match done {
                Ok(Some(text)) => say(true, &text),
                Ok(None) => {}
                Err(why) => {
                    say(false, &format!("{}: not brought up to date: {why}", self.settings.path.display()));
                    if build {
                        self.pause(AGAIN);
                    }
                }
            }
        }
    }

    /// Waits, but not when it is over.
    fn pause(&self, time: Duration) {
        let end = Instant::now() + time;
        let mut inner = self.lock();
        while !self.over.load(Ordering::Relaxed) && Instant::now() < end {
            let left = end.saturating_duration_since(Instant::now());
            inner = self.wake.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Every account of the store, a page at a time; look-ups of others have the store in between.
    fn each_page<S: Source>(
        &self,
        source: &mut S,
        mut page: impl FnMut(&mut S, &[accounts::Entry]) -> Told<()>,
    ) -> Told<()> {
        let mut after = None;
        loop {
            let start = Instant::now();
            let rows = source.accounts(after.as_ref(), PAGE_ROWS)?;
            page(source, &rows.entries)?;
            if self.over.load(Ordering::Relaxed) {
                return Err(Unavailable::new("map", "the daemon stops"));
            }
            if rows.next.is_none() {
                return Ok(());
            }
            after = rows.next;
            unix::wait::pause(start.elapsed() / 4);
        }
    }

    fn build(&self, source: &mut impl Source, policy: &Policy) -> Told<Option<String>> {
        let start = Instant::now();
        let generation = {
            let mut inner = self.lock();
            inner.wanted = false;
            inner.dirty = Some(BTreeSet::new());
            inner.generation += 1;
            inner.generation
        };
        let begun = unix::clock::monotonic_milliseconds();
        let temporary = beside(&self.settings.path);
        let built = self.write(source, policy, &temporary, generation, begun);
        let mut inner = self.lock();
        let dirty = inner.dirty.take().unwrap_or_default();
        let published = built.and_then(|(new, unfit)| {
            for address in &dirty {
                if !put(&new, address, source, policy) {
                    inner.wanted = true;
                }
            }
            // Something changed as a whole meanwhile.
            if inner.wanted {
                new.set(State::Ask);
            }
            let fail = |e: io::Error| Unavailable::new(self.settings.path.display(), e);
            std::fs::rename(&temporary, &self.settings.path).map_err(fail)?;
            unix::durable::Durability::chosen(None, None, None)
                .sync_parent(&self.settings.path)
                .map_err(fail)?;
            Ok((new, unfit))
        });
        match published {
            Ok((new, unfit)) => {
                let text = format!(
                    "{}: {} users, {} domains, {} accounts without a record, in {} ms",
                    self.settings.path.display(),
                    new.header.users,
                    new.header.domains,
                    unfit,
                    start.elapsed().as_millis()
                );
                inner.asking = inner.wanted;
                inner.confirmed = begun;
                if let Some(old) = inner.current.replace(Arc::new(new)) {
                    old.set(State::Superseded);
                }
                self.tell_times(&inner);
                Ok(Some(text))
            }
            Err(why) => {
                inner.wanted = true;
                let _ = std::fs::remove_file(&temporary);
                Err(why)
            }
        }
    }

    /// Writes a whole map; the accounts that have no record are counted.
    fn write(
        &self,
        source: &mut impl Source,
        policy: &Policy,
        temporary: &Path,
        generation: u64,
        begun: u64,
    ) -> Told<(Published, u64)> {
        let fail = |e: io::Error| Unavailable::new(temporary.display(), e);
        match std::fs::remove_file(temporary) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(fail(e)),
            _ => {}
        }
        let mut file = unix::durable::create_new(temporary, 0o600).map_err(fail)?;
        let seed = RandomState::new().hash_one(begun);
        let out = BufWriter::with_capacity(1 << 18, &mut file);
        let mut builder = Builder::new(out, seed);
        let start = Builder::<BufWriter<&mut File>>::START;
        // Behind the header, which is written last.
        builder.get_mut().seek(SeekFrom::Start(start)).map_err(fail)?;
        let mut unfit = 0;
        let mut last = None;
        self.each_page(source, |_, entries| {
            for entry in entries {
                // One that is being moved between the tables may be seen twice, the active row first.
                if last.as_ref() == Some(&entry.account.address) {
                    continue;
                }
                match Person::of(entry, policy) {
                    Some(person) => builder.user(&person.row()).map_err(fail)?,
                    None => unfit += 1,
                }
                last = Some(entry.account.address.clone());
            }
            Ok(())
        })?;
        let domains = source.domains()?;
        for row in domain_rows(&domains, policy) {
            builder.domain(&row).map_err(fail)?;
        }
        let limit = u64::try_from(self.settings.limit.as_millis()).unwrap_or(u64::MAX);
        let times =
            (unix::clock::monotonic_milliseconds().saturating_add(ALIVE), begun.saturating_add(limit));
        let (out, front) = builder.finish(generation, unix::clock::unix_seconds(), times).map_err(fail)?;
        drop(out);
        unix::map::complete(&file, &front, 0o644).map_err(fail)?;
        Ok((Published::open(&file).map_err(fail)?, unfit))
    }

    /// Compares the store with the map and appends what differs.
    fn refresh<S: Source>(&self, source: &mut S, policy: &Policy) -> Told<Option<String>> {
        let begun = unix::clock::monotonic_milliseconds();
        let Some(current) = self.lock().current.clone() else { return Ok(None) };
        let users = usize::try_from(current.header.users).unwrap_or(0);
        let mut seen = vec![false; users];
        let mut differ = 0_u64;
        let mut again = |source: &mut S, address: &Address| {
            differ += 1;
            let mut inner = self.lock();
            self.apply(&mut inner, address, source, policy);
        };
        self.each_page(source, |source, entries| {
            for entry in entries {
                let address = &entry.account.address;
                let person = Person::of(entry, policy);
                let known = current.map().user(address.to_string().as_bytes());
                if let Answer::Found(user) = &known
                    && let Some(seen) =
                        usize::try_from(user.entry().ordinal()).ok().and_then(|n| seen.get_mut(n))
                {
                    *seen = true;
                }
                if !Person::is(person.as_ref(), &known) {
                    again(source, address);
                }
            }
            Ok(())
        })?;
        // Those that the store does not have any more; and what was changed since is looked at once more.
        let mut rest = BTreeSet::new();
        let whole = current.map().each_row(|entry| {
            let ordinal = usize::try_from(entry.ordinal()).unwrap_or(usize::MAX);
            if seen.get(ordinal) == Some(&false) {
                rest.extend(Address::parse(entry.name()));
            }
        });
        let whole = whole && current.map().each_change(|entry| rest.extend(Address::parse(entry.name())));
        for address in &rest {
            let mut inner = self.lock();
            self.apply(&mut inner, address, source, policy);
        }
        let domains = source.domains()?;
        if !whole || !same_domains(&current.map(), current.header.domains, &domains, policy) {
            self.rebuild();
            return Ok(Some("domains changed: a new map is built".to_owned()));
        }
        let mut inner = self.lock();
        if inner.current.as_ref().is_some_and(|c| Arc::ptr_eq(c, &current)) {
            inner.confirmed = begun;
        }
        Ok((differ > 0).then(|| format!("map: {differ} accounts had changed without a word")))
    }

    /// What there is to say about the map.
    pub fn rows(&self) -> Vec<(&'static str, u64)> {
        let inner = self.lock();
        let Some(current) = &inner.current else { return Vec::new() };
        let age = unix::clock::monotonic_milliseconds().saturating_sub(inner.confirmed) / 1000;
        vec![
            ("map_generation", current.header.generation),
            ("map_users", current.header.users),
            ("map_changes", current.header.changes(current.memory.words()).0),
            ("map_asking", inner.asking.into()),
            ("map_age", age),
        ]
    }
}

/// Brings what a map says about one address up to date; false: it has no room.
fn put(map: &Published, address: &Address, source: &mut impl Source, policy: &Policy) -> bool {
    let read = |source: &mut dyn FnMut() -> Told<Option<accounts::Entry>>| source();
    let domain = source.domain(address.domain().as_bytes());
    let real = match &domain {
        Ok(Some(domain)) => address.in_domain(&domain.real),
        // None of ours: what there was of it went with the domain.
        Ok(None) => address.clone(),
        Err(_) => return false,
    };
    let name = real.to_string();
    let known = map.map().user(name.as_bytes());
    match read(&mut || source.account(&real)) {
        Ok(entry) => {
            let person = entry.as_ref().and_then(|entry| Person::of(entry, policy));
            if Person::is(person.as_ref(), &known) {
                return true;
            }
            match person {
                Some(person) => map.append(Change::User(person.row())),
                None => map.append(Change::Gone(name.as_bytes())),
            }
        }
        Err(_) => map.append(Change::Ask(name.as_bytes())),
    }
}

/// The name of a map that is being written.
fn beside(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    path.with_file_name(name)
}
