//! A label and a blank in front of each line.

use std::io::{self, Write};

use tai::{Label, TEXT_LEN};

/// A label and a blank.
pub const STAMP_LEN: usize = TEXT_LEN + 1;

/// The label and the blank after it.
#[must_use]
pub fn stamp_of(label: Label) -> [u8; STAMP_LEN] {
    let mut stamp = [b' '; STAMP_LEN];
    stamp[..TEXT_LEN].copy_from_slice(&label.text());
    stamp
}

/// Stamps lines, whatever chunks they come in.
#[derive(Debug, Default)]
pub struct Stamper {
    in_line: bool,
}

impl Stamper {
    /// Copies a chunk, with the label `now` in front of each line that begins in it.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn feed(&mut self, chunk: &[u8], now: Label, out: &mut impl Write) -> io::Result<()> {
        let stamp = stamp_of(now);
        let mut rest = chunk;
        while !rest.is_empty() {
            if !self.in_line {
                out.write_all(&stamp)?;
            }
            let end = memchr::memchr(b'\n', rest);
            let (line, after) = rest.split_at(end.map_or(rest.len(), |at| at + 1));
            out.write_all(line)?;
            self.in_line = end.is_none();
            rest = after;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn stamps_stand_at_line_starts_only() {
        let (mut stamper, mut out) = (Stamper::default(), Vec::new());
        let label = Label::from_unix(Duration::from_secs(5));
        for chunk in [&b"a\nb"[..], b"", b"c\n\n", b"last"] {
            stamper.feed(chunk, label, &mut out).unwrap();
        }
        let text = String::from_utf8(out).unwrap().replace("@400000000000000f00000000 ", "<>");
        assert_eq!(text, "<>a\n<>bc\n<>\n<>last");
    }
}
