//! Asking a server for TLS in its own protocol. Pure: bytes in, bytes to send out.

/// Longest line that is taken.
const MAX_LINE: usize = 8192;
/// Most lines before TLS.
const MAX_LINES: usize = 200;

/// How a protocol asks for TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// EHLO, STARTTLS (RFC 3207).
    Smtp,
    /// STLS (RFC 2595).
    Pop3,
    /// STARTTLS (RFC 2595, RFC 9051).
    Imap,
}

impl Protocol {
    /// By its name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "smtp" => Some(Self::Smtp),
            "pop3" => Some(Self::Pop3),
            "imap" => Some(Self::Imap),
            _ => None,
        }
    }
}

/// What is next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Read more.
    Wait,
    /// Send this, then read more.
    Send(Vec<u8>),
    /// The server waits for the handshake; this is what it said before it was asked for anything.
    Ready(Vec<u8>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Greeting,
    Hello,
    Asked,
}

/// The dialogue before TLS.
#[derive(Debug)]
pub struct Dialogue {
    protocol: Protocol,
    /// What EHLO says.
    name: String,
    state: State,
    buffer: Vec<u8>,
    greeting: Vec<u8>,
    /// EHLO's answer has STARTTLS.
    offered: bool,
    lines: usize,
}

impl Dialogue {
    /// The dialogue from the greeting on. `name` is for SMTP's EHLO: our name or address literal.
    #[must_use]
    pub fn new(protocol: Protocol, name: &str) -> Self {
        Self {
            protocol,
            name: name.to_owned(),
            state: State::Greeting,
            buffer: Vec::new(),
            greeting: Vec::new(),
            offered: false,
            lines: 0,
        }
    }

    /// Takes what the server sent.
    ///
    /// # Errors
    /// In words: the server does not go along, or it sends more than it was asked for, which somebody else
    /// may have put there to be taken for part of the protected conversation.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Step, String> {
        self.buffer.extend_from_slice(bytes);
        let mut to_send = Vec::new();
        while let Some(end) = self.buffer.iter().position(|&b| b == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            self.lines += 1;
            if self.lines > MAX_LINES {
                return Err("the server says too much before TLS".into());
            }
            match self.line(&line)? {
                Step::Wait => {}
                Step::Send(bytes) => to_send.extend(bytes),
                ready @ Step::Ready(_) if self.buffer.is_empty() => return Ok(ready),
                Step::Ready(_) => return Err("the server sends data ahead of the TLS handshake".into()),
            }
        }
        if self.buffer.len() > MAX_LINE {
            return Err("the server's line is too long".into());
        }
        Ok(if to_send.is_empty() { Step::Wait } else { Step::Send(to_send) })
    }

    fn line(&mut self, line: &[u8]) -> Result<Step, String> {
        let text = line.trim_ascii_end();
        let refused = || format!("the server refuses TLS: {}", text.escape_ascii());
        match self.protocol {
            Protocol::Smtp => self.smtp(line, text).ok_or_else(refused),
            Protocol::Pop3 => {
                if !text.starts_with(b"+OK") {
                    return Err(refused());
                }
                Ok(self.greeted_or_ready(line, b"STLS\r\n"))
            }
            Protocol::Imap => match self.state {
                State::Greeting if text.starts_with(b"* OK") => {
                    Ok(self.greeted_or_ready(line, b"tls STARTTLS\r\n"))
                }
                State::Greeting => Err(refused()),
                _ if text.starts_with(b"* ") => Ok(Step::Wait),
                _ if text.starts_with(b"tls OK") => Ok(self.ready()),
                _ => Err(refused()),
            },
        }
    }

    fn greeted_or_ready(&mut self, line: &[u8], request: &[u8]) -> Step {
        if self.state == State::Greeting {
            self.greeting.extend_from_slice(line);
            self.state = State::Asked;
            Step::Send(request.to_vec())
        } else {
            self.ready()
        }
    }

    fn ready(&mut self) -> Step {
        Step::Ready(std::mem::take(&mut self.greeting))
    }

    /// `None`: no.
    fn smtp(&mut self, line: &[u8], text: &[u8]) -> Option<Step> {
        let (code, rest) = text.split_at_checked(3)?;
        let more = rest.first() == Some(&b'-');
        if !more && !matches!(rest.first(), None | Some(b' ')) {
            return None;
        }
        let keyword = rest.get(1..).unwrap_or_default();
        match (self.state, code) {
            (State::Greeting, b"220") => {
                self.greeting.extend_from_slice(line);
                if more {
                    return Some(Step::Wait);
                }
                self.state = State::Hello;
                Some(Step::Send(format!("EHLO {}\r\n", self.name).into_bytes()))
            }
            (State::Hello, b"250") => {
                self.offered |= keyword.eq_ignore_ascii_case(b"STARTTLS");
                match (more, self.offered) {
                    (true, _) => Some(Step::Wait),
                    (false, true) => {
                        self.state = State::Asked;
                        Some(Step::Send(b"STARTTLS\r\n".to_vec()))
                    }
                    (false, false) => None,
                }
            }
            (State::Asked, b"220") => Some(if more { Step::Wait } else { self.ready() }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds pieces; what was sent, and how it ended.
    fn talk(protocol: Protocol, pieces: &[&str]) -> (String, Result<Option<String>, String>) {
        let mut dialogue = Dialogue::new(protocol, "[127.0.0.1]");
        let mut sent = String::new();
        for piece in pieces {
            match dialogue.feed(piece.as_bytes()) {
                Ok(Step::Wait) => {}
                Ok(Step::Send(bytes)) => sent.push_str(&String::from_utf8(bytes).unwrap()),
                Ok(Step::Ready(greeting)) => return (sent, Ok(Some(String::from_utf8(greeting).unwrap()))),
                Err(e) => return (sent, Err(e)),
            }
        }
        (sent, Ok(None))
    }

    #[test]
    fn each_protocol_in_its_way() {
        use Protocol::{Imap, Pop3, Smtp};
        let (sent, end) = talk(
            Smtp,
            &["220-hi\r\n22", "0 there\r\n", "250-me\r\n250-starttls\r\n250 SIZE\r\n", "220-a\r\n220 go\r\n"],
        );
        assert_eq!(sent, "EHLO [127.0.0.1]\r\nSTARTTLS\r\n");
        assert_eq!(end, Ok(Some("220-hi\r\n220 there\r\n".into())));
        let (sent, end) = talk(Pop3, &["+OK hi\r\n", "+OK go\r\n"]);
        assert_eq!((sent.as_str(), end), ("STLS\r\n", Ok(Some("+OK hi\r\n".into()))));
        let (sent, end) = talk(Imap, &["* OK hi\r\n", "* CAPABILITY X\r\ntls OK go\r\n"]);
        assert_eq!((sent.as_str(), end), ("tls STARTTLS\r\n", Ok(Some("* OK hi\r\n".into()))));
    }

    #[test]
    fn refusals() {
        use Protocol::{Imap, Pop3, Smtp};
        let cases: [(Protocol, &[&str], &str); 9] = [
            (Smtp, &["554 no\r\n"], "refuses TLS: 554 no"),
            (Smtp, &["220 hi\r\n", "250-me\r\n250 SIZE\r\n"], "refuses TLS: 250 SIZE"),
            (Smtp, &["220 hi\r\n", "250 STARTTLS\r\n", "454 later\r\n"], "refuses TLS: 454 later"),
            (Smtp, &["220 hi\r\n", "250 STARTTLS\r\n", "220 go\r\n250 injected\r\n"], "ahead of the TLS"),
            (Smtp, &["junk\r\n"], "refuses TLS: junk"),
            (Pop3, &["-ERR\r\n"], "refuses TLS: -ERR"),
            (Imap, &["* PREAUTH hi\r\n"], "refuses TLS: * PREAUTH"),
            (Imap, &["* OK hi\r\n", "tls NO\r\n"], "refuses TLS: tls NO"),
            (Imap, &["* OK hi\r\n", "tls OK\r\nx"], "ahead of the TLS"),
        ];
        for (protocol, pieces, want) in cases {
            let error = talk(protocol, pieces).1.unwrap_err();
            assert!(error.contains(want), "{pieces:?}: {error}");
        }
        let long = "2".repeat(9000);
        assert!(talk(Smtp, &[&long]).1.unwrap_err().contains("too long"));
        let many = "* x\r\n".repeat(300);
        assert!(talk(Imap, &["* OK\r\n", &many]).1.unwrap_err().contains("too much"));
    }

    proptest! {
        #[test]
        fn nothing_but_the_last_line_makes_it_ready(
            text in "(220 |220-|250 |250-STARTTLS|\\+OK|\\* OK|tls OK|\r\n){0,20}", which in 0usize..3,
        ) {
            let protocol = [Protocol::Smtp, Protocol::Pop3, Protocol::Imap][which];
            let mut dialogue = Dialogue::new(protocol, "x");
            if let Ok(Step::Ready(greeting)) = dialogue.feed(text.as_bytes()) {
                prop_assert!(text.ends_with('\n') && text.as_bytes().starts_with(&greeting));
            }
        }
    }
}
