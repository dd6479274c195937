//! Labels as decimal numbers, and back.

use tai::{Label, TEXT_LEN};

use super::line_starts::Conversion;

/// Can the line still begin with a label?
pub(super) fn may_become_label(start: &[u8]) -> bool {
    start.first().is_none_or(|&b| b == b'@') && start.iter().skip(1).all(u8::is_ascii_hexdigit)
}

/// Label to seconds since 1970.
#[derive(Debug, Default)]
pub struct ToUnix(Vec<u8>);

impl Conversion for ToUnix {
    const LONGEST: usize = TEXT_LEN;

    fn may_become(&self, start: &[u8]) -> bool {
        may_become_label(start)
    }

    fn convert(&mut self, line: &[u8]) -> Option<(&[u8], usize)> {
        let (label, _) = Label::parse(line)?;
        let seconds = u64::try_from(label.unix_seconds()?).ok()?;
        decimal(&mut self.0, seconds, 9, label.nanoseconds());
        Some((&self.0, TEXT_LEN))
    }
}

/// Label to ten digits of TAI seconds and nine of nanoseconds.
#[derive(Debug, Default)]
pub struct ToTai(Vec<u8>);

impl Conversion for ToTai {
    const LONGEST: usize = TEXT_LEN;

    fn may_become(&self, start: &[u8]) -> bool {
        may_become_label(start)
    }

    fn convert(&mut self, line: &[u8]) -> Option<(&[u8], usize)> {
        let (label, _) = Label::parse(line)?;
        // Ten digits hold 32 bits; later labels would come back as earlier ones.
        let seconds = u32::try_from(label.seconds().checked_sub(tai::ORIGIN)?).ok()?;
        decimal(&mut self.0, seconds.into(), 10, label.nanoseconds());
        Some((&self.0, TEXT_LEN))
    }
}

/// Decimal TAI seconds with a fraction to a label.
#[derive(Debug, Default)]
pub struct FromTai(Vec<u8>);

/// Digits of the largest number of seconds.
const SECOND_DIGITS: usize = 19;
/// Digits of nanoseconds.
const FRACTION_DIGITS: usize = 9;

impl Conversion for FromTai {
    const LONGEST: usize = SECOND_DIGITS + 1 + FRACTION_DIGITS;

    fn may_become(&self, start: &[u8]) -> bool {
        let mut parts = start.splitn(2, |&b| b == b'.');
        let seconds = parts.next().unwrap_or_default();
        let fraction = parts.next().unwrap_or_default();
        let starts_well = start.first() != Some(&b'.') && seconds.len() <= SECOND_DIGITS;
        starts_well
            && fraction.len() < FRACTION_DIGITS
            && [seconds, fraction].concat().iter().all(u8::is_ascii_digit)
    }

    fn convert(&mut self, line: &[u8]) -> Option<(&[u8], usize)> {
        let whole = digits(line, SECOND_DIGITS);
        let fraction = digits(line[whole..].strip_prefix(b".")?, FRACTION_DIGITS);
        if whole == 0 || fraction == 0 {
            return None;
        }
        let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<u64>().ok();
        let seconds = number(&line[..whole])?;
        let nanoseconds = (fraction..FRACTION_DIGITS)
            .try_fold(number(&line[whole + 1..whole + 1 + fraction])?, |n, _| n.checked_mul(10))?;
        // From 2^62 on the count would leave the range of labels.
        let seconds = (seconds < tai::ORIGIN).then(|| tai::ORIGIN + seconds)?;
        let label = Label::new(seconds, u32::try_from(nanoseconds).ok()?);
        self.0.clear();
        self.0.extend_from_slice(&label.text());
        Some((&self.0, whole + 1 + fraction))
    }
}

/// Makes `text` the seconds with at least so many digits, a point, and nine digits of nanoseconds.
fn decimal(text: &mut Vec<u8>, seconds: u64, width: usize, nanoseconds: u32) {
    text.clear();
    put(text, seconds, width);
    text.push(b'.');
    put(text, nanoseconds.into(), 9);
}

/// Appends a number with at least so many digits: what `format!` does, at a fraction of its cost.
pub(super) fn put(out: &mut Vec<u8>, number: u64, width: usize) {
    let (mut digits, mut at, mut rest) = ([b'0'; 20], 20, number);
    while rest > 0 {
        at -= 1;
        digits[at] = b"0123456789"[usize::try_from(rest % 10).unwrap_or(0)];
        rest /= 10;
    }
    out.extend_from_slice(&digits[at.min(20 - width)..]);
}

/// How many digits does it start with, counting no more than `most`?
fn digits(text: &[u8], most: usize) -> usize {
    text.iter().take(most).take_while(|b| b.is_ascii_digit()).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn converted(mut conversion: impl Conversion, line: &str) -> String {
        let line = line.as_bytes();
        let text = match conversion.convert(line) {
            Some((text, used)) => [text, &line[used..]].concat(),
            None => line.to_vec(),
        };
        String::from_utf8(text).unwrap()
    }

    fn unix(line: &str) -> String {
        converted(ToUnix::default(), line)
    }

    fn to_tai(line: &str) -> String {
        converted(ToTai::default(), line)
    }

    fn from_tai(line: &str) -> String {
        converted(FromTai::default(), line)
    }

    #[test]
    fn seconds_since_1970_have_nine_digits_at_least() {
        assert_eq!(unix("@4000000037c219bf2ef02e94 x"), "935467445.787492500 x");
        assert_eq!(unix("@400000000000000f00000001"), "000000005.000000001");
        assert_eq!(unix("@40000002540be40a00000001a"), "10000000000.000000001a");
        for stays in
            ["@notatai", "@4000 x", "", "@", "@3fffffffffffffff00000000", "@4000000000000009000000001"]
        {
            assert_eq!(unix(stays), stays);
        }
    }

    #[test]
    fn tai_seconds_go_both_ways_beyond_2038() {
        for (label, tai) in [
            ("@4000000037c219bf2ef02e94 x", "0935467455.787492500 x"),
            ("@40000000ffffffff00000000", "4294967295.000000000"),
            ("@400000008000000a3b9ac9ff", "2147483658.999999999"),
        ] {
            assert_eq!(to_tai(label), tai);
            assert_eq!(from_tai(tai), label);
        }
        assert_eq!(to_tai("@400000010000000000000000"), "@400000010000000000000000");
    }

    #[test]
    fn lines_without_a_number_get_no_label() {
        for stays in ["", "\n", "word", ".5", "5", "5.", "5. x", "99999999999999999999.5", "-1.5"] {
            assert_eq!(from_tai(stays), stays);
        }
        assert_eq!(from_tai("5.5 x"), "@40000000000000051dcd6500 x");
        assert_eq!(from_tai("5.0000000019"), "@4000000000000005000000019");
    }

    proptest! {
        #[test]
        fn what_is_held_back_is_what_may_be_converted(seconds in 0u64..1 << 62, fraction in "[0-9]{1,9}") {
            let line = format!("{seconds}.{fraction}");
            prop_assert!(FromTai::default().convert(line.as_bytes()).is_some());
            for at in 0..line.len() {
                prop_assert!(FromTai::default().may_become(&line.as_bytes()[..at]), "{}", &line[..at]);
            }
        }
    }
}
