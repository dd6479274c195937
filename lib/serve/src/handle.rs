//! What a front is asked to do, by signals and by other threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use unix::Signal;
use unix::readiness::Waker;

const STOP: u8 = 1;
const RELOAD: u8 = 2;
const STATUS: u8 = 4;

/// Stops, reloads or asks a front from another thread.
#[derive(Debug, Clone)]
pub struct Handle {
    wanted: Arc<AtomicU8>,
    waker: Waker,
}

/// What was asked for since the last look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted(u8);

impl Wanted {
    pub(crate) fn stop(self) -> bool {
        self.0 & STOP != 0
    }

    pub(crate) fn reload(self) -> bool {
        self.0 & RELOAD != 0
    }

    pub(crate) fn status(self) -> bool {
        self.0 & STATUS != 0
    }
}

impl Handle {
    pub(crate) fn new(waker: Waker) -> Self {
        Self { wanted: Arc::default(), waker }
    }

    /// As SIGTERM.
    pub fn stop(&self) {
        self.want(STOP);
    }

    /// As SIGHUP.
    pub fn reload(&self) {
        self.want(RELOAD);
    }

    /// As SIGUSR1.
    pub fn status(&self) {
        self.want(STATUS);
    }

    /// A signal of [`crate::SIGNALS_OBEYED`].
    pub(crate) fn signal(&self, signal: Signal) {
        match signal {
            Signal::SIGHUP => self.reload(),
            Signal::SIGUSR1 => self.status(),
            _ => self.stop(),
        }
    }

    pub(crate) fn take(&self) -> Wanted {
        Wanted(self.wanted.swap(0, Ordering::SeqCst))
    }

    fn want(&self, what: u8) {
        self.wanted.fetch_or(what, Ordering::SeqCst);
        self.waker.wake();
    }
}
