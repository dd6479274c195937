//! Accounts of virtual domains: asked for here, once, by the one who may.
//!
//! An assignment says that the mail of a virtual domain belongs to the domain's user. That user, or
//! the user that an account has of its own for logins, has no business at the socket of inlookup. So
//! the answer is handed on with the delivery, and an account with its own user gets its mail as that
//! user. When inlookup does not answer, nothing is handed on and the delivery runs as the domain's
//! user: vdelivermail asks again, and defers when it cannot tell either.

use std::path::PathBuf;
use std::time::Duration;

use assign::Entry;
use lookup::mail::{Client, handed};
use unix::clock::Deadline;
use unix::{Gid, Uid};

use crate::request::Delivery;

/// How long one question may hold up the other deliveries.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long nobody asks after a question was not answered.
const PAUSE: Duration = Duration::from_secs(5);

/// The one who asks.
#[derive(Debug)]
pub(super) struct Owners {
    client: Client,
    extensions: bool,
    silent_until: Option<Deadline>,
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
    pub(super) fn new(socket: PathBuf, extensions: bool) -> Self {
        Self { client: Client::new(&socket, PATIENCE), extensions, silent_until: None }
    }

    /// What is known about the recipient; nothing for recipients that are no accounts.
    pub(super) fn of(&mut self, delivery: &Delivery, entry: &Entry) -> Known {
        if !is_virtual(delivery, entry) || self.silent_until.is_some_and(|d| !d.passed()) {
            return Known::default();
        }
        let address = [&entry.ext[..], b"@", &delivery.domain].concat().to_ascii_lowercase();
        match self.client.mailbox_or_base(&address, self.extensions) {
            Ok(found) => {
                self.silent_until = None;
                let answer = handed::hand(&address, found.as_ref());
                let own = found.filter(|m| !m.alias_only && m.uid.as_raw() != entry.uid);
                Known { own: own.map(|m| (m.uid, m.gid)), answer }
            }
            Err(_) => {
                self.silent_until = Some(Deadline::after(PAUSE));
                Known::default()
            }
        }
    }
}

/// qmail-send puts the domain and a dash before the local parts of a virtual domain.
fn is_virtual(delivery: &Delivery, entry: &Entry) -> bool {
    let prefix = [&delivery.domain[..], b"-"].concat();
    let begins = delivery.local.get(..prefix.len()).is_some_and(|p| p.eq_ignore_ascii_case(&prefix));
    begins && entry.dash == b"-" && !entry.ext.is_empty() && delivery.local.ends_with(&entry.ext)
}
