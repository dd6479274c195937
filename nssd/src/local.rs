//! Ids and names of this machine's own users and groups: no mail account or domain may have one.
//!
//! A mail account with the user id of a local user would be that user, and a local name means the local
//! user or group in whatever order the name services are asked. The files are read, not the
//! name service, which would ask back.

use std::collections::BTreeSet;
use std::io;

use unix::mail_users::{GROUPS, USERS};

/// Ids and names that are taken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LocalIds {
    users: BTreeSet<u32>,
    groups: BTreeSet<u32>,
    user_names: BTreeSet<Vec<u8>>,
    group_names: BTreeSet<Vec<u8>>,
}

impl LocalIds {
    /// Those in /etc/passwd and /etc/group. The mail system's own users and groups do not count, for
    /// accounts share their ids; nor do those of this process (a private instance of an ordinary user).
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn read() -> io::Result<Self> {
        let read =
            |path: &str| std::fs::read(path).map_err(|e| io::Error::new(e.kind(), format!("{path}: {e}")));
        let mut ids = Self::parse(&read("/etc/passwd")?, &read("/etc/group")?);
        ids.users.remove(&unix::Uid::effective().as_raw());
        ids.groups.remove(&unix::Gid::effective().as_raw());
        Ok(ids)
    }

    /// Those in these files.
    #[must_use]
    pub fn parse(passwd: &[u8], group: &[u8]) -> Self {
        let user_is_ours = |name: &[u8]| USERS.iter().any(|u| u.name.as_bytes() == name);
        let group_is_ours = |name: &[u8]| GROUPS.iter().any(|g| g.as_bytes() == name);
        Self {
            users: ids(passwd, user_is_ours),
            groups: ids(group, group_is_ours),
            // Others are no account's.
            user_names: names(passwd).filter(|n| n.contains(&b'@')).collect(),
            group_names: names(group).collect(),
        }
    }

    /// Is it the name of a local user, in any case?
    #[must_use]
    pub fn has_user_named(&self, name: &[u8]) -> bool {
        self.user_names.contains(&name.to_ascii_lowercase())
    }

    /// Has a local user an address in this domain for a name?
    #[must_use]
    pub fn has_user_in(&self, domain: &[u8]) -> bool {
        let domain = domain.to_ascii_lowercase();
        self.user_names.iter().any(|name| name.split(|&b| b == b'@').nth(1) == Some(&domain))
    }

    /// Is it the name of a local group, in any case?
    #[must_use]
    pub fn has_group_named(&self, name: &[u8]) -> bool {
        self.group_names.contains(&name.to_ascii_lowercase())
    }

    /// Is it a local user's?
    #[must_use]
    pub fn has_user(&self, uid: u32) -> bool {
        self.users.contains(&uid)
    }

    /// Is it a local group's?
    #[must_use]
    pub fn has_group(&self, gid: u32) -> bool {
        self.groups.contains(&gid)
    }
}

/// The first fields of lines, in lower case.
fn names(text: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let first = |line: &[u8]| line.split(|&b| b == b':').next().unwrap_or_default().to_ascii_lowercase();
    text.split(|&b| b == b'\n').map(first).filter(|name| !name.is_empty())
}

/// The third fields of lines whose first is not passed over.
fn ids(text: &[u8], pass_over: impl Fn(&[u8]) -> bool) -> BTreeSet<u32> {
    let lines = text.split(|&b| b == b'\n');
    lines
        .filter_map(|line| {
            let mut fields = line.split(|&b| b == b':');
            let name = fields.next().filter(|name| !pass_over(name))?;
            let id = fields.nth(1)?;
            (!name.is_empty()).then(|| std::str::from_utf8(id).ok()?.parse().ok())?
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_others_are_taken_and_the_mail_system_s_are_not() {
        let passwd = b"root:x:0:0::/:/bin/sh\nindimail:x:555:555::/:/bin/sh\njoe:x:1000:1000::/:/bin/sh\n+::::::\nbad\n";
        let ids = LocalIds::parse(passwd, b"root:x:0:\nqmail:x:556:\nusers:x:100:joe");
        assert!(ids.has_user(0) && ids.has_user(1000) && !ids.has_user(555) && !ids.has_user(8001));
        assert!(ids.has_group(100) && !ids.has_group(556) && !ids.has_group(1000));
    }

    #[test]
    fn names_are_taken_in_any_case() {
        let ids =
            LocalIds::parse(b"Ann@Example.org:x:1000:1000::/:/bin/sh\n", b"qmail:x:556:\nStaff:x:50:\n");
        assert!(ids.has_user_named(b"ann@example.org") && !ids.has_user_named(b"bob@example.org"));
        assert!(ids.has_user_in(b"Example.org") && !ids.has_user_in(b"example"));
        assert!(ids.has_group_named(b"staff") && ids.has_group_named(b"qmail") && !ids.has_group_named(b""));
    }

    #[test]
    fn this_machine_s_files_can_be_read() {
        assert!(LocalIds::read().is_ok());
    }
}
