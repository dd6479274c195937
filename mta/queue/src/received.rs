//! The Received field that starts every message in the queue.

/// What the field says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Process id of the injector.
    pub pid: u32,
    /// Name of this host; `None` hides it, and the peer's address with it.
    pub host: Option<Vec<u8>>,
    /// Who offered the message.
    pub by: Invoker,
    /// Arrival, in seconds since 1970.
    pub time: u64,
    /// Seconds that local time is ahead of UTC.
    pub offset: i64,
}

/// Who offered a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invoker {
    /// The user alias: a forward.
    Alias,
    /// qmail-send: a bounce.
    Bounce,
    /// Anybody else.
    User {
        /// Real user id.
        uid: u32,
        /// Address of the peer, when there is one.
        peer: Option<Vec<u8>>,
    },
}

impl Received {
    /// The field with its newline.
    #[must_use]
    pub fn field(&self) -> Vec<u8> {
        let mut out = format!("Received: indimail-mta queue {} ", self.pid).into_bytes();
        if let Some(host) = &self.host {
            out.extend_from_slice(b"by host ");
            out.extend(host.iter().map(|&b| if b.is_ascii_graphic() { b } else { b'_' }));
            out.extend_from_slice(b"\n ");
        }
        out.extend_from_slice(b"(invoked ");
        match &self.by {
            Invoker::Alias => out.extend_from_slice(b"by alias"),
            Invoker::Bounce => out.extend_from_slice(b"for bounce"),
            Invoker::User { uid, peer } => {
                if let Some(peer) = peer {
                    out.extend_from_slice(b"from network");
                    if self.host.is_some() {
                        out.push(b' ');
                        out.extend(peer.iter().map(|&b| if b.is_ascii_graphic() { b } else { b'_' }));
                    }
                    out.extend_from_slice(b", ");
                }
                out.extend_from_slice(format!("by uid {uid}").as_bytes());
            }
        }
        out.extend_from_slice(b"); ");
        out.extend_from_slice(date(self.time, self.offset).as_bytes());
        out.push(b'\n');
        out
    }
}

/// A time as RFC 5322 has it: `Wed, 25 Nov 2026 08:34:33 +0100`.
///
/// `offset` is how many seconds local time is ahead of UTC.
#[must_use]
pub fn date(time: u64, offset: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let local = time.saturating_add_signed(offset);
    let (days, seconds) = (local / 86_400, local % 86_400);
    let (year, month, day) = civil(days);
    let weekday = DAYS[usize::try_from(days % 7).unwrap_or(0)];
    let sign = if offset < 0 { '-' } else { '+' };
    let minutes = offset.unsigned_abs() / 60;
    format!(
        "{weekday}, {day:02} {} {year:04} {:02}:{:02}:{:02} {sign}{:02}{:02}",
        MONTHS[month],
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        minutes / 60,
        minutes % 60,
    )
}

/// Year, month from 0 and day of month of a day counted from 1970-01-01.
fn civil(days: u64) -> (u64, usize, u64) {
    // Counted in years that start in March, leap days come last in a period of 400 years.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12;
    let year = year_of_era + era * 400 + u64::from(month < 2);
    (year, usize::try_from(month).unwrap_or(0), day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(by: Invoker, host: Option<&[u8]>) -> String {
        let host = host.map(<[u8]>::to_vec);
        let field = Received { pid: 42, host, by, time: 1_795_595_673, offset: 3600 }.field();
        String::from_utf8(field).unwrap()
    }

    #[test]
    fn the_field_has_its_fixed_form() {
        let user = |peer: Option<&[u8]>| Invoker::User { uid: 1000, peer: peer.map(<[u8]>::to_vec) };
        assert_eq!(
            received(user(Some(b"192.0.2.1")), Some(b"mx.example")),
            "Received: indimail-mta queue 42 by host mx.example\n (invoked from network 192.0.2.1, by uid 1000); \
             Wed, 25 Nov 2026 09:34:33 +0100\n"
        );
        assert!(received(user(None), Some(b"h")).contains("(invoked by uid 1000); "));
        assert!(received(Invoker::Alias, Some(b"h")).contains("(invoked by alias); "));
        assert!(received(Invoker::Bounce, Some(b"h")).contains("(invoked for bounce); "));
        assert_eq!(
            received(user(Some(b"192.0.2.1")), None),
            "Received: indimail-mta queue 42 (invoked from network, by uid 1000); Wed, 25 Nov 2026 09:34:33 +0100\n"
        );
    }

    #[test]
    fn hostile_names_cannot_add_lines() {
        let field = received(Invoker::User { uid: 1, peer: Some(b"1\nX: y".to_vec()) }, Some(b"h\nEvil: 1"));
        assert_eq!(field.lines().count(), 2, "{field}");
    }

    #[test]
    fn dates_are_right_around_leap_days() {
        assert_eq!(date(0, 0), "Thu, 01 Jan 1970 00:00:00 +0000");
        assert_eq!(date(951_782_399, 0), "Mon, 28 Feb 2000 23:59:59 +0000");
        assert_eq!(date(951_782_400, 0), "Tue, 29 Feb 2000 00:00:00 +0000");
        assert_eq!(date(4_107_542_400, 0), "Mon, 01 Mar 2100 00:00:00 +0000");
        assert_eq!(date(951_782_400, -12_600), "Mon, 28 Feb 2000 20:30:00 -0330");
        assert_eq!(date(1_735_689_599, 0), "Tue, 31 Dec 2024 23:59:59 +0000");
    }
}
