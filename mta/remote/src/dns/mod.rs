//! Questions to the DNS, with three answers: found, no such name, cannot tell.

mod system;

use std::net::IpAddr;

pub use system::System;

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
