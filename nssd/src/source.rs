//! What this daemon needs of the account library, as one narrow trait.

use std::sync::Arc;

use accounts::{Accounts, Address, Answer, Domain, Entry, Page, Unavailable};
use serve::Breaker;

/// Where accounts and domains are looked up: [`Accounts`], or a fake. Each worker has its own.
pub trait Source {
    /// The account with this address, active or not.
    ///
    /// # Errors
    /// Cannot tell, as for every method here.
    fn account(&mut self, address: &Address) -> Answer<Option<Entry>>;

    /// The account that has this user id for its own.
    ///
    /// # Errors
    /// Cannot tell.
    fn account_by_uid(&mut self, uid: u32) -> Answer<Option<Entry>>;

    /// Accounts after `after`, at most `limit`.
    ///
    /// # Errors
    /// Cannot tell.
    fn accounts(&mut self, after: Option<&Address>, limit: u32) -> Answer<Page>;

    /// A domain of this host.
    ///
    /// # Errors
    /// Cannot tell.
    fn domain(&mut self, name: &[u8]) -> Answer<Option<Domain>>;

    /// All domains of this host, alias domains among them.
    ///
    /// # Errors
    /// Cannot tell.
    fn domains(&mut self) -> Answer<Vec<Domain>>;
}

impl Source for Accounts {
    fn account(&mut self, address: &Address) -> Answer<Option<Entry>> {
        Self::account(self, address)
    }

    fn account_by_uid(&mut self, uid: u32) -> Answer<Option<Entry>> {
        Self::account_by_uid(self, uid)
    }

    fn accounts(&mut self, after: Option<&Address>, limit: u32) -> Answer<Page> {
        self.list(None, after, limit)
    }

    fn domain(&mut self, name: &[u8]) -> Answer<Option<Domain>> {
        Self::domains(self).domain(name)
    }

    fn domains(&mut self) -> Answer<Vec<Domain>> {
        Self::domains(self).all()
    }
}

/// A source behind a breaker: a store that hangs must not hold every worker. Domains are a file and
/// need none.
#[derive(Debug)]
pub struct Guarded<S> {
    source: S,
    breaker: Arc<Breaker>,
}

impl<S> Guarded<S> {
    /// `source`, asked only while `breaker` lets it.
    pub fn new(source: S, breaker: Arc<Breaker>) -> Self {
        Self { source, breaker }
    }
}

fn hung() -> Unavailable {
    Unavailable::new("account store", "it did not answer in time a moment ago")
}

impl<S: Source> Source for Guarded<S> {
    fn account(&mut self, address: &Address) -> Answer<Option<Entry>> {
        self.breaker.ask(hung, || self.source.account(address))
    }

    fn account_by_uid(&mut self, uid: u32) -> Answer<Option<Entry>> {
        self.breaker.ask(hung, || self.source.account_by_uid(uid))
    }

    fn accounts(&mut self, after: Option<&Address>, limit: u32) -> Answer<Page> {
        self.breaker.ask(hung, || self.source.accounts(after, limit))
    }

    fn domain(&mut self, name: &[u8]) -> Answer<Option<Domain>> {
        self.source.domain(name)
    }

    fn domains(&mut self) -> Answer<Vec<Domain>> {
        self.source.domains()
    }
}

/// Accounts for tests, without a store.
#[cfg(test)]
pub(crate) mod fake {
    use std::collections::BTreeMap;

    use accounts::{Account, DomainName, UnixIds};

    use super::{Address, Answer, Domain, Entry, Page, Source, Unavailable};

    /// An account whose ids are given.
    pub(crate) fn entry(address: &str, uid: u32, gid: u32) -> Entry {
        let address = Address::parse(address.as_bytes()).unwrap();
        let domain = domain(address.domain().as_str(), 9000, 9000);
        let account = Account::new(address, "/home/mail/x".into());
        Entry { account, ids: UnixIds { uid, gid }, domain }
    }

    /// A domain of its own name.
    pub(crate) fn domain(name: &str, uid: u32, gid: u32) -> Domain {
        let name = DomainName::parse(name.as_bytes()).unwrap();
        Domain { real: name.clone(), name, dir: "/var/x".into(), ids: UnixIds { uid, gid } }
    }

    /// Accounts by address, domains in order; `away` makes every answer "cannot tell".
    #[derive(Debug, Default, Clone)]
    pub(crate) struct Fake {
        pub(crate) entries: BTreeMap<String, Entry>,
        pub(crate) domains: Vec<Domain>,
        pub(crate) away: bool,
        pub(crate) questions: usize,
    }

    impl Fake {
        pub(crate) fn add(&mut self, entry: Entry) {
            self.entries.insert(entry.account.address.to_string(), entry);
        }

        fn ask(&mut self) -> Answer<&Self> {
            self.questions += 1;
            if self.away { Err(Unavailable::new("store", "away")) } else { Ok(self) }
        }
    }

    impl Source for Fake {
        fn account(&mut self, address: &Address) -> Answer<Option<Entry>> {
            Ok(self.ask()?.entries.get(&address.to_string()).cloned())
        }

        fn account_by_uid(&mut self, uid: u32) -> Answer<Option<Entry>> {
            Ok(self.ask()?.entries.values().find(|e| e.ids.uid == uid).cloned())
        }

        fn accounts(&mut self, after: Option<&Address>, limit: u32) -> Answer<Page> {
            let after = after.map(ToString::to_string).unwrap_or_default();
            let limit = usize::try_from(limit).unwrap();
            let mut entries: Vec<Entry> = self
                .ask()?
                .entries
                .range(after.clone()..)
                .filter(|(k, _)| **k > after)
                .map(|(_, e)| e.clone())
                .collect();
            let more = entries.len() > limit;
            entries.truncate(limit);
            let next = entries.last().filter(|_| more).map(|e| e.account.address.clone());
            Ok(Page { entries, next })
        }

        fn domain(&mut self, name: &[u8]) -> Answer<Option<Domain>> {
            Ok(self.ask()?.domains.iter().find(|d| d.name.as_bytes() == name).cloned())
        }

        fn domains(&mut self) -> Answer<Vec<Domain>> {
            Ok(self.ask()?.domains.clone())
        }
    }
}
