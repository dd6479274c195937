//! Domains and store together.

use crate::{
    Account, AccountStore, Added, Address, Answer, Domain, DomainName, Domains, Event, Limits, Settings,
    StorePool, UnixIds,
};

/// An account with what its domain adds to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The account; its address is the real one.
    pub account: Account,
    /// Its Unix ids: its own, else those of its domain.
    pub ids: UnixIds,
    /// Its domain, under the name that was asked for.
    pub domain: Domain,
}

/// Opens the same accounts for many workers, whose connections are of one [`StorePool`].
#[derive(Debug, Clone)]
pub struct AccountsPool {
    stores: StorePool,
    domains: Domains,
}

impl AccountsPool {
    /// The accounts these settings name. Nothing is opened yet.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self { stores: StorePool::new(&settings.store), domains: Domains::new(&settings.assign_dir) }
    }

    /// The accounts for one worker. Nothing is opened before the first question.
    #[must_use]
    pub fn open(&self) -> Accounts {
        Accounts::new(self.stores.open(), self.domains.clone())
    }
}

/// All accounts of this host. One value for each worker: it holds one connection.
///
/// Every address may be one in an alias domain; it is resolved to the real domain first. Where no
/// domain of this host is named, the answer is "absent" without asking the store.
pub struct Accounts {
    store: Box<dyn AccountStore>,
    domains: Domains,
}

impl std::fmt::Debug for Accounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Accounts").field("domains", &self.domains).finish_non_exhaustive()
    }
}

impl Accounts {
    /// The accounts these settings name, with a connection of their own. Nothing is opened before the first
    /// question.
    #[must_use]
    pub fn open(settings: &Settings) -> Self {
        AccountsPool::new(settings).open()
    }

    /// The accounts of any store.
    #[must_use]
    pub fn new(store: Box<dyn AccountStore>, domains: Domains) -> Self {
        Self { store, domains }
    }

    /// The domains.
    #[must_use]
    pub fn domains(&self) -> &Domains {
        &self.domains
    }

    /// The store itself, for real domains only.
    pub fn store(&mut self) -> &mut dyn AccountStore {
        self.store.as_mut()
    }

    /// The domain of an address and the address with its real domain.
    ///
    /// # Errors
    /// The domain table cannot tell, as for every method here.
    pub fn resolve(&self, address: &Address) -> Answer<Option<(Domain, Address)>> {
        let domain = self.domains.domain(address.domain().as_bytes())?;
        Ok(domain.map(|d| {
            let real = address.in_domain(&d.real);
            (d, real)
        }))
    }

    /// The account with this address, active or not.
    ///
    /// # Errors
    /// The store or the domain table cannot tell, as for every method here.
    pub fn account(&mut self, address: &Address) -> Answer<Option<Entry>> {
        let Some((domain, real)) = self.resolve(address)? else {
            return Ok(None);
        };
        Ok(self.store.account(&real)?.map(|account| entry(account, domain)))
    }

    /// The account that owns this Unix user id. A user id that the accounts of a domain share names
    /// nobody.
    ///
    /// # Errors
    /// As [`Accounts::account`].
    pub fn account_by_uid(&mut self, uid: u32) -> Answer<Option<Entry>> {
        let Some(account) = self.store.account_by_uid(uid)? else {
            return Ok(None);
        };
        let domain = self.domains.domain(account.address.domain().as_bytes())?;
        Ok(domain.map(|domain| entry(account, domain)))
    }

    /// A page of accounts as [`AccountStore::list`], with their ids; rows of domains that this host does
    /// not have are left out, so a page may be shorter than `limit`: it is the last one when `next` is `None`.
    ///
    /// # Errors
    /// As [`Accounts::account`].
    pub fn list(&mut self, domain: Option<&DomainName>, after: Option<&Address>, limit: u32) -> Answer<Page> {
        let real = match domain {
            None => None,
            Some(d) => match self.domains.domain(d.as_bytes())? {
                None => return Ok(Page { entries: Vec::new(), next: None }),
                Some(d) => Some(d.real),
            },
        };
        let accounts = self.store.list(real.as_ref(), after, limit)?;
        let full = u32::try_from(accounts.len()).is_ok_and(|n| n >= limit);
        let next = if full { accounts.last().map(|a| a.address.clone()) } else { None };
        let mut known = std::collections::HashMap::new();
        let mut entries = Vec::with_capacity(accounts.len());
        for account in accounts {
            let name = account.address.domain().clone();
            if !known.contains_key(&name) {
                let found = self.domains.domain(name.as_bytes())?;
                known.insert(name.clone(), found);
            }
            if let Some(Some(domain)) = known.get(&name) {
                entries.push(entry(account, domain.clone()));
            }
        }
        Ok(Page { entries, next })
    }

    /// Adds an account; its address is resolved first. `None` when its domain is not of this host.
    ///
    /// # Errors
    /// As [`Accounts::account`].
    pub fn insert(&mut self, account: &Account) -> Answer<Option<Added>> {
        let Some((_, real)) = self.resolve(&account.address)? else {
            return Ok(None);
        };
        self.store.insert(&Account { address: real, ..account.clone() }).map(Some)
    }

    /// The lines of an alias, sorted; empty when there is none.
    ///
    /// # Errors
    /// As [`Accounts::account`].
    pub fn aliases(&mut self, address: &Address) -> Answer<Vec<Vec<u8>>> {
        match self.resolve(address)? {
            None => Ok(Vec::new()),
            Some((_, real)) => self.store.aliases(&real),
        }
    }

    /// The limits in force for an account: its own row before that of its domain. `None` when there
    /// are none, or the domain directory has no `.domain_limits`.
    ///
    /// # Errors
    /// As [`Accounts::account`].
    pub fn limits(&mut self, entry: &Entry) -> Answer<Option<Limits>> {
        if !entry.domain.has_limits()? {
            return Ok(None);
        }
        let address = entry.account.address.to_string();
        match self.store.limits(&address)? {
            Some(own) => Ok(Some(own)),
            None => self.store.limits(entry.account.address.domain().as_str()),
        }
    }

    /// Notes that something happened to an account.
    ///
    /// # Errors
    /// As [`Accounts::account`].
    pub fn note(&mut self, address: &Address, event: &Event) -> Answer<()> {
        match self.resolve(address)? {
            None => Ok(()),
            Some((_, real)) => self.store.note(&real, event),
        }
    }
}

/// A page of accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The accounts.
    pub entries: Vec<Entry>,
    /// Where the next page starts; `None` when this was the last one.
    pub next: Option<Address>,
}

fn entry(account: Account, domain: Domain) -> Entry {
    Entry { ids: account.own_ids.unwrap_or(domain.ids), account, domain }
}
