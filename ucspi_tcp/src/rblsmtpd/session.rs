//! The conversation with a client that is refused. Pure: bytes in, replies and log lines out.

/// Bytes of a line that are looked at; the rest of it is dropped.
const MAX_LINE: usize = 1000;
/// Longest part of a line in the log.
const MAX_LOGGED: usize = 200;

/// What the client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// Our name in greeting and replies.
    pub name: String,
    /// The refusal: code and text, without line end.
    pub refusal: String,
    /// Is EHLO answered with more than one line?
    pub extended: bool,
}

/// The conversation.
#[derive(Debug)]
pub struct Session {
    words: Words,
    line: Vec<u8>,
}

/// What a piece of input came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// To be sent.
    pub replies: Vec<u8>,
    /// To be logged: senders and recipients.
    pub log: Vec<String>,
    /// The client said QUIT: close when the replies are sent.
    pub over: bool,
}

impl Session {
    /// A conversation that begins with [`Session::greeting`].
    #[must_use]
    pub fn new(words: Words) -> Self {
        Self { words, line: Vec::new() }
    }

    /// What is said first.
    #[must_use]
    pub fn greeting(&self) -> String {
        format!("220 {}\r\n", self.words.name)
    }

    /// Takes the next piece of input; nothing is looked at after QUIT.
    pub fn feed(&mut self, bytes: &[u8]) -> Outcome {
        let mut outcome = Outcome::default();
        for &byte in bytes {
            if byte != b'\n' {
                if self.line.len() < MAX_LINE {
                    self.line.push(byte);
                }
                continue;
            }
            let line = std::mem::take(&mut self.line);
            self.answer(line.strip_suffix(b"\r").unwrap_or(&line), &mut outcome);
            if outcome.over {
                break;
            }
        }
        outcome
    }

    fn answer(&self, line: &[u8], outcome: &mut Outcome) {
        let end = line.iter().position(|b| b.is_ascii_whitespace()).unwrap_or(line.len());
        let (verb, rest) = line.split_at(end);
        let Words { name, refusal, extended } = &self.words;
        let is = |word: &str| verb.eq_ignore_ascii_case(word.as_bytes());
        if is("MAIL") || is("RCPT") {
            outcome.log.push(loggable(&[verb, rest].concat()));
        }
        let reply = if is("EHLO") && *extended {
            format!("250-{name}\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
        } else if ["HELO", "EHLO", "MAIL", "RSET", "NOOP"].into_iter().any(is) {
            format!("250 {name}\r\n")
        } else if is("QUIT") {
            outcome.over = true;
            format!("221 {name}\r\n")
        } else {
            format!("{refusal}\r\n")
        };
        outcome.replies.extend_from_slice(reply.as_bytes());
    }
}

fn loggable(line: &[u8]) -> String {
    let plain = |&b: &u8| if (b' '..=b'~').contains(&b) && b != b'%' { char::from(b) } else { '?' };
    line.iter().take(MAX_LOGGED).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn session(extended: bool) -> Session {
        Session::new(Words { name: "me".into(), refusal: "451 no".into(), extended })
    }

    fn replies(outcome: &Outcome) -> String {
        String::from_utf8(outcome.replies.clone()).unwrap()
    }

    #[test]
    fn everything_but_mail_gets_through() {
        let mut session = session(false);
        assert_eq!(session.greeting(), "220 me\r\n");
        let outcome = session.feed(
            b"helo x\r\nMAIL FROM:<a@b>\nRcpt to:<c%\xff@d>\r\nDATA\r\nRSET\r\nNOOP\r\nEHLO\r\n\r\nQUITX\r\nquit\r\nNOOP\r\n",
        );
        let want = "250 250 250 451 451 250 250 250 451 451 221".replacen("250 ", "", 1);
        let codes: Vec<_> = replies(&outcome).lines().map(|l| l[..3].to_owned()).collect();
        assert_eq!(codes.join(" "), want);
        assert_eq!(outcome.log, ["MAIL FROM:<a@b>", "Rcpt to:<c??@d>"]);
        assert!(outcome.over);
    }

    #[test]
    fn capabilities_and_long_lines() {
        let mut session = session(true);
        assert_eq!(replies(&session.feed(b"EHLO x\r\n")), "250-me\r\n250-PIPELINING\r\n250 8BITMIME\r\n");
        let long = [&b"MAIL "[..], &[b'x'; 5000], b"\r\nQUIT\r\n"].concat();
        let outcome = session.feed(&long);
        assert_eq!((replies(&outcome).as_str(), outcome.log[0].len()), ("250 me\r\n221 me\r\n", 200));
    }

    proptest! {
        #[test]
        fn one_reply_for_each_line_in_any_pieces(text in "(MAIL|QUIT|X|\r|\n| ){0,30}", cut in 0usize..90) {
            let bytes = text.as_bytes();
            let (head, tail) = bytes.split_at(cut.min(bytes.len()));
            let (mut parts, mut whole) = (session(false), session(false));
            let (first, all) = (parts.feed(head), whole.feed(bytes));
            let second = if first.over { Outcome::default() } else { parts.feed(tail) };
            prop_assert_eq!([first.replies, second.replies].concat(), all.replies.clone());
            prop_assert_eq!([first.log, second.log].concat(), all.log);
            let lines = text.split_inclusive('\n').filter(|l| l.ends_with('\n'));
            let quit = |l: &str| l.split_ascii_whitespace().next() == Some("QUIT") && !l.starts_with([' ', '\r']);
            let until_quit = lines.clone().position(quit).map_or(lines.count(), |at| at + 1);
            prop_assert_eq!(all.replies.iter().filter(|&&b| b == b'\n').count(), until_quit);
        }
    }
}
