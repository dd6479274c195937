//! Header fields as they stand in the message.

use std::io::{self, BufRead};

/// One header field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// All its bytes, continuation lines and final newline (if there is one) included.
    pub raw: &'a [u8],
    /// The name as written, without blanks before the colon.
    pub name: &'a [u8],
    /// What follows the colon, up to but without the final newline; folds included.
    pub body: &'a [u8],
}

impl Field<'_> {
    /// Is this its name, in any case?
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// The body on one line: line ends removed, blanks at both ends removed.
    #[must_use]
    pub fn unfolded(&self) -> Vec<u8> {
        let one_line: Vec<u8> = self.body.iter().copied().filter(|b| !b"\r\n".contains(b)).collect();
        one_line.trim_ascii().to_vec()
    }
}

/// Splits a message into its header fields and the rest.
///
/// The header ends before the first line that is neither a field nor the continuation of one: the
/// empty line, or, in a damaged message, the first line of text. That line begins the rest. A
/// "From " line of an mbox at the very beginning belongs to the header and is not a field.
#[must_use]
pub fn split(message: &[u8]) -> (&[u8], &[u8]) {
    let mut at = 0;
    while at < message.len() {
        let line = line_at(message, at);
        if !belongs(line, at == 0) {
            break;
        }
        at += line.len();
    }
    message.split_at(at)
}

/// The fields of a header as [`split`] returns it.
pub fn fields(header: &[u8]) -> impl Iterator<Item = Field<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            if at >= header.len() {
                return None;
            }
            let start = at;
            at += line_at(header, at).len();
            while at < header.len() && b" \t".contains(&header[at]) {
                at += line_at(header, at).len();
            }
            if let Some(field) = field(&header[start..at]) {
                return Some(field);
            }
        }
    })
}

/// Reads one field from its raw bytes; `None` when they do not begin with a name and a colon.
#[must_use]
pub fn field(raw: &[u8]) -> Option<Field<'_>> {
    let colon = memchr::memchr(b':', raw)?;
    let name = raw[..colon].trim_ascii_end();
    let is_name = !name.is_empty() && name.iter().all(|&b| b > b' ' && b != 127);
    let body = &raw[colon + 1..];
    is_name.then(|| Field { raw, name, body: body.strip_suffix(b"\n").unwrap_or(body) })
}

/// Reads the header from `source` and leaves it at the first byte of the rest, exactly as
/// [`split`] cuts. `Ok(None)` when the header has more than `limit` bytes.
///
/// # Errors
/// Read errors.
pub fn read(source: &mut impl BufRead, limit: usize) -> io::Result<Option<Header>> {
    let mut bytes = Vec::new();
    loop {
        let start = bytes.len();
        let room = u64::try_from(limit - start).unwrap_or(u64::MAX).saturating_add(1);
        io::Read::take(&mut *source, room).read_until(b'\n', &mut bytes)?;
        if bytes.len() > limit {
            return Ok(None);
        }
        let line = &bytes[start..];
        if line.is_empty() || !belongs(line, start == 0) {
            let next = bytes.split_off(start);
            return Ok(Some(Header { bytes, next }));
        }
    }
}

/// A header read from a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Header {
    /// Its bytes, for [`fields`].
    pub bytes: Vec<u8>,
    /// The line that ended it: the first line of the rest, already taken from the stream.
    pub next: Vec<u8>,
}

fn line_at(text: &[u8], at: usize) -> &[u8] {
    let rest = &text[at..];
    &rest[..memchr::memchr(b'\n', rest).map_or(rest.len(), |i| i + 1)]
}

/// Is this line part of the header? (A continuation at the very beginning continues nothing.)
fn belongs(line: &[u8], first: bool) -> bool {
    let text = line.strip_suffix(b"\n").unwrap_or(line);
    if text.is_empty() || text == b"\r" {
        return false;
    }
    match text[0] {
        b' ' | b'\t' => !first,
        _ => field(line).is_some() || (first && text.starts_with(b"From ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_keep_their_bytes() {
        let message = b"From a@b now\nSubject : one\n two\nX:\n\nBody: no\n";
        let (header, rest) = split(message);
        assert_eq!(rest, b"\nBody: no\n");
        let all: Vec<_> = fields(header).collect();
        assert_eq!(all.len(), 2);
        assert!(all[0].is("SUBJECT"));
        assert_eq!(all[0].raw, b"Subject : one\n two\n");
        assert_eq!(all[0].unfolded(), b"one two");
        assert_eq!((all[1].name, all[1].body), (&b"X"[..], &b""[..]));
    }

    #[test]
    fn a_line_of_text_ends_the_header() {
        assert_eq!(split(b"A: 1\nhello there\n\n").1, b"hello there\n\n");
        assert_eq!(split(b"A: 1\r\n\r\nx").1, b"\r\nx");
        assert_eq!(split(b" indented: x\n").0, b"");
        assert_eq!(split(b"A: 1").0, b"A: 1");
        assert_eq!(split(b"").0, b"");
    }

    proptest! {
        #[test]
        fn stream_and_slice_agree(message in prop::collection::vec(prop::sample::select(&b"aF:\n \r\0"[..]), 0..60)) {
            let (header, rest) = split(&message);
            let raw: usize = fields(header).map(|f| f.raw.len()).sum();
            prop_assert!(raw <= header.len());
            let mut source = &message[..];
            let got = read(&mut source, 100).unwrap().unwrap();
            prop_assert_eq!(&got.bytes, header);
            prop_assert_eq!([&got.next, source].concat(), rest);
            let mut source = &message[..];
            let limited = read(&mut source, 8).unwrap();
            prop_assert!(limited.is_none_or(|h| h.bytes.len() <= 8));
        }
    }
}
