//! The text of a message as a server receives it.
//!
//! Lines end with CR LF and are stored with LF. The end is CR LF `.` CR LF and nothing else. A lone
//! CR is text. A lone LF is refused, because the next host may take `LF . LF` for the end of the
//! message and what follows for commands; a host that must take it from its own programs can have
//! it as a line end of the stored text, and even then it never ends the message.

/// What a line feed without CR does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BareLf {
    /// The message is refused.
    #[default]
    Refuse,
    /// It ends the line in the stored text.
    LineEnd,
}

/// What a piece of input came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// All of it was used; the message goes on.
    More,
    /// The message ended; so many bytes of the input belong to it.
    End(usize),
    /// A lone line feed, and they are refused.
    BareLf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the start of a line; the line before it ended with CR LF (or it is the first).
    Start,
    /// At the start of a line that followed a lone LF.
    LooseStart,
    /// In a line.
    Text,
    /// In a line, after CR.
    Cr,
    /// After the dot that starts a line.
    Dot { strict: bool },
    /// After the dot that starts a line, and CR.
    DotCr { strict: bool },
}

/// Finds the end of a message, undoes dot stuffing and turns CR LF into LF.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    bare_lf: BareLf,
}

impl Decoder {
    /// At the start of a message.
    #[must_use]
    pub fn new(bare_lf: BareLf) -> Self {
        Self { state: State::Start, bare_lf }
    }

    /// Decodes `input` and appends the text to `out`.
    pub fn decode(&mut self, input: &[u8], out: &mut Vec<u8>) -> Progress {
        let mut at = 0;
        while at < input.len() {
            if self.state == State::Text {
                // Most bytes of a message pass here: copy up to the next CR or LF.
                let run = memchr::memchr2(b'\r', b'\n', &input[at..]).unwrap_or(input.len() - at);
                out.extend_from_slice(&input[at..at + run]);
                at += run;
                if at == input.len() {
                    break;
                }
            }
            let byte = input[at];
            at += 1;
            match self.step(byte, out) {
                Progress::More => {}
                Progress::End(_) => return Progress::End(at),
                Progress::BareLf => return Progress::BareLf,
            }
        }
        Progress::More
    }

    fn step(&mut self, byte: u8, out: &mut Vec<u8>) -> Progress {
        self.state = match (self.state, byte) {
            (State::Cr, b'\n') => {
                out.push(b'\n');
                State::Start
            }
            (State::DotCr { strict: true }, b'\n') => return Progress::End(0),
            // A line that holds only a dot but does not end the message keeps its dot.
            (State::DotCr { strict: false }, b'\n') => {
                out.extend_from_slice(b".\n");
                State::Start
            }
            (state, b'\n') => {
                if self.bare_lf == BareLf::Refuse {
                    return Progress::BareLf;
                }
                match state {
                    State::Dot { .. } => out.extend_from_slice(b".\n"),
                    _ => out.push(b'\n'),
                }
                State::LooseStart
            }
            (State::Start, b'.') => State::Dot { strict: true },
            (State::LooseStart, b'.') => State::Dot { strict: false },
            (State::Dot { strict }, b'\r') => State::DotCr { strict },
            (State::Start | State::LooseStart | State::Text, b'\r') => State::Cr,
            (State::Cr | State::DotCr { .. }, b'\r') => {
                out.push(b'\r');
                State::Cr
            }
            (State::Cr | State::DotCr { .. }, other) => {
                out.extend_from_slice(&[b'\r', other]);
                State::Text
            }
            (State::Start | State::LooseStart | State::Text | State::Dot { .. }, other) => {
                out.push(other);
                State::Text
            }
        };
        Progress::More
    }
}

/// Fuzz target: cutting the input anywhere changes nothing, and the end is where CR LF . CR LF is.
pub fn fuzz_data(bytes: &[u8]) {
    for bare_lf in [BareLf::Refuse, BareLf::LineEnd] {
        let mut whole = Vec::new();
        let end = Decoder::new(bare_lf).decode(bytes, &mut whole);
        let framed = [b"\r\n", bytes].concat();
        let dot = framed.windows(5).position(|w| w == b"\r\n.\r\n").map(|i| i + 3);
        match (end, bare_lf) {
            (Progress::End(used), _) => assert_eq!(Some(used), dot),
            (Progress::More, _) => assert_eq!(dot, None),
            (Progress::BareLf, mode) => assert_eq!(mode, BareLf::Refuse),
        }
        for cut in 0..=bytes.len() {
            let (a, b) = bytes.split_at(cut);
            let (mut decoder, mut out) = (Decoder::new(bare_lf), Vec::new());
            let progress = match decoder.decode(a, &mut out) {
                Progress::More => match decoder.decode(b, &mut out) {
                    Progress::End(n) => Progress::End(cut + n),
                    other => other,
                },
                other => other,
            };
            assert_eq!((progress, &out), (end, &whole), "cut at {cut}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(input: &[u8], bare_lf: BareLf) -> (Progress, String) {
        let mut out = Vec::new();
        let progress = Decoder::new(bare_lf).decode(input, &mut out);
        (progress, out.escape_ascii().to_string())
    }

    #[test]
    fn dots_and_line_ends() {
        let (progress, text) = decoded(b"..a\r\n.b\r\nc\rd\r\r\n\0.\r\n.\r\nQUIT\r\n", BareLf::Refuse);
        assert_eq!(progress, Progress::End(22));
        assert_eq!(text, r".a\nb\nc\rd\r\n\x00.\n");
        assert_eq!(decoded(b".\r\n", BareLf::Refuse), (Progress::End(3), String::new()));
    }

    /// Every line end before and after the dot: only CR LF . CR LF ends the message.
    #[test]
    fn no_other_sequence_ends_a_message() {
        let ends = [&b"\r\n"[..], b"\n", b"\r"];
        for before in ends {
            for after in ends {
                let input = [b"text", before, b".", after, b"MAIL FROM:<x@y>\r\n"].concat();
                let proper = before == b"\r\n" && after == b"\r\n";
                let strict = decoded(&input, BareLf::Refuse).0;
                let loose = decoded(&input, BareLf::LineEnd).0;
                if proper {
                    assert_eq!((strict, loose), (Progress::End(9), Progress::End(9)));
                } else {
                    let has_bare = before == b"\n" || after == b"\n";
                    let expected = if has_bare { Progress::BareLf } else { Progress::More };
                    assert_eq!(strict, expected, "{}", input.escape_ascii());
                    assert_eq!(loose, Progress::More, "{}", input.escape_ascii());
                }
            }
        }
    }

    #[test]
    fn loose_line_feeds_are_stored_and_lone_dots_kept() {
        assert_eq!(
            decoded(b"a\n.\nb\n.\r\n.\r\n", BareLf::LineEnd),
            (Progress::End(12), r"a\n.\nb\n.\n".into())
        );
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(text in r"[a.\r\n\x00]{0,24}") {
            fuzz_data(text.as_bytes());
        }
    }
}
