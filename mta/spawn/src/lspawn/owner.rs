//! Accounts of virtual domains: asked for here, once, by the one who may.
//!
//! An assignment says that the mail of a virtual domain belongs to the domain's user. That user, or
//! the user that an account has of its own for logins, has no business at the socket of inlookup. So
//! the answer is handed on with the delivery, and an account with its own user gets its mail as that
//! user. When inlookup does not answer, nothing is handed on and the delivery runs as the domain's
//! user: vdelivermail asks again, and defers when it cannot tell either.

use std::os::fd::BorrowedFd;

use assign::Entry;
use lookup::mail::handed;
use unix::clock::Deadline;
use unix::wait::Interest;
use unix::{Gid, Uid};

use super::lookups::Lookups;
use crate::request::Delivery;

/// The one who asks.
#[derive(Debug)]
pub(super) struct Owners {
    lookups: Lookups,
    extensions: bool,
}

/// What is known about a recipient that is an account.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The account's own user and group, where they are not the domain's.
    pub(super) own: Option<(Uid, Gid)>,
    /// The answer to hand on.
    pub(super) answer: Option<Vec<u8>>,
}

impl Owners {
    /// `extensions`: `user-anything` is `user` (QMAIL_EXT).
    pub(super) fn new(lookups: Lookups, extensions: bool) -> Self {
        Self { lookups, extensions }
    }

    /// Asks about the recipient of delivery `number`. False: there is nothing to ask, or nobody.
    pub(super) fn ask(&mut self, number: u16, delivery: &Delivery, entry: &Entry) -> bool {
        if !is_virtual(delivery, entry) {
            return false;
        }
        let address = address(delivery, entry);
        let base = base(&address).filter(|_| self.extensions);
        self.lookups.ask(number, address, base)
    }

    /// What to wait for while questions are out.
    pub(super) fn watched(&self) -> Option<(BorrowedFd<'_>, Interest)> {
        self.lookups.watched()
    }

    /// When to look even if nothing came.
    pub(super) fn deadline(&self) -> Option<Deadline> {
        self.lookups.deadline()
    }

    /// The deliveries that can go on.
    pub(super) fn look(&mut self) -> Vec<u16> {
        self.lookups.look()
    }

    /// What is known about the recipient of a delivery that [`Owners::look`] named.
    pub(super) fn known(&mut self, number: u16, delivery: &Delivery, entry: &Entry) -> Known {
        let Ok(found) = self.lookups.take(number) else {
            return Known::default();
        };
        let answer = handed::hand(&address(delivery, entry), found.as_ref());
        let own = found.filter(|m| !m.alias_only && m.uid.as_raw() != entry.uid);
        Known { own: own.map(|m| (m.uid, m.gid)), answer }
    }
}

fn address(delivery: &Delivery, entry: &Entry) -> Vec<u8> {
    [&entry.ext[..], b"@", &delivery.domain].concat().to_ascii_lowercase()
}

/// `user@domain` of `user-anything@domain`.
fn base(address: &[u8]) -> Option<Vec<u8>> {
    let at = address.iter().rposition(|&b| b == b'@')?;
    let dash = address[..at].iter().position(|&b| b == b'-')?;
    Some([&address[..dash], &address[at..]].concat())
}

/// qmail-send puts the domain and a dash before the local parts of a virtual domain.
fn is_virtual(delivery: &Delivery, entry: &Entry) -> bool {
    let prefix = [&delivery.domain[..], b"-"].concat();
    let begins = delivery.local.get(..prefix.len()).is_some_and(|p| p.eq_ignore_ascii_case(&prefix));
    begins && entry.dash == b"-" && !entry.ext.is_empty() && delivery.local.ends_with(&entry.ext)
}
