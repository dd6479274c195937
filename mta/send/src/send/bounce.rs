//! Notices about failed deliveries (QSBMF): whether there is one, to whom, and what it says.

use mta_queue::received::date;

use crate::todo::rewrite::strip_prefix;

/// Sender of a double bounce: if that fails too, nobody is told.
pub(crate) const DOUBLE_SENDER: &[u8] = b"#@[]";

/// What the control files say about bounces.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policy {
    /// Local part of the From address.
    pub(crate) from: Vec<u8>,
    /// Host of the From address and of the greeting.
    pub(crate) host: Vec<u8>,
    /// Where bounces of bounces go; `None` discards them.
    pub(crate) double_to: Option<Vec<u8>>,
    /// Bytes of the original that are quoted; 0 means all.
    pub(crate) max_bytes: u64,
    /// Introductions that replace ours, for single and double bounces.
    pub(crate) messages: [Option<Vec<u8>>; 2],
    /// Subjects, for single and double bounces.
    pub(crate) subjects: [Vec<u8>; 2],
}

/// What to do about the failures of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Send a notice.
    Notice {
        /// Envelope sender of the notice.
        sender: &'static [u8],
        /// Its recipient.
        recipient: Vec<u8>,
        /// Is it about a bounce that failed?
        double: bool,
    },
    /// A bounce failed and nobody wants to know.
    DiscardDouble,
    /// A double bounce failed.
    DiscardTriple,
}

impl Policy {
    /// `sender` is that of the message which failed, without VERP.
    pub(crate) fn plan(&self, sender: &[u8]) -> Plan {
        match (sender, &self.double_to) {
            (DOUBLE_SENDER, _) => Plan::DiscardTriple,
            (b"", None) => Plan::DiscardDouble,
            (b"", Some(to)) => Plan::Notice { sender: DOUBLE_SENDER, recipient: to.clone(), double: true },
            (other, _) => Plan::Notice { sender: b"", recipient: other.to_vec(), double: false },
        }
    }
}

/// An entry of the bounce file: who, and why. Neither can forge another entry.
pub(crate) fn entry(virtualdomains: &control::Map, recipient: &[u8], report: &[u8]) -> Vec<u8> {
    let mut out = b"<".to_vec();
    out.extend(strip_prefix(virtualdomains, recipient).iter().map(|&b| if b == b'\n' { b'_' } else { b }));
    out.extend_from_slice(b">:\n");
    let mut last = b'\n';
    for &byte in report {
        let byte = if byte == b'\n' && last == b'\n' { b'/' } else { byte };
        out.push(byte);
        last = byte;
    }
    if last != b'\n' {
        out.push(b'\n');
    }
    out.push(b'\n');
    out
}

/// FIX-17: the first address in a bounce file.
fn first_address(failures: &[u8]) -> &[u8] {
    let line = failures.split(|&b| b == b'\n').next().unwrap_or_default();
    line.strip_prefix(b"<").and_then(|l| l.strip_suffix(b">:")).unwrap_or_default()
}

/// Facts about one notice.
#[derive(Debug)]
pub(crate) struct Notice<'a> {
    pub(crate) policy: &'a Policy,
    /// Sender of the message that failed, as bounces name it.
    pub(crate) original_sender: &'a [u8],
    pub(crate) recipient: &'a [u8],
    pub(crate) double: bool,
    /// Contents of the bounce file.
    pub(crate) failures: &'a [u8],
    pub(crate) birth: u64,
    pub(crate) id: u64,
    pub(crate) now: u64,
    pub(crate) offset: i64,
}

impl Notice<'_> {
    fn boundary(&self) -> Vec<u8> {
        let host = self
            .policy
            .host
            .iter()
            .map(|&b| if b.is_ascii_alphanumeric() || b == b'.' || b == b'-' { b } else { b'_' });
        [format!("{}.", self.birth).into_bytes(), host.collect(), format!(".{}", self.id).into_bytes()]
            .concat()
    }

    /// Everything before the bytes of the original.
    pub(crate) fn head(&self) -> Vec<u8> {
        let kind = usize::from(self.double);
        let boundary = self.boundary();
        let mut out = Vec::new();
        let mut put = |pieces: &[&[u8]]| pieces.iter().for_each(|p| out.extend_from_slice(p));
        put(&[b"Date: ", date(self.now, self.offset).as_bytes(), b"\n"]);
        put(&[b"X-Bounced-Address: ", &one_line(first_address(self.failures)), b"\n"]);
        put(&[b"From: <", &one_line(&self.policy.from), b"@", &one_line(&self.policy.host), b">\n"]);
        put(&[b"To: <", &one_line(self.recipient), b">\n"]);
        put(&[b"MIME-Version: 1.0\nContent-Type: multipart/mixed;\n\tboundary=\"", &boundary, b"\"\n"]);
        put(&[b"Subject: ", &one_line(&self.policy.subjects[kind]), b"\n\n"]);
        put(&[b"--", &boundary, b"\nContent-Type: text/plain; charset=utf-8\n\n"]);
        match &self.policy.messages[kind] {
            Some(text) => put(&[text, if text.ends_with(b"\n") { b"\n" } else { b"\n\n" }]),
            None => put(&[
                b"Hi. This is the mail delivery program at ",
                &one_line(&self.policy.host),
                if self.double { DOUBLE_TEXT } else { SINGLE_TEXT },
            ]),
        }
        put(&[self.failures]);
        put(&[b"--- Below this line is a copy of the message.\n\n"]);
        put(&[b"--", &boundary, b"\nContent-Type: message/rfc822\n\n"]);
        put(&[b"Return-Path: <", &one_line(self.original_sender), b">\n"]);
        out
    }

    /// Everything after the bytes of the original, of which `cut` says whether some are missing.
    pub(crate) fn tail(&self, cut: bool) -> Vec<u8> {
        let note: &[u8] = if cut { b"\n\n--- The rest of the message is not shown.\n" } else { b"" };
        [note, b"\n--", &self.boundary(), b"--\n"].concat()
    }
}

const SINGLE_TEXT: &[u8] = b".\nYour message could not be delivered to the addresses below.\n\
    This is final, it will not be tried again.\n\n";
const DOUBLE_TEXT: &[u8] =
    b".\nA notice about a failed delivery could not be delivered to its sender below.\n\
    The notice follows; nobody else has been told.\n\n";

/// The last report of a message that is too old gets this at its end.
pub(crate) const TOO_OLD: &[u8] =
    b"The message has stayed in the queue too long and will not be tried again.\n";

/// Header values keep to their line.
fn one_line(text: &[u8]) -> Vec<u8> {
    text.iter().map(|&b| if b < b' ' || b == 127 { b'_' } else { b }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::Map;
    use proptest::prelude::*;

    fn policy() -> Policy {
        Policy {
            from: b"MAILER-DAEMON".to_vec(),
            host: b"mx.example".to_vec(),
            double_to: Some(b"postmaster@mx.example".to_vec()),
            subjects: [b"failure notice".to_vec(), b"failure notice".to_vec()],
            ..Policy::default()
        }
    }

    #[test]
    fn bounces_go_one_step_back_and_then_nowhere() {
        let notice =
            |sender, recipient: &[u8], double| Plan::Notice { sender, recipient: recipient.to_vec(), double };
        assert_eq!(policy().plan(b"a@b"), notice(b"", b"a@b", false));
        assert_eq!(policy().plan(b""), notice(b"#@[]", b"postmaster@mx.example", true));
        assert_eq!(policy().plan(b"#@[]"), Plan::DiscardTriple);
        let none = Policy { double_to: None, ..policy() };
        assert_eq!(none.plan(b""), Plan::DiscardDouble);
    }

    #[test]
    fn reports_cannot_forge_entries() {
        let map = Map::new(&["v.example:virt"]);
        let bytes = entry(&map, b"virt-a\nb@v.example", b"no\n\n<forged@x>:\nyes");
        assert_eq!(bytes, b"<a_b@v.example>:\nno\n/<forged@x>:\nyes\n\n");
        assert_eq!(entry(&map, b"a@x", b"\n"), b"<a@x>:\n/\n\n");
        assert_eq!(entry(&map, b"a@x", b""), b"<a@x>:\n\n");
    }

    #[test]
    fn fix_17_the_bounced_address_is_the_first_of_this_bounce() {
        let map = Map::default();
        let failures = [entry(&map, b"one@x", b"no"), entry(&map, b"two@x", b"no")].concat();
        let policy = policy();
        let notice = Notice {
            policy: &policy,
            original_sender: b"a@b",
            recipient: b"a@b",
            double: false,
            failures: &failures,
            birth: 100,
            id: 7,
            now: 0,
            offset: 0,
        };
        let head = String::from_utf8(notice.head()).unwrap();
        let fields = [
            "Date: Thu, 01 Jan 1970",
            "X-Bounced-Address: one@x\n",
            "From: <MAILER-DAEMON@mx.example>\n",
            "To: <a@b>\n",
            "MIME-Version: 1.0\n",
            "boundary=\"100.mx.example.7\"",
            "Subject: failure notice\n\n",
            "\nHi. This is the ",
            "\n<one@x>:\nno\n\n<two@x>:\nno\n\n--- ",
            "\nReturn-Path: <a@b>\n",
        ];
        let places: Vec<usize> =
            fields.iter().map(|f| head.find(f).unwrap_or_else(|| panic!("{f}: {head}"))).collect();
        assert!(places.is_sorted(), "{head}");
        assert_eq!(notice.tail(false), b"\n--100.mx.example.7--\n");
        assert!(notice.tail(true).starts_with(b"\n\n--- "));
    }

    proptest! {
        #[test]
        fn an_entry_has_one_blank_line_and_that_is_its_end(
            recipient in prop::collection::vec(any::<u8>(), 0..40), report in prop::collection::vec(prop::sample::select(b"a\n<>:".to_vec()), 0..40),
        ) {
            let bytes = entry(&Map::default(), &recipient, &report);
            let blank = bytes.windows(2).position(|w| w == b"\n\n").unwrap();
            prop_assert_eq!(blank, bytes.len() - 2);
        }
    }
}
