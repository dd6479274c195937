//! qmail-lspawn and the workers that deliver for it.
//!
//! Both directions are messages of their own on one connection, at most [`MESSAGE_MAX`] bytes each:
//!
//! ```text
//! worker ► lspawn   'H'                               it is the recipient now and will take requests
//! lspawn ► worker   'L'|'V' NUMBER STRING*            a delivery; the message's descriptor comes along
//! worker ► lspawn   'E' NUMBER CODE TEXT              what qmail-local would have ended with, and printed
//! worker ► lspawn   'P' NUMBER                        this needs a program; nothing has been delivered
//! ```
//!
//! NUMBER is two bytes, STRING its length in four bytes and the bytes, all little-endian. The strings are
//! nine operands, then names and values of variables in turn.

/// Longest message, in bytes; a delivery that needs a longer one goes to a process of its own.
pub const MESSAGE_MAX: usize = 128 * 1024;
/// Longest text of an answer, in bytes.
pub const TEXT_MAX: usize = 3000;
/// How many operands qmail-local has.
const OPERANDS: usize = 9;

/// Whose part is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// That of qmail-local.
    Local,
    /// That of vdelivermail in the place of qmail-local, for an account with a user of its own.
    Account,
}

/// One delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Delivery number.
    pub number: u16,
    /// Whose part is taken.
    pub role: Role,
    /// The nine operands of qmail-local.
    pub operands: Vec<Vec<u8>>,
    /// Variables of this delivery, beside those that the worker was started with.
    pub variables: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What a worker says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Requests may come.
    Hello,
    /// A delivery has ended.
    Ended {
        /// Delivery number.
        number: u16,
        /// The exit code of qmail-local.
        code: u8,
        /// What it would have printed, cut after [`TEXT_MAX`] bytes.
        text: Vec<u8>,
    },
    /// It needs a program. Nothing has been delivered.
    NeedsProgram(u16),
}

impl Request {
    /// The bytes; `None` when there would be too many.
    #[must_use]
    pub fn encode(&self) -> Option<Vec<u8>> {
        let letter = match self.role {
            Role::Local => b'L',
            Role::Account => b'V',
        };
        let mut out = vec![letter];
        out.extend(self.number.to_le_bytes());
        let variables = self.variables.iter().flat_map(|(name, value)| [name, value]);
        for string in self.operands.iter().chain(variables) {
            out.extend(u32::try_from(string.len()).ok()?.to_le_bytes());
            out.extend_from_slice(string);
            if out.len() > MESSAGE_MAX {
                return None;
            }
        }
        (self.operands.len() == OPERANDS).then_some(out)
    }

    /// Reads a message; `None` when it makes no sense.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&letter, rest) = bytes.split_first().filter(|_| bytes.len() <= MESSAGE_MAX)?;
        let role = match letter {
            b'L' => Role::Local,
            b'V' => Role::Account,
            _ => return None,
        };
        let (number, mut rest) = rest.split_first_chunk()?;
        let mut next = || {
            let (length, more) = rest.split_first_chunk()?;
            let (string, more) = more.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
            rest = more;
            Some((string.to_vec(), more.is_empty()))
        };
        let (mut operands, mut variables, mut last) = (Vec::new(), Vec::new(), false);
        while operands.len() < OPERANDS {
            let (operand, is_last) = next()?;
            operands.push(operand);
            last = is_last;
        }
        while !last {
            let (name, _) = next()?;
            let (value, is_last) = next()?;
            variables.push((name, value));
            last = is_last;
        }
        Some(Self { number: u16::from_le_bytes(*number), role, operands, variables })
    }
}

impl Answer {
    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Hello => vec![b'H'],
            Self::NeedsProgram(number) => [&b"P"[..], &number.to_le_bytes()].concat(),
            Self::Ended { number, code, text } => {
                let text = &text[..text.len().min(TEXT_MAX)];
                [&b"E"[..], &number.to_le_bytes(), &[*code], text].concat()
            }
        }
    }

    /// Reads a message; `None` when it makes no sense.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&letter, rest) = bytes.split_first()?;
        if letter == b'H' {
            return rest.is_empty().then_some(Self::Hello);
        }
        let (number, rest) = rest.split_first_chunk()?;
        let number = u16::from_le_bytes(*number);
        match (letter, rest) {
            (b'P', []) => Some(Self::NeedsProgram(number)),
            (b'E', [code, text @ ..]) if text.len() <= TEXT_MAX => {
                Some(Self::Ended { number, code: *code, text: text.to_vec() })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request() -> Request {
        let operands = (0..9).map(|n| vec![b'x'; n]).collect();
        Request { number: 513, role: Role::Local, operands, variables: vec![(b"A".into(), b"\0".into())] }
    }

    #[test]
    fn what_is_too_long_or_incomplete_is_no_request() {
        let mut long = request();
        long.variables.push((b"B".into(), vec![0; MESSAGE_MAX]));
        assert_eq!(long.encode(), None);
        let few = Request { operands: vec![Vec::new(); 8], ..request() };
        assert_eq!(few.encode(), None);
        let bytes = request().encode().unwrap();
        for cut in 0..bytes.len() {
            let whole = Request { variables: Vec::new(), ..request() };
            // A request without variables is one, whatever would have followed.
            assert!(Request::decode(&bytes[..cut]).is_none_or(|r| r == whole), "{cut}");
        }
        assert_eq!(Request::decode(&[&bytes[..], b"x"].concat()), None);
    }

    #[test]
    fn long_texts_are_cut() {
        let long = Answer::Ended { number: 1, code: 100, text: vec![b'x'; TEXT_MAX + 1] };
        let Some(Answer::Ended { text, .. }) = Answer::decode(&long.encode()) else { panic!() };
        assert_eq!(text.len(), TEXT_MAX);
    }

    fn string() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..20)
    }

    proptest! {
        #[test]
        fn requests_round_trip(
            number in any::<u16>(), account in any::<bool>(), operands in prop::collection::vec(string(), 9),
            variables in prop::collection::vec((string(), string()), 0..4),
        ) {
            let role = if account { Role::Account } else { Role::Local };
            let request = Request { number, role, operands, variables };
            prop_assert_eq!(Request::decode(&request.encode().unwrap()), Some(request));
        }

        #[test]
        fn answers_round_trip(number in any::<u16>(), code in any::<u8>(), text in string()) {
            for answer in [Answer::Hello, Answer::NeedsProgram(number), Answer::Ended { number, code, text }] {
                prop_assert_eq!(Answer::decode(&answer.encode()), Some(answer));
            }
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (Request::decode(&bytes), Answer::decode(&bytes));
        }
    }
}
