//! The users and groups of the mail system: one table for every tool that creates or checks them.

/// One system user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailUser {
    /// Login name.
    pub name: &'static str,
    /// Primary group.
    pub group: &'static str,
    /// Groups it is a member of besides.
    pub also_in: &'static [&'static str],
    /// Home directory.
    pub home: &'static str,
    /// Login shell.
    pub shell: &'static str,
    /// What it is for (the comment field of its entry).
    pub purpose: &'static str,
}

/// All groups, in the order to create them. `nofiles` owns no file, ever.
pub const GROUPS: &[&str] = &["indimail", "qmail", "nofiles", "qcerts"];

/// The id that `indimail` (user and group) has where it is free: account tables of existing sites
/// hold it as a number.
pub const INDIMAIL_ID: u32 = 555;

const NOLOGIN: &str = "/usr/sbin/nologin";
const HOME: &str = "/var/indimail";

/// All users, in the order to create them.
pub const USERS: &[MailUser] = &[
    MailUser {
        name: "indimail",
        group: "indimail",
        also_in: &[],
        home: HOME,
        shell: "/bin/sh",
        purpose: "virtual mail domains",
    },
    MailUser {
        name: "alias",
        group: "nofiles",
        also_in: &[],
        home: "/var/indimail/alias",
        shell: NOLOGIN,
        purpose: "owner of mail aliases",
    },
    MailUser {
        name: "qmaild",
        group: "nofiles",
        also_in: &["qcerts"],
        home: HOME,
        shell: NOLOGIN,
        purpose: "mail network daemons",
    },
    MailUser {
        name: "qmaill",
        group: "nofiles",
        also_in: &[],
        home: HOME,
        shell: NOLOGIN,
        purpose: "mail loggers",
    },
    MailUser {
        name: "qmailp",
        group: "nofiles",
        also_in: &[],
        home: HOME,
        shell: NOLOGIN,
        purpose: "mail user lookup",
    },
    MailUser {
        name: "qmailq",
        group: "qmail",
        also_in: &[],
        home: HOME,
        shell: NOLOGIN,
        purpose: "mail queue owner",
    },
    MailUser {
        name: "qmailr",
        group: "qmail",
        also_in: &["qcerts"],
        home: HOME,
        shell: NOLOGIN,
        purpose: "remote mail delivery",
    },
    MailUser {
        name: "qmails",
        group: "qmail",
        also_in: &["qcerts"],
        home: HOME,
        shell: NOLOGIN,
        purpose: "mail scheduler",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_named_group_is_in_the_table() {
        for user in USERS {
            for group in user.also_in.iter().chain([&user.group]) {
                assert!(GROUPS.contains(group), "{}: {group}", user.name);
            }
        }
    }
}
