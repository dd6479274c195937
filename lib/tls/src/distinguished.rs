//! Subject and issuer of a certificate, as text of RFC 4514 (`CN=jane,O=Example`), from its DER.
//!
//! Only the way to the two names is read; whether the certificate is good was decided by the verifier.

/// The two names of a certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Whose it is.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
}

const INTEGER: u8 = 0x02;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;
const BMP_STRING: u8 = 0x1e;

/// Attribute types with short names, by their DER.
const TYPES: [(&[u8], &str); 10] = [
    (&[0x55, 4, 3], "CN"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 9], "STREET"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x55, 4, 5], "serialNumber"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1], "emailAddress"),
    (&[9, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], "DC"),
];

/// The names of a certificate; `None` when its DER cannot be read.
#[must_use]
pub fn names(certificate: &[u8]) -> Option<Names> {
    let mut outer = Der(certificate).expect(SEQUENCE)?;
    let mut inner = outer.expect(SEQUENCE)?;
    if inner.0.first() == Some(&VERSION) {
        inner.next()?;
    }
    inner.expect(INTEGER)?;
    inner.expect(SEQUENCE)?;
    let issuer = name(inner.expect(SEQUENCE)?)?;
    inner.expect(SEQUENCE)?;
    let subject = name(inner.expect(SEQUENCE)?)?;
    Some(Names { subject, issuer })
}

/// A sequence of sets of attributes, printed last first.
fn name(mut der: Der<'_>) -> Option<String> {
    let mut parts = Vec::new();
    while !der.0.is_empty() {
        let mut set = der.expect(SET)?;
        let mut attributes = Vec::new();
        while !set.0.is_empty() {
            let mut attribute = set.expect(SEQUENCE)?;
            let kind = attribute.expect(OID)?.0;
            let (tag, value) = attribute.next()?;
            let shown = TYPES.iter().find(|(oid, _)| *oid == kind).map(|(_, n)| (*n).to_owned());
            let shown = shown.or_else(|| dotted(kind))?;
            attributes.push(format!("{shown}={}", escaped(&text(tag, value))));
        }
        parts.push(attributes.join("+"));
    }
    parts.reverse();
    Some(parts.join(","))
}

fn text(tag: u8, value: &[u8]) -> String {
    if tag == BMP_STRING {
        let units: Vec<u16> = value.chunks_exact(2).map(|c| u16::from_be_bytes([c[0], c[1]])).collect();
        return String::from_utf16_lossy(&units);
    }
    String::from_utf8_lossy(value).into_owned()
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let last = text.chars().count().saturating_sub(1);
    for (at, c) in text.chars().enumerate() {
        match c {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => out.extend(['\\', c]),
            ' ' if at == 0 || at == last => out.push_str("\\ "),
            '#' if at == 0 => out.push_str("\\#"),
            c if c.is_control() => {
                let mut utf8 = [0; 4];
                for byte in c.encode_utf8(&mut utf8).bytes() {
                    out.push_str(&format!("\\{byte:02x}"));
                }
            }
            c => out.push(c),
        }
    }
    out
}

/// An object identifier with dots.
fn dotted(oid: &[u8]) -> Option<String> {
    let mut numbers = Vec::new();
    let mut number: u64 = 0;
    for &byte in oid {
        number = number.checked_mul(128)?.checked_add(u64::from(byte & 0x7f))?;
        if byte & 0x80 == 0 {
            numbers.push(number);
            number = 0;
        }
    }
    let (&first, rest) = numbers.split_first()?;
    let top = (first / 40).min(2);
    let mut all = vec![top, first - top * 40];
    all.extend(rest);
    Some(all.iter().map(u64::to_string).collect::<Vec<_>>().join("."))
}

/// What is left to read.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next element: tag and content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let length = if first < 0x80 {
            usize::from(first)
        } else {
            let count = usize::from(first & 0x7f);
            if count == 0 || count > 4 || count > rest.len() {
                return None;
            }
            let (bytes, after) = rest.split_at(count);
            rest = after;
            bytes.iter().fold(0usize, |n, &b| n << 8 | usize::from(b))
        };
        let content = rest.get(..length)?;
        self.0 = &rest[length..];
        Some((tag, content))
    }

    /// The content of the next element, which must have this tag.
    fn expect(&mut self, wanted: u8) -> Option<Der<'a>> {
        let (tag, content) = self.next()?;
        (tag == wanted).then_some(Der(content))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, Issuer, KeyPair};

    fn certificate(names: &[(DnType, &str)]) -> Vec<u8> {
        let (ca, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.distinguished_name = DistinguishedName::new();
        authority.distinguished_name.push(DnType::CommonName, "Authority");
        let issuer = Issuer::new(authority, ca);
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in names {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.signed_by(&key, &issuer).unwrap().der().to_vec()
    }

    #[test]
    fn the_last_attribute_comes_first() {
        let made = certificate(&[
            (DnType::CountryName, "XX"),
            (DnType::OrganizationName, "Example, Inc."),
            (DnType::CustomDnType(vec![2, 5, 4, 42]), "Jane"),
            (DnType::CommonName, "jane"),
        ]);
        let got = names(&made).unwrap();
        assert_eq!(got.subject, "CN=jane,2.5.4.42=Jane,O=Example\\, Inc.,C=XX");
        assert_eq!(got.issuer, "CN=Authority");
    }

    #[test]
    fn what_means_something_is_escaped() {
        assert_eq!(escaped(" a+b=c\n "), "\\ a\\+b=c\\0a\\ ");
        assert_eq!(escaped("#x"), "\\#x");
        assert_eq!(dotted(&[0x2a, 0x86, 0x48]).as_deref(), Some("1.2.840"));
        assert_eq!(text(BMP_STRING, &[0, b'A', 0x20, 0xac]), "A€");
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read(bytes: Vec<u8>) {
            let _ = names(&bytes);
        }

        #[test]
        fn a_damaged_certificate_can_be_read(at in 0usize..400, byte: u8) {
            let mut made = certificate(&[(DnType::CommonName, "jane")]);
            let at = at % made.len();
            made[at] = byte;
            if let Some(names) = names(&made) {
                prop_assert!(!names.subject.chars().any(char::is_control));
            }
        }
    }
}
