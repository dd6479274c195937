//! Waiting for events, never for luck.

use std::time::{Duration, Instant};

/// Waits until `condition` holds, at most `patience`.
///
/// # Panics
/// When the time is up: `what` says what did not happen.
#[track_caller]
pub fn until(patience: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    until_some(patience, what, || condition().then_some(()));
}

/// Waits until `attempt` has something, at most `patience`.
///
/// # Panics
/// When the time is up: `what` says what did not happen.
#[track_caller]
pub fn until_some<T>(patience: Duration, what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + patience;
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(Instant::now() < end, "after {patience:?} still not: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A TCP port of 127.0.0.1 that was free a moment ago.
///
/// # Panics
/// When no port can be bound.
#[must_use]
pub fn free_port() -> u16 {
    let socket = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    socket.local_addr().expect("its number").port()
}
