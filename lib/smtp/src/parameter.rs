//! ESMTP parameters of MAIL and RCPT.

/// How the body is encoded (RFC 6152).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Body {
    /// Seven-bit text.
    #[default]
    SevenBit,
    /// Bytes above 127 occur.
    EightBit,
}

/// The parameters of one MAIL command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MailParameters {
    /// `SIZE=`: announced size in bytes (RFC 1870).
    pub size: Option<u64>,
    /// `BODY=`.
    pub body: Body,
    /// `AUTH=`: who submitted it, decoded from xtext; empty for `<>` (RFC 4954, section 5).
    pub auth: Option<Vec<u8>>,
    /// `SMTPUTF8` (RFC 6531).
    pub smtputf8: bool,
}

/// Why parameters are refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParameterError {
    /// A known parameter with a value it cannot have: 501.
    Value(&'static str),
    /// Not one of ours: 555.
    Unknown,
}

/// Reads what follows the path in MAIL; `smtputf8` says whether that extension was announced.
///
/// # Errors
/// See [`ParameterError`].
pub fn mail(text: &[u8], smtputf8: bool) -> Result<MailParameters, ParameterError> {
    let mut out = MailParameters::default();
    for word in text.split(|b| b" \t".contains(b)).filter(|w| !w.is_empty()) {
        let (name, value) = match word.iter().position(|&b| b == b'=') {
            Some(i) => (&word[..i], Some(&word[i + 1..])),
            None => (word, None),
        };
        if name.eq_ignore_ascii_case(b"SIZE") {
            out.size = Some(number(value).ok_or(ParameterError::Value("SIZE"))?);
        } else if name.eq_ignore_ascii_case(b"BODY") {
            out.body = match value {
                Some(v) if v.eq_ignore_ascii_case(b"7BIT") => Body::SevenBit,
                Some(v) if v.eq_ignore_ascii_case(b"8BITMIME") => Body::EightBit,
                _ => return Err(ParameterError::Value("BODY")),
            };
        } else if name.eq_ignore_ascii_case(b"AUTH") {
            out.auth = Some(value.and_then(xtext).ok_or(ParameterError::Value("AUTH"))?);
        } else if smtputf8 && name.eq_ignore_ascii_case(b"SMTPUTF8") && value.is_none() {
            out.smtputf8 = true;
        } else {
            return Err(ParameterError::Unknown);
        }
    }
    Ok(out)
}

/// One to twenty digits (RFC 1870); more than fits counts as the largest number there is.
fn number(value: Option<&[u8]>) -> Option<u64> {
    let text = value.filter(|v| (1..=20).contains(&v.len()) && v.iter().all(u8::is_ascii_digit))?;
    Some(std::str::from_utf8(text).ok()?.parse().unwrap_or(u64::MAX))
}

/// xtext of RFC 3461, section 4; `<>` reads as empty.
fn xtext(value: &[u8]) -> Option<Vec<u8>> {
    if value == b"<>" {
        return Some(Vec::new());
    }
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            b'+' => {
                let digits = tail.get(..2).filter(|d| d.iter().all(u8::is_ascii_hexdigit))?;
                out.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
                rest = &tail[2..];
            }
            b'!'..=b'~' if first != b'=' => out.push(first),
            _ => return None,
        }
    }
    Some(out)
}

/// Fuzz target: any bytes are parameters or an error.
pub fn fuzz_mail_parameters(bytes: &[u8]) {
    let _ = mail(bytes, true);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_ones() {
        let p = mail(b"SIZE=120 body=8bitmime AUTH=a+40b SMTPUTF8", true).unwrap();
        assert_eq!(p.size, Some(120));
        assert_eq!(p.body, Body::EightBit);
        assert_eq!(p.auth.unwrap(), b"a@b");
        assert!(p.smtputf8);
        assert_eq!(mail(b"AUTH=<>", false).unwrap().auth.unwrap(), b"");
        assert_eq!(mail(b"SIZE=99999999999999999999", false).unwrap().size, Some(u64::MAX));
    }

    #[test]
    fn wrong_values_and_unknown_names_differ() {
        assert_eq!(mail(b"BODY=BINARYMIME", false), Err(ParameterError::Value("BODY")));
        assert_eq!(mail(b"SIZE=1k", false), Err(ParameterError::Value("SIZE")));
        assert_eq!(mail(b"SIZE", false), Err(ParameterError::Value("SIZE")));
        assert_eq!(mail(b"AUTH=+4", false), Err(ParameterError::Value("AUTH")));
        assert_eq!(mail(b"SMTPUTF8", false), Err(ParameterError::Unknown));
        assert_eq!(mail(b"RET=HDRS", false), Err(ParameterError::Unknown));
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            fuzz_mail_parameters(&bytes);
        }
    }
}
