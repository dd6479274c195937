//! Events of thousands of descriptors, waited for by one thread.
//!
//! A [`Watched`] owns its descriptor and leaves the poller before it is closed, so that no event can
//! arrive for a number that has been given to another file. Events are delivered once: ask again with
//! [`Watched::watch`] after each.

use std::io;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use polling::{Event, Events, Poller};

/// What a descriptor is ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// The key given to [`Readiness::add`].
    pub key: usize,
    /// Reading will not block (data, end or error).
    pub read: bool,
    /// Writing will not block.
    pub write: bool,
}

/// A set of watched descriptors.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<Poller>);

impl Readiness {
    /// An empty set.
    ///
    /// # Errors
    /// EMFILE and the like.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(Poller::new()?)))
    }

    /// Takes a descriptor into the set; nothing is watched until [`Watched::watch`].
    ///
    /// # Errors
    /// A kind of file that cannot be waited for; no memory.
    pub fn add<T: AsFd>(&self, key: usize, source: T) -> io::Result<Watched<T>> {
        // SAFETY: the source is owned by `Watched`, which only hands out shared references to it and
        // deletes it from this poller in its drop, before the source itself is dropped.
        unsafe { self.0.add(&source.as_fd(), Event::none(key))? };
        Ok(Watched { key, source, set: Arc::clone(&self.0) })
    }

    /// Waits for events, a [`Waker`], or the end of `timeout` (`None`: for ever). A signal may end it
    /// early with no event.
    ///
    /// # Errors
    /// epoll_wait(2) errors other than EINTR.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<Vec<Ready>> {
        let mut events = Events::new();
        match self.0.wait(&mut events, timeout) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
        Ok(events.iter().map(|e| Ready { key: e.key, read: e.readable, write: e.writable }).collect())
    }

    /// Something for other threads to end a wait with.
    #[must_use]
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.0))
    }
}

/// Ends a [`Readiness::wait`] from another thread.
#[derive(Debug, Clone)]
pub struct Waker(Arc<Poller>);

impl Waker {
    /// Ends the wait that is going on, or the next one.
    pub fn wake(&self) {
        // Writing to an eventfd of our own fails only when it is full, and then the wait ends anyway.
        let _ = self.0.notify();
    }
}

/// A descriptor in a [`Readiness`].
#[derive(Debug)]
pub struct Watched<T: AsFd> {
    key: usize,
    source: T,
    set: Arc<Poller>,
}

impl<T: AsFd> Watched<T> {
    /// Asks for one event: readable, writable, either, or none.
    ///
    /// # Errors
    /// epoll_ctl(2) errors.
    pub fn watch(&self, read: bool, write: bool) -> io::Result<()> {
        self.set.modify(self.source.as_fd(), Event::new(self.key, read, write))
    }
}

impl<T: AsFd> Deref for Watched<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.source
    }
}

impl<T: AsFd> Drop for Watched<T> {
    fn drop(&mut self) {
        // The descriptor is still open here, so the only failure is that the set does not know it.
        let _ = self.set.delete(self.source.as_fd());
    }
}
