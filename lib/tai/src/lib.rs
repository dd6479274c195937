//! TAI64N time labels, as the daemontools family writes them.
//!
//! ```text
//! clock (Duration since 1970) ──► Label ──► 12 packed bytes   (status records)
//!                                   │  ──► "@" + 24 hex digits (log lines, rotated file names)
//!                                   ▼
//!                           Duration since 1970 (readers)
//! ```
//!
//! A label counts seconds from 2^62. Here TAI is **Unix time + 10**, constant, without a table of
//! leap seconds; labels of tools that apply the table lie 27 s away, so the two must not be mixed.
//! No clock is read here: time is passed in.

#![forbid(unsafe_code)]

use std::time::Duration;

/// Label seconds of TAI second 0; what lies below is before 1970.
pub const ORIGIN: u64 = 1 << 62;
/// Label seconds of 1970-01-01 00:00:00 UTC.
const UNIX_EPOCH_LABEL: u64 = ORIGIN + 10;
/// Bytes of the text form, `@` included.
pub const TEXT_LEN: usize = 25;
/// Bytes of the packed form.
pub const PACKED_LEN: usize = 12;

/// One instant: label seconds and nanoseconds.
///
/// Any 64-bit count and any 32-bit fraction can be read; [`Label::to_unix`] is what tells whether it
/// is a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    seconds: u64,
    nanoseconds: u32,
}

impl Label {
    /// A label of these label seconds (2^62 + TAI) and nanoseconds.
    #[must_use]
    pub fn new(seconds: u64, nanoseconds: u32) -> Self {
        Self { seconds, nanoseconds }
    }

    /// The label of a time since 1970.
    #[must_use]
    pub fn from_unix(since_epoch: Duration) -> Self {
        Self {
            seconds: UNIX_EPOCH_LABEL.saturating_add(since_epoch.as_secs()),
            nanoseconds: since_epoch.subsec_nanos(),
        }
    }

    /// The time since 1970; `None` before 1970 and for a fraction of a second or more.
    #[must_use]
    pub fn to_unix(self) -> Option<Duration> {
        let seconds = self.seconds.checked_sub(UNIX_EPOCH_LABEL)?;
        (self.nanoseconds < 1_000_000_000).then(|| Duration::new(seconds, self.nanoseconds))
    }

    /// Whole seconds since 1970, from -10 on; `None` below [`ORIGIN`] and beyond what can be counted.
    #[must_use]
    pub fn unix_seconds(self) -> Option<i64> {
        i64::try_from(self.seconds.checked_sub(ORIGIN)?).ok().map(|tai| tai - 10)
    }

    /// Label seconds, 2^62 + TAI.
    #[must_use]
    pub fn seconds(self) -> u64 {
        self.seconds
    }

    /// The fraction, in nanoseconds.
    #[must_use]
    pub fn nanoseconds(self) -> u32 {
        self.nanoseconds
    }

    /// The packed form: 8 bytes of seconds, 4 of nanoseconds, big endian.
    #[must_use]
    pub fn pack(self) -> [u8; PACKED_LEN] {
        let mut out = [0; PACKED_LEN];
        out[..8].copy_from_slice(&self.seconds.to_be_bytes());
        out[8..].copy_from_slice(&self.nanoseconds.to_be_bytes());
        out
    }

    /// Reads the packed form.
    #[must_use]
    pub fn unpack(packed: [u8; PACKED_LEN]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = packed;
        Self {
            seconds: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            nanoseconds: u32::from_be_bytes([i, j, k, l]),
        }
    }

    /// The text form: `@` and 24 lower-case hex digits.
    #[must_use]
    pub fn text(self) -> [u8; TEXT_LEN] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut out = [b'@'; TEXT_LEN];
        for (pair, byte) in out[1..].chunks_exact_mut(2).zip(self.pack()) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        out
    }

    /// Reads a text label at the start of `line`; the rest follows the 24th digit, whatever it is.
    ///
    /// Upper-case digits are read too. `None` when there are not exactly `@` and 24 digits.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<(Self, &[u8])> {
        let (digits, rest) = line.strip_prefix(b"@")?.split_at_checked(2 * PACKED_LEN)?;
        let mut packed = [0; PACKED_LEN];
        for (byte, pair) in packed.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = hex(pair[0])? << 4 | hex(pair[1])?;
        }
        Some((Self::unpack(packed), rest))
    }

    /// The next label, one nanosecond later.
    #[must_use]
    fn successor(self) -> Self {
        if self.nanoseconds >= 999_999_999 {
            return Self { seconds: self.seconds.saturating_add(1), nanoseconds: 0 };
        }
        Self { nanoseconds: self.nanoseconds + 1, ..self }
    }
}

fn hex(digit: u8) -> Option<u8> {
    // Every line of a log has 24 of them: a table is several times as fast as asking.
    const VALUES: [u8; 256] = {
        let mut values = [NO_DIGIT; 256];
        let mut value = 0;
        while value < 16 {
            values[b"0123456789abcdef"[value as usize] as usize] = value;
            values[b"0123456789ABCDEF"[value as usize] as usize] = value;
            value += 1;
        }
        values
    };
    const NO_DIGIT: u8 = 0xff;
    let value = VALUES[usize::from(digit)];
    (value != NO_DIGIT).then_some(value)
}

/// Labels that only grow, also when the clock is set back: file names made from them stay in order
/// and never repeat.
#[derive(Debug, Default)]
pub struct Ascending {
    last: Option<Label>,
}

impl Ascending {
    /// The label for `since_epoch`, or the one after the last if that is later.
    pub fn label(&mut self, since_epoch: Duration) -> Label {
        let now = Label::from_unix(since_epoch);
        let label = match self.last {
            Some(last) if last >= now => last.successor(),
            _ => now,
        };
        self.last = Some(label);
        label
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_offset_is_ten_seconds() {
        let time = Duration::new(935_467_445, 787_492_500);
        let label = Label::from_unix(time);
        assert_eq!(&label.text(), b"@4000000037c219bf2ef02e94");
        assert_eq!(Label::parse(b"@4000000037c219bf2ef02e94 x"), Some((label, &b" x"[..])));
        assert_eq!(label.to_unix(), Some(time));
    }

    #[test]
    fn what_is_no_label_is_none() {
        for line in [
            &b""[..],
            b"@",
            b"@notatai",
            b"@4000 x",
            b"4000000037c219bf2ef02e94",
            b"@4000000037c219bf2ef02e9",
        ] {
            assert_eq!(Label::parse(line), None, "{line:?}");
        }
        let (_, rest) = Label::parse(b"@4000000037c219bf2ef02e94a").unwrap();
        assert_eq!(rest, b"a", "a 25th digit is not part of the label");
    }

    #[test]
    fn nonsense_times_are_none() {
        assert_eq!(Label::unpack([0; 12]).to_unix(), None);
        assert_eq!(Label::unpack([0xff; 12]).to_unix(), None);
        assert_eq!(Label::unpack([0xff; 12]).unix_seconds(), None);
        assert_eq!(Label::new(ORIGIN - 1, 0).unix_seconds(), None);
        assert_eq!(Label::new(ORIGIN, 0).unix_seconds(), Some(-10));
    }

    #[test]
    fn labels_grow_when_the_clock_steps_back() {
        let mut ascending = Ascending::default();
        let first = ascending.label(Duration::new(100, 999_999_999));
        let second = ascending.label(Duration::new(50, 0));
        let third = ascending.label(Duration::new(200, 0));
        assert!(first < second && second < third);
        assert_eq!(second.nanoseconds(), 0);
    }

    proptest! {
        #[test]
        fn text_and_packed_forms_round_trip(packed: [u8; 12], rest: Vec<u8>) {
            let label = Label::unpack(packed);
            prop_assert_eq!(label.pack(), packed);
            let mut line = label.text().to_vec();
            line.extend(&rest);
            prop_assert_eq!(Label::parse(&line), Some((label, &rest[..])));
        }

        #[test]
        fn unix_time_round_trips_and_keeps_order(a in 0u64..1 << 40, b in 0u64..1 << 40, n in 0u32..1_000_000_000) {
            let (x, y) = (Duration::new(a, n), Duration::new(b, n));
            prop_assert_eq!(Label::from_unix(x).to_unix(), Some(x));
            prop_assert_eq!(x.cmp(&y), Label::from_unix(x).text().cmp(&Label::from_unix(y).text()));
        }

        #[test]
        fn parse_never_panics(line: Vec<u8>) {
            let _ = Label::parse(&line);
        }
    }
}
