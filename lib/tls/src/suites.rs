//! Ciphers and versions by name.

use rustls::crypto::ring::cipher_suite as known;
use rustls::{CipherSuite, SupportedCipherSuite, SupportedProtocolVersion, version};

/// A cipher under its names.
#[derive(Debug)]
pub struct Named {
    /// OpenSSL's name.
    pub openssl: &'static str,
    /// IANA's name.
    pub iana: &'static str,
    /// Length of its key.
    pub bits: u16,
    suite: &'static SupportedCipherSuite,
}

/// All ciphers that can be negotiated, the preferred first.
static ALL: [Named; 9] = [
    row("TLS_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384", 256, &known::TLS13_AES_256_GCM_SHA384),
    row("TLS_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256", 128, &known::TLS13_AES_128_GCM_SHA256),
    row(
        "TLS_CHACHA20_POLY1305_SHA256",
        "TLS_CHACHA20_POLY1305_SHA256",
        256,
        &known::TLS13_CHACHA20_POLY1305_SHA256,
    ),
    row(
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        256,
        &known::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    row(
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        128,
        &known::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    row(
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        256,
        &known::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    row(
        "ECDHE-RSA-AES256-GCM-SHA384",
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        256,
        &known::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    row(
        "ECDHE-RSA-AES128-GCM-SHA256",
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        128,
        &known::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    row(
        "ECDHE-RSA-CHACHA20-POLY1305",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        256,
        &known::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

const fn row(
    openssl: &'static str,
    iana: &'static str,
    bits: u16,
    suite: &'static SupportedCipherSuite,
) -> Named {
    Named { openssl, iana, bits, suite }
}

/// The names of a negotiated cipher.
#[must_use]
pub fn named(suite: CipherSuite) -> Option<&'static Named> {
    ALL.iter().find(|n| n.suite.suite() == suite)
}

/// Ciphers of one list in OpenSSL's form: names separated by colons, commas or blanks.
///
/// Words that stand for groups of ciphers (`HIGH`, `DEFAULT`, `ECDHE+AESGCM`, `@STRENGTH`, ...) mean all
/// ciphers there are, since all of them belong to the strongest groups; words with `!` or `-` take single
/// ciphers out again.
///
/// # Errors
/// Nothing is left; the text says so.
pub fn list(text: &str) -> Result<Vec<SupportedCipherSuite>, String> {
    let words = || text.split([':', ',', ' ', '\t', '\n', '\r']).filter(|w| !w.is_empty());
    let find = |word: &str| {
        ALL.iter().find(|n| n.openssl.eq_ignore_ascii_case(word) || n.iana.eq_ignore_ascii_case(word))
    };
    let mut chosen: Vec<&Named> = Vec::new();
    let add = |named: &'static Named, chosen: &mut Vec<&Named>| {
        if !chosen.iter().any(|c| c.openssl == named.openssl) {
            chosen.push(named);
        }
    };
    for word in words() {
        match word.strip_prefix(['!', '-']) {
            Some(out) => {
                if let Some(named) = find(out) {
                    chosen.retain(|c| c.openssl != named.openssl);
                }
            }
            None => match find(word) {
                Some(named) => add(named, &mut chosen),
                None if is_group(word) => ALL.iter().for_each(|named| add(named, &mut chosen)),
                None => {}
            },
        }
    }
    if chosen.is_empty() {
        let all: Vec<_> = ALL.iter().map(|n| n.openssl).collect();
        return Err(format!("{text:?} names no cipher that is offered here; there are: {}", all.join(" ")));
    }
    Ok(chosen.into_iter().map(|n| *n.suite).collect())
}

/// Group words are without the dashes and underscores of a cipher's own name.
fn is_group(word: &str) -> bool {
    let first = word.split(['+', '=']).next().unwrap_or_default();
    ["HIGH", "DEFAULT", "ALL", "SECURE", "PROFILE", "ECDHE", "EECDH", "kEECDH", "AESGCM", "AES", "CHACHA20"]
        .iter()
        .any(|group| group.eq_ignore_ascii_case(first))
}

/// Versions as `TLSv1_3`, `TLSv1.3` or `lowest:highest`.
///
/// # Errors
/// A word that is none of the versions spoken here, or a range that is empty.
pub fn versions(text: &str) -> Result<Vec<&'static SupportedProtocolVersion>, String> {
    let one = |word: &str| match word.trim().replace('.', "_").to_ascii_lowercase().as_str() {
        "tlsv1_2" => Ok(2),
        "tlsv1_3" => Ok(3),
        _ => Err(format!("{word:?}: expected TLSv1_2, TLSv1_3 or two of them as lowest:highest")),
    };
    let (low, high) = match text.split_once(':') {
        Some((low, high)) => (one(low)?, one(high)?),
        None => {
            let only = one(text)?;
            (only, only)
        }
    };
    let all = [(3, &version::TLS13), (2, &version::TLS12)];
    let chosen: Vec<_> = all.iter().filter(|(n, _)| (low..=high).contains(n)).map(|(_, v)| *v).collect();
    if chosen.is_empty() {
        Err(format!("{text:?}: the lowest version is above the highest"))
    } else {
        Ok(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(text: &str) -> Vec<&'static str> {
        list(text).unwrap().iter().map(|s| named(s.suite()).unwrap().openssl).collect()
    }

    #[test]
    fn ciphers_by_either_name_in_the_order_given() {
        assert_eq!(
            names("ECDHE-RSA-AES128-GCM-SHA256:TLS_AES_256_GCM_SHA384"),
            ["ECDHE-RSA-AES128-GCM-SHA256", "TLS_AES_256_GCM_SHA384"]
        );
        assert_eq!(names("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"), ["ECDHE-RSA-AES128-GCM-SHA256"]);
        assert_eq!(names("HIGH:!aNULL").len(), 9);
        assert_eq!(names("PROFILE=SYSTEM").len(), 9);
        assert_eq!(names("HIGH:!TLS_AES_128_GCM_SHA256").len(), 8);
        assert!(list("RC4-MD5:DES-CBC3-SHA").unwrap_err().contains("no cipher"));
        assert!(list("").is_err());
    }

    #[test]
    fn every_cipher_has_its_row() {
        for suite in rustls::crypto::ring::ALL_CIPHER_SUITES {
            assert!(named(suite.suite()).is_some(), "{suite:?}");
        }
    }

    #[test]
    fn versions_by_name_and_range() {
        let count = |text: &str| versions(text).map(|v| v.len());
        assert_eq!(count("TLSv1_3"), Ok(1));
        assert_eq!(count("TLSv1.2"), Ok(1));
        assert_eq!(count("TLSv1_2:TLSv1_3"), Ok(2));
        for bad in ["TLSv1", "SSLv3", "TLSv1_1", "", "TLSv1_3:TLSv1_2", "SSLv23"] {
            assert!(versions(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_can_be_read(text in "\\PC{0,40}") {
            let _ = (list(&text), versions(&text));
        }
    }
}
