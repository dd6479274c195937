//! The quota string of the `pw_shell` column: the syntax of [`maildir::Quota`], at most 30 bytes.

use maildir::Quota;

use crate::Invalid;

/// Bytes of the column.
const COLUMN: usize = 30;

/// Reads a quota string: `NOQUOTA`, empty, or `BYTES[k|M|G][S][,COUNTC]`; 0 is no limit, as Maildir++ has it.
///
/// # Errors
/// It does not follow the syntax, a number is too large, or the text passes the 30 bytes of its column.
pub fn parse_quota(text: &[u8]) -> Result<Quota, Invalid> {
    let quota = std::str::from_utf8(text).ok().and_then(|t| t.parse::<Quota>().ok());
    quota.filter(|q| q.to_string().len() <= COLUMN).ok_or_else(|| {
        Invalid::new("quota", text, "expected NOQUOTA or BYTES[k|M|G][S][,COUNTC], as in 50M,1000C")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_syntax_and_the_column() {
        let quota = |bytes, messages| Quota { bytes, messages };
        for (text, read) in [
            ("NOQUOTA", Quota::NONE),
            ("", Quota::NONE),
            ("0", Quota::NONE),
            ("5000000S,1000C", quota(Some(5_000_000), Some(1000))),
            ("50M", quota(Some(52_428_800), None)),
            ("2kS", quota(Some(2048), None)),
            ("7C", quota(None, Some(7))),
        ] {
            assert_eq!(parse_quota(text.as_bytes()).unwrap(), read, "{text}");
        }
        let long = format!("{0}S,{0}C", 10u64.pow(18));
        for bad in ["M", "5X", "5MM", "-1", "noquota ", "18446744073709551615G", &long] {
            assert!(parse_quota(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(parse_quota(b"\xff").is_err());
    }
}
