//! Envelopes: what a client writes to descriptor 1, and the records of `todo`, `info`, `local` and
//! `remote` files.
//!
//! Both are NUL-terminated records whose first byte says what they are. A client sends one `F`, any
//! number of `T` and an empty record. A `todo` file holds `u p F T... e h`, each at most once but `T`.

/// Longest address, in bytes.
pub const ADDRESS_MAX: usize = 1002;

/// One record of a queue file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record<'a> {
    /// `u`: real user id of the injector.
    Uid(u32),
    /// `p`: process id of qmail-queue, the "qp" of the logs.
    Pid(u32),
    /// `F`: envelope sender.
    Sender(&'a [u8]),
    /// `T`: a recipient still to be served.
    Recipient(&'a [u8]),
    /// `D`: a recipient that is done with.
    Done(&'a [u8]),
    /// `e`: header lines put before the message at delivery (QQEH).
    ExtraHeader(&'a [u8]),
    /// `h`: header lines exported to the environment of deliveries.
    Exported(&'a [u8]),
}

/// A record cannot be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Nothing between two NULs, or an unknown first byte.
    #[error("unknown record type")]
    Unknown,
    /// The file ends in the middle of a record.
    #[error("record without an end")]
    Unterminated,
}

impl<'a> Record<'a> {
    /// Reads one record, given without its NUL.
    ///
    /// # Errors
    /// Empty, an unknown type, or a number that is none.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let (&kind, rest) = bytes.split_first().ok_or(RecordError::Unknown)?;
        Ok(match kind {
            b'u' => Self::Uid(number(rest)?),
            b'p' => Self::Pid(number(rest)?),
            b'F' => Self::Sender(rest),
            b'T' => Self::Recipient(rest),
            b'D' => Self::Done(rest),
            b'e' => Self::ExtraHeader(rest),
            b'h' => Self::Exported(rest),
            _ => return Err(RecordError::Unknown),
        })
    }

    /// Appends the record with its NUL. Bytes that are NUL themselves must not occur in it.
    pub fn encode(self, out: &mut Vec<u8>) {
        let (kind, rest) = match self {
            Self::Uid(n) => return put(out, b'u', n.to_string().as_bytes()),
            Self::Pid(n) => return put(out, b'p', n.to_string().as_bytes()),
            Self::Sender(a) => (b'F', a),
            Self::Recipient(a) => (b'T', a),
            Self::Done(a) => (b'D', a),
            Self::ExtraHeader(t) => (b'e', t),
            Self::Exported(t) => (b'h', t),
        };
        put(out, kind, rest);
    }
}

fn put(out: &mut Vec<u8>, kind: u8, rest: &[u8]) {
    out.push(kind);
    out.extend_from_slice(rest);
    out.push(0);
}

fn number(digits: &[u8]) -> Result<u32, RecordError> {
    std::str::from_utf8(digits).ok().and_then(|d| d.parse().ok()).ok_or(RecordError::Unknown)
}

/// The records of a queue file's bytes, each with the offset of its first byte.
pub fn records(bytes: &[u8]) -> impl Iterator<Item = Result<(usize, Record<'_>), RecordError>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at == bytes.len() {
            return None;
        }
        let start = at;
        let Some(length) = bytes[start..].iter().position(|&b| b == 0) else {
            at = bytes.len();
            return Some(Err(RecordError::Unterminated));
        };
        at = start + length + 1;
        Some(Record::decode(&bytes[start..start + length]).map(|r| (start, r)))
    })
}

/// What is wrong with an envelope that a client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The first record is not a sender, or a later one not a recipient.
    #[error("record of an unexpected type")]
    Format,
    /// An address has more than [`ADDRESS_MAX`] bytes.
    #[error("address of more than {ADDRESS_MAX} bytes")]
    AddressTooLong,
}

/// What a client's envelope held next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item<'a> {
    /// The sender, always first.
    Sender(&'a [u8]),
    /// A recipient.
    Recipient(&'a [u8]),
    /// The envelope is complete; nothing after it is read.
    End,
}

/// Reads a client's envelope from pieces of any size.
#[derive(Debug, Default)]
pub struct Decoder {
    record: Vec<u8>,
    state: State,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    First,
    Recipients,
    Ended,
}

impl Decoder {
    /// Takes a piece and hands the items it completes to `sink`. Bytes after the end are ignored.
    ///
    /// # Errors
    /// What was sent is no envelope, or `sink` failed.
    pub fn take<E: From<EnvelopeError>>(
        &mut self,
        mut piece: &[u8],
        mut sink: impl FnMut(Item<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        while !piece.is_empty() && self.state != State::Ended {
            let end = piece.iter().position(|&b| b == 0);
            let (part, rest) = end.map_or((piece, &b""[..]), |n| (&piece[..n], &piece[n + 1..]));
            self.append(part)?;
            piece = rest;
            if end.is_some() {
                sink(self.complete()?)?;
                self.record.clear();
            }
        }
        Ok(())
    }

    /// Has the end of the envelope been seen?
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.state == State::Ended
    }

    fn append(&mut self, part: &[u8]) -> Result<(), EnvelopeError> {
        // The type is judged at once, so that garbage is not taken for a long address.
        if self.record.is_empty() && part.first().is_some_and(|&b| b != self.expected()) {
            return Err(EnvelopeError::Format);
        }
        if self.record.len() + part.len() > ADDRESS_MAX + 1 {
            return Err(EnvelopeError::AddressTooLong);
        }
        self.record.extend_from_slice(part);
        Ok(())
    }

    fn expected(&self) -> u8 {
        if self.state == State::First { b'F' } else { b'T' }
    }

    fn complete(&mut self) -> Result<Item<'_>, EnvelopeError> {
        match (&self.state, self.record.split_first()) {
            (State::First, Some((b'F', sender))) => {
                self.state = State::Recipients;
                Ok(Item::Sender(sender))
            }
            (State::Recipients, Some((b'T', recipient))) => Ok(Item::Recipient(recipient)),
            (State::Recipients, None) => {
                self.state = State::Ended;
                Ok(Item::End)
            }
            _ => Err(EnvelopeError::Format),
        }
    }
}

/// The bytes a client sends for this sender and these recipients.
///
/// # Errors
/// An address is too long or holds a NUL (which would end it early and change its meaning).
pub fn encode_client<'a>(
    sender: &[u8],
    recipients: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<u8>, EnvelopeError> {
    let mut out = Vec::new();
    let mut address = |kind: u8, address: &[u8]| {
        if address.len() > ADDRESS_MAX {
            return Err(EnvelopeError::AddressTooLong);
        }
        if address.contains(&0) {
            return Err(EnvelopeError::Format);
        }
        put(&mut out, kind, address);
        Ok(())
    };
    address(b'F', sender)?;
    for recipient in recipients {
        address(b'T', recipient)?;
    }
    out.push(0);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Read = (Option<Vec<u8>>, Vec<Vec<u8>>, bool);

    fn read(pieces: &[&[u8]]) -> Result<Read, EnvelopeError> {
        let mut decoder = Decoder::default();
        let mut read: Read = (None, Vec::new(), false);
        for piece in pieces {
            decoder.take(piece, |item| {
                match item {
                    Item::Sender(s) => read.0 = Some(s.to_vec()),
                    Item::Recipient(r) => read.1.push(r.to_vec()),
                    Item::End => read.2 = true,
                }
                Ok::<_, EnvelopeError>(())
            })?;
        }
        assert_eq!(read.2, decoder.is_complete());
        Ok(read)
    }

    #[test]
    fn the_first_record_is_the_sender_and_the_rest_recipients() {
        assert_eq!(read(&[b"Fa@b\0Tc@d\0\0junk"]), Ok((Some(b"a@b".to_vec()), vec![b"c@d".to_vec()], true)));
        assert_eq!(read(&[b"F\0\0"]), Ok((Some(vec![]), vec![], true)));
        for wrong in [&b"Ta\0"[..], b"\0", b"Fa\0Fb\0", b"Fa\0x\0", b"xx"] {
            assert_eq!(read(&[wrong]), Err(EnvelopeError::Format), "{wrong:?}");
        }
    }

    #[test]
    fn fix_12_q_record_is_refused() {
        assert_eq!(read(&[b"Fa\0Tb\0Qc\0\0"]), Err(EnvelopeError::Format));
    }

    #[test]
    fn addresses_may_have_1002_bytes_and_no_more() {
        let with = |n: usize| [b"F\0T".to_vec(), vec![b'x'; n], b"\0\0".to_vec()].concat();
        assert!(read(&[&with(1002)]).is_ok());
        assert_eq!(read(&[&with(1003)]), Err(EnvelopeError::AddressTooLong));
        // Long before its end, whatever the pieces.
        assert_eq!(read(&[b"F\0T", &[b'x'; 600], &[b'x'; 600]]), Err(EnvelopeError::AddressTooLong));
    }

    #[test]
    fn queue_records_are_read_with_offsets() {
        let all: Vec<_> = records(b"u1\0p22\0Fs\0Tr\0").collect::<Result<_, _>>().unwrap();
        assert_eq!(
            all,
            [
                (0, Record::Uid(1)),
                (3, Record::Pid(22)),
                (7, Record::Sender(b"s")),
                (10, Record::Recipient(b"r"))
            ]
        );
        assert_eq!(records(b"Fs\0Tr").last().unwrap(), Err(RecordError::Unterminated));
        assert_eq!(records(b"\0").next().unwrap(), Err(RecordError::Unknown));
        assert_eq!(records(b"ux\0").next().unwrap(), Err(RecordError::Unknown));
    }

    fn address() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(1u8..=255, 0..60)
    }

    proptest! {
        #[test]
        fn what_a_client_encodes_is_read_back(
            sender in address(), recipients in prop::collection::vec(address(), 0..5), cut in 1usize..40,
        ) {
            let bytes = encode_client(&sender, recipients.iter().map(Vec::as_slice)).unwrap();
            let pieces: Vec<&[u8]> = bytes.chunks(cut).collect();
            prop_assert_eq!(read(&pieces), Ok((Some(sender), recipients, true)));
        }

        #[test]
        fn a_shortened_envelope_is_never_complete(
            sender in address(), recipients in prop::collection::vec(address(), 0..5), cut in 0usize..400,
        ) {
            let bytes = encode_client(&sender, recipients.iter().map(Vec::as_slice)).unwrap();
            let cut = cut % bytes.len();
            prop_assert!(!read(&[&bytes[..cut]]).unwrap().2);
        }

        #[test]
        fn garbage_does_not_depend_on_how_it_is_cut(bytes in prop::collection::vec(any::<u8>(), 0..3000), cut in 1usize..500) {
            let pieces: Vec<&[u8]> = bytes.chunks(cut).collect();
            prop_assert_eq!(read(&pieces).map(|r| r.1), read(&[&bytes]).map(|r| r.1));
        }

        #[test]
        fn records_round_trip(kind in 0usize..5, text in address(), n in any::<u32>()) {
            let record = [Record::Sender(&text), Record::Recipient(&text), Record::Done(&text),
                Record::ExtraHeader(&text), Record::Uid(n)][kind];
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            record.encode(&mut bytes);
            let back: Vec<_> = records(&bytes).collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(back, [(0, record), (bytes.len() / 2, record)]);
        }
    }
}
