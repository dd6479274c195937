//! Questions to the DNS, with three answers: found, no such name, cannot tell.
//!
//! [`Dns`] and [`Records`] are what programs ask, so that their decisions can be tested without a network;
//! [`System`] asks the servers of /etc/resolv.conf, or others. [`reverse`] makes names of addresses.
//!
//! This crate brings an asynchronous resolver along: a program that is started once per message or connection
//! and does not need it must not depend on it.

#![forbid(unsafe_code)]

pub mod reverse;
mod system;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

pub use system::System;

/// The port of name servers.
const PORT: u16 = 53;

/// A mail exchanger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mx {
    /// Lower is better.
    pub preference: u16,
    /// Its name without the last dot; empty for "this domain takes no mail" (RFC 7505).
    pub host: String,
}

/// The DNS cannot tell now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

/// A resolver.
pub trait Dns {
    /// The mail exchangers of a domain; `None`: no such name; empty: the name has none.
    ///
    /// # Errors
    /// Cannot tell.
    fn mx(&self, domain: &str) -> Result<Option<Vec<Mx>>, Unavailable>;

    /// The addresses of a host, IPv4 first; `None`: no such name; empty: the name has none.
    ///
    /// # Errors
    /// Cannot tell.
    fn addresses(&self, host: &str) -> Result<Option<Vec<IpAddr>>, Unavailable>;
}

/// Questions that are about a name and nothing else.
pub trait Records {
    /// The texts of a name, the strings of each joined; `None`: no such name; empty: the name has none.
    ///
    /// # Errors
    /// Cannot tell.
    fn texts(&self, name: &str) -> Result<Option<Vec<Vec<u8>>>, Unavailable>;

    /// The IPv4 addresses of a name; `None`: no such name; empty: the name has none.
    ///
    /// # Errors
    /// Cannot tell.
    fn ipv4(&self, name: &str) -> Result<Option<Vec<Ipv4Addr>>, Unavailable>;
}

/// Reads a list of name servers, as the variable DNSCACHEIP has it: addresses separated by blanks or commas,
/// each with a port if it is not 53 (`192.0.2.1:5353`, `[2001:db8::1]:5353`).
///
/// # Errors
/// The word that is no address.
pub fn servers(text: &str) -> Result<Vec<SocketAddr>, String> {
    let words = text.split([' ', ',', '\t', '\n']).filter(|w| !w.is_empty());
    words
        .map(|word| {
            let plain = word.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT));
            plain.or_else(|_| word.parse()).map_err(|_| format!("{word}: expected an address"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_servers() {
        let all = |text| servers(text).map(|a| a.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(all("127.0.0.1").unwrap(), ["127.0.0.1:53"]);
        assert_eq!(all(" 10.0.0.1:54, ::1\t[::1]:55").unwrap(), ["10.0.0.1:54", "[::1]:53", "[::1]:55"]);
        assert!(all("").unwrap().is_empty());
        assert_eq!(all("10.0.0.1 x").unwrap_err(), "x: expected an address");
    }
}
