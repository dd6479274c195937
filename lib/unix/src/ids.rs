//! Users and groups, by name, one at a time.
//!
//! Never by walking the password database: with the NSS module of this project installed, that
//! would walk every mail account. A name service that cannot answer is an error, not "no such user".

use std::io;

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User, geteuid};

/// A user as the password database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// Numeric id.
    pub uid: Uid,
    /// Primary group.
    pub gid: Gid,
    /// Home directory.
    pub home: std::path::PathBuf,
    /// Login shell.
    pub shell: std::path::PathBuf,
}

/// Looks a user up; `Ok(None)` when there is none.
///
/// # Errors
/// The name service could not tell.
pub fn user(name: &str) -> io::Result<Option<Account>> {
    Ok(absent_or_error(User::from_name(name))?.map(account))
}

/// Looks a user up by number; `Ok(None)` when there is none.
///
/// # Errors
/// The name service could not tell.
pub fn user_by_uid(uid: Uid) -> io::Result<Option<Account>> {
    Ok(absent_or_error(User::from_uid(uid))?.map(account))
}

/// Looks a group up; `Ok(None)` when there is none.
///
/// # Errors
/// The name service could not tell.
pub fn group(name: &str) -> io::Result<Option<Gid>> {
    Ok(absent_or_error(Group::from_name(name))?.map(|g| g.gid))
}

/// Groups as options give them: names or numbers, separated by commas.
///
/// # Errors
/// What is wrong with which group.
pub fn group_list(text: &str) -> Result<Vec<Gid>, String> {
    let one = |name: &str| {
        if name.bytes().all(|b| b.is_ascii_digit()) {
            let number = name.parse().map_err(|_| format!("group {name}: the number is too large"))?;
            return Ok(Gid::from_raw(number));
        }
        group(name)
            .map_err(|e| format!("unable to look up group {name}: {e}"))?
            .ok_or_else(|| format!("unknown group {name}"))
    };
    text.split(',').filter(|n| !n.is_empty()).map(one).collect()
}

/// All groups of a user, the primary one included, as initgroups(3) would set them.
///
/// # Errors
/// The name holds a NUL byte, or the name service could not tell.
pub fn groups_of(name: &str, primary: Gid) -> io::Result<Vec<Gid>> {
    let name = std::ffi::CString::new(name)?;
    Ok(nix::unistd::getgrouplist(&name, primary)?)
}

fn account(u: User) -> Account {
    Account { name: u.name, uid: u.uid, gid: u.gid, home: u.dir, shell: u.shell }
}

/// getpwnam_r reports "no such name" in several ways, see its manual page.
fn absent_or_error<T>(answer: nix::Result<Option<T>>) -> io::Result<Option<T>> {
    match answer {
        Ok(found) => Ok(found),
        Err(Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// A user of the mail system and the group it works in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Role {
    /// Numeric user id.
    pub uid: Uid,
    /// Numeric group id.
    pub gid: Gid,
}

/// The user and group this process acts as.
#[must_use]
pub fn effective() -> Role {
    Role { uid: geteuid(), gid: nix::unistd::getegid() }
}

/// Why a role has no id.
#[derive(Debug, thiserror::Error)]
pub enum RoleError {
    /// The user or group does not exist.
    #[error("no {kind} named {name}; create the system users with: svctool config users")]
    Missing {
        /// `user` or `group`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The name service did not answer.
    #[error("cannot look up {kind} {name}: {source}")]
    Unavailable {
        /// `user` or `group`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// What it said.
        source: io::Error,
    },
}

/// Resolves the system users of the mail system.
///
/// A process that is not root cannot become anybody else. A private instance started by an
/// ordinary user therefore plays every role itself: there, each role is the current user.
#[derive(Debug, Clone, Copy)]
pub struct Roles {
    single: Option<Role>,
}

impl Roles {
    /// Roles by name, for a process started by root (or set-id).
    #[must_use]
    pub fn by_name() -> Self {
        Self { single: None }
    }

    /// Roles by name when this process is root, else every role is the current user.
    #[must_use]
    pub fn for_this_process() -> Self {
        if geteuid().is_root() {
            return Self::by_name();
        }
        Self { single: Some(effective()) }
    }

    /// Does one user play all roles?
    #[must_use]
    pub fn is_single_user(&self) -> bool {
        self.single.is_some()
    }

    /// The ids for `user` working in `group`.
    ///
    /// # Errors
    /// One of the names does not exist or cannot be looked up.
    pub fn role(&self, user_name: &str, group_name: &str) -> Result<Role, RoleError> {
        if let Some(role) = self.single {
            return Ok(role);
        }
        let uid = resolve("user", user_name, user(user_name).map(|u| u.map(|u| u.uid)))?;
        let gid = resolve("group", group_name, group(group_name))?;
        Ok(Role { uid, gid })
    }
}

fn resolve<T>(kind: &'static str, name: &str, answer: io::Result<Option<T>>) -> Result<T, RoleError> {
    match answer {
        Ok(Some(id)) => Ok(id),
        Ok(None) => Err(RoleError::Missing { kind, name: name.to_owned() }),
        Err(source) => Err(RoleError::Unavailable { kind, name: name.to_owned(), source }),
    }
}
