//! Log lines on descriptor 2, in the original's form.

use std::io::Write;

use smtp::command::sanitized;
use smtp::reply::Reply;
use smtp::server::{Event, Mail, RecipientState};

use crate::received::Origin;

/// Writes lines that begin with program, process and client.
#[derive(Debug)]
pub(crate) struct Log {
    prefix: String,
}

impl Log {
    /// The log of the connection with this number, the process's own when it serves no other.
    pub(crate) fn new(origin: &Origin, number: u32) -> Self {
        Self { prefix: format!("qmail-smtpd: pid {number} from {} ", sanitized(&origin.ip)) }
    }

    /// One line.
    pub(crate) fn line(&self, text: &str) {
        // A log that nobody reads must not end the session.
        let _ = std::io::stderr().write_all(format!("{}{text}\n", self.prefix).as_bytes());
    }

    /// The lines of an event.
    pub(crate) fn event(&self, event: &Event) {
        for line in lines(event) {
            self.line(&line);
        }
    }
}

fn lines(event: &Event) -> Vec<String> {
    let one = |text: String| vec![text];
    match event {
        Event::Accepted(mail) => each(mail, ""),
        Event::QueueTrouble(mail, reply) => each(mail, &format!("{}: ", reason(reply))),
        Event::TooBig(mail) => each(mail, "size exceeded: "),
        Event::Looping(mail) => each(mail, "too many hops: "),
        Event::InvalidRelay { sender, recipient } => one(format!(
            "Invalid RELAY client: MAIL from <{}> RCPT <{}>",
            sanitized(sender),
            sanitized(recipient)
        )),
        Event::InvalidRecipient { sender, recipient, state } => one(format!(
            "Invalid RECIPIENT address: MAIL from <{}> RCPT <{}> state <{}>",
            sanitized(sender),
            sanitized(recipient),
            match state {
                RecipientState::Exists => "exists",
                RecipientState::Absent => "absent",
                RecipientState::Inactive => "inactive",
                RecipientState::OverQuota => "overquota",
            }
        )),
        Event::Refused { what, address } => {
            one(format!("Invalid {} address: <{}>", what.to_uppercase(), sanitized(address)))
        }
        Event::AuthFailed { user, method, why } => {
            one(format!("AUTH USER [{}] status=[{why}] TYPE=[{}] failed", sanitized(user), method.name()))
        }
        Event::TlsStarted(tls) => one(format!("ssl-version={} cipher={}", tls.version, tls.cipher)),
        Event::BareLf => one("Bare LF received".into()),
        Event::Cut(why) => one((*why).into()),
        Event::Unavailable(what) => one(format!("cannot look up: {what}")),
    }
}

/// One line for each recipient.
fn each(mail: &Mail, before: &str) -> Vec<String> {
    let tls = mail.tls.as_ref().map_or("No", |t| t.version.as_str());
    mail.recipients
        .iter()
        .map(|(recipient, local)| {
            format!(
                "{before}HELO <{}> MAIL from <{}> RCPT <{}> AUTH <{}> Size: {} TLS={tls}",
                sanitized(&mail.helo),
                sanitized(&mail.sender),
                sanitized(recipient),
                permission(mail, *local),
                mail.size,
            )
        })
        .collect()
}

/// By what right the recipient was accepted.
fn permission(mail: &Mail, local: bool) -> String {
    match (&mail.user, local) {
        (Some((user, method)), false) => format!("{}: AUTH {}", sanitized(user), method.name()),
        (Some((user, method)), true) => format!("{}: AUTH {}: local-rcpt", sanitized(user), method.name()),
        (None, true) => "local-rcpt".into(),
        (None, false) => "auth-ip/pop".into(),
    }
}

fn reason(reply: &Reply) -> String {
    let text = String::from_utf8_lossy(&reply.lines.join(&b"; "[..])).into_owned();
    let text: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    format!("{text} ({})", if reply.is_permanent() { "permanent" } else { "temporary" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use smtp::server::{Method, TlsFacts};

    #[test]
    fn accepted_messages_have_one_line_for_each_recipient() {
        let mail = Mail {
            helo: b"c\nforged".to_vec(),
            sender: b"a@b".to_vec(),
            recipients: vec![(b"x@here".to_vec(), true), (b"y@there".to_vec(), false)],
            user: Some((b"a@b".to_vec(), Method::Plain)),
            size: 9,
            tls: Some(TlsFacts { version: "TLSv1.3".into(), cipher: "X".into() }),
        };
        assert_eq!(
            lines(&Event::Accepted(Box::new(mail.clone()))),
            [
                "HELO <c?forged> MAIL from <a@b> RCPT <x@here> AUTH <a@b: AUTH PLAIN: local-rcpt> Size: 9 TLS=TLSv1.3",
                "HELO <c?forged> MAIL from <a@b> RCPT <y@there> AUTH <a@b: AUTH PLAIN> Size: 9 TLS=TLSv1.3",
            ]
        );
        let plain = Mail { user: None, tls: None, ..mail };
        let trouble = Event::QueueTrouble(Box::new(plain), Reply::plain(451, "disk full (#4.3.0)"));
        assert_eq!(
            lines(&trouble)[1],
            "disk full (#4.3.0) (temporary): HELO <c?forged> MAIL from <a@b> RCPT <y@there> AUTH <auth-ip/pop> Size: 9 TLS=No"
        );
    }

    #[test]
    fn failures_name_who_and_why_but_no_password() {
        let failed =
            Event::AuthFailed { user: b"u@d".to_vec(), method: Method::Login, why: "wrong name or password" };
        assert_eq!(lines(&failed), ["AUTH USER [u@d] status=[wrong name or password] TYPE=[LOGIN] failed"]);
    }
}
