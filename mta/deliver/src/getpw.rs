//! qmail-getpw: which system user a local part belongs to.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use assign::Entry;
use program::{Exit, ExitCodeDoc, Invocation, Operands, Place, Program, Spec};
use unix::ids::{Account, user};

/// Names of system users are shorter than this.
const NAME_MAX: usize = 32;
/// Stands between the user's name and the extension.
const BREAK: u8 = b'-';

static SPEC: Spec = Spec {
    name: "qmail-getpw",
    summary: "find the system user of a local part",
    section: 8,
    place: Place::Sbin,
    operands: Operands { synopsis: "local", min: 1, max: Some(1) },
    exits: &[
        ExitCodeDoc { code: 0, meaning: "the answer is on standard output" },
        ExitCodeDoc { code: 100, meaning: "wrong usage" },
        ExitCodeDoc { code: 111, meaning: "standard output cannot be written" },
        ExitCodeDoc { code: 115, meaning: "a home directory cannot be looked at" },
        ExitCodeDoc { code: 116, meaning: "the user alias does not exist" },
        ExitCodeDoc { code: 118, meaning: "the name service does not answer" },
    ],
    description: "qmail-getpw prints six fields, each followed by NUL: user, uid, gid, home directory, dash, extension. The user \
        is the longest beginning of local that ends with it or before a dash, has an account that is not root, and owns \
        its home directory. When there is none, it is alias, with local as extension.\n\n\
        A name service that does not answer is never taken for \"no such user\".",
    ..Spec::EMPTY
};

/// The program.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// 115
    #[error("home directory of {user}: {source}")]
    Home {
        /// Whose.
        user: String,
        /// Why.
        source: std::io::Error,
    },
    /// 116
    #[error("the user alias does not exist")]
    NoAlias,
    /// 118
    #[error("user {user}: {source}")]
    NameService {
        /// Asked for.
        user: String,
        /// Why.
        source: std::io::Error,
    },
}

impl Error {
    /// The exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Home { .. } => Exit(115),
            Self::NoAlias => Exit(116),
            Self::NameService { .. } => Exit(118),
        }
    }
}

fn main(invocation: &Invocation) -> Exit {
    let parsed = match invocation.parse_all() {
        Ok(parsed) => parsed,
        Err(exit) => return exit,
    };
    match find(parsed.operands[0].as_bytes(), &user, &owns_home) {
        Ok(entry) => {
            use std::io::Write;
            let mut out = std::io::stdout().lock();
            match out.write_all(&entry.encode()).and_then(|()| out.flush()) {
                Ok(()) => Exit::OK,
                Err(_) => Exit::TEMPORARY,
            }
        }
        Err(e) => {
            invocation.complain("fatal", &e);
            e.exit()
        }
    }
}

/// Looks a system user up.
type LookUp<'a> = &'a dyn Fn(&str) -> std::io::Result<Option<Account>>;
/// Does this account own its home?
type OwnsHome<'a> = &'a dyn Fn(&Account) -> std::io::Result<bool>;

/// Finds the user of a local part.
///
/// # Errors
/// It cannot be told.
pub fn find(local: &[u8], look_up: LookUp<'_>, owns_home: OwnsHome<'_>) -> Result<Entry, Error> {
    for end in (1..=local.len()).rev() {
        if end < local.len() && local[end] != BREAK {
            continue;
        }
        let Some(name) = user_name(&local[..end]) else {
            continue;
        };
        let answer = look_up(&name).map_err(|source| Error::NameService { user: name.clone(), source })?;
        let Some(account) = answer.filter(|a| !a.uid.is_root()) else {
            continue;
        };
        if !owns_home(&account).map_err(|source| Error::Home { user: name.clone(), source })? {
            continue;
        }
        let (dash, ext): (&[u8], &[u8]) =
            if end == local.len() { (b"", b"") } else { (b"-", &local[end + 1..]) };
        return Ok(entry(account, dash, ext));
    }
    let alias = look_up("alias").map_err(|source| Error::NameService { user: "alias".to_owned(), source })?;
    Ok(entry(alias.ok_or(Error::NoAlias)?, b"-", local))
}

fn user_name(bytes: &[u8]) -> Option<String> {
    if bytes.len() >= NAME_MAX || bytes.contains(&0) {
        return None;
    }
    String::from_utf8(bytes.to_ascii_lowercase()).ok()
}

fn entry(account: Account, dash: &[u8], ext: &[u8]) -> Entry {
    Entry {
        user: account.name.into_bytes(),
        uid: account.uid.as_raw(),
        gid: account.gid.as_raw(),
        home: account.home.as_os_str().as_bytes().to_vec(),
        dash: dash.to_vec(),
        ext: ext.to_vec(),
    }
}

/// A home that is not there, or is somebody else's, is no home. One that cannot be looked at now
/// (a file server that is away) is not known to be either.
fn owns_home(account: &Account) -> std::io::Result<bool> {
    match std::fs::metadata(&account.home) {
        Ok(meta) => Ok(meta.is_dir() && meta.uid() == account.uid.as_raw()),
        Err(e) => match e.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR | libc::EACCES | libc::ELOOP | libc::ENAMETOOLONG) => Ok(false),
            _ => Err(e),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use unix::{Gid, Uid};

    fn known(name: &str) -> io::Result<Option<Account>> {
        let uid = match name {
            "root" => 0,
            "joe" => 1000,
            "joe-work" => 1001,
            "ghost" => 1002,
            "alias" => 70,
            "down" => return Err(io::Error::from_raw_os_error(libc::EAGAIN)),
            _ => return Ok(None),
        };
        Ok(Some(Account {
            name: name.to_owned(),
            uid: Uid::from_raw(uid),
            gid: Gid::from_raw(1),
            home: format!("/home/{name}").into(),
            shell: "/bin/sh".into(),
        }))
    }

    fn homes(account: &Account) -> io::Result<bool> {
        Ok(account.name != "ghost")
    }

    fn found(local: &str) -> (String, String, String) {
        let e = find(local.as_bytes(), &known, &homes).unwrap();
        let text = |b| String::from_utf8(b).unwrap();
        (text(e.user), text(e.dash), text(e.ext))
    }

    fn is(local: &str, user: &str, dash: &str, ext: &str) {
        assert_eq!(found(local), (user.into(), dash.into(), ext.into()), "{local}");
    }

    #[test]
    fn the_longest_user_that_fits() {
        is("Joe", "joe", "", "");
        is("joe-List", "joe", "-", "List");
        is("joe-work-x", "joe-work", "-", "x");
        is("joe-", "joe", "-", "");
        is("joex", "alias", "-", "joex");
        is("root", "alias", "-", "root");
        is("ghost", "alias", "-", "ghost");
        is("ghost-x", "alias", "-", "ghost-x");
        is("", "alias", "-", "");
        is(
            "a-very-long-name-that-no-user-can-have-joe",
            "alias",
            "-",
            "a-very-long-name-that-no-user-can-have-joe",
        );
    }

    #[test]
    fn a_silent_name_service_is_not_alias() {
        let error = find(b"down-x", &known, &homes).unwrap_err();
        assert_eq!(error.exit(), Exit(118));
        let trouble = |_: &Account| Err(io::Error::from_raw_os_error(libc::ESTALE));
        assert_eq!(find(b"joe", &known, &trouble).unwrap_err().exit(), Exit(115));
        let nobody = |_: &str| Ok(None);
        assert_eq!(find(b"joe", &nobody, &homes).unwrap_err().exit(), Exit(116));
    }
}
