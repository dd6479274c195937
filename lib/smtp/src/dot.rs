//! The text of a message as a client sends it.

/// Turns LF into CR LF and doubles the dots that start lines; the text may come in pieces.
#[derive(Debug)]
pub struct Encoder {
    line_start: bool,
    after_cr: bool,
}

impl Default for Encoder {
    fn default() -> Self {
        Self { line_start: true, after_cr: false }
    }
}

impl Encoder {
    /// Encodes `text` and appends it to `out`. CR LF stays as it is; a lone CR is passed on as found.
    pub fn encode(&mut self, mut text: &[u8], out: &mut Vec<u8>) {
        out.reserve(text.len() + text.len() / 32);
        while let Some(&first) = text.first() {
            if self.line_start && first == b'.' {
                out.push(b'.');
            }
            let Some(end) = memchr::memchr(b'\n', text) else {
                out.extend_from_slice(text);
                self.line_start = false;
                self.after_cr = text.last() == Some(&b'\r');
                return;
            };
            out.extend_from_slice(&text[..end]);
            let has_cr = if end == 0 { self.after_cr } else { text[end - 1] == b'\r' };
            out.extend_from_slice(if has_cr { b"\n" } else { b"\r\n" });
            self.line_start = true;
            self.after_cr = false;
            text = &text[end + 1..];
        }
    }

    /// Did the text so far end with a whole line?
    #[must_use]
    pub fn at_line_start(&self) -> bool {
        self.line_start
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{BareLf, Decoder, Progress};
    use proptest::prelude::*;

    fn encoded(pieces: &[&[u8]]) -> Vec<u8> {
        let (mut encoder, mut out) = (Encoder::default(), Vec::new());
        pieces.iter().for_each(|p| encoder.encode(p, &mut out));
        out
    }

    #[test]
    fn dots_are_doubled_and_lines_end_with_crlf() {
        assert_eq!(encoded(&[b".a\n..\nb.\n\n.\n"]), b"..a\r\n...\r\nb.\r\n\r\n..\r\n");
        assert_eq!(encoded(&[b"a\r\nb\r", b"\n.c\n"]), b"a\r\nb\r\n..c\r\n");
    }

    proptest! {
        #[test]
        fn what_is_sent_is_received(text in r"([a.\r]{0,4}\n){0,6}", cut in 0usize..30) {
            let bytes = text.as_bytes();
            let (a, b) = bytes.split_at(cut.min(bytes.len()));
            let mut wire = encoded(&[a, b]);
            prop_assert_eq!(&wire, &encoded(&[bytes]));
            wire.extend_from_slice(b".\r\n");
            let mut back = Vec::new();
            let progress = Decoder::new(BareLf::Refuse).decode(&wire, &mut back);
            prop_assert_eq!(progress, Progress::End(wire.len()));
            // CR LF in the stored text is sent as it is and arrives as LF.
            prop_assert_eq!(back, text.replace("\r\n", "\n").into_bytes());
        }
    }
}
