//! setuidgid, setuser and envuidgid: run a program as another user, or tell it the ids.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;

use program::{
    Environment, Exit, ExitCodeDoc, Invocation, Operands, OptionSpec, Parsed, Place, Program, Spec,
};
use unix::ids::{self, Account};
use unix::{Gid, Uid};

use crate::chain;

const EXITS: &[ExitCodeDoc] = &[
    ExitCodeDoc { code: 100, meaning: "wrong usage" },
    ExitCodeDoc {
        code: 111,
        meaning: "no such account or group, no permission, or the program cannot be run",
    },
];

/// The table of setuidgid.
pub static SETUIDGID: Spec = Spec {
    name: "setuidgid",
    summary: "run a program as another user",
    section: 8,
    place: Place::Bin,
    options: &[
        OptionSpec::flag('e', "set HOME, USER and LOGNAME"),
        OptionSpec::flag('s', "keep the account's supplementary groups"),
        OptionSpec::value('g', "groups", "supplementary groups, names or numbers, separated by commas"),
    ],
    operands: Operands { synopsis: "account program [arg ...]", min: 2, max: None },
    exits: EXITS,
    description: "\
The program runs with the user id and group id of account and, unless -s or -g is given, with no other group. \
account may also be :uid:gid or :uid:gid:gid..., all numbers, which needs no entry in the password \
database. The account is looked up once; the list of users is never read through.

Started by an ordinary user for that user's own account, the groups stay as they are.",
    ..Spec::EMPTY
};

/// The table of setuser.
pub static SETUSER: Spec = Spec {
    name: "setuser",
    summary: "run a program as another user, as a login would",
    section: 8,
    place: Place::Bin,
    operands: Operands { synopsis: "account program [arg ...]", min: 2, max: None },
    exits: EXITS,
    description: "\
The program runs with the user id, the group id and all groups of account, in its home directory and with HOME, SHELL, USER, UID and GID. No shell \
is started.",
    ..Spec::EMPTY
};

/// The table of envuidgid.
pub static ENVUIDGID: Spec = Spec {
    name: "envuidgid",
    summary: "run a program with the ids of an account in UID and GID",
    section: 8,
    place: Place::Bin,
    operands: Operands { synopsis: "account program [arg ...]", min: 2, max: None },
    exits: EXITS,
    description: "Sets UID and GID to the ids of account and runs the program, which stays with the user that started it.",
    ..Spec::EMPTY
};

/// setuidgid.
pub const PROGRAM: Program = Program { spec: &SETUIDGID, main };
/// setuser.
pub const SETUSER_PROGRAM: Program = Program { spec: &SETUSER, main: setuser };
/// envuidgid.
pub const ENVUIDGID_PROGRAM: Program = Program { spec: &ENVUIDGID, main: envuidgid };

/// Who the program will be.
#[derive(Debug)]
struct Identity {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
    account: Option<Account>,
    /// Were groups asked for, so that it is a failure when they are not these?
    explicit: bool,
}

fn become_identity(identity: &Identity) -> io::Result<()> {
    unix::privilege::become_user(identity.uid, identity.gid, &identity.groups)?;
    // An ordinary user stays as it is.
    if identity.explicit && !unix::privilege::has_groups(identity.gid, &identity.groups)? {
        return Err(io::Error::from(unix::Errno::EPERM));
    }
    Ok(())
}

fn main(invocation: &Invocation) -> Exit {
    run(invocation, |invocation, parsed| {
        let identity = identity(parsed).map_err(|e| fatal(invocation, &e))?;
        let mut environment = invocation.environment.clone();
        if parsed.flag("e") {
            let Some(account) = &identity.account else {
                return Err(fatal(invocation, "option -e: needs the name of an account"));
            };
            environment.set("HOME", account.home.as_os_str());
            environment.set("USER", account.name.as_str());
            environment.set("LOGNAME", account.name.as_str());
        }
        become_identity(&identity)
            .map_err(|e| fatal(invocation, &format!("unable to become that user: {}", chain::phrase(&e))))?;
        Ok(environment)
    })
}

fn setuser(invocation: &Invocation) -> Exit {
    run(invocation, |invocation, parsed| {
        let shown = parsed.operands[0].as_encoded_bytes().escape_ascii();
        let identity = account(&parsed.operands[0], true).map_err(|e| fatal(invocation, &e))?;
        let Some(account) = &identity.account else {
            return Err(fatal(invocation, &format!("{shown}: expected the name of an account")));
        };
        let mut environment = invocation.environment.clone();
        environment.set("HOME", account.home.as_os_str());
        environment.set("SHELL", account.shell.as_os_str());
        environment.set("USER", account.name.as_str());
        environment.set("UID", identity.uid.to_string());
        environment.set("GID", identity.gid.to_string());
        let cannot =
            |what: &str, e: io::Error| fatal(invocation, &format!("unable to {what}: {}", chain::phrase(&e)));
        become_identity(&identity).map_err(|e| cannot("become that user", e))?;
        // With the rights of the user: a home that is not for it is none.
        std::env::set_current_dir(&account.home)
            .map_err(|e| cannot(&format!("change to {}", account.home.display()), e))?;
        Ok(environment)
    })
}

fn envuidgid(invocation: &Invocation) -> Exit {
    run(invocation, |invocation, parsed| {
        let identity = identity(parsed).map_err(|e| fatal(invocation, &e))?;
        let mut environment = invocation.environment.clone();
        environment.set("UID", identity.uid.to_string());
        environment.set("GID", identity.gid.to_string());
        Ok(environment)
    })
}

fn run(invocation: &Invocation, prepare: impl Fn(&Invocation, &Parsed) -> Result<Environment, Exit>) -> Exit {
    let ready = invocation.parse_all().and_then(|parsed| Ok((prepare(invocation, &parsed)?, parsed)));
    match ready {
        Ok((environment, parsed)) => chain::become_program(invocation, &parsed.operands[1..], &environment),
        Err(exit) => exit,
    }
}

fn fatal(invocation: &Invocation, message: &str) -> Exit {
    invocation.complain("fatal", message);
    Exit::TEMPORARY
}

fn identity(parsed: &Parsed) -> Result<Identity, String> {
    let mut identity = account(&parsed.operands[0], parsed.flag("s"))?;
    if let Some(list) = parsed.value("g") {
        identity.groups.extend(groups(list)?);
        identity.explicit = true;
    }
    let mut seen = HashSet::new();
    identity.groups.retain(|&group| seen.insert(group));
    Ok(identity)
}

fn account(operand: &OsStr, all_groups: bool) -> Result<Identity, String> {
    let shown = operand.as_encoded_bytes().escape_ascii();
    let text = operand.to_str().ok_or_else(|| format!("unknown account {shown}"))?;
    if let Some(numbers) = text.strip_prefix(':') {
        let number = |n: &str| n.bytes().all(|b| b.is_ascii_digit()).then(|| n.parse().ok())?;
        let numbers: Option<Vec<u32>> = numbers.split(':').map(number).collect();
        return match numbers.as_deref() {
            Some([uid, gid, more @ ..]) => Ok(Identity {
                uid: Uid::from_raw(*uid),
                gid: Gid::from_raw(*gid),
                groups: std::iter::once(gid).chain(more).map(|&g| Gid::from_raw(g)).collect(),
                account: None,
                explicit: !more.is_empty(),
            }),
            _ => Err(format!("{shown}: expected :uid:gid[:gid...]")),
        };
    }
    let account = ids::user(text)
        .map_err(|e| format!("unable to look up account {shown}: {e}"))?
        .ok_or_else(|| format!("unknown account {shown}"))?;
    let groups = if all_groups {
        ids::groups_of(&account.name, account.gid)
            .map_err(|e| format!("unable to list the groups of {shown}: {e}"))?
    } else {
        vec![account.gid]
    };
    let (uid, gid) = (account.uid, account.gid);
    Ok(Identity { uid, gid, groups, account: Some(account), explicit: all_groups })
}

fn groups(list: &OsStr) -> Result<Vec<Gid>, String> {
    ids::group_list(list.to_str().ok_or("option -g: not text")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numeric_identities() {
        let id = account(OsStr::new(":7:8:9"), false).unwrap();
        assert_eq!((id.uid.as_raw(), id.gid.as_raw()), (7, 8));
        assert_eq!(id.groups, [Gid::from_raw(8), Gid::from_raw(9)]);
        for bad in [":7", ":", ":a:b", ":7:8:", ":-1:2", ":+1:2", ":7:99999999999"] {
            assert!(account(OsStr::new(bad), false).is_err(), "{bad}");
        }
    }

    #[test]
    fn groups_by_name_and_number() {
        assert_eq!(groups(OsStr::new("root,12")).unwrap(), [Gid::from_raw(0), Gid::from_raw(12)]);
        assert!(groups(OsStr::new("no-such-group-here")).unwrap_err().contains("unknown group"));
    }
}
