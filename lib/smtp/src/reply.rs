//! Replies: how a server writes them, how a client reads them.

/// Longest reply a client keeps, in bytes of text.
pub const MAX_TEXT: usize = 4096;
/// Longest line a client accepts from a server before it gives up on it.
const MAX_REPLY_LINE: usize = 8192;
/// Most lines of one reply.
const MAX_LINES: usize = 512;

/// A reply with at least one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Three digits.
    pub code: u16,
    /// Lines without code and line end.
    pub lines: Vec<Vec<u8>>,
}

impl Reply {
    /// One line of text and no enhanced code.
    pub fn plain(code: u16, text: impl AsRef<[u8]>) -> Self {
        Self { code, lines: vec![text.as_ref().to_vec()] }
    }

    /// One line that ends with the enhanced code in parentheses: `text (#5.5.1)`.
    #[must_use]
    pub fn new(code: u16, enhanced: &str, text: &str) -> Self {
        Self::plain(code, format!("{text} (#{enhanced})"))
    }

    /// Several lines.
    #[must_use]
    pub fn lines(code: u16, lines: Vec<Vec<u8>>) -> Self {
        if lines.is_empty() { Self::plain(code, "ok") } else { Self { code, lines } }
    }

    /// The bytes on the wire. Control bytes in a text become `?`, so that nothing can add a reply.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let last = self.lines.len().saturating_sub(1);
        for (i, line) in self.lines.iter().enumerate() {
            out.extend_from_slice(self.code.to_string().as_bytes());
            out.push(if i == last { b' ' } else { b'-' });
            out.extend(line.iter().map(|&b| if b < 0x20 && b != b'\t' || b == 0x7f { b'?' } else { b }));
            out.extend_from_slice(b"\r\n");
        }
        out
    }

    /// All lines joined with newlines, each led by the code: what goes into a report.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        let mut out = self.code.to_string().into_bytes();
        for (i, line) in self.lines.iter().enumerate() {
            out.push(if i == 0 { b' ' } else { b'\n' });
            out.extend_from_slice(line);
        }
        out.truncate(MAX_TEXT);
        out
    }

    /// 2xx or 3xx: go on.
    #[must_use]
    pub fn is_positive(&self) -> bool {
        self.code < 400
    }

    /// 5xx: never.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        self.code >= 500
    }
}

/// Not a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server does not speak SMTP")]
pub struct NotAReply;

/// Collects the bytes of replies and hands out one reply after the other.
#[derive(Debug, Default)]
pub struct ReplyReader {
    buffer: Vec<u8>,
    lines: Vec<Vec<u8>>,
    code: Option<u16>,
    kept: usize,
}

impl ReplyReader {
    /// Takes more bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Forgets what has not been read; the connection continues under TLS.
    pub fn discard(&mut self) {
        *self = Self::default();
    }

    /// The next whole reply, `None` when more bytes are needed.
    ///
    /// # Errors
    /// What arrived is no reply, or is longer than any sane reply.
    pub fn next_reply(&mut self) -> Result<Option<Reply>, NotAReply> {
        loop {
            let Some((line, used)) = crate::command::next_line(&self.buffer) else {
                return if self.buffer.len() > MAX_REPLY_LINE { Err(NotAReply) } else { Ok(None) };
            };
            let (code, more, text) = reply_line(line)?;
            if self.code.is_some_and(|c| c != code) || self.lines.len() >= MAX_LINES {
                return Err(NotAReply);
            }
            self.code = Some(code);
            let room = MAX_TEXT.saturating_sub(self.kept).min(text.len());
            self.kept += room;
            self.lines.push(text[..room].to_vec());
            self.buffer.drain(..used);
            if !more {
                self.kept = 0;
                self.code = None;
                return Ok(Some(Reply { code, lines: std::mem::take(&mut self.lines) }));
            }
        }
    }
}

/// `ddd`, `ddd text` or `ddd-text`.
fn reply_line(line: &[u8]) -> Result<(u16, bool, &[u8]), NotAReply> {
    let digits = line.get(..3).filter(|d| d.iter().all(u8::is_ascii_digit)).ok_or(NotAReply)?;
    let code = digits.iter().fold(0u16, |n, d| n * 10 + u16::from(d - b'0'));
    if !(200..600).contains(&code) {
        return Err(NotAReply);
    }
    match line.get(3) {
        None => Ok((code, false, b"")),
        Some(b' ') => Ok((code, false, &line[4..])),
        Some(b'-') => Ok((code, true, &line[4..])),
        Some(_) => Err(NotAReply),
    }
}

/// Fuzz target: any bytes, fed in two pieces, give the same replies as in one.
pub fn fuzz_reply(bytes: &[u8]) {
    let all = |pieces: &[&[u8]]| {
        let mut reader = ReplyReader::default();
        let mut out = Vec::new();
        for piece in pieces {
            reader.feed(piece);
            loop {
                match reader.next_reply() {
                    Ok(Some(reply)) => out.push(Ok(reply)),
                    Ok(None) => break,
                    Err(e) => {
                        out.push(Err(e));
                        return out;
                    }
                }
            }
        }
        out
    };
    let (a, b) = bytes.split_at(bytes.len() / 2);
    assert_eq!(all(&[bytes]), all(&[a, b]));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn encoding_numbers_every_line_and_stops_injection() {
        let reply = Reply::lines(554, vec![b"first".to_vec(), b"second\r\n250 ok".to_vec()]);
        assert_eq!(reply.encode(), b"554-first\r\n554 second??250 ok\r\n");
        assert_eq!(Reply::new(503, "5.5.1", "MAIL first").encode(), b"503 MAIL first (#5.5.1)\r\n");
    }

    #[test]
    fn reading_multi_line_replies() {
        let mut reader = ReplyReader::default();
        reader.feed(b"250-mx.example\r\n250-SIZE 10\r\n250 HEL");
        assert_eq!(reader.next_reply(), Ok(None));
        reader.feed(b"P\r\n354\r\n");
        assert_eq!(reader.next_reply().unwrap().unwrap().lines, [&b"mx.example"[..], b"SIZE 10", b"HELP"]);
        assert_eq!(reader.next_reply().unwrap().unwrap().code, 354);
    }

    #[test]
    fn what_is_no_reply() {
        for bytes in [&b"SSH-2.0\r\n"[..], b"250-a\r\n251 b\r\n", b"999 x\r\n", b"250:x\r\n"] {
            let mut reader = ReplyReader::default();
            reader.feed(bytes);
            assert_eq!(reader.next_reply(), Err(NotAReply), "{}", bytes.escape_ascii());
        }
        let mut reader = ReplyReader::default();
        reader.feed(&[b'2'; 9000]);
        assert_eq!(reader.next_reply(), Err(NotAReply));
    }

    #[test]
    fn long_replies_are_cut_and_endless_ones_refused() {
        let mut reader = ReplyReader::default();
        let line = [b"250-", &[b'x'; 1000][..], b"\r\n"].concat();
        for _ in 0..MAX_LINES {
            reader.feed(&line);
        }
        assert_eq!(reader.next_reply(), Ok(None));
        reader.feed(&line);
        assert_eq!(reader.next_reply(), Err(NotAReply));
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            fuzz_reply(&bytes);
        }

        #[test]
        fn likely_bytes(text in "([2-5][0-9]{2}[ -]?[a-z]{0,3}\r?\n?){0,6}") {
            fuzz_reply(text.as_bytes());
        }
    }
}
