//! What a client may say, one line at a time.

/// Longest command line in bytes, line end included.
pub const MAX_LINE: usize = 4096;
/// Longest line of an AUTH exchange (RFC 4954, section 4.9).
pub const MAX_AUTH_LINE: usize = 12_288;

/// A command line, taken apart at its first blanks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// The verb.
    pub verb: Verb,
    /// The verb as it was sent.
    pub word: &'a [u8],
    /// The text after the first run of blanks; trailing blanks removed.
    pub argument: &'a [u8],
}

/// The verbs this server knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are RFC 5321's")]
pub enum Verb {
    Helo,
    Ehlo,
    Mail,
    Rcpt,
    Data,
    Rset,
    Noop,
    Quit,
    Vrfy,
    Help,
    Auth,
    StartTls,
    /// Anything else.
    Unknown,
}

const VERBS: [(&[u8], Verb); 12] = [
    (b"HELO", Verb::Helo),
    (b"EHLO", Verb::Ehlo),
    (b"MAIL", Verb::Mail),
    (b"RCPT", Verb::Rcpt),
    (b"DATA", Verb::Data),
    (b"RSET", Verb::Rset),
    (b"NOOP", Verb::Noop),
    (b"QUIT", Verb::Quit),
    (b"VRFY", Verb::Vrfy),
    (b"HELP", Verb::Help),
    (b"AUTH", Verb::Auth),
    (b"STARTTLS", Verb::StartTls),
];

impl<'a> Line<'a> {
    /// Takes a line without its line end apart.
    #[must_use]
    pub fn new(line: &'a [u8]) -> Self {
        let end = line.iter().position(|b| b" \t".contains(b)).unwrap_or(line.len());
        let (word, rest) = line.split_at(end);
        let verb =
            VERBS.iter().find(|(name, _)| word.eq_ignore_ascii_case(name)).map_or(Verb::Unknown, |v| v.1);
        Self { verb, word, argument: rest.trim_ascii() }
    }
}

/// The next whole line of `buffer`: its text without LF or CR LF, and how many bytes it takes up.
#[must_use]
pub fn next_line(buffer: &[u8]) -> Option<(&[u8], usize)> {
    let end = memchr::memchr(b'\n', buffer)?;
    let text = &buffer[..end];
    Some((text.strip_suffix(b"\r").unwrap_or(text), end + 1))
}

/// Peer-supplied bytes for a log line, a reply or a Received field: everything that is not plain
/// printable ASCII becomes `?`, and the length is bounded.
#[must_use]
pub fn sanitized(bytes: &[u8]) -> String {
    const LONGEST: usize = 300;
    let safe = |&b: &u8| if (33..=126).contains(&b) && b != b'%' { char::from(b) } else { '?' };
    bytes.iter().take(LONGEST).map(safe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_are_case_insensitive_and_arguments_trimmed() {
        let line = Line::new(b"mAiL \t FROM:<a@b> ");
        assert_eq!((line.verb, line.argument), (Verb::Mail, &b"FROM:<a@b>"[..]));
        assert_eq!(Line::new(b"MAILX").verb, Verb::Unknown);
        assert_eq!(Line::new(b"").verb, Verb::Unknown);
    }

    #[test]
    fn lines_end_at_lf_with_or_without_cr() {
        assert_eq!(next_line(b"NOOP\r\nX"), Some((&b"NOOP"[..], 6)));
        assert_eq!(next_line(b"NOOP\nX"), Some((&b"NOOP"[..], 5)));
        assert_eq!(next_line(b"NOOP\r"), None);
    }

    #[test]
    fn log_text_cannot_start_a_new_line_or_a_format() {
        assert_eq!(sanitized(b"a\nb%c \x80"), "a?b?c??");
        assert_eq!(sanitized(&[b'x'; 1000]).len(), 300);
    }
}
