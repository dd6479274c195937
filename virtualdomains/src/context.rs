//! What every command starts from, and how it ends.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use accounts::{Accounts, Address, Domain, DomainName, Editor, Invalid, Unavailable, UnixIds};
use nix::unistd::{Gid, Uid, getgid, getgroups, getuid};
use program::{Exit, ExitCodeDoc, Invocation, Parsed};
use unix::durable::Owner;
use unix::ids::Roles;

use crate::settings::Settings;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Bad input, not permitted, or it exists already.
    #[error("{0}")]
    Refused(String),
    /// What was named does not exist.
    #[error("{0}")]
    Absent(String),
    /// The store, a file or the system failed; try again.
    #[error("{0}")]
    Temporary(String),
}

impl Failure {
    pub(crate) fn refused(what: impl std::fmt::Display, why: impl std::fmt::Display) -> Self {
        Self::Refused(format!("{what}: {why}"))
    }

    /// A step on a file or directory failed.
    pub(crate) fn step(what: impl std::fmt::Display, why: impl std::fmt::Display) -> Self {
        Self::Temporary(format!("{what}: {why}"))
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Refused(_) => Exit::PERMANENT,
            Self::Absent(_) => Exit(1),
            Self::Temporary(_) => Exit::TEMPORARY,
        }
    }
}

impl From<Unavailable> for Failure {
    fn from(e: Unavailable) -> Self {
        Self::Temporary(e.to_string())
    }
}

impl From<Invalid> for Failure {
    fn from(e: Invalid) -> Self {
        Self::Refused(e.to_string())
    }
}

/// Exit codes of all commands.
pub(crate) const EXITS: &[ExitCodeDoc] = &[
    ExitCodeDoc { code: 0, meaning: "done" },
    ExitCodeDoc { code: 1, meaning: "what was named does not exist" },
    ExitCodeDoc { code: 100, meaning: "wrong usage, bad input, not permitted, or it exists already" },
    ExitCodeDoc {
        code: 111,
        meaning: "the store, a file or the system failed; nothing was half done; try again",
    },
];

/// What every command starts from.
pub(crate) struct Context<'a> {
    pub(crate) invocation: &'a Invocation,
    pub(crate) parsed: Parsed,
    pub(crate) settings: Settings,
    pub(crate) accounts: Accounts,
    pub(crate) roles: Roles,
}

/// Runs a command: settings, body, message, exit code.
pub(crate) fn run(invocation: &Invocation, body: fn(&mut Context<'_>) -> Result<Exit, Failure>) -> Exit {
    let mut context = match load(invocation) {
        Ok(context) => context,
        Err(exit) => return exit,
    };
    unix::host::umask(0o077);
    body(&mut context).unwrap_or_else(|failure| {
        invocation.complain("fatal", &failure);
        failure.exit()
    })
}

fn load(invocation: &Invocation) -> Result<Context<'_>, Exit> {
    if unix::host::is_set_id() {
        invocation.complain("fatal", "must not be installed set-user-id or set-group-id: run it as root, or as the user who owns the domain");
        return Err(Exit::PERMANENT);
    }
    let parsed = invocation.parse()?;
    let settings = Settings::load(invocation)?;
    let accounts = Accounts::open(&settings.accounts);
    let roles = Roles::for_this_process();
    Ok(Context { invocation, parsed, settings, accounts, roles })
}

impl Context<'_> {
    /// The operand at `index`, as bytes; empty when it is not there.
    pub(crate) fn operand(&self, index: usize) -> &[u8] {
        self.parsed.operands.get(index).map_or(b"", |o| o.as_bytes())
    }

    /// The value of an option as bytes.
    pub(crate) fn option(&self, name: &str) -> Option<&[u8]> {
        self.parsed.value(name).map(OsStrExt::as_bytes)
    }

    /// A number given by an option.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u32>, Failure> {
        let Some(value) = self.option(name) else {
            return Ok(None);
        };
        let dashes = if name.len() == 1 { "-" } else { "--" };
        std::str::from_utf8(value).ok().and_then(|t| t.parse().ok()).map(Some).ok_or_else(|| {
            Failure::refused(format!("option {dashes}{name}"), "expected a number from 0 to 4294967295")
        })
    }

    /// Reads an address as a command takes it: upper case is refused.
    pub(crate) fn address(&self, text: &[u8]) -> Result<Address, Failure> {
        lower_case("address", text)?;
        Ok(Address::parse(text)?)
    }

    /// The domain of an address that must be ours, and the address in the real domain. The caller must
    /// be permitted to administer it.
    pub(crate) fn resolve(&self, address: &Address) -> Result<(Domain, Address), Failure> {
        let (domain, real) = self.accounts.resolve(address)?.ok_or_else(|| {
            Failure::Absent(format!("{}: no such domain; add it with vadddomain", address.domain()))
        })?;
        self.permit(&domain)?;
        Ok((domain, real))
    }

    /// A domain that must be ours; the caller must be permitted to administer it.
    pub(crate) fn domain(&self, text: &[u8]) -> Result<Domain, Failure> {
        lower_case("domain", text)?;
        let name = DomainName::parse(text)?;
        let domain = self.accounts.domains().domain(name.as_bytes())?;
        let domain = domain.ok_or_else(|| Failure::Absent(format!("{name}: no such domain")))?;
        self.permit(&domain)?;
        Ok(domain)
    }

    /// The name of a domain that must not be ours yet.
    pub(crate) fn new_domain(&self, text: &[u8]) -> Result<DomainName, Failure> {
        lower_case("domain", text)?;
        let name = DomainName::parse(text)?;
        match self.accounts.domains().domain(name.as_bytes())? {
            Some(_) => Err(Failure::refused(&name, "the domain exists already")),
            None => Ok(name),
        }
    }

    /// Root may, and who runs under the domain's user or group.
    pub(crate) fn permit(&self, domain: &Domain) -> Result<(), Failure> {
        let UnixIds { uid, gid } = domain.ids;
        if getuid().is_root() {
            return if uid == 0 {
                Err(Failure::refused(
                    &domain.name,
                    "its user id in users/assign is 0, which no mail domain may have",
                ))
            } else {
                Ok(())
            };
        }
        let group = Gid::from_raw(gid);
        let groups = getgroups().map_err(|e| Failure::step("getgroups", e))?;
        if getuid() == Uid::from_raw(uid) || getgid() == group || groups.contains(&group) {
            return Ok(());
        }
        Err(Failure::refused(&domain.name, format!("only root, user {uid} or group {gid} may do this")))
    }

    /// Owner for new files of these ids: none when this process cannot give files away.
    pub(crate) fn owner(&self, ids: UnixIds) -> Owner {
        (!self.roles.is_single_user()).then(|| (Uid::from_raw(ids.uid), Gid::from_raw(ids.gid)))
    }

    /// The ids of user and group `indimail`.
    pub(crate) fn indimail(&self) -> Result<UnixIds, Failure> {
        let role = self.roles.role("indimail", "indimail").map_err(|e| Failure::Temporary(e.to_string()))?;
        Ok(UnixIds { uid: role.uid.as_raw(), gid: role.gid.as_raw() })
    }

    /// The editor of the domain table and control files. New ones are root's.
    pub(crate) fn editor(&self) -> Editor {
        Editor::new(&self.settings.accounts.assign_dir, &self.settings.control, None)
    }

    /// Prints a warning.
    pub(crate) fn warn(&self, text: impl std::fmt::Display) {
        self.invocation.complain("warning", text);
    }

    /// Prints what is done, with `-v`.
    pub(crate) fn tell(&self, text: impl std::fmt::Display) {
        if self.parsed.flag("v") {
            self.invocation.complain("info", text);
        }
    }

    /// The arguments of this call without passwords: what a post-handle program may know.
    pub(crate) fn arguments_without_password(&self, password_operand: usize) -> Vec<OsString> {
        let mut arguments = self.invocation.arguments.clone();
        let operands = self.parsed.operands.len();
        let first = arguments.len() - operands;
        if operands > password_operand {
            arguments.remove(first + password_operand);
        }
        arguments
    }
}

fn lower_case(what: &'static str, text: &[u8]) -> Result<(), Failure> {
    if text.iter().any(u8::is_ascii_uppercase) {
        return Err(Invalid::new(what, text, "upper case is refused: write it in lower case").into());
    }
    Ok(())
}

/// Prints lines on stdout. A reader that went away is not an error of the command.
pub(crate) fn print(text: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
