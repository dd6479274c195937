//! From accounts and domains to the rows of the map.

use std::collections::BTreeMap;

use accounts::{Domain, Entry};
use lookup::identity::User;
use snapshot::{Answer, DomainRow, Map, Row};

use crate::policy::Policy;

/// What the map holds of one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Person {
    user: User,
    owns_uid: bool,
    also: u32,
}

impl Person {
    /// `None`: there is no record.
    pub(crate) fn of(entry: &Entry, policy: &Policy) -> Option<Self> {
        // A row in the name of an alias domain is found by no address.
        if entry.domain.is_alias() {
            return None;
        }
        let user = policy.user(&entry.account.address, entry).ok()?;
        let gid = entry.domain.ids.gid;
        let also = if policy.check_group(gid).is_ok() && gid != entry.ids.gid { gid } else { 0 };
        Some(Self { user, owns_uid: entry.account.own_ids.is_some(), also })
    }

    /// Its row.
    pub(crate) fn row(&self) -> Row<'_> {
        let user = &self.user;
        Row {
            name: &user.name,
            uid: user.uid,
            gid: user.gid,
            owns_uid: self.owns_uid,
            also: self.also,
            gecos: &user.gecos,
            home: &user.home,
            shell: &user.shell,
        }
    }

    /// Is this what the map says?
    pub(crate) fn is(person: Option<&Self>, known: &Answer<snapshot::User>) -> bool {
        match (person.map(Self::row), known) {
            (None, Answer::Absent) => true,
            (Some(row), Answer::Found(user)) => {
                let known = Row {
                    name: user.name(),
                    uid: user.uid(),
                    gid: user.gid(),
                    owns_uid: user.has_own_uid(),
                    also: user.also(),
                    gecos: user.gecos(),
                    home: user.home(),
                    shell: user.shell(),
                };
                row == known
            }
            _ => false,
        }
    }
}

/// The rows of all domains.
pub(crate) fn domain_rows<'a>(
    domains: &'a [Domain],
    policy: &'a Policy,
) -> impl Iterator<Item = DomainRow<'a>> {
    let mut owners: BTreeMap<u32, usize> = BTreeMap::new();
    for domain in domains.iter().filter(|d| !d.is_alias()) {
        *owners.entry(domain.ids.gid).or_default() += 1;
    }
    domains.iter().map(move |domain| {
        let ids = (domain.ids.uid, domain.ids.gid);
        let real = domains.iter().find(|d| d.name == domain.real);
        DomainRow {
            name: domain.name.as_bytes(),
            real: domain.real.as_bytes(),
            ids,
            is_group: policy.group(domain).is_ok(),
            // An id that several domains share is the group of none of them.
            owns_gid: !domain.is_alias() && owners.get(&ids.1) == Some(&1),
            // Its users may be others than under the real name.
            must_ask: domain.is_alias()
                && (real.is_none_or(|real| real.ids != domain.ids)
                    || policy.local.has_user_in(domain.name.as_bytes())),
        }
    })
}

/// Does the map have exactly these domains?
pub(crate) fn same_domains(map: &Map<'_>, count: u64, domains: &[Domain], policy: &Policy) -> bool {
    let mut rows = 0;
    let same = domain_rows(domains, policy).all(|row| {
        rows += 1;
        map.has_domain(&row)
    });
    same && count == rows
}
