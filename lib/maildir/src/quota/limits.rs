//! The limits of a mailbox.

use std::fmt;
use std::str::FromStr;

/// Limits of a mailbox; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quota {
    /// Most bytes.
    pub bytes: Option<u64>,
    /// Most messages.
    pub messages: Option<u64>,
}

/// A text is not a quota.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}: expected NOQUOTA or BYTES[kKmMgG][S][,MESSAGES[C]]")]
pub struct QuotaError(String);

impl Quota {
    /// No limits.
    pub const NONE: Self = Self { bytes: None, messages: None };

    /// Is there any limit?
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.bytes.is_some() || self.messages.is_some()
    }
}

impl FromStr for Quota {
    type Err = QuotaError;

    /// Reads `NOQUOTA`, the empty string, or `BYTES[kKmMgG][S][,MESSAGES[C]]`; 0 is no limit.
    fn from_str(text: &str) -> Result<Self, QuotaError> {
        if text.is_empty() || text == "NOQUOTA" {
            return Ok(Self::NONE);
        }
        let mut quota = Self::NONE;
        for part in text.split(',') {
            let error = || QuotaError(text.to_owned());
            match part.strip_suffix('C') {
                Some(count) => quota.messages = Some(number(count).ok_or_else(error)?),
                None if part == text || text.starts_with(part) => {
                    quota.bytes = Some(scaled(part).ok_or_else(error)?);
                }
                None => quota.messages = Some(number(part).ok_or_else(error)?),
            }
        }
        Ok(Self { bytes: quota.bytes.filter(|&n| n > 0), messages: quota.messages.filter(|&n| n > 0) })
    }
}

fn number(digits: &str) -> Option<u64> {
    let all_digits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    // Sums are kept as i64.
    digits.parse().ok().filter(|&n| all_digits && n <= u64::MAX / 4)
}

fn scaled(text: &str) -> Option<u64> {
    let text = text.strip_suffix('S').unwrap_or(text);
    let (digits, factor) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 1 << 10),
        b'm' | b'M' => (&text[..text.len() - 1], 1 << 20),
        b'g' | b'G' => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    number(digits)?.checked_mul(factor).filter(|&n| n <= u64::MAX / 4)
}

impl fmt::Display for Quota {
    /// As the first line of `maildirsize` and the account's record have it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.bytes, self.messages) {
            (None, None) => f.write_str("NOQUOTA"),
            (Some(bytes), None) => write!(f, "{bytes}S"),
            (bytes, Some(messages)) => write!(f, "{}S,{messages}C", bytes.unwrap_or(0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forms() {
        let quota = |t: &str| t.parse::<Quota>().ok().map(|q| (q.bytes, q.messages));
        assert_eq!(quota("NOQUOTA"), Some((None, None)));
        assert_eq!(quota("1000S"), Some((Some(1000), None)));
        assert_eq!(quota("5kS,10C"), Some((Some(5120), Some(10))));
        assert_eq!(quota("2M,7"), Some((Some(2 << 20), Some(7))));
        assert_eq!(quota("0S,7C"), Some((None, Some(7))));
        assert_eq!(quota("7C"), Some((None, Some(7))));
        for bad in ["x", "1x", "-5S", "99999999999999999999S", "17179869184g", "S", ",", "1S,xC"] {
            assert_eq!(quota(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(bytes in prop::option::of(1u64..1 << 60), messages in prop::option::of(1u64..1 << 40)) {
            let quota = Quota { bytes, messages };
            prop_assert_eq!(quota.to_string().parse::<Quota>().unwrap(), quota);
        }

        #[test]
        fn garbage_never_panics(text in "\\PC{0,12}") {
            let _ = text.parse::<Quota>();
        }
    }
}
