//! From accounts to records that every reader of passwd can digest.

use std::os::unix::ffi::OsStrExt;
use std::str::FromStr;

use accounts::{Address, Domain, Entry, ServiceFlags};
use lookup::identity::{Group, Shadow, User, is_clean};

use crate::local::LocalIds;

/// Bytes of a passwd record, NULs included: callers with the usual buffer of 1024 bytes can take it.
const RECORD_LIMIT: usize = 1000;

/// The shell of an account that may not log in.
const NO_LOGIN: &[u8] = b"/usr/sbin/nologin";

/// Who may walk the maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enumeration {
    /// Nobody.
    Off,
    /// Root.
    Root,
    /// Everybody.
    All,
}

impl FromStr for Enumeration {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        match word {
            "off" => Ok(Self::Off),
            "root" => Ok(Self::Root),
            "all" => Ok(Self::All),
            _ => Err(()),
        }
    }
}

impl std::fmt::Display for Enumeration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Root => "root",
            Self::All => "all",
        })
    }
}

/// Which records there are, and in which form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Shell of accounts that may log in.
    pub shell: Vec<u8>,
    /// Users and groups with a lower id do not exist.
    pub minimum_id: u32,
    /// Do shadow records carry the hash (else `*`)?
    pub shadow_hashes: bool,
    /// Who may walk the maps.
    pub enumeration: Enumeration,
    /// Ids that no account may have.
    pub local: LocalIds,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            shell: NO_LOGIN.to_vec(),
            minimum_id: 500,
            shadow_hashes: false,
            enumeration: Enumeration::Root,
            local: LocalIds::default(),
        }
    }
}

/// Why an account or domain that exists has no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// An id below the floor.
    #[error("its user or group id is below minimum_uid")]
    Id,
    /// An id that is a local user's or group's.
    #[error("its user or group id is that of a local user or group (local_ids refuse)")]
    Local,
    /// A name that is a local user's or group's.
    #[error("its name is that of a local user or group (local_ids refuse)")]
    LocalName,
    /// A field holds NUL, colon or newline.
    #[error("its home or name holds a NUL, colon or newline")]
    Bytes,
    /// Too long even without the comment field.
    #[error("its passwd record would have more than 1000 bytes")]
    Length,
}

impl Policy {
    /// May an account have this user id?
    ///
    /// # Errors
    /// Why not.
    pub fn check_user(&self, uid: u32) -> Result<(), Unfit> {
        self.check(uid, self.local.has_user(uid))
    }

    /// May an account or domain have this group id?
    ///
    /// # Errors
    /// Why not.
    pub fn check_group(&self, gid: u32) -> Result<(), Unfit> {
        self.check(gid, self.local.has_group(gid))
    }

    fn check(&self, id: u32, is_local: bool) -> Result<(), Unfit> {
        if id == 0 || id < self.minimum_id {
            return Err(Unfit::Id);
        }
        if is_local { Err(Unfit::Local) } else { Ok(()) }
    }

    /// The passwd record of an account, under the name that was asked for.
    ///
    /// # Errors
    /// There is none.
    pub fn user(&self, name: &Address, entry: &Entry) -> Result<User, Unfit> {
        self.check_user(entry.ids.uid)?;
        self.check_group(entry.ids.gid)?;
        let key = name.to_string().into_bytes();
        if self.local.has_user_named(&key) {
            return Err(Unfit::LocalName);
        }
        let may_log_in = entry.account.active && !entry.account.flags.contains(ServiceFlags::NO_DIALUP);
        let mut user = User {
            name: key,
            uid: entry.ids.uid,
            gid: entry.ids.gid,
            gecos: entry.account.gecos.bytes().map(|b| if is_clean(&[b]) { b } else { b' ' }).collect(),
            home: entry.account.home.as_os_str().as_bytes().to_vec(),
            shell: if may_log_in { self.shell.clone() } else { NO_LOGIN.to_vec() },
        };
        if ![&user.name, &user.home, &user.shell].iter().all(|field| is_clean(field)) {
            return Err(Unfit::Bytes);
        }
        // The password field is "x"; each of the five strings has its NUL.
        let rest = user.name.len() + user.home.len() + user.shell.len() + 1 + 5;
        let room = RECORD_LIMIT.checked_sub(rest).ok_or(Unfit::Length)?;
        truncate(&mut user.gecos, room);
        Ok(user)
    }

    /// The shadow record of an account. A switched-off account has expired long ago.
    ///
    /// # Errors
    /// There is none.
    pub fn shadow(&self, name: &Address, entry: &Entry) -> Result<Shadow, Unfit> {
        let user = self.user(name, entry)?;
        let hash = entry.account.password.expose();
        let shown = self.shadow_hashes && !hash.is_empty() && is_clean(hash);
        Ok(Shadow {
            name: user.name,
            password: if shown { hash.to_vec() } else { b"*".to_vec() },
            // Day 0 would mean "change it now".
            last_change: Some(1),
            min: Some(0),
            max: Some(99_999),
            warn: Some(0),
            inactive: None,
            expire: (!entry.account.active).then_some(1),
        })
    }

    /// The group of a domain.
    ///
    /// # Errors
    /// There is none.
    pub fn group(&self, domain: &Domain) -> Result<Group, Unfit> {
        self.check_group(domain.ids.gid)?;
        if self.local.has_group_named(domain.name.as_bytes()) {
            return Err(Unfit::LocalName);
        }
        Ok(Group { name: domain.name.as_bytes().to_vec(), gid: domain.ids.gid, members: Vec::new() })
    }
}

/// Cuts at the end of a character.
fn truncate(text: &mut Vec<u8>, limit: usize) {
    if text.len() > limit {
        let mut end = limit;
        while end > 0 && text[end] & 0xc0 == 0x80 {
            end -= 1;
        }
        text.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::fake::entry;

    fn name() -> Address {
        Address::parse(b"ann@example.org").unwrap()
    }

    fn policy() -> Policy {
        Policy { shell: b"/bin/sh".to_vec(), ..Policy::default() }
    }

    #[test]
    fn a_record_has_the_whole_key_and_never_a_hash() {
        let mut e = entry("ann@example.org", 4000, 4001);
        e.account.password = b"$6$secret".as_slice().into();
        let user = policy().user(&name(), &e).unwrap();
        assert_eq!(user.name, b"ann@example.org");
        assert_eq!((user.uid, user.gid, user.shell.as_slice()), (4000, 4001, &b"/bin/sh"[..]));
        assert_eq!(policy().shadow(&name(), &e).unwrap().password, b"*");
        let open = Policy { shadow_hashes: true, ..policy() };
        assert_eq!(open.shadow(&name(), &e).unwrap().password, b"$6$secret");
        e.account.password = b"".as_slice().into();
        assert_eq!(
            open.shadow(&name(), &e).unwrap().password,
            b"*",
            "an empty password field is never shown"
        );
    }

    #[test]
    fn ids_below_the_floor_and_root_do_not_exist() {
        for (uid, gid) in [(0, 1000), (1000, 0), (499, 1000), (1000, 499)] {
            let e = entry("ann@example.org", uid, gid);
            assert_eq!(policy().user(&name(), &e), Err(Unfit::Id), "{uid}:{gid}");
        }
        let none = Policy { minimum_id: 0, ..policy() };
        assert_eq!(none.user(&name(), &entry("ann@example.org", 0, 5)), Err(Unfit::Id));
        assert!(none.user(&name(), &entry("ann@example.org", 5, 5)).is_ok());
    }

    #[test]
    fn nobody_gets_the_id_of_a_local_user_or_group() {
        let local = LocalIds::parse(b"joe:x:1000:1000::/:/bin/sh", b"joe:x:1000:");
        let policy = Policy { local, ..policy() };
        for (uid, gid) in [(1000, 4000), (4000, 1000)] {
            assert_eq!(policy.user(&name(), &entry("ann@example.org", uid, gid)), Err(Unfit::Local));
        }
        assert!(policy.user(&name(), &entry("ann@example.org", 4000, 4000)).is_ok());
    }

    #[test]
    fn nobody_gets_the_name_of_a_local_user_or_group() {
        let local = LocalIds::parse(b"ann@example.org:x:999:999::/:/bin/sh", b"example.org:x:998:");
        let policy = Policy { local, ..policy() };
        let e = entry("ann@example.org", 4000, 4000);
        assert_eq!(policy.user(&name(), &e), Err(Unfit::LocalName));
        assert_eq!(policy.shadow(&name(), &e), Err(Unfit::LocalName));
        assert_eq!(policy.group(&e.domain), Err(Unfit::LocalName));
        let bob = Address::parse(b"bob@example.org").unwrap();
        assert!(policy.user(&bob, &entry("bob@example.org", 4000, 4000)).is_ok());
    }

    #[test]
    fn who_may_not_log_in_has_no_shell_and_an_old_expiry() {
        let mut e = entry("ann@example.org", 4000, 4000);
        e.account.flags = ServiceFlags::NO_DIALUP;
        assert_eq!(policy().user(&name(), &e).unwrap().shell, NO_LOGIN);
        assert_eq!(policy().shadow(&name(), &e).unwrap().expire, None);
        e.account.flags = ServiceFlags::NONE;
        e.account.active = false;
        assert_eq!(policy().user(&name(), &e).unwrap().shell, NO_LOGIN);
        assert_eq!(policy().shadow(&name(), &e).unwrap().expire, Some(1));
    }

    #[test]
    fn hostile_rows_are_cleaned_or_dropped() {
        let mut e = entry("ann@example.org", 4000, 4000);
        e.account.gecos = "Ann:0:0:\nroot\0".to_owned();
        assert_eq!(policy().user(&name(), &e).unwrap().gecos, b"Ann 0 0  root ");
        e.account.home = "/home/a\nroot::0:0".into();
        assert_eq!(policy().user(&name(), &e), Err(Unfit::Bytes));
        e.account.home = format!("/{}", "h".repeat(1000)).into();
        assert_eq!(policy().user(&name(), &e), Err(Unfit::Length));
    }

    #[test]
    fn a_record_fits_a_thousand_bytes_and_is_cut_between_characters() {
        let mut e = entry("ann@example.org", 4000, 4000);
        for extra in 0..4 {
            e.account.gecos = format!("{}{}", "x".repeat(extra), "é".repeat(2000));
            let user = policy().user(&name(), &e).unwrap();
            let size = user.name.len() + 1 + user.gecos.len() + user.home.len() + user.shell.len() + 5;
            assert!((998..=1000).contains(&size), "{size}");
            assert!(String::from_utf8(user.gecos).is_ok());
        }
    }
}
