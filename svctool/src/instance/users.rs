//! The mail system's users and groups in the private copies of passwd and group.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use unix::mail_users::{GROUPS, INDIMAIL_ID, USERS};
use unix::{Gid, Uid};

/// Ids of the mail system's users and groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailIds {
    users: BTreeMap<&'static str, u32>,
    groups: BTreeMap<&'static str, u32>,
    single: bool,
}

impl MailIds {
    /// Every role is the current user: the instance of an ordinary user.
    #[must_use]
    pub fn single() -> Self {
        let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        Self {
            users: USERS.iter().map(|u| (u.name, uid)).collect(),
            groups: GROUPS.iter().map(|&g| (g, gid)).collect(),
            single: true,
        }
    }

    /// Does one user play all roles?
    #[must_use]
    pub fn is_single(&self) -> bool {
        self.single
    }

    /// The owner to give a file, `None` when there is no choice.
    ///
    /// # Panics
    /// When a name is not in the tables of `unix::mail_users`; `root` is.
    #[must_use]
    pub fn owner(&self, user: &str, group: &str) -> Option<(Uid, Gid)> {
        if self.single {
            return None;
        }
        let uid = if user == "root" { 0 } else { self.users[user] };
        let gid = if group == "root" { 0 } else { self.groups[group] };
        Some((Uid::from_raw(uid), Gid::from_raw(gid)))
    }
}

/// The machine's passwd and group with the mail system's entries added where they are missing.
#[derive(Debug)]
pub struct Databases {
    /// Contents of passwd.
    pub passwd: String,
    /// Contents of group.
    pub group: String,
    /// The ids, old and new.
    pub ids: MailIds,
}

/// Adds what is missing, with ids that neither the machine nor `earlier` (the private copy of the
/// last run, whose ids own files) uses for something else. Homes of added users are below `root`.
///
/// # Errors
/// There is no free id.
pub fn complete(passwd: &str, group: &str, earlier: Option<(&str, &str)>, root: &Path) -> Result<Databases> {
    let (mut passwd, mut group) = (ended(passwd), ended(group));
    let (old_passwd, old_group) = earlier.unwrap_or_default();
    let mut taken: Vec<u32> = [passwd.as_str(), &group, old_passwd, old_group]
        .iter()
        .flat_map(|text| text.lines().filter_map(|l| l.split(':').nth(2)?.parse().ok()))
        .collect();
    let mut fresh = move |wanted: Option<u32>| -> Result<u32> {
        let id = wanted
            .into_iter()
            .chain(INDIMAIL_ID + 1..1000)
            .chain(61_000..65_000)
            .find(|id| !taken.contains(id))
            .context("no free user or group id")?;
        taken.push(id);
        Ok(id)
    };
    let wanted = |name: &str| (name == "indimail").then_some(INDIMAIL_ID);
    let mut groups = BTreeMap::new();
    for &name in GROUPS {
        let gid = match id_of(&group, name) {
            Some(gid) => gid,
            None => {
                let gid = id_of(old_group, name).map_or_else(|| fresh(wanted(name)), Ok)?;
                let members: Vec<_> =
                    USERS.iter().filter(|u| u.also_in.contains(&name)).map(|u| u.name).collect();
                writeln!(group, "{name}:x:{gid}:{}", members.join(","))?;
                gid
            }
        };
        groups.insert(name, gid);
    }
    let mut users = BTreeMap::new();
    for user in USERS {
        let uid = match id_of(&passwd, user.name) {
            Some(uid) => uid,
            None => {
                // User and group 555 belong together; they are different name spaces.
                let kept = id_of(old_passwd, user.name).or_else(|| {
                    wanted(user.name).filter(|&id| groups["indimail"] == id && !uses(&passwd, id))
                });
                let uid = kept.map_or_else(|| fresh(None), Ok)?;
                let gid = groups[user.group];
                let home = root.join(user.home.trim_start_matches('/'));
                let (name, purpose, shell) = (user.name, user.purpose, user.shell);
                writeln!(passwd, "{name}:x:{uid}:{gid}:{purpose}:{}:{shell}", home.display())?;
                uid
            }
        };
        users.insert(user.name, uid);
    }
    Ok(Databases { passwd, group, ids: MailIds { users, groups, single: false } })
}

/// As [`complete`], from the machine's files and those of the last run in `layer`.
///
/// # Errors
/// They cannot be read.
pub fn of_this_machine(layer: &Path, root: &Path) -> Result<Databases> {
    let read = |path: &Path| std::fs::read_to_string(path).with_context(|| path.display().to_string());
    let old = |name: &str| std::fs::read_to_string(layer.join(name)).unwrap_or_default();
    let (old_passwd, old_group) = (old("passwd"), old("group"));
    let (passwd, group) = (read(Path::new("/etc/passwd"))?, read(Path::new("/etc/group"))?);
    complete(&passwd, &group, Some((&old_passwd, &old_group)), root)
}

fn ended(text: &str) -> String {
    let mut text = text.to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

fn id_of(text: &str, name: &str) -> Option<u32> {
    text.lines().find(|l| l.split(':').next() == Some(name))?.split(':').nth(2)?.parse().ok()
}

fn uses(text: &str, id: u32) -> bool {
    text.lines().any(|l| l.split(':').nth(2).and_then(|f| f.parse().ok()) == Some(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nqmailq:x:700:701::/:/bin/false";
    const GROUP: &str = "root:x:0:\nqmail:x:701:\nother:x:556:\n";

    #[test]
    fn existing_entries_stay_and_new_ids_are_free() {
        let made = complete(PASSWD, GROUP, None, Path::new("/i")).unwrap();
        assert_eq!(id_of(&made.passwd, "qmailq"), Some(700));
        assert_eq!(id_of(&made.passwd, "indimail"), Some(555));
        assert_eq!(id_of(&made.group, "indimail"), Some(555));
        assert!(made.passwd.contains("\nqmaild:x:") && made.group.contains("qcerts:x:"));
        let mut uids: Vec<_> = made.passwd.lines().map(|l| l.split(':').nth(2).unwrap()).collect();
        uids.sort_unstable();
        uids.dedup();
        assert_eq!(uids.len(), made.passwd.lines().count(), "{}", made.passwd);
        assert_eq!(made.ids.owner("qmailq", "qmail").unwrap().0.as_raw(), 700);
    }

    #[test]
    fn ids_of_the_last_run_are_kept() {
        let first = complete(PASSWD, GROUP, None, Path::new("/i")).unwrap();
        let second = complete(PASSWD, GROUP, Some((&first.passwd, &first.group)), Path::new("/i")).unwrap();
        assert_eq!(first.passwd, second.passwd);
        assert_eq!(first.group, second.group);
    }
}
