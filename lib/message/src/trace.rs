//! The lines that delivery puts before a message.

use crate::{Address, Moment};

/// `Received: WHAT PID by host HOST`, folded, `(HOW); DATE`.
///
/// Bytes that could end the line become `?`.
#[must_use]
pub fn received(what: &str, pid: u32, host: &[u8], how: &[u8], at: Moment) -> Vec<u8> {
    [
        format!("Received: {what} {pid} by host ").as_bytes(),
        &one_line(host),
        b"\n (",
        &one_line(how),
        format!("); {}\n", at.rfc5322()).as_bytes(),
    ]
    .concat()
}

/// `Delivered-To: ADDRESS`, with its newline.
#[must_use]
pub fn delivered_to(address: &[u8]) -> Vec<u8> {
    [b"Delivered-To: ", &quoted(address)[..], b"\n"].concat()
}

/// `Return-Path: <SENDER>`, with its newline.
#[must_use]
pub fn return_path(sender: &[u8]) -> Vec<u8> {
    [b"Return-Path: <", &quoted(sender)[..], b">\n"].concat()
}

/// `From SENDER DATE`, the line between the messages of an mbox, with its newline. Blanks in the
/// sender become `-`; the empty sender is MAILER-DAEMON.
#[must_use]
pub fn mbox_from(sender: &[u8], at: Moment) -> Vec<u8> {
    let mut shown = if sender.is_empty() { b"MAILER-DAEMON".to_vec() } else { quoted(sender) };
    for byte in &mut shown {
        if byte.is_ascii_whitespace() {
            *byte = b'-';
        }
    }
    [b"From ", &shown[..], b" ", at.ctime().as_bytes(), b"\n"].concat()
}

/// An envelope address as a header line shows it: quoted, newlines turned to `_`.
fn quoted(address: &[u8]) -> Vec<u8> {
    let mut shown = Address::from_envelope(address).to_header();
    for byte in &mut shown {
        if b"\r\n\0".contains(byte) {
            *byte = b'_';
        }
    }
    shown
}

fn one_line(text: &[u8]) -> Vec<u8> {
    text.iter().map(|&b| if b < b' ' || b == 127 { b'?' } else { b }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_are_as_the_reference_has_them() {
        let at = Moment::utc(0);
        assert_eq!(
            received("indimail-mta queue", 7, b"h", b"invoked by uid 0", at),
            b"Received: indimail-mta queue 7 by host h\n (invoked by uid 0); Thu, 01 Jan 1970 00:00:00 +0000\n"
        );
        assert_eq!(delivered_to(b"a b@c"), b"Delivered-To: \"a b\"@c\n");
        assert_eq!(return_path(b""), b"Return-Path: <>\n");
        assert_eq!(mbox_from(b"a b@c", at), b"From \"a-b\"@c Thu Jan  1 00:00:00 1970\n");
        assert_eq!(mbox_from(b"", at), b"From MAILER-DAEMON Thu Jan  1 00:00:00 1970\n");
    }

    proptest! {
        #[test]
        fn always_exactly_one_line(address in prop::collection::vec(any::<u8>(), 0..40)) {
            for line in [delivered_to(&address), return_path(&address), mbox_from(&address, Moment::utc(0))] {
                prop_assert_eq!(line.iter().filter(|&&b| b == b'\n').count(), 1);
                prop_assert!(!line.contains(&b'\r') && !line.contains(&0));
            }
            let received = received("x", 1, &address, &address, Moment::utc(0));
            prop_assert_eq!(received.iter().filter(|&&b| b == b'\n').count(), 2);
        }
    }
}
