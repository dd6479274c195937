//! The PROXY protocol: what a proxy in front says about the client it speaks for.
//!
//! Version 1 is a line of text, version 2 is binary; both stand before everything else in a connection. The
//! parser is pure and says how many bytes belong to the header, so that nothing of what follows is taken.
//! It must only be used for connections from trusted proxies: anybody else could claim any address.

mod v1;
mod v2;

use std::net::SocketAddr;

pub use v1::encode as encode_v1;
pub use v2::encode as encode_v2;

/// Longest header that is accepted, in bytes: version 2 may carry certificates' names, but not this much.
pub const MAX_LENGTH: usize = 16 + 4096;

/// What a proxy says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    /// Client and the address it connected to; `None`: the proxy speaks for itself (health checks) or cannot
    /// tell, and the connection's own addresses count.
    pub ends: Option<Ends>,
    /// The host name that the client asked for.
    pub authority: Option<Vec<u8>>,
    /// The client's TLS, ended at the proxy.
    pub tls: Option<Tls>,
}

/// Both ends of the client's connection, of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// The client.
    pub source: SocketAddr,
    /// Where it connected to.
    pub destination: SocketAddr,
}

/// TLS between client and proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Did the client show a certificate that was verified?
    pub verified: bool,
    /// Version, as the proxy calls it.
    pub version: Vec<u8>,
    /// Cipher.
    pub cipher: Vec<u8>,
    /// Common name of the client's certificate.
    pub common_name: Vec<u8>,
}

/// What the first bytes of a connection are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a header; all of it belongs to the header.
    Incomplete,
    /// A header and its length in bytes.
    Done(Header, usize),
    /// No header, or one that must not be believed.
    Invalid(&'static str),
}

/// Reads the first bytes of a connection.
#[must_use]
pub fn parse(bytes: &[u8]) -> Parsed {
    let starts = |signature: &[u8]| bytes.iter().zip(signature).all(|(a, b)| a == b);
    if starts(&v2::SIGNATURE) {
        v2::parse(bytes)
    } else if starts(v1::SIGNATURE) {
        v1::parse(bytes)
    } else {
        Parsed::Invalid("no PROXY header")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(max: usize) -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), 1..max)
    }

    fn ends() -> impl Strategy<Value = Ends> {
        (any::<bool>(), any::<[u8; 16]>(), any::<[u8; 16]>(), any::<u16>(), any::<u16>()).prop_map(
            |(v4, a, b, p, q)| {
                let ip = |x: [u8; 16]| -> std::net::IpAddr {
                    if v4 { [x[0], x[1], x[2], x[3]].into() } else { x.into() }
                };
                Ends { source: (ip(a), p).into(), destination: (ip(b), q).into() }
            },
        )
    }

    prop_compose! {
        fn header()(
            ends in proptest::option::of(ends()),
            authority in proptest::option::of(text(40)),
            tls in proptest::option::of((any::<bool>(), text(10), text(40), text(40)).prop_map(
                |(verified, version, cipher, common_name)| Tls { verified, version, cipher, common_name })),
        ) -> Header {
            Header { ends, authority, tls }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
            let _ = parse(&[&v2::SIGNATURE[..], &bytes].concat());
            let _ = parse(&[v1::SIGNATURE, &bytes].concat());
        }

        #[test]
        fn version_2_round_trip_and_every_beginning_is_incomplete(header in header(), rest: Vec<u8>) {
            let bytes = encode_v2(&header);
            let with_rest = [&bytes[..], &rest].concat();
            prop_assert_eq!(parse(&with_rest), Parsed::Done(header, bytes.len()));
            for cut in 0..bytes.len() {
                prop_assert_eq!(parse(&bytes[..cut]), Parsed::Incomplete);
            }
        }

        #[test]
        fn version_1_round_trip_and_every_beginning_is_incomplete(ends in proptest::option::of(ends()), rest: Vec<u8>) {
            let bytes = encode_v1(ends.as_ref());
            let with_rest = [&bytes[..], &rest].concat();
            prop_assert_eq!(parse(&with_rest), Parsed::Done(Header { ends, ..Header::default() }, bytes.len()));
            for cut in 0..bytes.len() {
                prop_assert_eq!(parse(&bytes[..cut]), Parsed::Incomplete);
            }
        }

        #[test]
        fn a_checksum_finds_any_changed_byte(header in header(), at: proptest::sample::Index, bit in 0u8..8) {
            let mut bytes = encode_v2(&header);
            let at = 16 + at.index(bytes.len() - 16);
            bytes[at] ^= 1 << bit;
            // Other lengths of a field may make it incomplete or malformed, but never another good header...
            if let Parsed::Done(other, _) = parse(&bytes) {
                // ... except where the change hides the checksum itself: its type or its place.
                prop_assert!(other.ends == header.ends || !v2::has_checksum(&bytes));
            }
        }
    }
}
