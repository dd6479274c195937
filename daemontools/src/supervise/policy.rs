//! Small files of the service directory that set limits, and how soon a service is started again.

use std::time::Duration;

/// The file `backoff`: `min max factor`, milliseconds and a number with at most three decimals.
///
/// Two starts are at least `min` apart; each end that nobody asked for multiplies that by `factor`, up
/// to `max`, until the service has run for `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    /// In thousandths, at least 1000.
    factor: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { min: Duration::from_secs(1), max: Duration::from_secs(1), factor: 1000 }
    }
}

impl Backoff {
    /// Reads the first line of the file; `None` when it is not as described.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(text.split(|&b| b == b'\n').next()?).ok()?;
        let mut words = line.split_ascii_whitespace();
        let mut milliseconds = || words.next()?.parse::<u32>().ok();
        let (min, max) = (milliseconds()?, milliseconds()?);
        let factor = thousandths(words.next()?).filter(|&f| f >= 1000)?;
        if words.next().is_some() {
            return None;
        }
        // A loop without any pause would take the machine for itself.
        let min = Duration::from_millis(u64::from(min.max(1)));
        Some(Self { min, max: Duration::from_millis(u64::from(max)).max(min), factor })
    }

    /// Time from one start to the next after `failures` ends in a row that nobody asked for.
    #[must_use]
    pub fn delay(&self, failures: u32) -> Duration {
        let mut delay = self.min;
        for _ in 0..failures {
            let next = delay.saturating_mul(self.factor) / 1000;
            if next <= delay || next >= self.max {
                return next.clamp(self.min, self.max);
            }
            delay = next;
        }
        delay
    }

    /// The least time between two starts.
    #[must_use]
    pub fn min(&self) -> Duration {
        self.min
    }

    /// A service that ran for so long starts over with `min`.
    #[must_use]
    pub fn max(&self) -> Duration {
        self.max
    }
}

/// `2`, `1.5`, `1.125`: in thousandths.
fn thousandths(word: &str) -> Option<u32> {
    let (whole, fraction) = word.split_once('.').unwrap_or((word, "0"));
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 3 {
        return None;
    }
    let fraction = format!("{fraction:0<3}").parse::<u32>().ok()?;
    whole.parse::<u32>().ok()?.checked_mul(1000)?.checked_add(fraction)
}

/// The decimal number that is alone on the first line of a file.
#[must_use]
pub fn number(text: &[u8]) -> Option<u64> {
    let line = text.split(|&b| b == b'\n').next()?;
    std::str::from_utf8(line).ok()?.trim().parse().ok()
}

/// The number of a descriptor for the service: 3 and up, as the first three are its standard ones.
#[must_use]
pub fn descriptor(text: &[u8]) -> Option<i32> {
    number(text).and_then(|n| i32::try_from(n).ok()).filter(|&n| n > 2 && n < 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn delays(text: &str) -> Vec<u128> {
        let backoff = Backoff::parse(text.as_bytes()).unwrap();
        (0..6).map(|n| backoff.delay(n).as_millis()).collect()
    }

    #[test]
    fn delays_grow_by_the_factor_up_to_the_maximum() {
        assert_eq!(delays("1000 1000 1"), [1000; 6]);
        assert_eq!(Backoff::parse(b"1000 1000 1\n"), Some(Backoff::default()));
        assert_eq!(delays("100 1000 2"), [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(delays("100 300 1.5"), [100, 150, 225, 300, 300, 300]);
        assert_eq!(delays("50 60000 1"), [50; 6]);
        assert_eq!(delays("0 0 1"), [1; 6]);
        assert_eq!(delays("500 10 2"), [500; 6], "max is not below min");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in
            ["", "1", "1 2", "1 2 x", "1 2 0.5", "-1 2 1", "1 2 3 4", "1 2 1.", "1 2 1.0001", "\u{e9}"]
        {
            assert_eq!(Backoff::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(number(b"17\nx"), Some(17));
        assert_eq!(number(b""), None);
        assert_eq!(descriptor(b"3\n"), Some(3));
        assert_eq!((descriptor(b"2"), descriptor(b"99999")), (None, None));
    }

    proptest! {
        #[test]
        fn delays_stay_between_the_bounds_and_never_shrink(min in 0u32.., max in 0u32.., factor in 1000u32.., n in 0u32..200) {
            let text = format!("{min} {max} {}.{:03}", factor / 1000, factor % 1000);
            let backoff = Backoff::parse(text.as_bytes()).unwrap();
            prop_assert!(backoff.delay(n) >= backoff.min() && backoff.delay(n) <= backoff.max());
            prop_assert!(backoff.delay(n) <= backoff.delay(n + 1));
        }

        #[test]
        fn parsing_never_panics(text: Vec<u8>) {
            let _ = (Backoff::parse(&text), number(&text), descriptor(&text));
        }
    }
}
