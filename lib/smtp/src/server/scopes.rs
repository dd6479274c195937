//! Connection scope and transaction scope.

use super::query::{Mail, Method, Trace};
use super::{Peer, TlsFacts};
use crate::parameter::MailParameters;

/// What lasts as long as the connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) peer: Peer,
    pub(super) tls: Option<TlsFacts>,
    pub(super) greeted: Option<Greeted>,
    pub(super) user: Option<User>,
    pub(super) auth_failures: u32,
    pub(super) invalid_recipients: u32,
    pub(super) errors: u32,
}

/// HELO or EHLO was accepted.
#[derive(Debug)]
pub(super) struct Greeted {
    pub(super) name: Vec<u8>,
    pub(super) extended: bool,
}

/// Somebody is logged in.
#[derive(Debug)]
pub(super) struct User {
    pub(super) name: Vec<u8>,
    pub(super) method: Method,
    pub(super) relay: bool,
}

impl Connection {
    pub(super) fn new(peer: Peer) -> Self {
        let tls = peer.tls.clone();
        Self { peer, tls, greeted: None, user: None, auth_failures: 0, invalid_recipients: 0, errors: 0 }
    }

    /// After STARTTLS nothing that was said in clear counts (RFC 3207, section 4.2); only the
    /// counters of misbehaviour stay.
    pub(super) fn now_under_tls(&mut self, facts: TlsFacts) {
        self.greeted = None;
        self.user = None;
        self.tls = Some(facts);
    }

    /// Relay permission, with what it appends to recipients.
    pub(super) fn relay(&self) -> Option<&[u8]> {
        let by_login = self.user.as_ref().filter(|u| u.relay).map(|_| &b""[..]);
        self.peer.relay.as_deref().or(by_login)
    }

    pub(super) fn trace(&self, smtputf8: bool) -> Trace {
        Trace {
            helo: self.greeted.as_ref().map(|g| g.name.clone()),
            protocol: self.protocol(smtputf8),
            tls: self.tls.clone(),
            user: self.user.as_ref().map(|u| u.name.clone()),
        }
    }

    fn protocol(&self, smtputf8: bool) -> &'static str {
        if !self.greeted.as_ref().is_some_and(|g| g.extended) {
            return "SMTP";
        }
        match (smtputf8, self.tls.is_some(), self.user.is_some()) {
            (false, false, false) => "ESMTP",
            (false, true, false) => "ESMTPS",
            (false, false, true) => "ESMTPA",
            (false, true, true) => "ESMTPSA",
            (true, false, false) => "UTF8SMTP",
            (true, true, false) => "UTF8SMTPS",
            (true, false, true) => "UTF8SMTPA",
            (true, true, true) => "UTF8SMTPSA",
        }
    }
}

/// What lasts from MAIL to the end of the message, and is dropped whole.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) sender: Vec<u8>,
    pub(super) parameters: MailParameters,
    pub(super) recipients: Vec<Recipient>,
}

/// An accepted recipient.
#[derive(Debug)]
pub(super) struct Recipient {
    /// With the relay permission's text appended.
    pub(super) address: Vec<u8>,
    pub(super) local: bool,
}

impl Transaction {
    pub(super) fn mail(&self, connection: &Connection, size: u64) -> Box<Mail> {
        Box::new(Mail {
            helo: connection.greeted.as_ref().map(|g| g.name.clone()).unwrap_or_default(),
            sender: self.sender.clone(),
            recipients: self.recipients.iter().map(|r| (r.address.clone(), r.local)).collect(),
            user: connection.user.as_ref().map(|u| (u.name.clone(), u.method)),
            size,
            tls: connection.tls.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of RFC 3848 and RFC 6531; SMTP without EHLO, whatever else there is.
    #[test]
    fn fix_the_protocol_word_is_the_standards() {
        let word = |extended, smtputf8, tls: bool, login: bool| {
            let mut connection = Connection::new(Peer::default());
            connection.tls = tls.then(|| TlsFacts { version: "TLSv1.3".into(), cipher: String::new() });
            let user = User { name: b"u".to_vec(), method: Method::Plain, relay: true };
            connection.user = login.then_some(user);
            connection.greeted = Some(Greeted { name: b"c".to_vec(), extended });
            connection.trace(smtputf8).protocol
        };
        for (utf8, tls, login, wanted) in [
            (false, false, false, "ESMTP"),
            (false, true, false, "ESMTPS"),
            (false, false, true, "ESMTPA"),
            (false, true, true, "ESMTPSA"),
            (true, false, false, "UTF8SMTP"),
            (true, true, false, "UTF8SMTPS"),
            (true, false, true, "UTF8SMTPA"),
            (true, true, true, "UTF8SMTPSA"),
        ] {
            assert_eq!(word(true, utf8, tls, login), wanted);
        }
        assert_eq!((word(false, false, false, false), word(false, false, true, false)), ("SMTP", "SMTP"));
    }
}
