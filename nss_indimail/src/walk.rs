//! Where this process is in a map that it walks with `getpwent` and its like.
//!
//! One position for each map and process. A child after fork starts anew, also when the fork happened
//! while another thread was walking; what the parent left in memory is then not touched.

use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::hooks::{Walkable, page};
use crate::source::Fault;

/// A position.
#[derive(Debug)]
enum Position<T> {
    /// Before the first record.
    Start,
    /// Records that were fetched and not yet returned, and where the next page starts.
    Inside(VecDeque<T>, Vec<u8>),
    /// After the last record.
    End,
}

/// The position of a process in one map.
#[derive(Debug)]
pub struct Walk<T> {
    /// Process id of the thread that is at work here, 0 when none is.
    busy: AtomicU32,
    /// Position, and the process it belongs to.
    state: UnsafeCell<(u32, Position<T>)>,
}

// SAFETY: `state` is only reached through `with`, which lets one thread at a time in.
unsafe impl<T: Send> Sync for Walk<T> {}

/// Frees the place also when the work panics.
struct Release<'a>(&'a AtomicU32);

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Release);
    }
}

impl<T: Walkable> Walk<T> {
    /// Before the first record.
    #[must_use]
    pub const fn new() -> Self {
        Self { busy: AtomicU32::new(0), state: UnsafeCell::new((0, Position::Start)) }
    }

    /// Goes back before the first record and forgets what was fetched.
    pub fn rewind(&self) {
        // When another thread is at work, its walk is the one that counts.
        let _ = self.with(|position| *position = Position::Start);
    }

    /// Shows the next record to `show`, and steps over it when that succeeds. `Ok(None)`: none is left.
    ///
    /// # Errors
    /// There is no answer, or another thread is at work.
    pub fn step<R, E>(&self, show: impl FnOnce(&T) -> Result<R, E>) -> Result<Option<Result<R, E>>, Fault> {
        let step = |position: &mut Position<T>| {
            let Some(record) = first(position)? else { return Ok(None) };
            let shown = show(record);
            if let (Ok(_), Position::Inside(records, _)) = (&shown, position) {
                records.pop_front();
            }
            Ok(Some(shown))
        };
        self.with(step).unwrap_or(Err(Fault::TryAgain))
    }

    /// Lets one thread in; `None` when another one is.
    fn with<R>(&self, work: impl FnOnce(&mut Position<T>) -> R) -> Option<R> {
        let me = std::process::id();
        let mut stale = false;
        if let Err(other) = self.busy.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed) {
            // A thread of the parent was at work when this process was forked: nobody is here now.
            stale = other != me;
            if !stale || self.busy.compare_exchange(other, me, Ordering::Acquire, Ordering::Relaxed).is_err()
            {
                return None;
            }
        }
        let _release = Release(&self.busy);
        // SAFETY: `busy` was 0 (or a thread that does not exist here) and is now ours until `_release`
        // drops, so no other reference to the state exists.
        let state = unsafe { &mut *self.state.get() };
        if state.0 != me {
            let old = std::mem::replace(state, (me, Position::Start));
            if stale {
                // It may be half-changed; it is left alone.
                std::mem::forget(old);
            }
        }
        Some(work(&mut state.1))
    }
}

impl<T: Walkable> Default for Walk<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// The record at the position, fetched if need be.
fn first<T: Walkable>(position: &mut Position<T>) -> Result<Option<&T>, Fault> {
    loop {
        let cursor = match &*position {
            Position::End => return Ok(None),
            Position::Inside(records, _) if !records.is_empty() => break,
            Position::Inside(_, next) if next.is_empty() => {
                *position = Position::End;
                return Ok(None);
            }
            Position::Inside(_, next) => next.clone(),
            Position::Start => Vec::new(),
        };
        // When this fails the position stays, and the next call asks for the same page.
        let shortages = unix::guest::shortages();
        let page = page::<T>(&cursor)?;
        if unix::guest::shortages() != shortages {
            // What is kept between calls must not hold memory that is a reserve for all of them.
            return Err(Fault::Unavailable);
        }
        *position = Position::Inside(page.records.into(), page.next);
    }
    match position {
        Position::Inside(records, _) => Ok(records.front()),
        Position::Start | Position::End => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libnss::passwd::Passwd;

    fn record(name: &str) -> Passwd {
        let text = String::new;
        Passwd {
            name: name.into(),
            passwd: text(),
            uid: 1,
            gid: 1,
            gecos: text(),
            dir: text(),
            shell: text(),
        }
    }

    fn inside(names: &[&str]) -> Walk<Passwd> {
        let walk = Walk::new();
        walk.with(|position| {
            *position = Position::Inside(names.iter().map(|n| record(n)).collect(), Vec::new());
        });
        walk
    }

    #[test]
    fn a_record_that_could_not_be_shown_is_shown_again() {
        let walk = inside(&["a", "b"]);
        let small = walk.step(|_| Err::<(), ()>(()));
        assert_eq!(small, Ok(Some(Err(()))));
        let mut names = Vec::new();
        while let Ok(Some(Ok(name))) = walk.step(|r| Ok::<_, ()>(r.name.clone())) {
            names.push(name);
        }
        assert_eq!(names, ["a", "b"]);
        assert_eq!(walk.step(|_| Ok::<_, ()>(())), Ok(None), "the end stays the end");
    }

    #[test]
    fn another_thread_at_work_is_no_end_and_no_wait() {
        let walk = inside(&["a"]);
        let inner = walk.with(|_| walk.step(|_| Ok::<_, ()>(())));
        assert_eq!(inner, Some(Err(Fault::TryAgain)));
        assert_eq!(walk.step(|_| Ok::<_, ()>(())), Ok(Some(Ok(()))));
    }

    #[test]
    fn what_a_parent_s_thread_left_behind_is_not_touched() {
        let walk = inside(&["of the parent"]);
        // As fork leaves it while a thread of the parent (process 1) is inside.
        walk.with(|_| ());
        walk.busy.store(1, Ordering::Relaxed);
        // SAFETY: no other thread uses this value.
        unsafe { (*walk.state.get()).0 = 1 };
        assert!(matches!(walk.with(|p| matches!(p, Position::Start)), Some(true)), "a child starts anew");
        assert_eq!(walk.busy.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_panic_leaves_the_place_free() {
        let walk = inside(&["a"]);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            walk.step(|_| -> Result<(), ()> { panic!("on purpose") })
        }));
        assert!(panicked.is_err());
        assert_eq!(walk.step(|_| Ok::<_, ()>(())), Ok(Some(Ok(()))));
    }
}
