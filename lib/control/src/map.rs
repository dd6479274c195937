//! Keyed maps (locals, virtualdomains, smtproutes, ...).

use std::collections::HashMap;

/// Entries `key` or `key:value`, keys without regard to ASCII case; the first of equal keys wins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Map(HashMap<Vec<u8>, Vec<u8>>);

impl Map {
    /// A map of these entries, each split at its first colon.
    pub fn new<E: AsRef<[u8]>>(entries: &[E]) -> Self {
        let mut map = HashMap::with_capacity(entries.len());
        for entry in entries {
            let entry = entry.as_ref();
            let (key, value) = match entry.iter().position(|&b| b == b':') {
                Some(colon) => (&entry[..colon], &entry[colon + 1..]),
                None => (entry, &b""[..]),
            };
            map.entry(key.to_ascii_lowercase()).or_insert_with(|| value.to_vec());
        }
        Self(map)
    }

    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.0.get(&key.to_ascii_lowercase()).map(Vec::as_slice)
    }

    /// Is `key` there, with or without a value?
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        self.get(key).is_some()
    }

    /// The value for a domain: under the domain itself, then under every suffix that begins with
    /// a dot, then under the empty key.
    #[must_use]
    pub fn for_domain(&self, domain: &[u8]) -> Option<&[u8]> {
        let suffixes = domain.iter().enumerate().filter(|&(_, &b)| b == b'.').map(|(i, _)| &domain[i..]);
        std::iter::once(domain).chain(suffixes).chain(std::iter::once(&b""[..])).find_map(|k| self.get(k))
    }

    /// Is there nothing in it?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_of_equal_keys_wins_and_case_does_not_matter() {
        let map = Map::new(&["A.example:one", "a.EXAMPLE:two", "plain"]);
        assert_eq!(map.get(b"a.example"), Some(&b"one"[..]));
        assert_eq!(map.get(b"PLAIN"), Some(&b""[..]));
        assert!(!map.contains(b"b"));
    }

    #[test]
    fn domains_match_exactly_then_by_suffix_then_by_default() {
        let map = Map::new(&["x.a.b:1", ".b:2", ":3"]);
        assert_eq!(map.for_domain(b"x.a.b"), Some(&b"1"[..]));
        assert_eq!(map.for_domain(b"y.a.b"), Some(&b"2"[..]));
        assert_eq!(map.for_domain(b"c"), Some(&b"3"[..]));
    }
}
