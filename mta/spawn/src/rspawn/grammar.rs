//! What qmail-remote prints.
//!
//! ```text
//! output    = *recipient message
//! recipient = ("r" / "h" / "s") text NUL     accepted, refused for good, refused for now
//! message   = ("K" / "Z" / "D") text NUL     accepted, not now, never
//! ```
//!
//! There is one recipient in each job here. Bytes outside these records, or no message report, mean
//! that nothing can be concluded: a deferral, for the message may have been taken or not.

use mta_queue::spawn_protocol::Verdict;

use crate::request::{Answer, defer};

/// The report that this output makes. `truncated` says that the end of it is missing.
#[must_use]
pub fn read(output: &[u8], truncated: bool) -> Answer {
    if output.is_empty() {
        return defer("qmail-remote printed nothing (#4.3.0)\n");
    }
    conclude(output, truncated)
        .unwrap_or_else(|| defer("qmail-remote printed something that makes no sense (#4.3.0)\n"))
}

fn conclude(output: &[u8], truncated: bool) -> Option<Answer> {
    let mut rest = output;
    let (mut letter, mut text) = (b'r', Vec::new());
    loop {
        let (record, after) = match rest.iter().position(|&b| b == 0) {
            Some(end) => (&rest[..end], &rest[end + 1..]),
            // The text was too long, what it says is clear.
            None if truncated => (rest, &b""[..]),
            None => return None,
        };
        let (&first, said) = record.split_first()?;
        text.extend_from_slice(said);
        match first {
            b'r' | b'h' | b's' => letter = first,
            _ => {
                let message = Verdict::from_letter(first)?;
                let verdict = match letter {
                    b's' => Verdict::Deferral,
                    b'h' => Verdict::Failure,
                    _ => message,
                };
                return after.is_empty().then_some((verdict, text));
            }
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn letter(output: &[u8]) -> char {
        char::from(read(output, false).0.letter())
    }

    #[test]
    fn the_recipient_and_the_message_decide() {
        for (output, wanted) in [
            (&b"r\0Kaccepted\0"[..], 'K'),
            (b"r\0Zlater\0", 'Z'),
            (b"r\0Dno\0", 'D'),
            (b"h550\0Dno\0", 'D'),
            (b"h550\0Kok\0", 'D'),
            (b"s450\0Kok\0", 'Z'),
            (b"Kok\0", 'K'),
            (b"Zdns\0", 'Z'),
            (b"Dno\0", 'D'),
        ] {
            assert_eq!(letter(output), wanted, "{}", output.escape_ascii());
        }
        assert_eq!(read(b"hbox full\0Dgiving up\0", false).1, b"box fullgiving up");
    }

    #[test]
    fn mangled_output_is_a_deferral() {
        for output in
            [&b""[..], b"\0", b"r\0", b"Kok", b"x\0Kok\0", b"r\0Kok\0more", b"r\0Kok\0Kok\0", b"r", b"r\0\0"]
        {
            assert_eq!(letter(output), 'Z', "{}", output.escape_ascii());
        }
    }

    #[test]
    fn an_endless_text_does_not_turn_success_into_a_second_delivery() {
        let long = [&b"r\0K"[..], &[b'x'; 70_000]].concat();
        assert_eq!(read(&long[..65_536], true).0, Verdict::Success);
        assert_eq!(read(&long, false).0, Verdict::Deferral);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(output in prop::collection::vec(prop::sample::select(&b"rhsKZDx\0"[..]), 0..12), cut in any::<bool>()) {
            let (verdict, _) = read(&output, cut);
            if verdict == Verdict::Success {
                prop_assert!(output.contains(&b'K'));
            }
        }
    }
}
