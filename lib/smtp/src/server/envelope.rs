//! MAIL and RCPT.

use super::scopes::{Recipient, Transaction};
use super::{Action, Answer, Event, MAX_RECIPIENTS, Pending, Query, RecipientState, Session};
use crate::address;
use crate::parameter::{self, ParameterError};
use crate::reply::Reply;

/// A recipient that is being checked.
#[derive(Debug)]
pub(super) struct Candidate {
    address: Vec<u8>,
    local: bool,
}

impl Session {
    pub(super) fn mail(&mut self, argument: &[u8]) {
        if self.connection.greeted.is_none() && !self.policy.allow_no_helo {
            return self.refuse(Reply::new(503, "5.5.4", "polite people say HELO or EHLO first"));
        }
        // Whatever is said next, a transaction that was open is over.
        self.transaction = None;
        let path = match address::path(argument) {
            Ok(path) => path,
            Err(e) => return self.refuse(Reply::new(555, "5.1.3", &e.to_string())),
        };
        let parameters = match parameter::mail(path.parameters, self.policy.smtputf8) {
            Ok(parameters) => parameters,
            Err(ParameterError::Value(name)) => {
                return self.refuse(Reply::new(501, "5.5.4", &format!("bad value of parameter {name}")));
            }
            Err(ParameterError::Unknown) => {
                return self.refuse(Reply::new(555, "5.5.4", "parameter not recognized"));
            }
        };
        if let (Some(size), Some(limit)) = (parameters.size, self.policy.size_limit)
            && size > limit
        {
            return self.refuse(Reply::new(552, "5.3.4", "message size exceeds the limit"));
        }
        if self.policy.require_auth && self.connection.user.is_none() {
            let enhanced = if self.policy.submission { "5.7.0" } else { "5.7.1" };
            return self.refuse(Reply::new(530, enhanced, "authentication required"));
        }
        let sender = self.without_literal(path.address);
        if self.policy.submission && !sender.is_empty() && !is_qualified(&sender) {
            return self.refuse(Reply::new(554, "5.6.2", "sender address needs a domain"));
        }
        let transaction = Transaction { sender, parameters, recipients: Vec::new() };
        if transaction.sender.is_empty() {
            return self.sender_accepted(transaction);
        }
        self.ask(Query::BadSender(transaction.sender.clone()), Pending::BadSender(transaction));
    }

    pub(super) fn sender_listed(&mut self, transaction: Transaction, answer: &Answer) {
        match (answer, &self.connection.user) {
            (Answer::No, Some(user)) if self.policy.submission => {
                let query = Query::OwnsSender { user: user.name.clone(), sender: transaction.sender.clone() };
                self.ask(query, Pending::OwnsSender(transaction));
            }
            (Answer::No, _) => self.sender_accepted(transaction),
            (Answer::Yes, _) => {
                self.log(Event::Refused { what: "sender", address: transaction.sender });
                self.refuse(Reply::new(553, "5.7.1", "sorry, your envelope sender is refused here"));
            }
            _ => self.cannot_tell("sender list"),
        }
    }

    pub(super) fn sender_owned(&mut self, transaction: Transaction, answer: &Answer) {
        match answer {
            Answer::Yes => self.sender_accepted(transaction),
            Answer::No => {
                self.log(Event::Refused { what: "masquerade", address: transaction.sender });
                self.penalize(&Reply::new(553, "5.7.1", "sorry, this sender address is not yours"));
            }
            _ => self.cannot_tell("sender"),
        }
    }

    fn sender_accepted(&mut self, transaction: Transaction) {
        self.transaction = Some(transaction);
        self.reply(&Reply::plain(250, "ok"));
    }

    pub(super) fn rcpt(&mut self, argument: &[u8]) {
        let Some(transaction) = &self.transaction else {
            return self.refuse(Reply::new(503, "5.5.1", "MAIL first"));
        };
        let second_of_bounce = transaction.sender.is_empty() && !transaction.recipients.is_empty();
        let path = match address::path(argument) {
            Ok(path) if !path.address.is_empty() => path,
            Ok(_) => return self.refuse(Reply::new(555, "5.1.3", "no address")),
            Err(e) => return self.refuse(Reply::new(555, "5.1.3", &e.to_string())),
        };
        if !path.parameters.is_empty() {
            return self.refuse(Reply::new(555, "5.5.4", "parameter not recognized"));
        }
        if second_of_bounce {
            return self.refuse(Reply::new(553, "5.7.1", "a bounce has one recipient only"));
        }
        let address = self.without_literal(path.address);
        if self.policy.submission && !is_qualified(&address) {
            return self.refuse(Reply::new(554, "5.6.2", "recipient address needs a domain"));
        }
        if address::split(&address).1.is_some()
            && address::split(&address).0.iter().any(|b| b"@%!".contains(b))
        {
            self.log(Event::Refused { what: "recipient", address });
            return self.refuse(Reply::new(550, "5.7.1", "no relay probes, please"));
        }
        let query = Query::BadRecipient(address.clone());
        self.ask(query, Pending::BadRecipient(Candidate { address, local: false }));
    }

    pub(super) fn recipient_listed(&mut self, mut candidate: Candidate, answer: &Answer) {
        match answer {
            Answer::Yes => {
                self.log(Event::Refused { what: "recipient", address: candidate.address });
                self.reply(&Reply::new(553, "5.7.1", "sorry, this recipient is refused here"));
            }
            Answer::No => match address::split(&candidate.address).1 {
                Some(domain) => {
                    let query = Query::LocalDomain(domain.to_ascii_lowercase());
                    self.ask(query, Pending::Domain(candidate));
                }
                None => {
                    candidate.local = true;
                    self.domain_decided(candidate);
                }
            },
            _ => self.cannot_tell("recipient list"),
        }
    }

    pub(super) fn domain_known(&mut self, mut candidate: Candidate, answer: &Answer) {
        match answer {
            Answer::Yes => candidate.local = true,
            Answer::No => candidate.local = false,
            _ => return self.cannot_tell("rcpthosts"),
        }
        self.domain_decided(candidate);
    }

    /// Two things are kept apart: whether the domain is ours, and whether that is permission enough.
    fn domain_decided(&mut self, candidate: Candidate) {
        let ours_is_enough = candidate.local && !self.policy.auth_all;
        if self.connection.relay().is_none() && !ours_is_enough {
            let sender = self.transaction.as_ref().map(|t| t.sender.clone()).unwrap_or_default();
            self.log(Event::InvalidRelay { sender, recipient: candidate.address });
            let text = if self.connection.user.is_some() {
                "sorry, this account may not send to other hosts"
            } else {
                "sorry, that domain isn't in my list of allowed rcpthosts"
            };
            return self.reply(&Reply::new(553, "5.7.1", text));
        }
        if candidate.local && self.policy.check_recipient {
            let query = Query::Recipient(candidate.address.clone());
            return self.ask(query, Pending::Recipient(candidate));
        }
        self.recipient_accepted(candidate);
    }

    pub(super) fn recipient_known(&mut self, candidate: Candidate, answer: &Answer) {
        let Answer::Recipient(state) = answer else {
            return self.cannot_tell("recipient");
        };
        let reply = match state {
            RecipientState::Exists => return self.recipient_accepted(candidate),
            RecipientState::Absent => Reply::new(550, "5.1.1", "sorry, no mailbox here by that name"),
            RecipientState::Inactive => Reply::new(550, "5.2.1", "sorry, this mailbox is disabled"),
            RecipientState::OverQuota if self.policy.over_quota_is_permanent => {
                Reply::new(550, "5.2.2", "sorry, this mailbox is full")
            }
            RecipientState::OverQuota => Reply::new(452, "4.2.2", "sorry, this mailbox is full"),
        };
        let sender = self.transaction.as_ref().map(|t| t.sender.clone()).unwrap_or_default();
        self.log(Event::InvalidRecipient { sender, recipient: candidate.address, state: *state });
        self.connection.invalid_recipients += 1;
        if self.policy.max_invalid_recipients.is_some_and(|max| self.connection.invalid_recipients >= max) {
            self.actions.push_back(Action::Delay(self.policy.penalty));
            return self
                .cut(Reply::new(421, "4.7.1", "too many invalid recipients"), "too many invalid recipients");
        }
        self.penalize(&reply);
    }

    fn recipient_accepted(&mut self, mut candidate: Candidate) {
        if let Some(suffix) = self.connection.relay() {
            candidate.address.extend_from_slice(suffix);
        }
        let limit = self.policy.max_recipients.unwrap_or(MAX_RECIPIENTS).min(MAX_RECIPIENTS);
        let Some(transaction) = &mut self.transaction else {
            return self.refuse(Reply::new(503, "5.5.1", "MAIL first"));
        };
        if transaction.recipients.len() >= limit {
            let reply = if self.policy.too_many_is_permanent {
                Reply::new(557, "5.7.1", "too many recipients")
            } else {
                Reply::new(452, "4.5.3", "too many recipients")
            };
            return self.reply(&reply);
        }
        let number = transaction.recipients.len() + 1;
        transaction.recipients.push(Recipient { address: candidate.address, local: candidate.local });
        if let Some((from, pause)) = self.policy.tarpit
            && number >= from
        {
            self.actions.push_back(Action::Delay(pause));
        }
        self.reply(&Reply::plain(250, "ok"));
    }

    /// `user@[our own address]` is a user of this host.
    fn without_literal(&self, address: Vec<u8>) -> Vec<u8> {
        let (local, domain) = address::split(&address);
        let literal = domain.and_then(|d| d.strip_prefix(b"[")?.strip_suffix(b"]"));
        let ip = literal.and_then(|l| {
            let text = std::str::from_utf8(l).ok()?;
            let tagged = text.get(..5).is_some_and(|tag| tag.eq_ignore_ascii_case("IPv6:"));
            let ip: std::net::IpAddr = text[if tagged { 5 } else { 0 }..].parse().ok()?;
            // One address has one form, however it was written.
            Some(ip.to_canonical())
        });
        if ip.is_some() && ip == self.connection.peer.local_ip {
            return [local, b"@", &self.policy.local_ip_host].concat();
        }
        address
    }

    /// A lookup had no answer: not yes, not no.
    pub(super) fn cannot_tell(&mut self, what: &'static str) {
        self.log(Event::Unavailable(what));
        self.reply(&Reply::new(451, "4.3.2", "cannot check right now, try again later"));
    }
}

fn is_qualified(address: &[u8]) -> bool {
    let (local, domain) = address::split(address);
    !local.is_empty() && domain.is_some_and(|d| !d.is_empty())
}
