//! The quota string of the `pw_shell` column: `NOQUOTA`, or `<bytes>[kKmMgG][S][,<count>C]`.

use std::fmt;

use crate::Invalid;

/// How much a mailbox may hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    /// Bytes of all messages; `None`: no limit.
    pub bytes: Option<u64>,
    /// Number of messages; `None`: no limit.
    pub messages: Option<u64>,
}

impl Quota {
    /// No limit at all.
    pub const NONE: Self = Self { bytes: None, messages: None };

    /// Reads a quota string. The empty string and 0 are no limit, as Maildir++ has it.
    ///
    /// # Errors
    /// It does not follow the syntax, a number is too large, or the text passes the 30 bytes of its column.
    pub fn parse(text: &[u8]) -> Result<Self, Invalid> {
        const EXPECTED: &str = "expected NOQUOTA or BYTES[k|M|G][S][,COUNTC], as in 50M,1000C";
        let invalid = || Invalid::new("quota", text, EXPECTED);
        let mut quota = Self::NONE;
        if text.is_empty() || text == b"NOQUOTA" {
            return Ok(quota);
        }
        let (mut bytes_seen, mut messages_seen) = (false, false);
        for part in text.split(|&b| b == b',') {
            let digits = part.iter().take_while(|b| b.is_ascii_digit()).count();
            let number = part[..digits]
                .iter()
                .try_fold(0u64, |n, &d| n.checked_mul(10)?.checked_add(u64::from(d - b'0')))
                .filter(|_| digits > 0)
                .ok_or_else(invalid)?;
            let (seen, slot, factor) = match &part[digits..] {
                b"C" => (&mut messages_seen, &mut quota.messages, 1),
                b"" | b"S" => (&mut bytes_seen, &mut quota.bytes, 1),
                b"k" | b"K" | b"kS" | b"KS" => (&mut bytes_seen, &mut quota.bytes, 1024),
                b"m" | b"M" | b"mS" | b"MS" => (&mut bytes_seen, &mut quota.bytes, 1024 * 1024),
                b"g" | b"G" | b"gS" | b"GS" => (&mut bytes_seen, &mut quota.bytes, 1024 * 1024 * 1024),
                _ => return Err(invalid()),
            };
            if std::mem::replace(seen, true) {
                return Err(invalid());
            }
            *slot = Some(number.checked_mul(factor).ok_or_else(invalid)?).filter(|&n| n > 0);
        }
        if quota.to_string().len() > 30 { Err(invalid()) } else { Ok(quota) }
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.bytes, self.messages) {
            (None, None) => f.write_str("NOQUOTA"),
            (Some(b), None) => write!(f, "{b}S"),
            (None, Some(c)) => write!(f, "{c}C"),
            (Some(b), Some(c)) => write!(f, "{b}S,{c}C"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_syntax() {
        let q = |bytes, messages| Quota { bytes, messages };
        for (text, quota) in [
            ("NOQUOTA", Quota::NONE),
            ("", Quota::NONE),
            ("0", Quota::NONE),
            ("5000000S,1000C", q(Some(5_000_000), Some(1000))),
            ("50M", q(Some(52_428_800), None)),
            ("2kS", q(Some(2048), None)),
            ("1g,5C", q(Some(1 << 30), Some(5))),
            ("7C", q(None, Some(7))),
        ] {
            assert_eq!(Quota::parse(text.as_bytes()).unwrap(), quota, "{text}");
        }
        for bad in [
            "M",
            "5X",
            "5MM",
            "-1",
            "1,2",
            "1C,2C",
            "99999999999999999999",
            "18446744073709551615G",
            "1S,",
            "noquota ",
        ] {
            assert!(Quota::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn printing_and_reading_agree(text in "[0-9kKmMgGSC,]{0,24}") {
            if let Ok(q) = Quota::parse(text.as_bytes()) {
                prop_assert_eq!(Quota::parse(q.to_string().as_bytes()).unwrap(), q);
            }
        }
    }
}
