//! DATA and the message.

use super::{Action, Additions, Answer, Ending, Event, Pending, Query, Session, State};
use crate::data::{Decoder, Progress};
use crate::header::Watch;
use crate::reply::Reply;

/// A message that is being received.
#[derive(Debug)]
pub(super) struct Receiving {
    decoder: Decoder,
    header: Watch,
    additions: Option<Additions>,
    size: u64,
    trouble: Option<Trouble>,
}

/// Why a message is read to its end but not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    TooBig,
    Looping,
}

impl Session {
    pub(super) fn data(&mut self, argument: &[u8]) {
        if !argument.is_empty() {
            return self.refuse(Reply::new(501, "5.3.2", "DATA takes no argument"));
        }
        let Some(transaction) = &self.transaction else {
            return self.refuse(Reply::new(503, "5.5.1", "MAIL first"));
        };
        if transaction.recipients.is_empty() {
            return self.refuse(Reply::new(503, "5.5.1", "RCPT first"));
        }
        let trace = self.connection.trace(transaction.parameters.smtputf8);
        self.ask(Query::Open(trace), Pending::Open);
    }

    pub(super) fn opened(&mut self, answer: Answer) {
        let Answer::Opened(additions) = answer else {
            self.transaction = None;
            self.log(Event::Unavailable("queue"));
            return self.refuse(Reply::new(451, "4.3.0", "cannot open the queue, try again later"));
        };
        self.state = State::Body(Box::new(Receiving {
            decoder: Decoder::new(self.policy.bare_lf),
            header: Watch::default(),
            additions: self.policy.submission.then_some(additions),
            size: 0,
            trouble: None,
        }));
        self.reply(&Reply::plain(354, "go ahead"));
    }

    /// Decodes what has arrived of the message.
    pub(super) fn receive(&mut self) {
        let State::Body(mut receiving) = std::mem::replace(&mut self.state, State::Command) else {
            return;
        };
        let mut text = Vec::with_capacity(self.input.len() - self.used);
        let progress = receiving.decoder.decode(&self.input[self.used..], &mut text);
        let before = receiving.trouble;
        let text = receiving.examine(text, progress != Progress::More, &self.policy);
        if receiving.trouble.is_some() && before.is_none() {
            self.actions.push_back(Action::Abandon);
        } else if receiving.trouble.is_none() && progress != Progress::BareLf && !text.is_empty() {
            self.actions.push_back(Action::Write(text));
        }
        match progress {
            Progress::More => {
                self.used = self.input.len();
                self.state = State::Body(receiving);
            }
            Progress::BareLf => {
                self.abandon(receiving.trouble.is_none());
                self.log(Event::BareLf);
                self.reply(&Reply::new(
                    451,
                    "4.6.0",
                    "bare line feed received, see https://cr.yp.to/docs/smtplf.html",
                ));
                self.close(Ending::Dropped);
            }
            Progress::End(used) => {
                self.used += used;
                self.message_ended(&receiving);
            }
        }
    }

    fn message_ended(&mut self, receiving: &Receiving) {
        let Some(transaction) = &self.transaction else {
            return;
        };
        let mail = |c| transaction.mail(c, receiving.size);
        let (event, reply) = match receiving.trouble {
            None => {
                let recipients = transaction.recipients.iter().map(|r| r.address.clone()).collect();
                let query = Query::Commit { sender: transaction.sender.clone(), recipients };
                return self.ask(query, Pending::Commit { size: receiving.size });
            }
            Some(Trouble::TooBig) => (
                Event::TooBig(mail(&self.connection)),
                Reply::new(552, "5.3.4", "sorry, that message size exceeds my databytes limit"),
            ),
            Some(Trouble::Looping) => (
                Event::Looping(mail(&self.connection)),
                Reply::new(554, "5.4.6", "too many hops, this message is looping"),
            ),
        };
        self.transaction = None;
        self.refuse(reply);
        self.log(event);
    }

    pub(super) fn committed(&mut self, size: u64, answer: Answer) {
        let mail = self.transaction.take().map(|t| t.mail(&self.connection, size));
        let reply = match answer {
            Answer::Queued { time, qp } => Reply::plain(250, format!("ok {time} qp {qp}")),
            Answer::Refused(reply) => reply,
            _ => Reply::new(451, "4.3.0", "cannot queue the message, try again later"),
        };
        self.reply(&reply);
        // The client hears of it before anything else can go wrong (RFC 1047).
        self.actions.push_back(Action::Flush);
        let Some(mail) = mail else {
            return;
        };
        let accepted = reply.is_positive();
        self.log(if accepted { Event::Accepted(mail) } else { Event::QueueTrouble(mail, reply) });
    }

    /// Drops a message that is being received.
    pub(super) fn abandon_message(&mut self) {
        let open = match &self.state {
            State::Body(receiving) => receiving.trouble.is_none(),
            State::Asked(Pending::Commit { .. } | Pending::Open) => true,
            _ => false,
        };
        self.abandon(open);
    }

    fn abandon(&mut self, open: bool) {
        if open {
            self.actions.push_back(Action::Abandon);
        }
    }
}

impl Receiving {
    /// Counts and watches the next piece of text, and adds what the header lacks.
    fn examine(&mut self, mut text: Vec<u8>, last: bool, policy: &super::Policy) -> Vec<u8> {
        self.size = self.size.saturating_add(u64::try_from(text.len()).unwrap_or(u64::MAX));
        if self.trouble.is_some() {
            return text;
        }
        let end = if self.header.is_done() { None } else { self.header.look(&text) };
        if policy.size_limit.is_some_and(|limit| self.size > limit) {
            self.trouble = Some(Trouble::TooBig);
        }
        if self.header.hops >= policy.max_hops {
            self.trouble = Some(Trouble::Looping);
        }
        let at = end.or((last && !self.header.is_done()).then_some(text.len()));
        if let (Some(at), Some(additions)) = (at, self.additions.take_if(|_| at.is_some())) {
            let mut extra = Vec::new();
            if !self.header.date {
                extra.extend_from_slice(&additions.date);
            }
            if !self.header.message_id {
                extra.extend_from_slice(&additions.message_id);
            }
            text.splice(at..at, extra);
        }
        text
    }
}
