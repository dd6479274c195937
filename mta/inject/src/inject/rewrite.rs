//! Completing a header. Pure: bytes and facts in, bytes and envelope out.

use std::ops::Range;

use message::address::{self, Found, SyntaxError};
use message::header::{self, Field};
use message::{Address, Moment};

use super::job::{Job, RecipientsFrom};

/// A completed header and its envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewritten {
    /// The header, without the empty line that ends it.
    pub header: Vec<u8>,
    /// Envelope sender.
    pub sender: Vec<u8>,
    /// Envelope recipients.
    pub recipients: Vec<Vec<u8>>,
}

/// The message cannot be sent like this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A field that must hold addresses does not.
    #[error("header field {field}: {source}")]
    Field {
        /// Its name.
        field: String,
        /// What is wrong.
        source: SyntaxError,
    },
    /// An argument is no address.
    #[error("recipient {argument}: {source}")]
    Recipient {
        /// The argument.
        argument: String,
        /// What is wrong.
        source: SyntaxError,
    },
    /// The sender is no address.
    #[error("sender {0}: expected one address, or nothing")]
    Sender(String),
    /// An address that cannot be an envelope address.
    #[error("address {0}: a line end in an address")]
    LineEnd(String),
}

/// Completes a header (as [`header::split`] returns it).
///
/// # Errors
/// See [`Error`].
pub fn rewrite(header: &[u8], job: &Job) -> Result<Rewritten, Error> {
    let fields: Vec<Field<'_>> = header::fields(header).collect();
    let resent = fields.iter().any(|f| starts_with(f.name, b"resent-"));
    let mut work = Work {
        job,
        resent,
        recipients: Vec::new(),
        readers: Vec::new(),
        return_path: None,
        kept: Vec::new(),
    };
    for field in &fields {
        work.field(field)?;
    }
    let sender = work.sender()?;
    let recipients = work.recipients()?;
    let mut header = work.added(&fields);
    header.extend_from_slice(&work.kept);
    Ok(Rewritten { header, sender, recipients })
}

struct Work<'a> {
    job: &'a Job,
    resent: bool,
    recipients: Vec<Vec<u8>>,
    readers: Vec<Vec<u8>>,
    return_path: Option<Vec<u8>>,
    kept: Vec<u8>,
}

/// What a field is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Holds recipients; the flag says that they belong to a resending.
    Recipients {
        resent: bool,
        hidden: bool,
    },
    /// Holds other addresses.
    Addresses,
    ReturnPath,
    ContentLength,
    From {
        resent: bool,
    },
    MessageId {
        resent: bool,
    },
    Other,
}

fn role(name: &[u8]) -> Role {
    let lower = name.to_ascii_lowercase();
    let (resent, base) = match lower.strip_prefix(b"resent-") {
        Some(base) => (true, base),
        None => (false, &lower[..]),
    };
    match base {
        b"to" | b"cc" => Role::Recipients { resent, hidden: false },
        b"apparently-to" if !resent => Role::Recipients { resent, hidden: false },
        b"bcc" => Role::Recipients { resent, hidden: true },
        b"from" => Role::From { resent },
        b"message-id" => Role::MessageId { resent },
        b"sender" | b"reply-to" => Role::Addresses,
        b"mail-followup-to" | b"mail-reply-to" | b"errors-to" if !resent => Role::Addresses,
        b"return-path" if !resent => Role::ReturnPath,
        b"content-length" if !resent => Role::ContentLength,
        _ => Role::Other,
    }
}

impl Work<'_> {
    fn field(&mut self, field: &Field<'_>) -> Result<(), Error> {
        match role(field.name) {
            Role::Recipients { resent, hidden } => {
                let (body, addresses) = self.completed(field)?;
                if !hidden && !resent {
                    self.readers.extend(addresses.iter().cloned());
                }
                if resent == self.resent {
                    self.recipients.extend(addresses);
                }
                if !hidden {
                    self.keep(field, &body);
                }
            }
            Role::From { resent } if self.job.drop_from && resent == self.resent => {}
            Role::MessageId { resent } if self.job.drop_message_id && resent == self.resent => {}
            Role::Addresses | Role::From { .. } => {
                let (body, _) = self.completed(field)?;
                self.keep(field, &body);
            }
            Role::ReturnPath => {
                let (_, mut addresses) = self.completed(field)?;
                if !self.job.ignore_return_path {
                    self.return_path = Some(addresses.pop().unwrap_or_default());
                }
            }
            Role::ContentLength => {}
            Role::MessageId { .. } | Role::Other => self.kept.extend_from_slice(&with_end(field.raw)),
        }
        Ok(())
    }

    /// The body with its hosts completed, and its addresses (the null address left out).
    fn completed(&self, field: &Field<'_>) -> Result<(Vec<u8>, Vec<Vec<u8>>), Error> {
        let found = address::list(field.body)
            .map_err(|source| Error::Field { field: field.name.escape_ascii().to_string(), source })?;
        let mut places: Vec<(Range<usize>, Vec<u8>)> = Vec::new();
        let mut addresses = Vec::new();
        for one in found {
            if one.place.is_empty() {
                continue;
            }
            let host = self.job.hosts.complete(one.address.domain.as_deref());
            places.extend(replacement(&one, &host));
            addresses.push(envelope(one.address.local, host)?);
        }
        Ok((address::splice(field.body, &places), addresses))
    }

    fn keep(&mut self, field: &Field<'_>, body: &[u8]) {
        // Everything up to and with the colon as it was.
        let colon = field.raw.iter().position(|&b| b == b':').map_or(0, |at| at + 1);
        self.kept.extend_from_slice(&field.raw[..colon]);
        self.kept.extend_from_slice(body);
        self.kept.push(b'\n');
    }

    fn sender(&self) -> Result<Vec<u8>, Error> {
        let given = match &self.job.sender {
            Some(text) => Some(self.given_sender(text)?),
            None => self.return_path.clone(),
        };
        if let Some(sender) = given {
            return Ok(sender);
        }
        let me = &self.job.sender_identity;
        let mut local = me.user.clone();
        if self.job.verp_message {
            local.extend(format!("-{}.{}", self.job.seconds, self.job.pid).into_bytes());
        }
        let mut host = self.job.hosts.complete(me.host.as_deref());
        if self.job.verp_recipient {
            local.push(b'-');
            host.extend_from_slice(b"-@[]");
        }
        envelope(local, host)
    }

    fn given_sender(&self, text: &[u8]) -> Result<Vec<u8>, Error> {
        let wrong = || Error::Sender(text.escape_ascii().to_string());
        // The senders of bounces and of VERP are no addresses by the grammar.
        if text == b"#@[]" || text.ends_with(b"-@[]") {
            return Ok(text.to_vec());
        }
        let mut found = address::list(text).map_err(|_| wrong())?;
        match (found.pop(), found.is_empty()) {
            (None, _) => Ok(Vec::new()),
            (Some(one), true) if one.place.is_empty() => Ok(Vec::new()),
            (Some(one), true) => {
                let host = self.job.hosts.complete(one.address.domain.as_deref());
                envelope(one.address.local, host)
            }
            (Some(_), false) => Err(wrong()),
        }
    }

    fn recipients(&mut self) -> Result<Vec<Vec<u8>>, Error> {
        use RecipientsFrom::{Arguments, ArgumentsElseHeader, Both, Header};
        let from = self.job.recipients_from;
        let header = match from {
            Header | Both => true,
            Arguments => false,
            ArgumentsElseHeader => self.job.arguments.is_empty(),
        };
        let mut all = Vec::new();
        if from != Header {
            for argument in &self.job.arguments {
                let found = address::list(argument).map_err(|source| Error::Recipient {
                    argument: argument.escape_ascii().to_string(),
                    source,
                })?;
                for one in found.into_iter().filter(|f| !f.place.is_empty()) {
                    let host = self.job.hosts.complete(one.address.domain.as_deref());
                    all.push(envelope(one.address.local, host)?);
                }
            }
        }
        if header {
            all.append(&mut self.recipients);
        }
        Ok(all)
    }

    /// The fields that are missing.
    fn added(&self, fields: &[Field<'_>]) -> Vec<u8> {
        let job = self.job;
        let prefix = if self.resent { "Resent-" } else { "" };
        let has = |name: &str| fields.iter().any(|f| f.is(&format!("{prefix}{name}")));
        let mut out = Vec::new();
        if !has("Date") {
            out.extend(format!("{prefix}Date: {}\n", job.now.rfc5322()).into_bytes());
        }
        if !has("Message-ID") || job.drop_message_id {
            let c = Moment::utc(job.seconds).civil();
            let stamp =
                format!("{:04}{:02}{:02}{:02}{:02}{:02}", c.year, c.month, c.day, c.hour, c.minute, c.second);
            out.extend(format!("{prefix}Message-ID: <{stamp}.{}.indimail@", job.pid).into_bytes());
            out.extend_from_slice(&job.id_host);
            out.extend_from_slice(b">\n");
        }
        if !has("From") || job.drop_from {
            out.extend(format!("{prefix}From: ").into_bytes());
            out.extend(self.from());
            out.push(b'\n');
        }
        if !has("To") && !has("Cc") {
            out.extend(format!("{prefix}Cc: recipient list not shown: ;\n").into_bytes());
        }
        let is_own = |reader: &Vec<u8>| job.own_lists.iter().any(|l| l.eq_ignore_ascii_case(reader));
        if self.readers.iter().any(is_own) && !fields.iter().any(|f| f.is("Mail-Followup-To")) {
            let all: Vec<_> = self.readers.iter().map(|r| Address::from_envelope(r).to_header()).collect();
            out.extend([&b"Mail-Followup-To: "[..], &all.join(&b",\n  "[..]), b"\n"].concat());
        }
        out
    }

    fn from(&self) -> Vec<u8> {
        let me = &self.job.from_identity;
        let domain = Some(self.job.hosts.complete(me.host.as_deref()));
        let address = clean(&Address { local: me.user.clone(), domain }.to_header());
        match &me.name {
            None => address,
            Some(name) if self.job.name_as_comment => {
                let comment: Vec<u8> =
                    clean(name).into_iter().map(|b| if b"()\\".contains(&b) { b' ' } else { b }).collect();
                [&address[..], b" (", &comment, b")"].concat()
            }
            Some(name) => [&phrase(&clean(name))[..], b" <", &address, b">"].concat(),
        }
    }
}

/// What must be put where to complete the host of an address.
fn replacement(one: &Found, host: &[u8]) -> Option<(Range<usize>, Vec<u8>)> {
    match (&one.domain_place, &one.address.domain) {
        (Some(_), Some(old)) if old == host => None,
        (Some(place), _) => Some((place.clone(), host.to_vec())),
        (None, _) => Some((one.place.end..one.place.end, [b"@", host].concat())),
    }
}

fn envelope(local: Vec<u8>, host: Vec<u8>) -> Result<Vec<u8>, Error> {
    let address = Address { local, domain: Some(host) }.to_envelope();
    if address.iter().any(|b| b"\r\n\0".contains(b)) {
        return Err(Error::LineEnd(address.escape_ascii().to_string()));
    }
    Ok(address)
}

/// A full name as a phrase: in quotes unless it is plain words.
fn phrase(name: &[u8]) -> Vec<u8> {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || *b >= 128 || b" !#$%&'*+-/=?^_`{|}~".contains(b);
    if !name.is_empty() && name.iter().all(plain) {
        return name.to_vec();
    }
    let escaped = name.iter().flat_map(|&b| if b"\"\\".contains(&b) { vec![b'\\', b] } else { vec![b] });
    std::iter::once(b'"').chain(escaped).chain([b'"']).collect()
}

/// Without bytes that could end the field.
fn clean(text: &[u8]) -> Vec<u8> {
    text.iter().map(|&b| if b"\r\n\0".contains(&b) { b' ' } else { b }).collect()
}

fn with_end(raw: &[u8]) -> Vec<u8> {
    let end: &[u8] = if raw.ends_with(b"\n") { b"" } else { b"\n" };
    [raw, end].concat()
}

fn starts_with(name: &[u8], prefix: &[u8]) -> bool {
    name.get(..prefix.len()).is_some_and(|n| n.eq_ignore_ascii_case(prefix))
}

#[cfg(test)]
mod tests {
    use super::super::job::{Hosts, Identity};
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn job() -> Job {
        let identity = Identity { user: b"joe".to_vec(), host: None, name: None };
        Job {
            recipients_from: RecipientsFrom::ArgumentsElseHeader,
            arguments: Vec::new(),
            sender: None,
            ignore_return_path: false,
            drop_from: false,
            drop_message_id: false,
            name_as_comment: false,
            verp_recipient: false,
            verp_message: false,
            sender_identity: identity.clone(),
            from_identity: identity,
            hosts: Hosts {
                default_host: b"mx".to_vec(),
                default_domain: b"example.org".to_vec(),
                plus_domain: b"plus.org".to_vec(),
            },
            own_lists: vec![b"list@example.org".to_vec()],
            id_host: b"id.example.org".to_vec(),
            now: Moment::utc(0),
            seconds: 0,
            pid: 7,
        }
    }

    fn done(header: &str, job: &Job) -> (String, String, Vec<String>) {
        let r = rewrite(header.as_bytes(), job).unwrap();
        let text = |b: Vec<u8>| String::from_utf8(b).unwrap();
        (text(r.header), text(r.sender), r.recipients.into_iter().map(text).collect())
    }

    #[test]
    fn a_complete_header_keeps_every_byte() {
        let header =
            "Date : x\nMessage-ID:<1@x>\nfrom:\tJoe <joe@x.y>\nTo: a@b.c,\n  \"D E\" <d@e.f> (hi)\nX:  y \n";
        let (out, sender, to) = done(header, &job());
        assert_eq!(out, header);
        assert_eq!(sender, "joe@mx.example.org");
        assert_eq!(to, ["a@b.c", "d@e.f"]);
    }

    #[test]
    fn what_is_missing_is_added_before_the_rest() {
        let (out, _, _) = done("Subject: x\n", &job());
        assert_eq!(
            out,
            "Date: Thu, 01 Jan 1970 00:00:00 +0000\nMessage-ID: <19700101000000.7.indimail@id.example.org>\n\
             From: joe@mx.example.org\nCc: recipient list not shown: ;\nSubject: x\n"
        );
        assert!(done("Resent-To: a\n", &job()).0.starts_with("Resent-Date: "));
    }

    #[test]
    fn hosts_are_completed_where_they_stand() {
        let (out, _, to) = done("To: fred, Joe <joe@sub> (c), x@h+, y@[1.2.3.4], z@a.b\n", &job());
        assert!(out.ends_with(
            "To: fred@mx.example.org, Joe <joe@sub.example.org> (c), x@h.plus.org, y@[1.2.3.4], z@a.b\n"
        ));
        assert_eq!(
            to,
            ["fred@mx.example.org", "joe@sub.example.org", "x@h.plus.org", "y@[1.2.3.4]", "z@a.b"]
        );
    }

    #[test]
    fn bcc_is_a_recipient_and_is_gone() {
        let (out, _, to) =
            done("To: a@b.c\nBcc: s@t.u,\n v@w.x\nContent-Length: 9\nReturn-Path: <r@p.q>\n", &job());
        assert!(
            !out.contains("cc:")
                && !out.contains("v@w")
                && !out.contains("Content")
                && !out.contains("Return")
        );
        assert_eq!(to, ["a@b.c", "s@t.u", "v@w.x"]);
    }

    #[test]
    fn resent_fields_take_over() {
        let (out, _, to) = done("To: a@b.c\nBcc: h@i.j\nResent-To: r@s.t\nResent-Bcc: u@v.w\n", &job());
        assert_eq!(to, ["r@s.t", "u@v.w"]);
        assert!(out.contains("To: a@b.c\n") && !out.contains("h@i.j") && !out.contains("u@v.w"));
    }

    #[test]
    fn recipients_come_from_where_the_options_say() {
        let arguments = vec![b"x@y.z, w".to_vec()];
        let to = |from| {
            done("To: a@b.c\n", &Job { recipients_from: from, arguments: arguments.clone(), ..job() }).2
        };
        assert_eq!(to(RecipientsFrom::Arguments), ["x@y.z", "w@mx.example.org"]);
        assert_eq!(to(RecipientsFrom::Header), ["a@b.c"]);
        assert_eq!(to(RecipientsFrom::Both), ["x@y.z", "w@mx.example.org", "a@b.c"]);
        assert_eq!(to(RecipientsFrom::ArgumentsElseHeader), ["x@y.z", "w@mx.example.org"]);
    }

    #[test]
    fn senders() {
        let sender = |header: &str, job: Job| done(header, &job).1;
        assert_eq!(sender("Return-Path: <r@p.q>\n", job()), "r@p.q");
        assert_eq!(sender("Return-Path: <>\n", job()), "");
        assert_eq!(
            sender("Return-Path: <r@p.q>\n", Job { ignore_return_path: true, ..job() }),
            "joe@mx.example.org"
        );
        let given = |s: &str| sender("Return-Path: <r@p.q>\n", Job { sender: Some(s.into()), ..job() });
        assert_eq!(given("x"), "x@mx.example.org");
        assert_eq!(given(""), "");
        assert_eq!(given("<>"), "");
        assert_eq!(given("#@[]"), "#@[]");
        assert_eq!(sender("", Job { verp_recipient: true, ..job() }), "joe-@mx.example.org-@[]");
        assert_eq!(sender("", Job { verp_message: true, ..job() }), "joe-0.7@mx.example.org");
        assert!(rewrite(b"", &Job { sender: Some(b"a, b".to_vec()), ..job() }).is_err());
    }

    #[test]
    fn names_cannot_break_the_header() {
        let mut with = job();
        with.from_identity.name = Some(b"Joe \"X\"\nBcc: evil@x.y".to_vec());
        with.from_identity.user = b"a\nb".to_vec();
        let (out, _, _) = done("", &with);
        assert!(out.contains("From: \"Joe \\\"X\\\" Bcc: evil@x.y\" <"), "{out}");
        assert!(!out.contains("\nBcc"));
        with.name_as_comment = true;
        assert!(done("", &with).0.contains(" (Joe \"X\" Bcc: evil@x.y)\n"));
    }

    #[test]
    fn mail_to_an_own_list_says_where_answers_go() {
        let (out, _, _) = done("To: List@Example.Org\nCc: \"a b\"@c.d\nBcc: x@y.z\n", &job());
        assert!(out.contains("\nMail-Followup-To: List@Example.Org,\n  \"a b\"@c.d\n"), "{out}");
        assert!(!done("To: other@example.org\n", &job()).0.contains("Mail-Followup"));
        let (out, _, _) = done("To: list@example.org\nMail-Followup-To: x@y.z\n", &job());
        assert_eq!(out.matches("Mail-Followup-To").count(), 1);
    }

    #[test]
    fn dropped_fields_are_made_anew() {
        let both = Job { drop_from: true, drop_message_id: true, ..job() };
        let (out, _, _) = done("From: old@x.y\nMessage-ID: <old@x>\n", &both);
        assert!(!out.contains("old") && out.contains("From: joe@") && out.contains("Message-ID: <1970"));
    }

    #[test]
    fn bad_addresses_are_named() {
        let error = rewrite(b"To: a b\n", &job()).unwrap_err().to_string();
        assert!(error.starts_with("header field To: "), "{error}");
        let error = rewrite(b"", &Job { arguments: vec![b"a b".to_vec()], ..job() }).unwrap_err().to_string();
        assert!(error.starts_with("recipient a b: "), "{error}");
        assert!(matches!(rewrite(b"To: \"a\\\n b\"@c.d\n", &job()), Err(Error::LineEnd(_))));
    }

    proptest! {
        #[test]
        fn no_envelope_address_and_no_header_line_is_broken(
            body in prop::collection::vec(prop::sample::select(&b"ab<>@,;:.\"\\() +[]"[..]), 0..40),
        ) {
            let header = [&b"X: keep\nTo: "[..], &body, b"\nBcc: h@i.j\n"].concat();
            if let Ok(done) = rewrite(&header, &job()) {
                for address in &done.recipients {
                    prop_assert!(!address.iter().any(|b| b"\r\n\0".contains(b)) && address.contains(&b'@'));
                }
                prop_assert!(!header::fields(&done.header).any(|f| f.is("bcc")));
                prop_assert!(done.header.windows(8).any(|w| w == b"X: keep\n"));
                // Rewriting what was rewritten changes nothing.
                let again = rewrite(&done.header, &job()).unwrap();
                prop_assert_eq!(again.header, done.header);
            }
        }
    }
}
