//! Addresses: their two parts, quoting, and lists of them in header fields.

use std::ops::Range;

mod lexer;
mod list;

pub use list::{Found, SyntaxError, list};

/// A mail address: a local part without quoting, and a domain if there is one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Address {
    /// What stands before the last `@`, as bytes that mean themselves.
    pub local: Vec<u8>,
    /// What stands after it.
    pub domain: Option<Vec<u8>>,
}

impl Address {
    /// Reads an envelope address: split at the last `@`, nothing is quoted.
    #[must_use]
    pub fn from_envelope(bytes: &[u8]) -> Self {
        match bytes.iter().rposition(|&b| b == b'@') {
            Some(at) => Self { local: bytes[..at].to_vec(), domain: Some(bytes[at + 1..].to_vec()) },
            None => Self { local: bytes.to_vec(), domain: None },
        }
    }

    /// The envelope form: `local@domain`, nothing quoted.
    #[must_use]
    pub fn to_envelope(&self) -> Vec<u8> {
        self.joined(self.local.clone())
    }

    /// The form for header fields and SMTP commands: the local part in quotes when it needs them.
    #[must_use]
    pub fn to_header(&self) -> Vec<u8> {
        self.joined(quote(&self.local))
    }

    fn joined(&self, mut out: Vec<u8>) -> Vec<u8> {
        if let Some(domain) = &self.domain {
            out.push(b'@');
            out.extend_from_slice(domain);
        }
        out
    }
}

/// A local part as a header field must show it (RFC 5321, 4.1.2): in quotes unless it is atoms
/// with single dots between them. The empty local part stays empty, the null address is `<>`.
#[must_use]
pub fn quote(local: &[u8]) -> Vec<u8> {
    let plain = local.split(|&b| b == b'.').all(|atom| !atom.is_empty() && atom.iter().all(|&b| is_atom(b)));
    if plain || local.is_empty() {
        return local.to_vec();
    }
    let mut out = vec![b'"'];
    for &byte in local {
        if b"\"\\\r\n".contains(&byte) {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
    out
}

/// Removes the quotes of a local part: `"a b"` and `a\ b` become `a b`; bytes outside quotes mean
/// themselves. `None` when a quote or a backslash has no end.
#[must_use]
pub fn unquote(local: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(local.len());
    let (mut quoted, mut bytes) = (false, local.iter());
    while let Some(&byte) = bytes.next() {
        match byte {
            b'"' => quoted = !quoted,
            b'\\' => out.push(*bytes.next()?),
            _ => out.push(byte),
        }
    }
    (!quoted).then_some(out)
}

/// May this byte stand in an atom? (Bytes above 127 may, RFC 6531.)
fn is_atom(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 128 || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

/// Puts `replacements` (in ascending order, not overlapping) into `text`.
#[must_use]
pub fn splice(text: &[u8], replacements: &[(Range<usize>, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    for (place, new) in replacements {
        out.extend_from_slice(text.get(at..place.start).unwrap_or_default());
        out.extend_from_slice(new);
        at = place.end;
    }
    out.extend_from_slice(text.get(at..).unwrap_or_default());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quoting_only_where_needed() {
        for plain in ["joe", "a.b", "x+y=z", "user-ext", "j\u{f6}rg"] {
            assert_eq!(quote(plain.as_bytes()), plain.as_bytes());
        }
        assert_eq!(quote(b"a b"), b"\"a b\"");
        assert_eq!(quote(b".a"), b"\".a\"");
        assert_eq!(quote(b"a..b"), b"\"a..b\"");
        assert_eq!(quote(b"a\"\\"), b"\"a\\\"\\\\\"");
        assert_eq!(Address::from_envelope(b"a@b@c").to_header(), b"\"a@b\"@c");
        assert_eq!(Address::from_envelope(b"").to_header(), b"");
    }

    #[test]
    fn unquoting() {
        assert_eq!(unquote(b"\"a b\"").unwrap(), b"a b");
        assert_eq!(unquote(b"a\\ b").unwrap(), b"a b");
        assert_eq!(unquote(b"\"a"), None);
        assert_eq!(unquote(b"a\\"), None);
    }

    proptest! {
        #[test]
        fn quote_and_unquote_are_inverse(local in prop::collection::vec(any::<u8>(), 0..30)) {
            prop_assert_eq!(unquote(&quote(&local)).unwrap(), local.clone());
            let envelope = [&local[..], b"@x.y"].concat();
            prop_assert_eq!(Address::from_envelope(&envelope).to_envelope(), envelope);
        }
    }
}
