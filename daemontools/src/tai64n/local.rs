//! Labels as date and time.

use tai::{Label, TEXT_LEN};
use unix::clock::CalendarTime;

use super::convert::{may_become_label, put};
use super::line_starts::Conversion;

/// How a time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// UTC instead of local time.
    pub utc: bool,
    /// ISO 8601: a T between date and time, and the offset from UTC behind.
    pub iso: bool,
}

/// Label to date and time. `calendar` gives the calendar time of seconds since 1970, in the time zone that is
/// wanted; it is asked about once a minute of the log.
#[derive(Debug)]
pub struct Local<F> {
    style: Style,
    calendar: F,
    /// A minute since 1970 in which only the seconds count up, its text up to them, and the text behind.
    minute: Option<(i64, String, String)>,
    text: Vec<u8>,
}

impl<F: FnMut(i64) -> Option<CalendarTime>> Local<F> {
    /// Nothing is known yet.
    pub fn new(style: Style, calendar: F) -> Self {
        Self { style, calendar, minute: None, text: Vec::new() }
    }

    /// The time as it is written; `None` when no calendar reaches that far.
    pub fn text(&mut self, seconds: i64, nanoseconds: u32) -> Option<&[u8]> {
        let (minute, second) = (seconds.div_euclid(60), seconds.rem_euclid(60));
        if self.minute.as_ref().is_none_or(|(known, ..)| *known != minute) {
            self.minute = None;
            let (first, last) = ((self.calendar)(minute * 60)?, (self.calendar)(minute * 60 + 59)?);
            if !(first == CalendarTime { second: 0, ..last } && last.second == 59) {
                // A change of the clock, a zone with odd seconds, or one that counts leap seconds.
                let time = (self.calendar)(seconds)?;
                let (before, after) = self.around(time);
                return Some(self.joined(&before, time.second.into(), nanoseconds, &after));
            }
            let (before, after) = self.around(first);
            self.minute = Some((minute, before, after));
        }
        let minute = self.minute.take()?;
        self.joined(&minute.1, second, nanoseconds, &minute.2);
        self.minute = Some(minute);
        Some(&self.text)
    }

    /// The text before and behind the seconds.
    fn around(&self, t: CalendarTime) -> (String, String) {
        let gap = if self.style.iso { 'T' } else { ' ' };
        let before = format!("{:04}-{:02}-{:02}{gap}{:02}:{:02}:", t.year, t.month, t.day, t.hour, t.minute);
        let mut after = String::new();
        if self.style.iso {
            let sign = if t.offset < 0 { '-' } else { '+' };
            let minutes = t.offset.abs() / 60;
            after = format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60);
        }
        (before, after)
    }

    fn joined(&mut self, before: &str, second: i64, nanoseconds: u32, after: &str) -> &[u8] {
        self.text.clear();
        self.text.extend_from_slice(before.as_bytes());
        put(&mut self.text, second.unsigned_abs(), 2);
        self.text.push(b'.');
        put(&mut self.text, nanoseconds.into(), 9);
        self.text.extend_from_slice(after.as_bytes());
        &self.text
    }
}

impl<F: FnMut(i64) -> Option<CalendarTime>> Conversion for Local<F> {
    const LONGEST: usize = TEXT_LEN;

    fn may_become(&self, start: &[u8]) -> bool {
        may_become_label(start)
    }

    fn convert(&mut self, line: &[u8]) -> Option<(&[u8], usize)> {
        let (label, _) = Label::parse(line)?;
        let text = self.text(label.unix_seconds()?, label.nanoseconds())?;
        Some((text, TEXT_LEN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A zone of this offset that is put forward by an hour at `change`.
    fn zone(offset: i64, change: i64) -> impl Fn(i64) -> Option<CalendarTime> {
        move |seconds| {
            let offset = if seconds < change { offset } else { offset + 3600 };
            let utc = unix::clock::calendar_time(seconds + offset, true)?;
            Some(CalendarTime { offset, ..utc })
        }
    }

    fn plainly(t: CalendarTime, nanoseconds: u32) -> String {
        format!(
            "{:04}-{:02}-{:02} {:02}:{:02}:{:02}.{nanoseconds:09}",
            t.year, t.month, t.day, t.hour, t.minute, t.second
        )
    }

    fn once(line: &str, style: Style) -> String {
        let mut local = Local::new(style, |s| unix::clock::calendar_time(s, true));
        match local.convert(line.as_bytes()) {
            Some((text, used)) => format!("{}{}", String::from_utf8_lossy(text), &line[used..]),
            None => line.to_owned(),
        }
    }

    #[test]
    fn labels_become_times_and_other_lines_stay() {
        let style = Style { utc: true, iso: false };
        assert_eq!(once("@4000000037c219bf2ef02e94 mail", style), "1999-08-24 04:04:05.787492500 mail");
        assert_eq!(once("@4000000037c219bf2ef02e94a", style), "1999-08-24 04:04:05.787492500a");
        assert_eq!(once("@400000000000000000000000", style), "1969-12-31 23:59:50.000000000");
        assert_eq!(once("@4000007fffffffff00000000", style), "19391-01-25 12:17:57.000000000");
        for stays in [
            "@notatai",
            "@4000 x",
            "plain",
            "@ffffffffffffffffffffffff x",
            "@",
            "",
            "@3fffffffffffffffffffffff",
        ] {
            assert_eq!(once(stays, style), stays);
        }
    }

    #[test]
    fn iso_times() {
        let style = Style { utc: false, iso: true };
        let mut local = Local::new(style, zone(-19_800, i64::MAX));
        assert_eq!(local.text(1_767_323_045, 6).unwrap(), b"2026-01-01T21:34:05.000000006-05:30");
    }

    proptest! {
        #[test]
        fn the_minute_that_is_remembered_is_the_right_one(
            start in 0i64..4_000_000_000,
            steps in proptest::collection::vec(-90i64..90, 1..40),
            offset in prop_oneof![Just(0i64), Just(19_800), Just(-2670), Just(-17_762)],
            change in -200i64..200,
        ) {
            let zone = zone(offset, start + change);
            let mut local = Local::new(Style { utc: false, iso: false }, &zone);
            let mut seconds = start;
            for step in steps {
                seconds += step;
                let want = plainly(zone(seconds).unwrap(), 5);
                prop_assert_eq!(local.text(seconds, 5).unwrap(), want.as_bytes());
            }
        }
    }
}
