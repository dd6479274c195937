//! Line ends: with and without a carriage return. Pure; bytes go in as they come, in pieces of any size.

/// Puts a CR before each LF.
pub fn add(bytes: &[u8], out: &mut Vec<u8>) {
    for line in bytes.split_inclusive(|&b| b == b'\n') {
        match line.split_last() {
            Some((b'\n', rest)) => {
                out.extend_from_slice(rest);
                out.extend_from_slice(b"\r\n");
            }
            _ => out.extend_from_slice(line),
        }
    }
}

/// Puts a CR before each LF that has none.
#[derive(Debug, Default)]
pub struct AddMissing {
    after_cr: bool,
}

impl AddMissing {
    /// Converts the next piece.
    pub fn convert(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for &byte in bytes {
            if byte == b'\n' && !self.after_cr {
                out.push(b'\r');
            }
            out.push(byte);
            self.after_cr = byte == b'\r';
        }
    }
}

/// Takes away one CR before each LF; other CRs stay.
#[derive(Debug, Default)]
pub struct Remove {
    /// A CR that is kept until it is known what follows.
    held: bool,
}

impl Remove {
    /// Converts the next piece.
    pub fn convert(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for &byte in bytes {
            if self.held && byte != b'\n' {
                out.push(b'\r');
            }
            self.held = byte == b'\r';
            if !self.held {
                out.push(byte);
            }
        }
    }

    /// What was kept, at the end.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.held) {
            out.push(b'\r');
        }
    }
}

/// Makes control characters visible, as `cat -v` does: `^A`, `^?`, `M-` before what has the eighth bit.
/// Newlines and tabs stay.
pub fn make_visible(bytes: &[u8], out: &mut Vec<u8>) {
    for &byte in bytes {
        if matches!(byte, b'\n' | b'\t') {
            out.push(byte);
            continue;
        }
        let low = byte & 0x7f;
        if byte != low {
            out.extend_from_slice(b"M-");
        }
        if low < b' ' || low == 0x7f {
            out.extend_from_slice(&[b'^', low ^ 0x40]);
        } else {
            out.push(low);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn removed(pieces: &[&[u8]]) -> Vec<u8> {
        let (mut remove, mut out) = (Remove::default(), Vec::new());
        pieces.iter().for_each(|p| remove.convert(p, &mut out));
        remove.finish(&mut out);
        out
    }

    fn added_where_missing(pieces: &[&[u8]]) -> Vec<u8> {
        let (mut add, mut out) = (AddMissing::default(), Vec::new());
        pieces.iter().for_each(|p| add.convert(p, &mut out));
        out
    }

    #[test]
    fn known_answers() {
        let mut out = Vec::new();
        add(b"a\nb\r\n\n", &mut out);
        assert_eq!(out, b"a\r\nb\r\r\n\r\n");
        assert_eq!(removed(&[b"a\r\nb\rc\r\r\nd\r"]), b"a\nb\rc\r\nd\r");
        assert_eq!(removed(&[b"a\r", b"\nb\r", b"\r", b"c"]), b"a\nb\r\rc");
        assert_eq!(added_where_missing(&[b"a\nb\r", b"\nc\r\r\n\n"]), b"a\r\nb\r\nc\r\r\n\r\n");
        let mut out = Vec::new();
        make_visible(b"a\t\n\x00\r\x7f\x80\xe9\xff", &mut out);
        assert_eq!(out, b"a\t\n^@^M^?M-^@M-iM-^?");
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(text in "[a\r\n]{0,40}", cut in 0usize..40) {
            let bytes = text.as_bytes();
            let (head, tail) = bytes.split_at(cut.min(bytes.len()));
            prop_assert_eq!(removed(&[head, tail]), text.replace("\r\n", "\n").into_bytes());
            prop_assert_eq!(added_where_missing(&[head, tail]), added_where_missing(&[bytes]));
        }

        #[test]
        fn one_undoes_the_other(bytes: Vec<u8>) {
            let mut with = Vec::new();
            add(&bytes, &mut with);
            prop_assert_eq!(removed(&[&with]), bytes);
        }
    }
}
