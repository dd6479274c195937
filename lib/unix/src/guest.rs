//! What code owes the process it is loaded into: no panic that gets out, no word on its stderr, and no abort
//! when memory runs out.
//!
//! A module (cdylib) has a standard library of its own, so the panic hook and the allocator here are its own
//! too; the host's are not touched.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What became of one call from the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done<T> {
    /// What the work gave; nothing when it panicked.
    pub value: Option<T>,
    /// The system had no memory for it. What was done with that of the reserve, or without, is right all the
    /// same; what failed, failed because of this.
    pub short_of_memory: bool,
}

// Not thread-local: in a module that is loaded late, the first use of such a variable takes memory, and ends
// the process when there is none.
/// Calls that are being done.
static INSIDE: AtomicU64 = AtomicU64::new(0);
/// How often the system had no memory.
static SHORTAGES: AtomicU64 = AtomicU64::new(0);

/// Is our hook in its place?
static QUIET: AtomicBool = AtomicBool::new(false);

/// How often the system had no memory for a guest of this process, so far.
#[must_use]
pub fn shortages() -> u64 {
    SHORTAGES.load(Ordering::Relaxed)
}

/// Does the work of one call from the host. A panic ends here, and nothing is said about it.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Done<T> {
    if !QUIET.swap(true, Ordering::Relaxed) {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if INSIDE.load(Ordering::Relaxed) == 0 {
                before(info);
            }
        }));
    }
    INSIDE.fetch_add(1, Ordering::Relaxed);
    let before = shortages();
    let caught = catch_unwind(AssertUnwindSafe(work));
    INSIDE.fetch_sub(1, Ordering::Relaxed);
    // Dropping what was thrown could panic again.
    let value = caught.map_err(std::mem::forget).ok();
    Done { value, short_of_memory: shortages() != before }
}

/// Size of the reserve: for an answer of the largest size, taken apart. As long as it is not used it is no
/// memory, only addresses.
const RESERVE: usize = 2 << 20;
/// What is larger is refused; nothing in an answer is.
const LARGEST: usize = RESERVE / 2;
const ALIGN: usize = 16;

#[repr(align(16))]
struct Reserve {
    bytes: UnsafeCell<[u8; RESERVE]>,
    /// Blocks in use (upper half) and bytes taken (lower half); the bytes count from 0 again when no block is in
    /// use.
    state: AtomicU64,
}

// SAFETY: `state` gives each part of `bytes` to one owner at a time.
unsafe impl Sync for Reserve {}

static SPARE: Reserve = Reserve { bytes: UnsafeCell::new([0; RESERVE]), state: AtomicU64::new(0) };

impl Reserve {
    fn take(&self, layout: Layout) -> *mut u8 {
        if layout.align() > ALIGN || layout.size() > LARGEST {
            return ptr::null_mut();
        }
        let size = u64::try_from(layout.size().next_multiple_of(ALIGN)).unwrap_or(u64::MAX);
        let taken = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
            let end = (state & 0xffff_ffff).checked_add(size)?;
            (end <= RESERVE as u64).then(|| ((state >> 32) + 1) << 32 | end)
        });
        let Ok(state) = taken else {
            return ptr::null_mut();
        };
        let at = usize::try_from(state & 0xffff_ffff).unwrap_or(RESERVE);
        // SAFETY: `at` + size is at most RESERVE, checked above.
        unsafe { self.bytes.get().cast::<u8>().add(at) }
    }

    fn has(&self, block: *mut u8) -> bool {
        let start = self.bytes.get() as usize;
        (start..start + RESERVE).contains(&(block as usize))
    }

    fn give_back(&self) {
        let _ = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
            let blocks = (state >> 32).saturating_sub(1);
            Some(if blocks == 0 { 0 } else { blocks << 32 | (state & 0xffff_ffff) })
        });
    }
}

/// The allocator of a guest: the system's, and a small reserve for when that has nothing. Without it, a
/// guest that finds no memory aborts the process. The reserve is for what is given back at the end of a call:
/// what is to be kept longer must not come from it ([`shortages`]).
#[derive(Debug, Clone, Copy)]
pub struct Memory;

impl Memory {
    fn spare(layout: Layout) -> *mut u8 {
        SHORTAGES.fetch_add(1, Ordering::Relaxed);
        SPARE.take(layout)
    }
}

// SAFETY: each block is the system's or of the reserve, where it is as large and aligned as asked and nobody
// else's until it is given back; nothing here unwinds.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: by the contract of this function.
        let block = unsafe { System.alloc(layout) };
        if block.is_null() { Self::spare(layout) } else { block }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if SPARE.has(block) {
            SPARE.give_back();
        } else {
            // SAFETY: by the contract of this function; it is the system's.
            unsafe { System.dealloc(block, layout) };
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !SPARE.has(block) {
            // SAFETY: by the contract of this function; it is the system's.
            let grown = unsafe { System.realloc(block, layout, size) };
            if !grown.is_null() {
                return grown;
            }
        }
        let Ok(wanted) = Layout::from_size_align(size, layout.align()) else {
            return ptr::null_mut();
        };
        // SAFETY: `wanted` is not empty by the contract of this function.
        let moved = unsafe { self.alloc(wanted) };
        if !moved.is_null() {
            // SAFETY: both have so many bytes and are different blocks; the old one is given back once.
            unsafe {
                ptr::copy_nonoverlapping(block, moved, layout.size().min(size));
                self.dealloc(block, layout);
            }
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_panic_is_an_answer_and_nothing_is_said() {
        const NAME: &str = "guest::tests::a_panic_is_an_answer_and_nothing_is_said";
        if std::env::var_os("GUEST_CHILD").is_some() {
            assert_eq!(guarded(|| panic!("not to be heard")).value, None::<()>);
            // What is not the guest's is said as before.
            let _ = catch_unwind(|| panic!("to be heard"));
            return;
        }
        let own = std::env::current_exe().unwrap();
        let child = Command::new(own).args(["--exact", NAME, "--nocapture"]).env("GUEST_CHILD", "1").output();
        let child = child.unwrap();
        let said = String::from_utf8_lossy(&child.stderr);
        assert!(child.status.success(), "{said}");
        assert!(said.contains("to be heard") && !said.contains("not to be heard"), "{said}");
    }

    #[test]
    fn guests_may_be_guests_of_guests() {
        let inner = guarded(|| guarded(|| panic!("inner")));
        assert_eq!(inner.value.map(|i| i.value), Some(None::<()>));
        assert_eq!(INSIDE.load(Ordering::Relaxed), 0);
        let short = guarded(|| Memory::spare(Layout::new::<u64>()).is_null());
        SPARE.give_back();
        assert_eq!(short, Done { value: Some(false), short_of_memory: true });
        assert_eq!(guarded(|| 1), Done { value: Some(1), short_of_memory: false });
    }

    #[test]
    fn the_reserve_gives_each_block_once_and_starts_anew_when_all_are_back() {
        static OWN: Reserve = Reserve { bytes: UnsafeCell::new([0; RESERVE]), state: AtomicU64::new(0) };
        let layout = Layout::from_size_align(1000, 8).unwrap();
        let mut blocks = Vec::new();
        loop {
            let block = OWN.take(layout);
            if block.is_null() {
                break;
            }
            assert!(OWN.has(block) && (block as usize).is_multiple_of(ALIGN));
            blocks.push(block as usize);
        }
        assert_eq!(blocks.len(), RESERVE / 1008);
        assert!(blocks.windows(2).all(|two| two[1] - two[0] >= 1000));
        blocks.iter().for_each(|_| OWN.give_back());
        assert_eq!(OWN.take(layout) as usize, blocks[0]);
        for (size, align) in [(LARGEST + 1, 8), (8, 32)] {
            assert!(OWN.take(Layout::from_size_align(size, align).unwrap()).is_null());
        }
        assert!(!OWN.has((&raw const OWN).cast::<u8>().cast_mut().wrapping_sub(1)));
    }
}
