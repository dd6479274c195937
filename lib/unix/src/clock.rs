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

/// Milliseconds of the monotonic clock, for values that must fit an atomic. Never zero.
#[must_use]
pub fn monotonic_milliseconds() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    let now = now.map_or(Duration::ZERO, Duration::from);
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// As [`monotonic_milliseconds`], some milliseconds behind and read faster.
#[must_use]
pub fn coarse_milliseconds() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC_COARSE);
    let now = now.map_or(Duration::ZERO, Duration::from);
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX).max(1)
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

/// A time as the calendar and the clock on the wall have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CalendarTime {
    /// Year.
    pub year: i64,
    /// 1 to 12.
    pub month: i32,
    /// 1 to 31.
    pub day: i32,
    /// 0 to 23.
    pub hour: i32,
    /// 0 to 59.
    pub minute: i32,
    /// 0 to 60.
    pub second: i32,
    /// Seconds east of UTC.
    pub offset: i64,
}

/// The calendar time of these seconds since (negative: before) 1970, in UTC or in the time zone of this process; `None` when no
/// calendar reaches that far.
#[must_use]
pub fn calendar_time(unix_seconds: i64, utc: bool) -> Option<CalendarTime> {
    let seconds: libc::time_t = unix_seconds;
    // SAFETY: an all-zero tm is a valid value of the plain C structure.
    let mut tm: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both functions read one time_t and write one tm, both of which live here. localtime_r
    // reads the TZ variable, which nothing in this workspace changes.
    let found = unsafe {
        if utc {
            libc::gmtime_r(&raw const seconds, &raw mut tm)
        } else {
            libc::localtime_r(&raw const seconds, &raw mut tm)
        }
    };
    if found.is_null() {
        return None;
    }
    Some(CalendarTime {
        year: i64::from(tm.tm_year) + 1900,
        month: tm.tm_mon + 1,
        day: tm.tm_mday,
        hour: tm.tm_hour,
        minute: tm.tm_min,
        second: tm.tm_sec,
        offset: tm.tm_gmtoff,
    })
}
