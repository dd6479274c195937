//! The server side of a session.
//!
//! ```text
//! Policy (process) ─┐
//! Peer ─► Connection ├─► Session ──next_action()──► Action ──► driver
//! MAIL ─► Transaction┘      ▲ feed(bytes) answer(Answer) end_of_input() timed_out() terminate()
//! ```
//!
//! The three scopes are three types. A [`Policy`] is shared and never changes; the connection
//! holds greeting, TLS and login; the transaction holds the envelope and is dropped whole by RSET,
//! MAIL, HELO, EHLO, STARTTLS and the end of the message.

mod auth;
mod body;
mod envelope;
mod greet;
mod policy;
mod query;
mod scopes;

use std::collections::VecDeque;
use std::sync::Arc;

use zeroize::{Zeroize as _, Zeroizing};

use crate::command::{self, Line, MAX_AUTH_LINE, Verb};
use crate::reply::Reply;

pub use policy::{AuthPolicy, Gate, Peer, Policy, TlsFacts};
pub use query::{
    Action, Additions, Answer, Ending, Event, Login, Mail, Method, Query, RecipientState, Trace,
};
use scopes::{Connection, Transaction};

/// Most recipients of one message when the administrator sets no limit.
pub const MAX_RECIPIENTS: usize = 20_000;
/// So many commands in error end a connection.
pub const MAX_ERRORS: u32 = 100;

/// One connection.
#[derive(Debug)]
pub struct Session {
    policy: Arc<Policy>,
    connection: Connection,
    transaction: Option<Transaction>,
    state: State,
    input: Vec<u8>,
    used: usize,
    actions: VecDeque<Action>,
}

#[derive(Debug)]
enum State {
    /// Waiting for a command line.
    Command,
    /// Waiting for a line of a login dialogue.
    Auth(auth::Step),
    /// Receiving a message.
    Body(Box<body::Receiving>),
    /// A question is out.
    Asked(Pending),
    Closed(Ending),
}

/// What the answer is for.
#[derive(Debug)]
enum Pending {
    BadSender(Transaction),
    OwnsSender(Transaction),
    BadRecipient(envelope::Candidate),
    Domain(envelope::Candidate),
    Recipient(envelope::Candidate),
    Login { user: Vec<u8>, method: Method },
    TlsReady,
    Tls,
    Open,
    Commit { size: u64 },
}

impl Session {
    /// A session that begins with the greeting.
    #[must_use]
    pub fn new(policy: Arc<Policy>, peer: Peer) -> Self {
        let mut session = Self {
            policy,
            connection: Connection::new(peer),
            transaction: None,
            state: State::Command,
            input: Vec::new(),
            used: 0,
            actions: VecDeque::new(),
        };
        session.greet();
        session
    }

    /// The next action. After [`Action::Ask`] and [`Action::StartTls`] the driver answers first;
    /// one that does not is treated as having no answer.
    pub fn next_action(&mut self) -> Action {
        loop {
            if let Some(action) = self.actions.pop_front() {
                return action;
            }
            match &self.state {
                State::Closed(ending) => return Action::Close(*ending),
                State::Asked(_) => self.answer(Answer::Unavailable),
                State::Body(_) if self.input.len() == self.used => return Action::Read,
                State::Body(_) => self.receive(),
                State::Command | State::Auth(_) => {
                    if !self.take_line() {
                        return Action::Read;
                    }
                }
            }
        }
    }

    /// Takes bytes that the client sent.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.used > 0 {
            self.input.drain(..self.used);
            self.used = 0;
        }
        self.input.extend_from_slice(bytes);
    }

    /// Is the text of a message being received (so that no password can be in the input)?
    #[must_use]
    pub fn is_receiving(&self) -> bool {
        matches!(self.state, State::Body(_))
    }

    /// Is no message under way, so that ending now loses nothing?
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.transaction.is_none() && matches!(self.state, State::Command | State::Auth(_) | State::Closed(_))
    }

    /// Gives back the memory of input that has been used; for a driver that waits with many sessions.
    pub fn rest(&mut self) {
        if self.used == self.input.len() {
            (self.input, self.used) = (Vec::new(), 0);
            self.actions.shrink_to_fit();
        }
    }

    /// The client closed its side. An unfinished message is dropped.
    pub fn end_of_input(&mut self) {
        self.abandon_message();
        self.close(Ending::Dropped);
    }

    /// The client was silent for too long.
    pub fn timed_out(&mut self) {
        self.abandon_message();
        self.cut(Reply::new(451, "4.4.2", "timeout"), "timeout");
    }

    /// The service ends.
    pub fn terminate(&mut self) {
        self.abandon_message();
        self.cut(Reply::new(421, "4.3.2", "service is going down"), "terminated");
    }

    /// Takes the answer to the last question.
    pub fn answer(&mut self, answer: Answer) {
        let State::Asked(pending) = std::mem::replace(&mut self.state, State::Command) else {
            return;
        };
        match pending {
            Pending::BadSender(t) => self.sender_listed(t, &answer),
            Pending::OwnsSender(t) => self.sender_owned(t, &answer),
            Pending::BadRecipient(c) => self.recipient_listed(c, &answer),
            Pending::Domain(c) => self.domain_known(c, &answer),
            Pending::Recipient(c) => self.recipient_known(c, &answer),
            Pending::Login { user, method } => self.login_known(user, method, &answer),
            Pending::TlsReady => self.tls_ready(&answer),
            Pending::Tls => self.tls_known(answer),
            Pending::Open => self.opened(answer),
            Pending::Commit { size } => self.committed(size, answer),
        }
    }

    /// Handles the next whole line; false when there is none yet.
    fn take_line(&mut self) -> bool {
        let limit = if matches!(self.state, State::Auth(_)) { MAX_AUTH_LINE } else { self.line_limit() };
        let waiting = &self.input[self.used..];
        let found = command::next_line(waiting).map(|(text, used)| (text.to_vec(), used));
        let length = found.as_ref().map_or(waiting.len() + 1, |(_, used)| *used);
        if length > limit {
            self.cut(Reply::new(553, "5.5.2", "line too long"), "line too long");
            return true;
        }
        let Some((line, used)) = found else {
            return false;
        };
        // The line may hold a password: no copy of it stays behind.
        self.input[self.used..self.used + used].zeroize();
        self.used += used;
        let line = Zeroizing::new(line);
        match std::mem::replace(&mut self.state, State::Command) {
            State::Auth(step) => self.auth_line(step, &line),
            _ => self.command(Line::new(&line)),
        }
        true
    }

    /// AUTH with an initial response may be longer than other commands.
    fn line_limit(&self) -> usize {
        let auth = self.input[self.used..].get(..4).is_some_and(|w| w.eq_ignore_ascii_case(b"AUTH"));
        if auth { MAX_AUTH_LINE } else { self.policy.max_line }
    }

    fn command(&mut self, line: Line<'_>) {
        if let Some(gate) = self.connection.peer.gate.clone()
            && !matches!(line.verb, Verb::Quit | Verb::Help)
        {
            if gate.slow {
                self.actions.push_back(Action::Delay(self.policy.penalty));
            }
            return self.refuse(gate.later);
        }
        let in_clear = self.policy.force_tls && self.connection.tls.is_none();
        if in_clear && matches!(line.verb, Verb::Mail | Verb::Rcpt | Verb::Data | Verb::Auth) {
            return self.refuse(Reply::new(530, "5.7.0", "must issue a STARTTLS command first"));
        }
        match line.verb {
            Verb::Helo => self.helo(line.argument, false),
            Verb::Ehlo => self.helo(line.argument, true),
            Verb::Mail => self.mail(line.argument),
            Verb::Rcpt => self.rcpt(line.argument),
            Verb::Data => self.data(line.argument),
            Verb::Rset => self.rset(line.argument),
            Verb::Noop => self.reply(&Reply::plain(250, "ok")),
            Verb::Quit => self.quit(),
            Verb::Vrfy => self.vrfy(),
            Verb::Help => self.help(),
            Verb::Auth => self.auth(line.argument),
            Verb::StartTls => self.starttls(line.argument),
            Verb::Unknown => self.unknown(line.word),
        }
    }

    fn reply(&mut self, reply: &Reply) {
        self.actions.push_back(Action::Send(reply.encode()));
    }

    /// A reply to a command in error; too many of them end the connection.
    fn refuse(&mut self, reply: Reply) {
        self.connection.errors += 1;
        if self.connection.errors >= MAX_ERRORS {
            return self.cut(Reply::new(421, "4.7.0", "too many errors"), "too many errors");
        }
        self.reply(&reply);
    }

    /// A refusal that has a limit of its own (logins, invalid recipients): costs time.
    fn penalize(&mut self, reply: &Reply) {
        self.actions.push_back(Action::Delay(self.policy.penalty));
        self.reply(reply);
    }

    /// Last words, then the end.
    fn cut(&mut self, reply: Reply, why: &'static str) {
        if matches!(self.state, State::Closed(_)) {
            return;
        }
        self.reply(&reply);
        self.actions.push_back(Action::Log(Event::Cut(why)));
        self.close(Ending::Dropped);
    }

    fn close(&mut self, ending: Ending) {
        self.transaction = None;
        self.state = State::Closed(ending);
    }

    fn log(&mut self, event: Event) {
        self.actions.push_back(Action::Log(event));
    }

    fn ask(&mut self, query: Query, pending: Pending) {
        self.actions.push_back(Action::Ask(query));
        self.state = State::Asked(pending);
    }
}

#[cfg(test)]
mod tests;
