//! What qmail-send and the spawners say to each other.
//!
//! ```text
//! spawner -> send, once:  maximum of deliveries, two bytes, low one first
//! send -> spawner:        number, two bytes, low one first; then five strings, each ended by NUL:
//!                         N/id, sender, extra header, exported header lines, recipient
//! spawner -> send:        number, two bytes; K, Z or D; text; NUL
//! ```
//!
//! Any number of requests up to the maximum may be open; reports come in any order. Both decoders
//! take bytes as they arrive, cut anywhere.

/// Deliveries a spawner of ours runs at most.
pub const SPAWN_MAX: u16 = 500;
/// Longest report text that is kept, in bytes; the rest is dropped.
pub const REPORT_MAX: usize = 10_000;
/// Longest string of a request. The header strings can be long, an endless one is an attack.
pub const FIELD_MAX: usize = 1 << 20;

/// A delivery to start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    /// Delivery number, below the spawner's maximum.
    pub number: u16,
    /// Message file below `mess`: `N/id`.
    pub message: Vec<u8>,
    /// Envelope sender, VERP already expanded.
    pub sender: Vec<u8>,
    /// Header lines to put before the message (QQEH).
    pub extra_header: Vec<u8>,
    /// Header lines to export to the delivery's environment.
    pub exported: Vec<u8>,
    /// Recipient address.
    pub recipient: Vec<u8>,
}

/// How a delivery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// `K`
    Success,
    /// `Z`
    Deferral,
    /// `D`
    Failure,
}

impl Verdict {
    /// The byte of the protocol.
    #[must_use]
    pub fn letter(self) -> u8 {
        match self {
            Self::Success => b'K',
            Self::Deferral => b'Z',
            Self::Failure => b'D',
        }
    }

    /// The verdict that a byte means.
    #[must_use]
    pub fn from_letter(letter: u8) -> Option<Self> {
        match letter {
            b'K' => Some(Self::Success),
            b'Z' => Some(Self::Deferral),
            b'D' => Some(Self::Failure),
            _ => None,
        }
    }
}

/// What a spawner says about a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Which one.
    pub number: u16,
    /// How it ended; `None` when the report makes no sense and must count as a deferral.
    pub verdict: Option<Verdict>,
    /// Text for the log and the bounce, at most [`REPORT_MAX`] bytes.
    pub text: Vec<u8>,
}

/// The spawner's first two bytes.
#[must_use]
pub fn encode_maximum(maximum: u16) -> [u8; 2] {
    maximum.to_le_bytes()
}

/// What the spawner's first two bytes say.
#[must_use]
pub fn decode_maximum(bytes: [u8; 2]) -> u16 {
    u16::from_le_bytes(bytes)
}

/// A string holds a NUL and cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a string of the request holds a NUL")]
pub struct HoldsNul;

impl Request {
    /// Appends the request's bytes.
    ///
    /// # Errors
    /// A string holds a NUL; nothing was appended.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), HoldsNul> {
        let strings = [&self.message, &self.sender, &self.extra_header, &self.exported, &self.recipient];
        if strings.iter().any(|s| s.contains(&0)) {
            return Err(HoldsNul);
        }
        out.extend_from_slice(&self.number.to_le_bytes());
        for string in strings {
            out.extend_from_slice(string);
            out.push(0);
        }
        Ok(())
    }
}

impl Report {
    /// Appends the report's bytes. A NUL in the text becomes a blank, the text is cut at
    /// [`REPORT_MAX`]; a report without a verdict is sent as one that makes no sense.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend(self.verdict.map(Verdict::letter));
        let text = &self.text[..self.text.len().min(REPORT_MAX)];
        out.extend(text.iter().map(|&b| if b == 0 { b' ' } else { b }));
        out.push(0);
    }
}

/// A string of a request is longer than [`FIELD_MAX`]; the stream cannot be trusted any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a string of the request has more than {FIELD_MAX} bytes")]
pub struct FieldTooLong;

/// Reads requests (the spawner's side).
#[derive(Debug, Default)]
pub struct RequestDecoder {
    number: Vec<u8>,
    strings: Vec<Vec<u8>>,
    current: Vec<u8>,
}

impl RequestDecoder {
    /// Takes bytes as they arrive and returns the requests that are complete.
    ///
    /// # Errors
    /// The stream makes no sense any more.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Vec<Request>, FieldTooLong> {
        let mut done = Vec::new();
        for &byte in bytes {
            if self.number.len() < 2 {
                self.number.push(byte);
            } else if byte != 0 {
                if self.current.len() == FIELD_MAX {
                    return Err(FieldTooLong);
                }
                self.current.push(byte);
            } else {
                self.strings.push(std::mem::take(&mut self.current));
                if self.strings.len() == 5 {
                    done.push(self.complete());
                }
            }
        }
        Ok(done)
    }

    /// Is a request half read? (EOF now would be in its middle.)
    #[must_use]
    pub fn is_between_requests(&self) -> bool {
        self.number.is_empty()
    }

    fn complete(&mut self) -> Request {
        let number = u16::from_le_bytes([self.number[0], self.number[1]]);
        self.number.clear();
        let mut strings = std::mem::take(&mut self.strings).into_iter();
        let mut next = || strings.next().unwrap_or_default();
        Request {
            number,
            message: next(),
            sender: next(),
            extra_header: next(),
            exported: next(),
            recipient: next(),
        }
    }
}

/// Reads reports (qmail-send's side).
#[derive(Debug, Default)]
pub struct ReportDecoder {
    number: Vec<u8>,
    letter: Option<u8>,
    text: Vec<u8>,
}

impl ReportDecoder {
    /// Takes bytes as they arrive and returns the reports that are complete.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<Report> {
        let mut done = Vec::new();
        for &byte in bytes {
            if self.number.len() < 2 {
                self.number.push(byte);
            } else if byte == 0 {
                let number = u16::from_le_bytes([self.number[0], self.number[1]]);
                self.number.clear();
                let verdict = self.letter.take().and_then(Verdict::from_letter);
                done.push(Report { number, verdict, text: std::mem::take(&mut self.text) });
            } else if self.letter.is_none() {
                self.letter = Some(byte);
            } else if self.text.len() < REPORT_MAX {
                self.text.push(byte);
            }
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_are_as_the_original_has_them() {
        let request = Request {
            number: 0x0102,
            message: b"7/1234".to_vec(),
            sender: b"s@x".to_vec(),
            recipient: b"r@y".to_vec(),
            ..Request::default()
        };
        let mut bytes = Vec::new();
        request.encode(&mut bytes).unwrap();
        assert_eq!(bytes, b"\x02\x017/1234\0s@x\0\0\0r@y\0");
        assert_eq!(encode_maximum(500), [0xf4, 0x01]);
        assert_eq!(decode_maximum([0xf4, 0x01]), 500);
    }

    #[test]
    fn nonsense_reports_have_no_verdict() {
        let mut decoder = ReportDecoder::default();
        let all = decoder.take(b"\x05\0\0\x06\0xtext\0\x07\x01Kok\n\0");
        assert_eq!(all.iter().map(|r| r.number).collect::<Vec<_>>(), [5, 6, 263]);
        assert_eq!(all.iter().map(|r| r.verdict).collect::<Vec<_>>(), [None, None, Some(Verdict::Success)]);
        assert_eq!(all[2].text, b"ok\n");
    }

    #[test]
    fn long_texts_are_cut_and_long_strings_refused() {
        let mut decoder = ReportDecoder::default();
        let long = [b"\0\0K".to_vec(), vec![b'x'; REPORT_MAX + 9], vec![0]].concat();
        assert_eq!(decoder.take(&long)[0].text.len(), REPORT_MAX);
        let mut decoder = RequestDecoder::default();
        assert_eq!(decoder.take(&vec![b'x'; FIELD_MAX + 3]), Err(FieldTooLong));
    }

    fn string() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(1u8..=255, 0..20)
    }

    proptest! {
        #[test]
        fn requests_round_trip(
            number in any::<u16>(), strings in prop::collection::vec(string(), 5), cut in 1usize..9,
        ) {
            let mut s = strings.into_iter();
            let mut next = || s.next().unwrap();
            let request = Request { number, message: next(), sender: next(), extra_header: next(),
                exported: next(), recipient: next() };
            let mut bytes = Vec::new();
            request.encode(&mut bytes).unwrap();
            request.encode(&mut bytes).unwrap();
            let mut decoder = RequestDecoder::default();
            let got: Vec<Request> = bytes.chunks(cut).flat_map(|c| decoder.take(c).unwrap()).collect();
            prop_assert_eq!(got, vec![request.clone(), request]);
            prop_assert!(decoder.is_between_requests());
        }

        #[test]
        fn reports_round_trip(number in any::<u16>(), letter in 0usize..3, text in string(), cut in 1usize..9) {
            let verdict = Some([Verdict::Success, Verdict::Deferral, Verdict::Failure][letter]);
            let report = Report { number, verdict, text };
            let mut bytes = Vec::new();
            report.encode(&mut bytes);
            report.encode(&mut bytes);
            let mut decoder = ReportDecoder::default();
            let got: Vec<Report> = bytes.chunks(cut).flat_map(|c| decoder.take(c)).collect();
            prop_assert_eq!(got, vec![report.clone(), report]);
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = RequestDecoder::default().take(&bytes);
            let _ = ReportDecoder::default().take(&bytes);
        }
    }
}
