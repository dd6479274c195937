//! The map of this process: one mapping, no descriptor, no lock.
//!
//! Look-ups count themselves in and out of the mapping that they read. A newer one takes its place in another
//! slot, and who is the last to leave an old one unmaps it. A child after fork inherits the mapping; what threads
//! that it does not have were reading stays mapped in it, a slot each, and when no slot is left the daemon is
//! asked.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst};

use lookup::conf::Conf;
use snapshot::{Answer, Header, Map, Standing};
use unix::map::{Identity, Mapped};

use crate::source;

/// How long after a look for the file the next one is due, in milliseconds: without a map; and with one that
/// the daemon does not confirm.
const LOOK_AGAIN: u64 = 1000;
const CONFIRM_AGAIN: u64 = 200;
/// The same after a newer map was announced and could not be used.
const REPLACE_AGAIN: u64 = 50;

const FREE: u32 = 0;
const TAKEN: u32 = 1;
const USED: u32 = 2;
const RETIRED: u32 = 3;

struct Slot {
    state: AtomicU32,
    readers: AtomicU32,
    content: UnsafeCell<Option<(Mapped, Header)>>,
}

// SAFETY: `content` is written only by the thread that made `state` TAKEN, at which time no reader looks at it:
// readers do so only after they counted themselves in and saw that the slot is the current one.
unsafe impl Sync for Slot {}

static SLOTS: [Slot; 8] = [const {
    Slot { state: AtomicU32::new(FREE), readers: AtomicU32::new(0), content: UnsafeCell::new(None) }
}; 8];
/// The slot of the current mapping; past the last one: there is none.
static CURRENT: AtomicUsize = AtomicUsize::new(usize::MAX);
/// When the file may be looked for again, in milliseconds of the monotonic clock.
static NEXT_LOOK: AtomicU64 = AtomicU64::new(0);
/// Process id of the thread that looks for the file, 0 when none does.
static LOOKING: AtomicU32 = AtomicU32::new(0);

/// What the map says, and what to do about it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Look<T> {
    /// There is one.
    Found(T),
    /// There is none.
    Absent,
    /// The daemon is to be asked. Where nobody is there to ask, this was right a while ago.
    Ask(Option<T>),
}

/// A reader of a slot.
struct Reader {
    slot: &'static Slot,
    number: usize,
}

impl Reader {
    fn of_current() -> Option<Self> {
        for _ in 0..16 {
            let number = CURRENT.load(SeqCst);
            let slot = SLOTS.get(number)?;
            slot.readers.fetch_add(1, SeqCst);
            let reader = Self { slot, number };
            if CURRENT.load(SeqCst) == number {
                return Some(reader);
            }
        }
        None
    }

    fn content(&self) -> Option<&(Mapped, Header)> {
        // SAFETY: this reader was counted before the slot was seen to be the current one, so it is not emptied or
        // filled before the reader is dropped.
        unsafe { &*self.slot.content.get() }.as_ref()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if self.slot.readers.fetch_sub(1, SeqCst) == 1 && CURRENT.load(SeqCst) != self.number {
            self.slot.empty();
        }
    }
}

impl Slot {
    /// Unmaps what is retired and has no reader.
    fn empty(&self) {
        while self.readers.load(SeqCst) == 0
            && self.state.compare_exchange(RETIRED, TAKEN, SeqCst, SeqCst).is_ok()
        {
            if self.readers.load(SeqCst) == 0 {
                // SAFETY: the state is TAKEN by this thread. A reader that counts itself in from now on sees
                // that the slot is not the current one and does not look at the content.
                unsafe { *self.content.get() = None };
                self.state.store(FREE, SeqCst);
                return;
            }
            self.state.store(RETIRED, SeqCst);
        }
    }
}

/// Asks the map of this process.
pub(crate) fn look<T>(question: impl Fn(&Map<'_>) -> Answer<T>) -> Look<T> {
    if source::is_blocked() {
        return Look::Ask(None);
    }
    let now = unix::clock::coarse_milliseconds();
    let mut tried = false;
    loop {
        let (answer, standing, identity) = match Reader::of_current() {
            Some(reader) => match reader.content() {
                Some((memory, header)) => {
                    let standing = header.standing(memory.words(), now);
                    let answer = question(&Map::new(memory.words(), header));
                    (answer, standing, Some(memory.identity()))
                }
                None => (Answer::Ask, Standing::Expired, None),
            },
            None => (Answer::Ask, Standing::Expired, None),
        };
        let again = match standing {
            Standing::Complete => None,
            Standing::Superseded => Some(REPLACE_AGAIN),
            Standing::Found | Standing::Ask => Some(CONFIRM_AGAIN),
            Standing::Expired => Some(LOOK_AGAIN),
        };
        if let Some(again) = again
            && !tried
        {
            tried = true;
            if replace(identity, now, again) {
                continue;
            }
        }
        return match (answer, standing) {
            (_, Standing::Expired) | (Answer::Ask, _) => Look::Ask(None),
            (Answer::Found(found), Standing::Complete | Standing::Found) => Look::Found(found),
            (Answer::Absent, Standing::Complete) => Look::Absent,
            (Answer::Found(found), Standing::Ask | Standing::Superseded) => Look::Ask(Some(found)),
            (Answer::Absent, _) => Look::Ask(None),
        };
    }
}

/// Puts the map that has the name now in the place of the one that is mapped; true: there is another one now.
fn replace(mapped: Option<Identity>, now: u64, again: u64) -> bool {
    let due = NEXT_LOOK.load(SeqCst);
    // A time that is further ahead was written for less urgent a reason, or before the clock began anew (a restored
    // process).
    if now < due && due.saturating_sub(now) <= again {
        return false;
    }
    let me = std::process::id();
    if let Err(other) = LOOKING.compare_exchange(0, me, SeqCst, SeqCst) {
        // A thread of the parent was at it when this process was forked: nobody is here now.
        if other == me || LOOKING.compare_exchange(other, me, SeqCst, SeqCst).is_err() {
            return false;
        }
    }
    let replaced = source::conf_of_this_process().is_some_and(|conf| fill(&conf, mapped));
    // What was announced and is there: the next announcement is to be obeyed at once.
    NEXT_LOOK.store(if replaced { 0 } else { now.saturating_add(again) }, SeqCst);
    LOOKING.store(0, SeqCst);
    replaced
}

fn fill(conf: &Conf, mapped: Option<Identity>) -> bool {
    let Some(path) = &conf.nssd_map else { return false };
    if mapped.is_some() && unix::map::identity(path).ok() == mapped {
        return false;
    }
    let Ok(file) = unix::map::open_trusted(path, false) else { return false };
    let Ok(memory) = Mapped::read(&file) else { return false };
    drop(file);
    let Some(header) = Header::read(memory.words()) else { return false };
    let free = |slot: &Slot| slot.state.compare_exchange(FREE, TAKEN, SeqCst, SeqCst).is_ok();
    let Some((number, slot)) = SLOTS.iter().enumerate().find(|(_, slot)| free(slot)) else { return false };
    // SAFETY: the state is TAKEN by this thread, and the slot is not the current one: nobody looks at it.
    unsafe { *slot.content.get() = Some((memory, header)) };
    slot.state.store(USED, SeqCst);
    let old = CURRENT.swap(number, SeqCst);
    if let Some(old) = SLOTS.get(old) {
        old.state.store(RETIRED, SeqCst);
        old.empty();
    }
    true
}
