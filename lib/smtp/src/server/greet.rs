//! Greeting, HELO, EHLO, STARTTLS, and the small commands.

use super::scopes::Greeted;
use super::{Action, Answer, Ending, Event, Pending, Query, Session, State};
use crate::reply::Reply;

impl Session {
    /// The first line, or the gate's.
    pub(super) fn greet(&mut self) {
        match &self.connection.peer.gate {
            Some(gate) => {
                let reply = gate.greeting.clone();
                self.reply(&reply);
            }
            None => self.reply(&Reply::lines(220, self.policy.greeting.clone())),
        }
    }

    fn first_greeting_line(&self) -> Vec<u8> {
        self.policy.greeting.first().cloned().unwrap_or_default()
    }

    pub(super) fn helo(&mut self, argument: &[u8], extended: bool) {
        self.transaction = None;
        let name = if argument.is_empty() {
            format!("[{}]", self.connection.peer.ip.map_or_else(|| "unknown".into(), |ip| ip.to_string()))
                .into_bytes()
        } else {
            argument.to_vec()
        };
        self.connection.greeted = Some(Greeted { name, extended });
        let mut lines = vec![self.first_greeting_line()];
        if extended {
            lines.extend(self.extensions());
        }
        self.reply(&Reply::lines(250, lines));
    }

    fn extensions(&self) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        let methods = self.auth_methods();
        if !methods.is_empty() {
            let names: Vec<_> = methods.iter().map(|m| m.name()).collect();
            lines.push(format!("AUTH {}", names.join(" ")).into_bytes());
        }
        lines.push(b"PIPELINING".to_vec());
        lines.push(b"8BITMIME".to_vec());
        if let Some(limit) = self.policy.size_limit {
            lines.push(format!("SIZE {limit}").into_bytes());
        }
        if self.policy.starttls && self.connection.tls.is_none() {
            lines.push(b"STARTTLS".to_vec());
        }
        if self.policy.smtputf8 {
            lines.push(b"SMTPUTF8".to_vec());
        }
        lines.push(b"HELP".to_vec());
        lines
    }

    pub(super) fn starttls(&mut self, argument: &[u8]) {
        if !argument.is_empty() {
            return self.refuse(Reply::new(501, "5.5.4", "STARTTLS takes no argument"));
        }
        if self.connection.tls.is_some() {
            return self.refuse(Reply::new(502, "5.5.1", "TLS is already on"));
        }
        if !self.policy.starttls {
            return self.refuse(Reply::new(502, "5.5.1", "STARTTLS is not offered here"));
        }
        self.ask(Query::PrepareTls, Pending::TlsReady);
    }

    pub(super) fn tls_ready(&mut self, answer: &Answer) {
        if *answer != Answer::Yes {
            return self.refuse(Reply::new(454, "4.3.0", "TLS is not available right now"));
        }
        self.transaction = None;
        self.reply(&Reply::plain(220, "ready for TLS"));
        // Commands smuggled into the same packet must not be executed under TLS.
        self.input.clear();
        self.used = 0;
        self.actions.push_back(Action::StartTls);
        self.state = State::Asked(Pending::Tls);
    }

    pub(super) fn tls_known(&mut self, answer: Answer) {
        self.input.clear();
        self.used = 0;
        match answer {
            Answer::Tls(Some(facts)) => {
                self.connection.now_under_tls(facts.clone());
                self.log(Event::TlsStarted(facts));
            }
            // Nobody knows what the peer believes the rest of the stream to be.
            _ => {
                self.log(Event::Cut("TLS handshake failed"));
                self.close(Ending::Dropped);
            }
        }
    }

    pub(super) fn rset(&mut self, argument: &[u8]) {
        if !argument.is_empty() {
            return self.refuse(Reply::new(501, "5.3.2", "RSET takes no argument"));
        }
        self.transaction = None;
        self.reply(&Reply::plain(250, "flushed"));
    }

    pub(super) fn quit(&mut self) {
        let line = self.first_greeting_line();
        self.reply(&Reply::plain(221, line));
        self.close(Ending::Quit);
    }

    pub(super) fn vrfy(&mut self) {
        if self.policy.vrfy {
            self.reply(&Reply::new(252, "2.7.0", "send some mail, I'll try my best"));
        } else {
            self.refuse(Reply::new(502, "5.5.1", "VRFY is disabled"));
        }
    }

    pub(super) fn help(&mut self) {
        if !self.policy.help {
            return self.refuse(Reply::new(502, "5.5.1", "HELP is disabled"));
        }
        self.reply(&Reply::lines(
            214,
            vec![
                concat!("IndiMail SMTP server ", env!("CARGO_PKG_VERSION")).into(),
                b"https://github.com/indimail/indimail-rust".to_vec(),
                b"HELO EHLO AUTH STARTTLS MAIL RCPT DATA RSET NOOP VRFY HELP QUIT".to_vec(),
            ],
        ));
    }

    pub(super) fn unknown(&mut self, word: &[u8]) {
        if word.first().is_some_and(|b| b.eq_ignore_ascii_case(&b'x')) {
            return self.refuse(Reply::new(502, "5.5.1", "unimplemented"));
        }
        let shown: String = crate::command::sanitized(word).chars().take(40).collect();
        self.refuse(Reply::new(502, "5.5.2", &format!("unimplemented command {shown}")));
    }
}
