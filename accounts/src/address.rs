//! Names of accounts and domains.

use std::fmt;

use crate::Invalid;

/// Longest user name, in bytes.
const LOCAL_MAX: usize = 40;
/// Longest domain, in bytes.
const DOMAIN_MAX: usize = 67;
/// What a user name may hold besides letters and digits. No slash, blank, quote, bar, colon or
/// percent sign: names become path components, table values and parts of text records.
const LOCAL_ALSO: &[u8] = b".!#$&'*+-=?^_`{}~";

/// A mail domain in lower case: letters, digits, `-` and `.`, at most 67 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainName(String);

impl DomainName {
    /// Reads a domain; upper case becomes lower case.
    ///
    /// # Errors
    /// It is empty, too long, holds another character, an empty label, or begins or ends with `-`.
    pub fn parse(bytes: &[u8]) -> Result<Self, Invalid> {
        let invalid = |why| Err(Invalid::new("domain", bytes, why));
        if bytes.is_empty() || bytes.len() > DOMAIN_MAX {
            return invalid("expected 1 to 67 characters");
        }
        if !bytes.iter().all(|&b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.') {
            return invalid("expected letters, digits, hyphens and dots only");
        }
        if bytes.starts_with(b"-") || bytes.ends_with(b"-") {
            return invalid("it must not begin or end with a hyphen");
        }
        if bytes.split(|&b| b == b'.').any(<[u8]>::is_empty) {
            return invalid("it must not begin or end with a dot or have two dots together");
        }
        Ok(Self(ascii(bytes)))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DomainName({})", self.0)
    }
}

/// The address of an account or alias, in lower case.
///
/// The user name is 1 to 40 letters, digits and ``.!#$&'*+-=?^_`{}~``; it begins with a letter or
/// digit, does not end with a dot and has no two dots together, so that it is safe as a path component.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    local: String,
    domain: DomainName,
}

impl Address {
    /// Reads `user@domain`; upper case becomes lower case. What is not valid cannot name an account:
    /// for a lookup the error reads as "absent".
    ///
    /// # Errors
    /// There is no `@`, or a part is not valid.
    pub fn parse(bytes: &[u8]) -> Result<Self, Invalid> {
        let Some(at) = bytes.iter().position(|&b| b == b'@') else {
            return Err(Invalid::new("address", bytes, "expected user@domain"));
        };
        Self::new(&bytes[..at], &bytes[at + 1..])
    }

    /// An address of its two parts.
    ///
    /// # Errors
    /// A part is not valid.
    pub fn new(local: &[u8], domain: &[u8]) -> Result<Self, Invalid> {
        let domain = DomainName::parse(domain)?;
        let invalid = |why| Err(Invalid::new("user name", local, why));
        if local.is_empty() || local.len() > LOCAL_MAX {
            return invalid("expected 1 to 40 characters");
        }
        if !local.iter().all(|b| b.is_ascii_alphanumeric() || LOCAL_ALSO.contains(b)) {
            return invalid("expected letters, digits and .!#$&'*+-=?^_`{}~ only");
        }
        if !local[0].is_ascii_alphanumeric() {
            return invalid("it must begin with a letter or a digit");
        }
        if local.ends_with(b".") || local.windows(2).any(|w| w == b"..") {
            return invalid("it must not end with a dot or have two dots together");
        }
        Ok(Self { local: ascii(local), domain })
    }

    /// The user name.
    #[must_use]
    pub fn local(&self) -> &str {
        &self.local
    }

    /// The domain.
    #[must_use]
    pub fn domain(&self) -> &DomainName {
        &self.domain
    }

    /// The same user in another domain.
    #[must_use]
    pub fn in_domain(&self, domain: &DomainName) -> Self {
        Self { local: self.local.clone(), domain: domain.clone() }
    }

    /// Is the user name one that every domain must have or that the filters use? Such an account is
    /// always active.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        const RESERVED: [&str; 9] = [
            "postmaster",
            "abuse",
            "mailer-daemon",
            "prefilt",
            "postfilt",
            "spam",
            "nonspam",
            "register-spam",
            "register-nonspam",
        ];
        RESERVED.contains(&self.local.as_str())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local, self.domain)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

/// Bytes already checked to be ASCII, in lower case.
fn ascii(bytes: &[u8]) -> String {
    bytes.iter().map(|b| char::from(b.to_ascii_lowercase())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn valid_names_become_lower_case() {
        for (given, read) in [("Ann@Example.COM", "ann@example.com"), ("1+x_y.z@a-b.c", "1+x_y.z@a-b.c")] {
            assert_eq!(Address::parse(given.as_bytes()).unwrap().to_string(), read);
        }
    }

    #[test]
    fn names_that_are_unsafe_as_paths_or_sql_are_refused() {
        let long = format!("{}@x.y", "a".repeat(41));
        for bad in [
            "",
            "@",
            "a@",
            "@b",
            "a",
            "a/b@c.d",
            "../x@c.d",
            ".a@c.d",
            "-a@c.d",
            "a.@c.d",
            "a..b@c.d",
            "a b@c.d",
            "a%b@c.d",
            "a:b@c.d",
            "a\n@c.d",
            "a\0@c.d",
            "a|b@c.d",
            "a\"b@c.d",
            "a@b@c.d",
            "a@-c.d",
            "a@c.d-",
            "a@.c",
            "a@c.",
            "a@c..d",
            "a@c_d",
            "a@c/d",
            "a@..",
            "\u{e9}@c.d",
            &long,
        ] {
            assert!(Address::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(DomainName::parse(&[b'a'; 68]).is_err());
    }

    #[test]
    fn reserved_names() {
        assert!(Address::parse(b"Postmaster@x.y").unwrap().is_reserved());
        assert!(!Address::parse(b"postmaster1@x.y").unwrap().is_reserved());
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_safe_name_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(a) = Address::parse(&bytes) {
                prop_assert_eq!(Address::parse(a.to_string().as_bytes()).unwrap(), a.clone());
                prop_assert!(!a.local().contains(['/', '\0', '\n', ':', '%']) && !a.local().starts_with(['.', '-']));
            }
        }
    }
}
