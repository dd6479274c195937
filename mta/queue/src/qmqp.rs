//! QMQP, the protocol that hands a whole message over in one go.
//!
//! ```text
//! client: [ netstring( "=" NAME=value NUL ... ) ]                      variables of the message, ours
//!         netstring( netstring(message) netstring(sender) netstring(recipient) ... )
//! server: netstring( K | Z | D, text )
//! ```
//!
//! A netstring is its length in decimal, a colon, the bytes, a comma. The message has LF line ends. Nothing
//! but the last comma makes a message: a client that goes away before has sent none. The variables are an
//! addition for clients on this host: the first byte of an ordinary request is a digit.

/// Most digits of a length.
const DIGITS_MAX: u32 = 12;
/// Bytes of variables that are taken at most.
const VARIABLES_MAX: u64 = 128 * 1024;
/// Bytes of sender and recipients that are taken at most.
const ENVELOPE_MAX: u64 = 64 * 1024 * 1024;

/// What is wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QmqpError {
    /// No netstrings where there should be some.
    #[error("this is not QMQP")]
    Format,
    /// An address is longer than an envelope can hold.
    #[error("an envelope address is too long")]
    AddressTooLong,
    /// Variables or addresses take more room than is given to them.
    #[error("too many variables or recipients")]
    TooMuch,
}

/// A piece of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The variables, in the form that was sent; before anything else, or not at all.
    Variables(Vec<(Vec<u8>, Vec<u8>)>),
    /// The message begins.
    Message,
    /// Bytes of the message.
    Bytes(&'a [u8]),
    /// The sender: the message is complete.
    Sender(&'a [u8]),
    /// A recipient.
    Recipient(&'a [u8]),
    /// The request is complete.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inside {
    /// The outermost, whose first byte tells what it is.
    Outer,
    Variables,
    Message,
    Sender,
    Recipient,
}

#[derive(Debug)]
enum State {
    Length { inside: Inside, value: u64, digits: u32 },
    First { left: u64 },
    Bytes { inside: Inside, left: u64 },
    Comma { inside: Inside },
    Done,
}

/// Reads a request from pieces of any size.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    /// What is left of the outer netstring of the message.
    outer: Option<u64>,
    gathered: Vec<u8>,
    with_variables: bool,
    envelope: u64,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            state: State::Length { inside: Inside::Outer, value: 0, digits: 0 },
            outer: None,
            gathered: Vec::new(),
            with_variables: false,
            envelope: 0,
        }
    }
}

impl Decoder {
    /// Has the whole request been seen?
    #[must_use]
    pub fn is_complete(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Takes bytes and hands out what they complete. Bytes after the end are an error.
    ///
    /// # Errors
    /// The request is none, or `each` failed.
    pub fn take<E: From<QmqpError>>(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some((&first, rest)) = bytes.split_first() {
            match self.state {
                State::Length { inside, value, digits } => {
                    bytes = rest;
                    self.length(inside, value, digits, first)?;
                    if inside == Inside::Message && !matches!(self.state, State::Length { .. }) {
                        each(Event::Message)?;
                    }
                }
                State::First { left } => {
                    // Not consumed: it belongs to what follows.
                    self.first(left, first)?;
                }
                State::Bytes { inside, left } => {
                    let size = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    let (piece, after) = bytes.split_at(size);
                    bytes = after;
                    self.consume(size as u64)?;
                    if inside == Inside::Message {
                        each(Event::Bytes(piece))?;
                    } else {
                        self.gathered.extend_from_slice(piece);
                    }
                    let left = left - size as u64;
                    self.state =
                        if left == 0 { State::Comma { inside } } else { State::Bytes { inside, left } };
                }
                State::Comma { inside } => {
                    bytes = rest;
                    if first != b',' {
                        return Err(QmqpError::Format.into());
                    }
                    self.end(inside, &mut each)?;
                }
                State::Done => return Err(QmqpError::Format.into()),
            }
        }
        Ok(())
    }

    /// Bytes of the outer netstring are used up.
    fn consume(&mut self, size: u64) -> Result<(), QmqpError> {
        if let Some(outer) = &mut self.outer {
            *outer = outer.checked_sub(size).ok_or(QmqpError::Format)?;
        }
        Ok(())
    }

    fn length(&mut self, inside: Inside, value: u64, digits: u32, byte: u8) -> Result<(), QmqpError> {
        self.consume(1)?;
        if byte.is_ascii_digit() {
            // 0 is the only length that begins with 0.
            if digits == DIGITS_MAX || digits > 0 && value == 0 {
                return Err(QmqpError::Format);
            }
            let value = value * 10 + u64::from(byte - b'0');
            self.state = State::Length { inside, value, digits: digits + 1 };
            return Ok(());
        }
        if byte != b':' || digits == 0 {
            return Err(QmqpError::Format);
        }
        // One byte more: the comma.
        if self.outer.is_some_and(|outer| outer < value + 1) {
            return Err(QmqpError::Format);
        }
        if matches!(inside, Inside::Sender | Inside::Recipient) {
            if value > crate::envelope::ADDRESS_MAX as u64 {
                return Err(QmqpError::AddressTooLong);
            }
            self.envelope += value + 1;
            if self.envelope > ENVELOPE_MAX {
                return Err(QmqpError::TooMuch);
            }
        }
        self.state = match inside {
            Inside::Outer => State::First { left: value },
            _ if value == 0 => State::Comma { inside },
            _ => State::Bytes { inside, left: value },
        };
        Ok(())
    }

    /// The first byte of an outer netstring tells whether it holds variables or the message.
    fn first(&mut self, left: u64, byte: u8) -> Result<(), QmqpError> {
        if left == 0 {
            return Err(QmqpError::Format);
        }
        if byte == b'=' && !self.with_variables {
            if left > VARIABLES_MAX {
                return Err(QmqpError::TooMuch);
            }
            self.with_variables = true;
            self.state = State::Bytes { inside: Inside::Variables, left };
        } else {
            self.outer = Some(left);
            self.state = State::Length { inside: Inside::Message, value: 0, digits: 0 };
        }
        Ok(())
    }

    /// A netstring is complete.
    fn end<E: From<QmqpError>>(
        &mut self,
        inside: Inside,
        each: &mut impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let next = |inside| State::Length { inside, value: 0, digits: 0 };
        let gathered = std::mem::take(&mut self.gathered);
        match inside {
            Inside::Variables => {
                each(Event::Variables(variables(&gathered)))?;
                self.state = next(Inside::Outer);
                return Ok(());
            }
            Inside::Outer => {
                self.state = State::Done;
                return each(Event::End);
            }
            Inside::Message => {}
            Inside::Sender => each(Event::Sender(&gathered))?,
            Inside::Recipient => each(Event::Recipient(&gathered))?,
        }
        self.consume(1)?;
        self.state = match (inside, self.outer) {
            // A request without a sender is none.
            (Inside::Message, Some(0)) => return Err(QmqpError::Format.into()),
            (Inside::Message, _) => next(Inside::Sender),
            (_, Some(0)) => State::Comma { inside: Inside::Outer },
            _ => next(Inside::Recipient),
        };
        Ok(())
    }
}

/// `=NAME=value` NUL ...; what is no pair is left out.
fn variables(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let pairs = bytes.strip_prefix(b"=").unwrap_or(bytes).split(|&b| b == 0);
    pairs
        .filter_map(|pair| {
            let at = pair.iter().position(|&b| b == b'=')?;
            Some((pair.get(..at)?.to_vec(), pair.get(at + 1..)?.to_vec()))
        })
        .collect()
}

/// What goes before and after the message itself; the message is not copied.
///
/// # Errors
/// An address is too long or holds a NUL byte (`Format`).
pub fn encode<'a>(
    variables: &[(&[u8], &[u8])],
    message: usize,
    sender: &'a [u8],
    recipients: impl IntoIterator<Item = &'a [u8]>,
) -> Result<(Vec<u8>, Vec<u8>), QmqpError> {
    let (mut before, mut after) = (Vec::new(), vec![b',']);
    if !variables.is_empty() {
        let mut all = vec![b'='];
        for (name, value) in variables.iter().filter(|(_, value)| !value.contains(&0)) {
            all.extend_from_slice(name);
            all.push(b'=');
            all.extend_from_slice(value);
            all.push(0);
        }
        netstring(&mut before, &all);
    }
    for address in [sender].into_iter().chain(recipients) {
        if address.len() > crate::envelope::ADDRESS_MAX {
            return Err(QmqpError::AddressTooLong);
        }
        if address.contains(&0) {
            return Err(QmqpError::Format);
        }
        netstring(&mut after, address);
    }
    let inner = format!("{message}:");
    let outer = inner.len() + message + after.len();
    before.extend_from_slice(format!("{outer}:{inner}").as_bytes());
    after.push(b',');
    Ok((before, after))
}

/// Appends one netstring.
pub fn netstring(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(format!("{}:", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
    out.push(b',');
}

/// Reads the answer; `None` when it is not complete, or none.
#[must_use]
pub fn answer(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let colon = bytes.iter().position(|&b| b == b':')?;
    let length: usize = std::str::from_utf8(bytes.get(..colon)?).ok()?.parse().ok()?;
    let text = bytes.get(colon + 1..)?.strip_suffix(b",")?;
    let (&letter, rest) = text.split_first()?;
    (text.len() == length && matches!(letter, b'K' | b'Z' | b'D')).then_some((letter, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Default, PartialEq, Eq)]
    struct Whole {
        variables: Vec<(Vec<u8>, Vec<u8>)>,
        message: Option<Vec<u8>>,
        sender: Option<Vec<u8>>,
        recipients: Vec<Vec<u8>>,
        ends: usize,
    }

    fn decode(bytes: &[u8], piece: usize) -> Result<(Whole, bool), QmqpError> {
        let (mut decoder, mut whole) = (Decoder::default(), Whole::default());
        for chunk in bytes.chunks(piece.max(1)) {
            decoder.take(chunk, |event| {
                match event {
                    Event::Variables(v) => whole.variables = v,
                    Event::Message => whole.message = Some(Vec::new()),
                    Event::Bytes(b) => whole.message.as_mut().expect("announced").extend_from_slice(b),
                    Event::Sender(s) => whole.sender = Some(s.to_vec()),
                    Event::Recipient(r) => whole.recipients.push(r.to_vec()),
                    Event::End => whole.ends += 1,
                }
                Ok::<(), QmqpError>(())
            })?;
        }
        Ok((whole, decoder.is_complete()))
    }

    fn request(variables: &[(&[u8], &[u8])], message: &[u8], sender: &[u8], recipients: &[&[u8]]) -> Vec<u8> {
        let (before, after) = encode(variables, message.len(), sender, recipients.iter().copied())
            .expect("addresses are short");
        [&before, message, &after[..]].concat()
    }

    #[test]
    fn an_ordinary_request_is_read_whatever_its_pieces_are() {
        let bytes = b"33:5:a\nb\nc,4:s@x.,5:r@y.z,4:t@z.,,";
        let outer = b"5:a\nb\nc,4:s@x.,5:r@y.z,4:t@z.,".len();
        let bytes = [format!("{outer}:").as_bytes(), &bytes[3..]].concat();
        assert_eq!(request(&[], b"a\nb\nc", b"s@x.", &[b"r@y.z", b"t@z."]), bytes);
        for piece in 1..bytes.len() {
            let (whole, complete) = decode(&bytes, piece).unwrap();
            assert!(complete && whole.ends == 1, "{piece}");
            assert_eq!(whole.message.as_deref(), Some(&b"a\nb\nc"[..]));
            assert_eq!((whole.sender.unwrap(), whole.recipients.len()), (b"s@x.".to_vec(), 2));
        }
    }

    #[test]
    fn a_request_that_breaks_off_is_not_complete_and_one_that_goes_on_is_none() {
        let bytes = request(&[(b"TCPREMOTEIP", b"192.0.2.1")], b"text\n", b"", &[b"r@x"]);
        for cut in 0..bytes.len() {
            let (whole, complete) = decode(&bytes[..cut], 7).unwrap();
            assert!(!complete && whole.ends == 0, "{cut}");
        }
        assert_eq!(decode(&[&bytes[..], b"1"].concat(), 7), Err(QmqpError::Format));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for bad in [
            &b"GET / HTTP/1.0\r\n"[..],
            b"x",
            b":",
            b"01:",
            b"0:,",
            b"1:x,",
            b"3:0:,,",
            b"9:0:,0:,0:,;",
            b"6:9:aaaa",
            b"1234567890123:",
            b"3:=A=,3:=A=,",
        ] {
            assert!(decode(bad, 1).is_err(), "{}", bad.escape_ascii());
        }
        let long = format!("2000:1:m,1900:{}", "a".repeat(1900));
        assert_eq!(decode(long.as_bytes(), 100), Err(QmqpError::AddressTooLong));
        assert_eq!(decode(b"200000:=", 1), Err(QmqpError::TooMuch));
        assert_eq!(encode(&[], 0, b"a\0b", []), Err(QmqpError::Format));
    }

    #[test]
    fn answers_are_read_only_whole() {
        assert_eq!(answer(b"6:Kok qp,"), Some((b'K', &b"ok qp"[..])));
        for bad in [&b"6:Kok qp"[..], b"7:Kok qp,", b"3:Xok,", b"0:,", b"", b":K,"] {
            assert_eq!(answer(bad), None, "{}", bad.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            variables in proptest::collection::vec(("[A-Z]{1,9}", "[ -~]{0,20}"), 0..4),
            message in proptest::collection::vec(any::<u8>(), 0..300),
            sender in "[ -~]{0,30}",
            recipients in proptest::collection::vec("[ -~]{0,30}", 0..5),
            piece in 1usize..50,
        ) {
            let pairs: Vec<(&[u8], &[u8])> = variables.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
            let to: Vec<&[u8]> = recipients.iter().map(String::as_bytes).collect();
            let bytes = request(&pairs, &message, sender.as_bytes(), &to);
            let (whole, complete) = decode(&bytes, piece).unwrap();
            prop_assert!(complete);
            prop_assert_eq!(whole.message.unwrap(), message);
            prop_assert_eq!(whole.sender.unwrap(), sender.into_bytes());
            prop_assert_eq!(whole.recipients, to.iter().map(|r| r.to_vec()).collect::<Vec<_>>());
            prop_assert_eq!(whole.variables.len(), variables.len());
        }

        #[test]
        fn nothing_breaks_it(bytes in proptest::collection::vec(any::<u8>(), 0..200), piece in 1usize..20) {
            let _ = decode(&bytes, piece);
        }
    }
}
