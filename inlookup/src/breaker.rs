//! The account store behind a breaker: a store that does not answer must not hold every worker.

use std::sync::Arc;

use accounts::password::Work;
use accounts::{Address, Answer, Domain, DomainName, Entry, Limits, Unavailable};
use serve::Breaker;

use crate::source::Source;

fn hung() -> Unavailable {
    Unavailable::new("account store", "it did not answer in time a moment ago")
}

/// A source behind a breaker. Domains are a file and need none.
#[derive(Debug)]
pub struct Guarded<S> {
    source: S,
    breaker: Arc<Breaker>,
}

impl<S: Source> Guarded<S> {
    /// `source`, asked only while `breaker` lets it.
    pub fn new(source: S, breaker: Arc<Breaker>) -> Self {
        Self { source, breaker }
    }
}

impl<S: Source> Source for Guarded<S> {
    fn domain(&mut self, name: &DomainName) -> Answer<Option<Domain>> {
        self.source.domain(name)
    }

    fn account(&mut self, real: &Address, domain: &Domain) -> Answer<Option<Entry>> {
        self.breaker.ask(hung, || self.source.account(real, domain))
    }

    fn aliases(&mut self, real: &Address) -> Answer<Vec<Vec<u8>>> {
        self.breaker.ask(hung, || self.source.aliases(real))
    }

    fn works(&mut self, domain: Option<&DomainName>, most: u32) -> Answer<Vec<(Address, Work)>> {
        self.breaker.ask(hung, || self.source.works(domain, most))
    }

    fn limits(&mut self, entry: &Entry) -> Answer<Option<Limits>> {
        self.breaker.ask(hung, || self.source.limits(entry))
    }

    fn may_relay(&mut self, real: &Address, ip: &str, since: i64) -> Answer<bool> {
        self.breaker.ask(hung, || self.source.may_relay(real, ip, since))
    }
}
