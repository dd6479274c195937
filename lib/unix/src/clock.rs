//! The two clocks. Programs read them here, once per decision, and pass the value on.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Wall-clock time now.
#[must_use]
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// Seconds since 1970 now; a clock set before 1970 reads as 0.
#[must_use]
pub fn unix_seconds() -> u64 {
    since_epoch().as_secs()
}

/// Time since 1970 now; a clock set before 1970 reads as zero.
#[must_use]
pub fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Seconds that local time is ahead of UTC at a time given in seconds since 1970.
///
/// A time or a time zone that the C library cannot work with reads as UTC.
#[must_use]
pub fn local_offset(unix_seconds: u64) -> i64 {
    let Ok(time) = libc::time_t::try_from(unix_seconds) else {
        return 0;
    };
    // SAFETY: tm is plain data for which all zeroes is a valid value.
    let mut tm: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values; localtime_r keeps neither.
    let done = unsafe { libc::localtime_r(&raw const time, &raw mut tm) };
    if done.is_null() { 0 } else { tm.tm_gmtoff }
}

/// A point on the monotonic clock by which something must have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// The deadline `after` from now.
    #[must_use]
    pub fn after(after: Duration) -> Self {
        // A century is as good as never and cannot overflow an Instant.
        let bound = Duration::from_secs(100 * 365 * 86_400);
        Self(Instant::now() + after.min(bound))
    }

    /// The time left, zero when it has passed.
    #[must_use]
    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Has it passed?
    #[must_use]
    pub fn passed(self) -> bool {
        self.left().is_zero()
    }
}
