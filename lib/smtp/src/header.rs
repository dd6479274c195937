//! What a transport must know about a header while it passes: hops, and fields that are missing.

/// Longest field name that is looked at.
const NAME: usize = 16;

/// Watches the header of a message that passes in pieces (lines end with LF).
#[derive(Debug, Default)]
pub struct Watch {
    name: Vec<u8>,
    in_name: bool,
    line_has_text: bool,
    started: bool,
    done: bool,
    /// Received and Delivered-To fields so far.
    pub hops: usize,
    /// A Date field was there.
    pub date: bool,
    /// A Message-ID field was there.
    pub message_id: bool,
}

impl Watch {
    /// Has the header ended?
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Looks at the next piece. Returns the position of the empty line (or of the first line that
    /// cannot be part of a header) when the header ends in this piece.
    pub fn look(&mut self, text: &[u8]) -> Option<usize> {
        if self.done {
            return None;
        }
        if !self.started {
            self.started = true;
            self.in_name = true;
        }
        for (i, &byte) in text.iter().enumerate() {
            if byte == b'\n' {
                if !self.line_has_text {
                    self.done = true;
                    return Some(i);
                }
                self.end_name();
                self.line_has_text = false;
                self.in_name = true;
                self.name.clear();
                continue;
            }
            self.line_has_text = true;
            if self.in_name {
                if byte == b':' || byte == b' ' || byte == b'\t' || self.name.len() == NAME {
                    self.end_name();
                } else {
                    self.name.push(byte.to_ascii_lowercase());
                }
            }
        }
        None
    }

    fn end_name(&mut self) {
        if !self.in_name {
            return;
        }
        self.in_name = false;
        if self.name.starts_with(b"received") && self.name.len() == 8 || self.name == b"delivered-to" {
            self.hops += 1;
        }
        self.date |= self.name == b"date";
        self.message_id |= self.name == b"message-id";
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn counts_hops_and_sees_fields() {
        let mut watch = Watch::default();
        let text = b"RECEIVED: a\n\tDate: not a field\nreceived-spf: x\nDelivered-To: b\nMessage-Id: <c>\n\nReceived: body\n";
        assert_eq!(watch.look(text), Some(79));
        assert_eq!(text[79], b'\n');
        assert_eq!((watch.hops, watch.date, watch.message_id), (2, false, true));
        assert_eq!(watch.look(b"Received: x\n"), None);
        assert_eq!(watch.hops, 2);
    }

    #[test]
    fn a_message_may_have_no_header() {
        let mut watch = Watch::default();
        assert_eq!(watch.look(b"\nbody\n"), Some(0));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(text in "((Received|Date|x|delivered-to)?: ?[a-z]{0,3}\n){0,5}\n?", cut in 0usize..60) {
            let bytes = text.as_bytes();
            let (a, b) = bytes.split_at(cut.min(bytes.len()));
            let mut one = Watch::default();
            one.look(bytes);
            let mut two = Watch::default();
            two.look(a);
            two.look(b);
            prop_assert_eq!((one.hops, one.date, one.done), (two.hops, two.date, two.done));
        }
    }
}
