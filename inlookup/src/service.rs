//! What the name of a service says: which flag of an account switches it off, and under which name a
//! login by it is noted.

use accounts::ServiceFlags;

/// The kinds of services, each with a flag of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// IMAP.
    Imap,
    /// POP3.
    Pop,
    /// SMTP and submission.
    Smtp,
    /// Web mail.
    Webmail,
    /// No mail service: a login to the host.
    Host,
}

impl Kind {
    /// The kind of a service by the name that the asking program has: a PAM service's name or the
    /// protocol's.
    #[must_use]
    pub fn of(service: &[u8]) -> Self {
        let starts =
            |prefix: &[u8]| service.get(..prefix.len()).is_some_and(|s| s.eq_ignore_ascii_case(prefix));
        if starts(b"imap") {
            Self::Imap
        } else if starts(b"pop") {
            Self::Pop
        } else if starts(b"smtp") || starts(b"submission") {
            Self::Smtp
        } else if starts(b"webm") {
            Self::Webmail
        } else {
            Self::Host
        }
    }

    /// The flag that refuses it.
    #[must_use]
    pub fn refusing_flag(self) -> ServiceFlags {
        match self {
            Self::Imap => ServiceFlags::NO_IMAP,
            Self::Pop => ServiceFlags::NO_POP,
            Self::Smtp => ServiceFlags::NO_SMTP,
            Self::Webmail => ServiceFlags::NO_WEBMAIL,
            Self::Host => ServiceFlags::NO_DIALUP,
        }
    }
}

/// The name under which a login is noted: at most ten letters and digits, `None` when nothing is left.
#[must_use]
pub fn noted_as(service: &[u8]) -> Option<accounts::Service> {
    let own: Vec<u8>;
    let name = match Kind::of(service) {
        Kind::Imap => &b"imap"[..],
        Kind::Pop => b"pop3",
        Kind::Smtp => b"smtp",
        Kind::Webmail => b"webm",
        Kind::Host => {
            own = service.iter().filter(|b| b.is_ascii_alphanumeric()).take(10).copied().collect();
            &own
        }
    };
    accounts::Service::parse(&name.to_ascii_lowercase()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_programs_and_protocols() {
        for (names, flag) in [
            (&["imap", "imaps", "imap4d", "IMAP"][..], ServiceFlags::NO_IMAP),
            (&["pop3", "pop3s", "pop"], ServiceFlags::NO_POP),
            (&["smtp", "smtps", "submission", "submissions"], ServiceFlags::NO_SMTP),
            (&["webmail", "webm"], ServiceFlags::NO_WEBMAIL),
            (&["login", "su", "sshd", "", "im", "indimail-try"], ServiceFlags::NO_DIALUP),
        ] {
            for name in names {
                assert_eq!(Kind::of(name.as_bytes()).refusing_flag(), flag, "{name}");
            }
        }
    }

    #[test]
    fn logins_are_noted_under_short_plain_names() {
        for (service, name) in [
            ("imaps", Some("imap")),
            ("pop3d", Some("pop3")),
            ("submission", Some("smtp")),
            ("webmail", Some("webm")),
            ("sshd", Some("sshd")),
            ("Indimail-Try-It", Some("indimailtr")),
            ("--", None),
            ("", None),
        ] {
            let noted = noted_as(service.as_bytes());
            assert_eq!(noted.as_ref().map(accounts::Service::as_str), name, "{service}");
        }
    }
}
