//! Lists of addresses and domains: a text file read once, and a cdb that is looked up each time.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use cdb::Reader;
use smtp::address;

use crate::patterns;

/// A list cannot be asked.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub(crate) struct Broken {
    path: PathBuf,
    source: cdb::Error,
}

/// A control file of addresses (`user@domain`) and whole domains (`@domain`), its cdb, and shell
/// patterns (a file of their own or, without it, the same lines).
#[derive(Debug, Clone, Default)]
pub(crate) struct AddressList {
    lines: HashSet<Vec<u8>>,
    patterns: Vec<Vec<u8>>,
    cdb: Option<PathBuf>,
}

impl AddressList {
    /// The list with these lines; `cdb` need not exist.
    pub(crate) fn new(lines: &[Vec<u8>], patterns: Option<&[Vec<u8>]>, cdb: PathBuf) -> Self {
        let lower = |lines: &[Vec<u8>]| lines.iter().map(|l| l.to_ascii_lowercase()).collect::<Vec<_>>();
        let patterns = lower(patterns.unwrap_or(lines));
        Self { lines: lower(lines).into_iter().collect(), patterns, cdb: Some(cdb) }
    }

    /// As [`AddressList::matches`], when there is no file to look into.
    pub(crate) fn at_once(&self, address: &[u8]) -> Option<bool> {
        if self.cdb.as_deref().is_some_and(|cdb| cdb.try_exists().unwrap_or(true)) {
            return None;
        }
        Some(self.in_memory(&address.to_ascii_lowercase()))
    }

    /// Is this address, or its whole domain, on the list?
    pub(crate) fn matches(&self, address: &[u8]) -> Result<bool, Broken> {
        let address = address.to_ascii_lowercase();
        let domain = address::split(&address).1.map(|d| [b"@", d].concat());
        for key in std::iter::once(&address).chain(&domain) {
            if in_cdb(self.cdb.as_deref(), key)? {
                return Ok(true);
            }
        }
        Ok(self.in_memory(&address))
    }

    /// `address` is in small letters.
    fn in_memory(&self, address: &[u8]) -> bool {
        let domain = address::split(address).1.map(|d| [b"@", d].concat());
        self.lines.contains(address)
            || domain.is_some_and(|d| self.lines.contains(&d))
            || patterns::verdict(&self.patterns, address)
    }
}

/// The domains we take mail for: `rcpthosts` and `morercpthosts.cdb`.
///
/// A line `domain` means that domain, a line `.domain` everything below it. Without any line
/// no domain is ours.
#[derive(Debug, Clone, Default)]
pub(crate) struct DomainList {
    lines: HashSet<Vec<u8>>,
    cdb: Option<PathBuf>,
}

impl DomainList {
    /// The list with these lines; `cdb` need not exist.
    pub(crate) fn new(lines: Vec<Vec<u8>>, cdb: PathBuf) -> Self {
        Self { lines: lines.into_iter().map(|l| l.to_ascii_lowercase()).collect(), cdb: Some(cdb) }
    }

    /// As [`DomainList::matches`], when there is no file to look into.
    pub(crate) fn at_once(&self, domain: &[u8]) -> Option<bool> {
        let domain = domain.to_ascii_lowercase();
        if keys(&domain).any(|k| self.lines.contains(k)) {
            return Some(true);
        }
        let cdb = self.cdb.as_deref().is_some_and(|cdb| cdb.try_exists().unwrap_or(true));
        (!cdb).then_some(false)
    }

    /// Is this domain on the list?
    pub(crate) fn matches(&self, domain: &[u8]) -> Result<bool, Broken> {
        let domain = domain.to_ascii_lowercase();
        if keys(&domain).any(|k| self.lines.contains(k)) {
            return Ok(true);
        }
        for key in keys(&domain) {
            if in_cdb(self.cdb.as_deref(), key)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The domain itself, then each end of it that begins with a dot.
fn keys(domain: &[u8]) -> impl Iterator<Item = &[u8]> {
    let suffixes = domain.iter().enumerate().filter(|&(i, &b)| i > 0 && b == b'.').map(|(i, _)| &domain[i..]);
    std::iter::once(domain).chain(suffixes)
}

/// The file is opened for each lookup, because it is replaced while sessions run.
fn in_cdb(path: Option<&Path>, key: &[u8]) -> Result<bool, Broken> {
    let Some(path) = path else {
        return Ok(false);
    };
    let broken = |source| Broken { path: path.to_owned(), source };
    match Reader::open(path).map_err(broken)? {
        Some(reader) => Ok(reader.get(key).map_err(broken)?.is_some()),
        None => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(all: &[&str]) -> Vec<Vec<u8>> {
        all.iter().map(|l| l.as_bytes().to_vec()).collect()
    }

    #[test]
    fn addresses_match_whole_or_by_domain() {
        let entries = lines(&["Bad@x.example", "@y.example", "*@Spam.*", "!ham@spam.example"]);
        let list = AddressList::new(&entries, None, PathBuf::from("/nonexistent.cdb"));
        let matches = |a: &str| list.matches(a.as_bytes()).unwrap();
        assert!(matches("bad@X.example") && matches("any@Y.EXAMPLE"));
        assert!(matches("a@spam.example") && !matches("ham@spam.example"));
        assert!(!matches("good@x.example") && !matches("bad@sub.y.example") && !matches("y.example"));
    }

    #[test]
    fn domains_match_whole_or_below_a_dot() {
        let entries = lines(&["a.example", ".b.example", "[IPv6:2001:DB8::1]"]);
        let list = DomainList::new(entries, PathBuf::from("/nonexistent.cdb"));
        let matches = |d: &str| list.matches(d.as_bytes()).unwrap();
        assert!(matches("A.example") && matches("x.b.example") && matches("y.x.b.example"));
        assert!(matches("[ipv6:2001:db8::1]") && !matches("[IPv6:2001:db8::2]"));
        assert!(!matches("x.a.example") && !matches("b.example") && !matches("xb.example"));
        assert!(!DomainList::default().matches(b"a.example").unwrap());
    }

    /// A compiled list of these lines.
    fn compiled(file: &Path, lines: &[Vec<u8>]) {
        let mut builder = cdb::Builder::default();
        for line in lines {
            builder.add(&line.to_ascii_lowercase(), b"").unwrap();
        }
        std::fs::write(file, builder.finish().unwrap()).unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// The same list in both forms gives the same verdicts.
        #[test]
        fn must_text_and_cdb_agree(
            lines in prop::collection::vec("[aB]?@?[ab]\\.?[xY]", 0..6),
            asked in prop::collection::vec("[Ab]@[aB]\\.?[xy]", 1..12),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let (file, nowhere) = (dir.path().join("list.cdb"), PathBuf::from("/nonexistent.cdb"));
            let lines: Vec<Vec<u8>> = lines.into_iter().map(String::into_bytes).collect();
            compiled(&file, &lines);
            let text = AddressList::new(&lines, None, nowhere.clone());
            let cdb = AddressList::new(&[], None, file.clone());
            let (domains, domains_cdb) =
                (DomainList::new(lines, nowhere), DomainList::new(Vec::new(), file));
            for address in asked {
                let address = address.as_bytes();
                prop_assert_eq!(text.matches(address).unwrap(), cdb.matches(address).unwrap());
                let domain = address::split(address).1.unwrap();
                prop_assert_eq!(domains.matches(domain).unwrap(), domains_cdb.matches(domain).unwrap());
            }
        }
    }

    #[test]
    fn text_and_cdb_give_the_same_answers_and_a_damaged_cdb_gives_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("list.cdb");
        let mut builder = cdb::Builder::default();
        for key in [&b"bad@x.example"[..], b"@y.example", b"a.example", b".b.example"] {
            builder.add(key, b"").unwrap();
        }
        std::fs::write(&file, builder.finish().unwrap()).unwrap();
        let list = AddressList::new(&[], None, file.clone());
        assert!(list.matches(b"BAD@x.example").unwrap() && list.matches(b"z@y.example").unwrap());
        assert!(!list.matches(b"good@x.example").unwrap());
        let domains = DomainList::new(Vec::new(), file.clone());
        assert!(domains.matches(b"x.b.example").unwrap() && !domains.matches(b"c.example").unwrap());
        std::fs::write(&file, b"short").unwrap();
        assert!(list.matches(b"a@b").is_err() && domains.matches(b"a").is_err());
    }
}
