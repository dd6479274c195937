//! What the daemon needs to know about accounts, as one narrow trait.

use accounts::{Account, Address, Answer, DomainName, Limits, UnixIds};

/// An account and the Unix ids it works under.
#[derive(Debug, Clone)]
pub struct Found {
    /// The row.
    pub account: Account,
    /// Its own ids, else those of its domain.
    pub ids: UnixIds,
}

/// A domain of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RealDomain {
    /// The domain whose accounts these are.
    pub name: DomainName,
    /// The ids its mail is delivered under.
    pub ids: UnixIds,
}

/// Where accounts are looked up: the store behind `accounts`, or a fake.
///
/// Each worker has its own. Every answer is found, absent or unavailable, and never a guess.
pub trait Source: Send {
    /// The real domain that `domain` is or stands for.
    ///
    /// # Errors
    /// Cannot tell.
    fn domain(&mut self, domain: &DomainName) -> Answer<Option<RealDomain>>;

    /// The account with this address in a real domain.
    ///
    /// # Errors
    /// Cannot tell.
    fn account(&mut self, address: &Address, domain: &RealDomain) -> Answer<Option<Found>>;

    /// The lines of an alias, none when it does not exist.
    ///
    /// # Errors
    /// Cannot tell.
    fn aliases(&mut self, address: &Address) -> Answer<Vec<Vec<u8>>>;

    /// The limits of the account, else of its domain.
    ///
    /// # Errors
    /// Cannot tell.
    fn limits(&mut self, address: &Address) -> Answer<Option<Limits>>;

    /// When this address last logged in from `ip` in a way that allows relaying, seconds since 1970.
    ///
    /// # Errors
    /// Cannot tell.
    fn relay_login(&mut self, address: &Address, ip: &[u8]) -> Answer<Option<u64>>;
}
