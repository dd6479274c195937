//! Dates as mail writes them.

const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A point in time and the zone it is shown in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    seconds: u64,
    offset_minutes: i16,
}

/// A moment as a calendar shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Civil {
    /// Year, 1969 and up.
    pub year: i64,
    /// Month, 1 to 12.
    pub month: u8,
    /// Day of the month, 1 to 31.
    pub day: u8,
    /// Hour, 0 to 23.
    pub hour: u8,
    /// Minute, 0 to 59.
    pub minute: u8,
    /// Second, 0 to 59.
    pub second: u8,
    /// Day of the week, 0 is Sunday.
    pub weekday: u8,
}

impl Moment {
    /// `seconds` after 1970 began, shown in universal time.
    #[must_use]
    pub fn utc(seconds: u64) -> Self {
        Self { seconds, offset_minutes: 0 }
    }

    /// `seconds` after 1970 began, shown `ahead` seconds (in whole minutes) ahead of universal time.
    ///
    /// An offset of a day or more is no zone and reads as universal time.
    #[must_use]
    pub fn local(seconds: u64, ahead: i64) -> Self {
        let minutes = i16::try_from(ahead / 60).ok().filter(|m| m.abs() < 24 * 60);
        Self { seconds, offset_minutes: minutes.unwrap_or(0) }
    }

    /// The calendar's view. Years past 9999 are shown as the last second of 9999.
    #[must_use]
    pub fn civil(self) -> Civil {
        const LAST: i64 = 253_402_300_799;
        let seconds = i64::try_from(self.seconds).unwrap_or(LAST).min(LAST);
        let shown = (seconds + i64::from(self.offset_minutes) * 60).min(LAST);
        let (days, rest) = (shown.div_euclid(86_400), shown.rem_euclid(86_400));
        let (year, month, day) = from_days(days);
        let small = |n: i64| u8::try_from(n).unwrap_or(0);
        Civil {
            year,
            month: small(month),
            day: small(day),
            hour: small(rest / 3600),
            minute: small(rest / 60 % 60),
            second: small(rest % 60),
            weekday: small((days + 4).rem_euclid(7)),
        }
    }

    /// `Wed, 25 Nov 2026 08:42:56 +0000` (RFC 5322, 3.3).
    #[must_use]
    pub fn rfc5322(self) -> String {
        let c = self.civil();
        let sign = if self.offset_minutes < 0 { '-' } else { '+' };
        let offset = self.offset_minutes.unsigned_abs();
        format!(
            "{}, {:02} {} {:04} {:02}:{:02}:{:02} {sign}{:02}{:02}",
            DAYS[usize::from(c.weekday % 7)],
            c.day,
            month_name(c),
            c.year,
            c.hour,
            c.minute,
            c.second,
            offset / 60,
            offset % 60,
        )
    }

    /// `Wed Nov 25 08:42:56 2026`, as ctime(3) and the "From " lines of mboxes have it.
    #[must_use]
    pub fn ctime(self) -> String {
        let c = self.civil();
        format!(
            "{} {} {:2} {:02}:{:02}:{:02} {:04}",
            DAYS[usize::from(c.weekday % 7)],
            month_name(c),
            c.day,
            c.hour,
            c.minute,
            c.second,
            c.year,
        )
    }
}

fn month_name(c: Civil) -> &'static str {
    MONTHS[usize::from(c.month.clamp(1, 12)) - 1]
}

/// Year, month and day of a day number, 0 being 1 January 1970; the Gregorian calendar repeats
/// every 146 097 days.
fn from_days(days: i64) -> (i64, i64, i64) {
    // Count from 1 March of year 0, so that the leap day is the last day of a year.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_dates() {
        let shown = |s, o| Moment::local(s, o).rfc5322();
        assert_eq!(shown(0, 0), "Thu, 01 Jan 1970 00:00:00 +0000");
        assert_eq!(shown(1_795_596_176, 0), "Wed, 25 Nov 2026 08:42:56 +0000");
        assert_eq!(shown(951_782_400, 19_800), "Tue, 29 Feb 2000 05:30:00 +0530");
        assert_eq!(shown(0, -12_600), "Wed, 31 Dec 1969 20:30:00 -0330");
        assert_eq!(Moment::utc(1_795_596_176).ctime(), "Wed Nov 25 08:42:56 2026");
        assert_eq!(Moment::utc(4_102_444_800).ctime(), "Fri Jan  1 00:00:00 2100");
        assert_eq!(Moment::utc(u64::MAX).civil().year, 9999);
    }

    proptest! {
        #[test]
        fn days_follow_each_other(day in 0u64..2_900_000) {
            let (a, b) = (Moment::utc(day * 86_400).civil(), Moment::utc((day + 1) * 86_400).civil());
            prop_assert_eq!((a.weekday + 1) % 7, b.weekday);
            prop_assert!((a.year, a.month, a.day) < (b.year, b.month, b.day));
            prop_assert!(b.day == a.day + 1 || b.day == 1);
        }

        #[test]
        fn never_panics(seconds in any::<u64>(), offset in any::<i64>()) {
            let m = Moment::local(seconds, offset);
            prop_assert_eq!(m.rfc5322().len(), 31);
            prop_assert_eq!(m.ctime().len(), 24);
        }
    }
}
