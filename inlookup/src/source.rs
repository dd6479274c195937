//! What the daemon needs to know about accounts, as one narrow trait.

use accounts::password::Work;
use accounts::{Accounts, Address, Answer, Domain, DomainName, Entry, Limits};

/// Where accounts are looked up: [`Accounts`], or a fake.
///
/// Each worker has its own. Every answer is found, absent or unavailable, and never a guess; the error
/// of every method is "cannot tell".
pub trait Source {
    /// The domain of this host with this name.
    ///
    /// # Errors
    /// Cannot tell.
    fn domain(&mut self, name: &DomainName) -> Answer<Option<Domain>>;

    /// The account with this address in its real domain.
    ///
    /// # Errors
    /// Cannot tell.
    fn account(&mut self, real: &Address, domain: &Domain) -> Answer<Option<Entry>>;

    /// The lines of an alias in its real domain, none when it does not exist.
    ///
    /// # Errors
    /// Cannot tell.
    fn aliases(&mut self, real: &Address) -> Answer<Vec<Vec<u8>>>;

    /// What checking a password costs for some accounts of a real domain, or of all: at most `most`, those left
    /// out that no password matches.
    ///
    /// # Errors
    /// Cannot tell.
    fn works(&mut self, domain: Option<&DomainName>, most: u32) -> Answer<Vec<(Address, Work)>>;

    /// The limits in force for an account.
    ///
    /// # Errors
    /// Cannot tell.
    fn limits(&mut self, entry: &Entry) -> Answer<Option<Limits>>;

    /// Did this account log in from `ip` at `since` (seconds since 1970) or later, so that it may relay?
    ///
    /// # Errors
    /// Cannot tell.
    fn may_relay(&mut self, real: &Address, ip: &str, since: i64) -> Answer<bool>;
}

impl Source for Accounts {
    fn domain(&mut self, name: &DomainName) -> Answer<Option<Domain>> {
        self.domains().domain(name.as_bytes())
    }

    fn account(&mut self, real: &Address, domain: &Domain) -> Answer<Option<Entry>> {
        let account = self.store().account(real)?;
        Ok(account.map(|account| Entry {
            ids: account.own_ids.unwrap_or(domain.ids),
            account,
            domain: domain.clone(),
        }))
    }

    fn aliases(&mut self, real: &Address) -> Answer<Vec<Vec<u8>>> {
        self.store().aliases(real)
    }

    fn works(&mut self, domain: Option<&DomainName>, most: u32) -> Answer<Vec<(Address, Work)>> {
        let accounts = self.store().list(domain, None, most)?.into_iter();
        let work = |a: accounts::Account| Some((Work::of(a.combined_password().expose())?, a.address));
        Ok(accounts.filter_map(work).map(|(work, address)| (address, work)).collect())
    }

    fn limits(&mut self, entry: &Entry) -> Answer<Option<Limits>> {
        Self::limits(self, entry)
    }

    fn may_relay(&mut self, real: &Address, ip: &str, since: i64) -> Answer<bool> {
        self.store().may_relay(real, ip, since)
    }
}
