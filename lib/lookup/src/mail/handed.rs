//! An answer handed on, from a program that may ask inlookup to one that may not.
//!
//! qmail-lspawn asks as root whose mail it has, and starts the delivery as that user, who has no
//! business at the socket. The answer goes along in a variable: the address asked for, a blank, the
//! reply's frame in hexadecimal. It holds nothing secret, and whoever could forge it runs as the
//! same user already.

use super::{Mailbox, Reply, Request};
use crate::frame::{MAX_FRAME, split};

/// The variable's name.
pub const VARIABLE: &str = "INLOOKUP_ANSWER";
/// Longer answers are not handed on: there is a limit to the length of a variable.
const LENGTH_MAX: usize = 100_000;

/// The variable's value for this answer; `None` when it is too long.
#[must_use]
pub fn hand(address: &[u8], answer: Option<&Mailbox>) -> Option<Vec<u8>> {
    let mut frame = Vec::new();
    answer.map_or(Reply::Absent, |m| Reply::Mailbox(m.clone())).encode(&mut frame).ok()?;
    let digit = |n: u8| match n & 15 {
        n @ 0..10 => b'0'.wrapping_add(n),
        n => b'a'.wrapping_add(n).wrapping_sub(10),
    };
    let mut value = [address, b" "].concat();
    value.extend(frame.iter().flat_map(|&b| [digit(b >> 4), digit(b)]));
    (value.len() <= LENGTH_MAX && !address.contains(&0)).then_some(value)
}

/// The answer in the variable's value; `None` when there is none about this address.
#[must_use]
pub fn take(value: &[u8], address: &[u8]) -> Option<Option<Mailbox>> {
    let blank = value.iter().rposition(|&b| b == b' ')?;
    let (about, digits) = (value.get(..blank)?, value.get(blank + 1..)?);
    if about != address {
        return None;
    }
    let number = |d: u8| u8::try_from(char::from(d).to_digit(16)?).ok();
    let bytes: Option<Vec<u8>> = digits
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(number(*high)? << 4 | number(*low)?),
            _ => None,
        })
        .collect();
    let bytes = bytes?;
    let (frame, length) = split(&bytes, MAX_FRAME).ok()??;
    if length != bytes.len() {
        return None;
    }
    match Reply::decode(&Request::Mailbox(address), &frame).ok()? {
        Reply::Mailbox(mailbox) => Some(Some(mailbox)),
        Reply::Absent => Some(None),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Quota;
    use proptest::prelude::*;
    use unix::{Gid, Uid};

    fn mailbox(aliases: Vec<Vec<u8>>) -> Mailbox {
        Mailbox {
            address: b"joe@x.y".to_vec(),
            uid: Uid::from_raw(7),
            gid: Gid::from_raw(8),
            home: b"/h".to_vec(),
            gecos: Vec::new(),
            quota: Quota { bytes: Some(9), messages: None },
            flags: 1,
            active: true,
            alias_only: false,
            aliases,
        }
    }

    #[test]
    fn answers_are_about_one_address_and_not_too_long() {
        let value = hand(b"joe@x.y", None).unwrap();
        assert_eq!(take(&value, b"joe@x.y"), Some(None));
        assert_eq!(take(&value, b"jo@x.y"), None);
        assert_eq!(take(&value[..value.len() - 2], b"joe@x.y"), None);
        assert_eq!(hand(b"joe@x.y", Some(&mailbox(vec![vec![b'x'; 60_000]]))), None);
    }

    proptest! {
        #[test]
        fn round_trip(aliases in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..5)) {
            let mailbox = mailbox(aliases);
            let value = hand(b"a b@c", Some(&mailbox)).unwrap();
            prop_assert!(!value.contains(&0));
            prop_assert_eq!(take(&value, b"a b@c"), Some(Some(mailbox)));
        }

        #[test]
        fn garbage_never_panics(value in prop::collection::vec(prop::sample::select(&b"a 0f\0g"[..]), 0..40)) {
            let _ = take(&value, b"a");
        }
    }
}
