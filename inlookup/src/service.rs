//! Which flag of an account switches a service off.

use accounts::ServiceFlags;

/// The flag that refuses `service`, by the name that the asking program has: a PAM service's name or
/// the protocol's. What is no mail service is a login to the host.
#[must_use]
pub fn refusing_flag(service: &[u8]) -> ServiceFlags {
    let starts = |prefix: &[u8]| service.get(..prefix.len()).is_some_and(|s| s.eq_ignore_ascii_case(prefix));
    if starts(b"imap") {
        ServiceFlags::NO_IMAP
    } else if starts(b"pop") {
        ServiceFlags::NO_POP
    } else if starts(b"smtp") || starts(b"submission") {
        ServiceFlags::NO_SMTP
    } else if starts(b"webm") {
        ServiceFlags::NO_WEBMAIL
    } else {
        ServiceFlags::NO_DIALUP
    }
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
                assert_eq!(refusing_flag(name.as_bytes()), flag, "{name}");
            }
        }
    }
}
