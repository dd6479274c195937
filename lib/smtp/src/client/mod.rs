//! The client side of a session: one message to one host.
//!
//! ```text
//! Job ─► Session ──next_action()──► Action ──► driver
//!           ▲ feed(bytes) tls(done) message_sent() lost()
//! ```
//!
//! The session decides what is said and what the answers mean; the driver owns the connection, the
//! message and the deadlines. Recipients are sent in one batch where the host offers PIPELINING.

mod capabilities;
mod outcome;

use std::collections::VecDeque;

pub use capabilities::Capabilities;
pub use outcome::{Class, Outcome, Report, Verdict};

use crate::address;
use crate::parameter::Body;
use crate::reply::{Reply, ReplyReader};

/// Most recipients that are sent without waiting for answers; their answers fit any socket buffer.
const BATCH: usize = 100;

/// What is to be sent.
#[derive(Debug, Clone)]
pub struct Job {
    /// Our name in EHLO.
    pub helo: Vec<u8>,
    /// Envelope sender; empty for a bounce.
    pub sender: Vec<u8>,
    /// Envelope recipients, at least one.
    pub recipients: Vec<Vec<u8>>,
    /// Bytes of the message; 0 when not known.
    pub size: u64,
    /// Does the message hold bytes above 127?
    pub body: Body,
    /// STARTTLS.
    pub tls: Tls,
}

/// Use of STARTTLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// Not used, or the connection is under TLS already.
    Never,
    /// When the host offers it.
    IfOffered,
    /// A host that does not offer it gets nothing.
    Required,
}

/// The next thing for the driver to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send these bytes.
    Send(Vec<u8>),
    /// Read and call [`Session::feed`], or [`Session::lost`].
    Read,
    /// Shake hands and call [`Session::tls`].
    StartTls,
    /// Send the message dot-stuffed and the final dot, then call [`Session::message_sent`].
    SendMessage,
    /// It is over.
    Done(Outcome),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    Handshake,
    Mail,
    /// Waiting for the answer about this recipient.
    Rcpt(usize),
    Data,
    Message,
    Final,
    Done,
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    job: Job,
    state: State,
    replies: ReplyReader,
    capabilities: Capabilities,
    under_tls: bool,
    /// Recipients whose RCPT has been sent.
    sent: usize,
    verdicts: Vec<Verdict>,
    actions: VecDeque<Action>,
}

impl Session {
    /// A session that waits for the host's greeting.
    #[must_use]
    pub fn new(job: Job) -> Self {
        Self {
            job,
            state: State::Greeting,
            replies: ReplyReader::default(),
            capabilities: Capabilities::default(),
            under_tls: false,
            sent: 0,
            verdicts: Vec::new(),
            actions: VecDeque::new(),
        }
    }

    /// The next action.
    pub fn next_action(&mut self) -> Action {
        loop {
            if let Some(action) = self.actions.pop_front() {
                return action;
            }
            match self.state {
                State::Done => return Action::Done(Outcome::NextHost(b"nothing more to do".to_vec())),
                State::Handshake => return Action::StartTls,
                State::Message => return Action::SendMessage,
                _ => {}
            }
            match self.replies.next_reply() {
                Ok(Some(reply)) => self.heard(&reply),
                Ok(None) => return Action::Read,
                Err(e) => self.protocol_error(&e.to_string()),
            }
        }
    }

    /// Takes bytes that the host sent.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.replies.feed(bytes);
    }

    /// The handshake succeeded or failed.
    pub fn tls(&mut self, done: bool) {
        // Nothing that was said before the handshake counts.
        self.replies.discard();
        self.capabilities = Capabilities::default();
        if done {
            self.under_tls = true;
            self.say_ehlo();
        } else if self.job.tls == Tls::Required {
            self.fail(Class::Temporary, "TLS handshake failed (#4.7.5)");
        } else {
            self.finish(Outcome::RetryInClear);
        }
    }

    /// The message and the final dot are on their way.
    pub fn message_sent(&mut self) {
        self.state = State::Final;
    }

    /// The connection broke, or the host was silent for too long.
    pub fn lost(&mut self) {
        match self.state {
            State::Done => {}
            State::Greeting => {
                self.finish(Outcome::NextHost(b"connected but the connection died (#4.4.2)".to_vec()))
            }
            State::Handshake => self.tls(false),
            State::Final => self.fail(
                Class::Temporary,
                "connected but the connection died after the message was sent. Possible duplicate! (#4.4.2)",
            ),
            _ => self.fail(Class::Temporary, "connected but the connection died (#4.4.2)"),
        }
    }

    fn protocol_error(&mut self, text: &str) {
        if self.state == State::Greeting {
            self.finish(Outcome::NextHost(text.as_bytes().to_vec()));
        } else {
            self.fail(Class::Temporary, &format!("{text} (#4.5.0)"));
        }
    }

    fn heard(&mut self, reply: &Reply) {
        match self.state {
            State::Greeting => self.greeted(reply),
            State::Ehlo if reply.is_positive() => {
                self.capabilities = Capabilities::read(&reply.lines);
                self.hello_done();
            }
            State::Ehlo if reply.is_permanent() => {
                let line = [b"HELO ", &self.job.helo[..], b"\r\n"].concat();
                self.say(line, State::Helo);
            }
            State::Helo if reply.is_positive() => self.hello_done(),
            State::Ehlo | State::Helo => self.refused("connected but my name was rejected: ", reply),
            State::StartTls if reply.code == 220 => self.state = State::Handshake,
            State::StartTls if self.job.tls == Tls::Required => {
                self.fail(Class::Temporary, "the host offers TLS but does not start it (#4.7.5)");
            }
            // It refuses what it offers: go on in clear.
            State::StartTls => self.start_mail(),
            State::Mail if reply.is_positive() => self.next_recipients(0),
            State::Mail => self.refused("connected but sender was rejected: ", reply),
            State::Rcpt(index) => self.recipient_answered(index, reply),
            State::Data if reply.code == 354 => self.state = State::Message,
            State::Data if reply.is_positive() => {
                self.fail(Class::Temporary, "the host does not know how to take a message (#4.5.0)");
            }
            State::Data => self.refused("failed on DATA command: ", reply),
            State::Final if (200..300).contains(&reply.code) => {
                self.quit_with(Verdict { class: Class::Accepted, text: reply.text() });
            }
            State::Final if reply.is_positive() => {
                self.fail(Class::Temporary, "the host gave no answer about the message (#4.5.0)");
            }
            State::Final => self.refused("failed after I sent the message: ", reply),
            State::Handshake | State::Message | State::Done => {}
        }
    }

    fn greeted(&mut self, reply: &Reply) {
        if reply.is_permanent() {
            self.refused("connected but greeting failed: ", reply);
        } else if (200..300).contains(&reply.code) {
            self.say_ehlo();
        } else {
            let text = [b"connected but greeting failed: ", &reply.text()[..]].concat();
            self.say_quit();
            self.finish(Outcome::NextHost(text));
        }
    }

    fn say_ehlo(&mut self) {
        let line = [b"EHLO ", &self.job.helo[..], b"\r\n"].concat();
        self.say(line, State::Ehlo);
    }

    fn hello_done(&mut self) {
        match (self.job.tls, self.under_tls, self.capabilities.starttls) {
            (Tls::IfOffered | Tls::Required, false, true) => {
                self.say(b"STARTTLS\r\n".to_vec(), State::StartTls)
            }
            (Tls::Required, false, false) => {
                self.say_quit();
                self.fail(Class::Temporary, "TLS is required but the host does not offer it (#4.7.4)");
            }
            _ => self.start_mail(),
        }
    }

    fn start_mail(&mut self) {
        let addresses = std::iter::once(&self.job.sender).chain(&self.job.recipients);
        let needs_utf8 = addresses.flatten().any(|b| !b.is_ascii());
        if needs_utf8 && !self.capabilities.smtputf8 {
            self.say_quit();
            return self.fail(Class::Permanent, "the host does not take addresses in UTF-8 (#5.6.7)");
        }
        let mut line = [b"MAIL FROM:<", &address::quoted(&self.job.sender)[..], b">"].concat();
        if self.capabilities.size && self.job.size > 0 {
            line.extend_from_slice(format!(" SIZE={}", self.job.size).as_bytes());
        }
        if self.capabilities.eight_bit && self.job.body == Body::EightBit {
            line.extend_from_slice(b" BODY=8BITMIME");
        }
        if needs_utf8 {
            line.extend_from_slice(b" SMTPUTF8");
        }
        line.extend_from_slice(b"\r\n");
        if self.capabilities.pipelining {
            line.extend_from_slice(&self.recipient_lines(BATCH));
        }
        self.say(line, State::Mail);
    }

    /// RCPT commands for the next `most` recipients.
    fn recipient_lines(&mut self, most: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for recipient in self.job.recipients.iter().skip(self.sent).take(most) {
            out.extend_from_slice(b"RCPT TO:<");
            out.extend_from_slice(&address::quoted(recipient));
            out.extend_from_slice(b">\r\n");
            self.sent += 1;
        }
        out
    }

    /// Recipient `index` is the next to be answered.
    fn next_recipients(&mut self, index: usize) {
        self.state = State::Rcpt(index);
        if index == self.sent {
            let lines = self.recipient_lines(if self.capabilities.pipelining { BATCH } else { 1 });
            self.actions.push_back(Action::Send(lines));
        }
    }

    fn recipient_answered(&mut self, index: usize, reply: &Reply) {
        let class = Class::of(reply);
        self.verdicts.push(Verdict { class, text: reply.text() });
        if index + 1 < self.job.recipients.len() {
            return self.next_recipients(index + 1);
        }
        if self.verdicts.iter().any(|v| v.class == Class::Accepted) {
            self.say(b"DATA\r\n".to_vec(), State::Data);
        } else {
            self.say_quit();
            self.fail(Class::Permanent, "giving up");
        }
    }

    fn say(&mut self, bytes: Vec<u8>, next: State) {
        self.actions.push_back(Action::Send(bytes));
        self.state = next;
    }

    fn say_quit(&mut self) {
        self.actions.push_back(Action::Send(b"QUIT\r\n".to_vec()));
    }

    fn refused(&mut self, what: &str, reply: &Reply) {
        let class = if reply.is_permanent() { Class::Permanent } else { Class::Temporary };
        self.quit_with(Verdict { class, text: [what.as_bytes(), &reply.text()].concat() });
    }

    fn quit_with(&mut self, message: Verdict) {
        self.say_quit();
        self.report(message);
    }

    fn fail(&mut self, class: Class, text: &str) {
        self.report(Verdict { class, text: text.as_bytes().to_vec() });
    }

    fn report(&mut self, message: Verdict) {
        let recipients = std::mem::take(&mut self.verdicts);
        self.finish(Outcome::Report(Report { recipients, message }));
    }

    fn finish(&mut self, outcome: Outcome) {
        self.actions.push_back(Action::Done(outcome));
        self.state = State::Done;
    }
}

#[cfg(test)]
mod tests;
