//! Exit codes of qmail-queue and of everything that may stand in its place.
//!
//! The code is the answer. 11 to 40 and 115 refuse the message for good, 0 accepts it, 88 says that
//! the answer was written to the error descriptor, everything else means "try again later".

/// What a code means for the one who offers the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The message is in the queue and will survive a power cut.
    Queued,
    /// It will never be accepted.
    Permanent,
    /// It was not accepted this time.
    Temporary,
}

/// An exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code(pub u8);

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The code.
    pub code: Code,
    /// What it means, in one line for a remote peer, with an enhanced status code.
    pub text: &'static str,
}

macro_rules! table {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)+) => {
        impl Code {
            $($(#[$doc])* #[doc = concat!("(", stringify!($number), ") ", $text)] pub const $name: Self = Self($number);)+
        }
        /// All codes that have a meaning of their own, in ascending order.
        pub static TABLE: &[Row] = &[$(Row { code: Code($number), text: $text }),+];
    };
}

table! {
    OK = 0, "queued (#2.0.0)";
    ADDRESS_TOO_LONG = 11, "an envelope address is too long (#5.1.3)";
    REFUSED = 31, "message refused (#5.3.0)";
    SPAM = 32, "message looks like spam (#5.7.1)";
    VIRUS = 33, "message carries a virus (#5.7.1)";
    BANNED_ATTACHMENT = 34, "message carries a forbidden attachment (#5.7.1)";
    NO_PRIVATE_KEY = 35, "no private key to sign the message with (#5.3.5)";
    DUP = 41, "cannot arrange descriptors (#4.3.0)";
    NO_PRIVILEGE = 50, "no privilege to run the scanner (#4.3.0)";
    MEMORY = 51, "out of memory (#4.3.0)";
    TIMEOUT = 52, "timed out (#4.3.0)";
    WRITE = 53, "write error or disk full (#4.3.0)";
    READ = 54, "read error (#4.3.0)";
    CONFIGURATION = 55, "cannot read the configuration (#4.3.0)";
    NETWORK = 56, "network trouble (#4.3.0)";
    PLUGIN_LOAD = 57, "cannot load a plugin (#4.3.0)";
    PLUGIN_SYMBOL = 58, "a plugin lacks its function (#4.3.0)";
    PLUGIN_UNLOAD = 59, "cannot unload a plugin (#4.3.0)";
    PIPES = 60, "cannot make pipes or sockets (#4.3.0)";
    CHDIR_QUEUE = 61, "cannot enter the queue directory (#4.3.0)";
    MESS_INACCESSIBLE = 62, "cannot look at the message file (#4.3.0)";
    CHDIR_ROOT = 63, "cannot enter the root directory (#4.3.0)";
    FSYNC = 64, "cannot force the message to the disk (#4.3.0)";
    CREATE_INTD = 65, "cannot create the envelope file (#4.3.0)";
    LINK_TODO = 66, "cannot commit the envelope (#4.3.0)";
    LINK_MESS = 67, "cannot name the message file (#4.3.0)";
    TEMPORARY_FILES = 68, "cannot make temporary files (#4.3.0)";
    DIRECTORY_SYNC = 69, "cannot force a directory to the disk (#4.3.0)";
    PID_FILE = 70, "cannot create a file in the queue (#4.3.0)";
    REFUSED_NOW = 71, "message refused for now (#4.3.0)";
    CONNECTION_TIMEOUT = 72, "connection timed out (#4.4.1)";
    CONNECTION_REJECTED = 73, "connection rejected (#4.4.1)";
    COMMUNICATION = 74, "communication failed (#4.4.2)";
    EXEC = 75, "cannot run a program (#4.3.0)";
    SPAM_FILTER = 76, "spam filter trouble (#4.3.0)";
    SCANNER = 77, "virus scanner trouble (#4.3.0)";
    IDS = 78, "system users are missing (#4.3.0)";
    ENVELOPE = 79, "envelope format error (#4.3.0)";
    REMOVE_INTD = 80, "cannot remove the envelope file (#4.3.0)";
    BUG = 81, "internal bug (#4.3.0)";
    EXEC_QUEUE = 82, "cannot run the queue program (#4.3.0)";
    UNLINK_PID = 83, "cannot remove a file in the queue (#4.3.0)";
    MISCONFIGURED = 87, "mail system misconfigured (#4.3.5)";
    /// The answer is on the error descriptor.
    CUSTOM = 88, "temporarily unable to accept the message (#4.3.0)";
    BUG_OTHER = 91, "internal bug (#4.3.0)";
    ADDRESS_TOO_LONG_OTHER = 115, "an envelope address is too long (#5.1.3)";
    /// What a child says that could not become the queue program.
    EXEC_CHILD = 120, "cannot run the queue program (#4.3.0)";
    FORK = 121, "cannot start a process (#4.3.0)";
    WAIT = 122, "cannot wait for a process (#4.3.0)";
    CRASHED = 123, "the queue program crashed (#4.3.0)";
}

impl Code {
    /// What the code means for the one who offers the message.
    #[must_use]
    pub fn class(self) -> Class {
        match self.0 {
            0 => Class::Queued,
            11..=40 | 115 => Class::Permanent,
            _ => Class::Temporary,
        }
    }

    /// One line for a remote peer, ending in an enhanced status code.
    #[must_use]
    pub fn text(self) -> &'static str {
        let known = TABLE.iter().find(|row| row.code == self).map(|row| row.text);
        known.unwrap_or_else(|| match self.class() {
            Class::Permanent => "message refused (#5.3.0)",
            Class::Queued | Class::Temporary => "temporary failure in the queue (#4.3.0)",
        })
    }
}

/// The answer that an exit code and what was written to the error descriptor make together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Accepted.
    Queued,
    /// Refused for good, with text for a remote peer: lines with LF between them, hardly ever more
    /// than one, and no other control bytes.
    Permanent(Vec<u8>),
    /// Not this time, with text as before.
    Temporary(Vec<u8>),
}

/// Reads an exit code and the first bytes of the error descriptor.
#[must_use]
pub fn answer(code: Code, custom: &[u8]) -> Answer {
    if code == Code::CUSTOM
        && custom.len() >= 3
        && let Some(answer) = explained(custom)
    {
        return answer;
    }
    let text = [b"qq ", code.text().as_bytes()].concat();
    match code.class() {
        Class::Queued => Answer::Queued,
        Class::Permanent => Answer::Permanent(text),
        Class::Temporary => Answer::Temporary(text),
    }
}

/// The text of code 88. The last line decides when it has a letter, `D` or `Z`: several programs of
/// a chain may have written one each. Otherwise only the first line counts.
fn explained(custom: &[u8]) -> Option<Answer> {
    let clean = |line: &[u8]| line.iter().map(|&b| if b < b' ' || b == 127 { b'?' } else { b }).collect();
    let lines = custom.split(|&b| b == b'\n').map(|l| l.strip_suffix(b"\r").unwrap_or(l));
    let lines: Vec<&[u8]> = lines.filter(|l| !l.is_empty()).collect();
    let has_letter = |line: &[u8]| matches!(line, [b'D' | b'Z', ..]);
    let counted = if lines.last().is_some_and(|l| has_letter(l)) { &lines[..] } else { lines.get(..1)? };
    let (last, earlier) = counted.split_last()?;
    let each = earlier.iter().all(|l| has_letter(l));
    let mut text: Vec<Vec<u8>> = earlier.iter().map(|l| clean(&l[usize::from(each)..])).collect();
    text.push(clean(&last[1..]));
    let text = text.join(&b'\n');
    match last[0] {
        b'D' => Some(Answer::Permanent(text)),
        b'Z' => Some(Answer::Temporary(text)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_follow_the_ranges() {
        for n in 0..=255u8 {
            let class = Code(n).class();
            let wanted = match n {
                0 => Class::Queued,
                11..=40 | 115 => Class::Permanent,
                _ => Class::Temporary,
            };
            assert_eq!(class, wanted, "{n}");
            let text = Code(n).text();
            let digit = match class {
                Class::Queued => "(#2.",
                Class::Permanent => "(#5.",
                Class::Temporary => "(#4.",
            };
            assert!(text.contains(digit) && text.ends_with(')'), "{n}: {text}");
        }
        assert!(TABLE.windows(2).all(|w| w[0].code.0 < w[1].code.0));
    }

    #[test]
    fn custom_text_is_clean_and_one_line_where_only_the_first_has_a_letter() {
        let text = |s: &str| s.as_bytes().to_vec();
        assert_eq!(answer(Code::CUSTOM, b"Dno\r\nmore"), Answer::Permanent(text("no")));
        assert_eq!(answer(Code::CUSTOM, b"Dn\ro\x1b\n"), Answer::Permanent(text("n?o?")));
        assert_eq!(answer(Code::CUSTOM, b"Zlater (#4.1.0)"), Answer::Temporary(text("later (#4.1.0)")));
        for odd in [&b""[..], b"D", b"Dx", b"Xabc", b"\n\n\n", b"Xa\nb\n"] {
            assert!(matches!(answer(Code::CUSTOM, odd), Answer::Temporary(_)), "{odd:?}");
        }
        assert_eq!(answer(Code::OK, b"Dignored"), Answer::Queued);
    }

    #[test]
    fn fix_the_last_line_of_a_custom_text_decides() {
        let text = |s: &str| s.as_bytes().to_vec();
        assert_eq!(answer(Code::CUSTOM, b"Dfirst\nZsecond\n"), Answer::Temporary(text("first\nsecond")));
        assert_eq!(answer(Code::CUSTOM, b"Zfirst\r\nDsecond"), Answer::Permanent(text("first\nsecond")));
        assert_eq!(answer(Code::CUSTOM, b"found:\nDVirus"), Answer::Permanent(text("found:\nVirus")));
    }

    proptest::proptest! {
        /// Whatever a program says: an answer, never success, and no control byte but LF between lines.
        #[test]
        fn custom_text_is_never_success_and_always_clean(
            bytes in proptest::collection::vec(proptest::sample::select(&b"DZa \r\n\0\x1b\xff"[..]), 0..30),
        ) {
            match answer(Code::CUSTOM, &bytes) {
                Answer::Queued => proptest::prop_assert!(false),
                Answer::Permanent(text) | Answer::Temporary(text) => {
                    proptest::prop_assert!(text.iter().all(|&b| b == b'\n' || b >= b' ' && b != 127));
                }
            }
        }
    }
}
