//! vdelivermail: delivery for the accounts of virtual domains.
//!
//! ```text
//! EXT@HOST ─ inlookup ─► mailbox or absent ─ plan ─┬─ own Maildir   (quota, then deliver)
//!   (cannot tell: 111)                             ├─ lines         (aliases, or .qmail of the home)
//!                                                  ├─ instruction   (unknown, inactive, filtered)
//!                                                  └─ nothing
//! ```
//!
//! It runs as the domain's user, started by the line of `.qmail-default`. The account library is in
//! the daemon; no password or hash comes here.

mod headers;
mod lines;
mod mailbox;
mod plan;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use lookup::mail::{Client, Mailbox, handed};
use program::{
    Environment, Exit, ExitCodeDoc, Invocation, Layout, Loader, Operands, Parsed, Place, Program, Spec,
    Variable,
};
use unix::durable::Durability;

use crate::message_file::Message;
use crate::{End, Resident, local, say};

pub use plan::{Instruction, Plan, Reason, Switches, plan};

static SPEC: Spec = Spec {
    name: "vdelivermail",
    summary: "deliver a message to an account of a virtual domain",
    section: 8,
    place: Place::Sbin,
    operands: Operands {
        synopsis: "'' bounce-no-mailbox|delete|/directory|address, or the operands of qmail-local",
        min: 2,
        max: Some(9),
    },
    variables: &[
        Variable { name: "EXT", help: "local part of the account (postmaster when empty)" },
        Variable { name: "HOST", help: "its domain" },
        Variable { name: "SENDER", help: "envelope sender; must be set" },
        Variable { name: "RPLINE", help: "Return-Path line to put before the message" },
        Variable { name: "DTLINE", help: "Delivered-To line to put before the message" },
        Variable { name: "QQEH", help: "header lines to put before the message" },
        Variable { name: "XFILTER", help: "X-Filter line to put before the message (X-Filter: None)" },
        Variable { name: "QMAIL_EXT", help: "when set, user-anything that does not exist is user" },
        Variable { name: "NOALIAS", help: "when set, aliases and .qmail of the account are not obeyed" },
        Variable { name: "ALLOW_INACTIVE", help: "when set, inactive accounts take mail" },
        Variable { name: "BOUNCE_MAIL", help: "when set, the message is treated as for an unknown account" },
        Variable { name: "DISCARD_BOUNCE", help: "when set, what would bounce is dropped" },
        Variable { name: "MAILDIRFOLDER", help: "folder of the Maildir to deliver to" },
        Variable {
            name: "HOLDOVERQUOTA",
            help: "file in the Maildir that makes mail over quota wait (holdoverquota)",
        },
        Variable {
            name: "OVERQUOTA_CMD",
            help: "program to run when a mailbox is full (PREFIX/libexec/indimail/overquota.sh if it is there)",
        },
        Variable {
            name: "OVERQUOTA_MAILSIZE",
            help: "messages of at most that many bytes reach a full mailbox (1000)",
        },
        Variable { name: "MAILDIRSIZE_MAX_AGE", help: "seconds after which usage is added up again (43200)" },
        Variable {
            name: "MAILDIRSIZE_MAX_SIZE",
            help: "bytes of maildirsize after which usage is added up again (8192)",
        },
        Variable { name: "INCLUDE_TRASH", help: "when set, the trash counts" },
        Variable { name: "FAST_QUOTA", help: "when set, maildirsize is trusted as it is" },
        Variable {
            name: "INLOOKUP_ANSWER",
            help: "the account as qmail-lspawn found it; without it inlookup is asked",
        },
        Variable { name: "INLOOKUP_SOCKET", help: "socket of inlookup (/run/indimail/inlookup.sock)" },
        Variable { name: "INLOOKUP_TIMEOUT", help: "seconds to wait for inlookup (30)" },
    ],
    exits: &[
        ExitCodeDoc { code: 0, meaning: "delivered or dropped" },
        ExitCodeDoc { code: 100, meaning: "no such account, inactive, full, or wrong usage" },
        ExitCodeDoc { code: 111, meaning: "cannot be delivered now, inlookup does not answer" },
    ],
    description: "vdelivermail is a program for .qmail-default of a virtual domain: \"| vdelivermail '' bounce-no-mailbox\". It asks \
        inlookup for the account EXT@HOST and delivers to its Maildir, which it makes when it is missing, within the \
        account's quota. Aliases of the account, or else the .qmail file of its home, take the place of the Maildir: \
        |command, /path/Maildir/, &address or address; the account's own address among them is its Maildir.\n\n\
        The second operand says what becomes of mail for accounts that do not exist or are inactive.\n\n\
        With the operands of qmail-local it takes its place (QMAILLOCAL): qmail-lspawn starts it so, as the account's own \
        user, for accounts that have one. Then it works in the account's home, and mail it cannot take bounces.",
    ..Spec::EMPTY
};

/// The program.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

/// What qmail-local says of a delivery by one program.
const SUMMARY: &str = "did 0+0+1";

/// One virtual delivery.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Account name, lower case.
    pub local: Vec<u8>,
    /// Domain, lower case.
    pub domain: Vec<u8>,
    /// Envelope sender.
    pub sender: Vec<u8>,
    /// For unknown and inactive accounts.
    pub instruction: Instruction,
    /// What the plan depends on.
    pub switches: Switches,
    /// Drop what would bounce.
    pub discard_bounce: bool,
    /// Folder below the Maildir.
    pub folder: Option<Vec<u8>>,
    /// Name of the file that makes mail over quota wait.
    pub hold_file: PathBuf,
    /// Run when a mailbox is full.
    pub over_quota_command: Option<PathBuf>,
    /// Messages of at most that many bytes reach a full mailbox.
    pub small_message: u64,
    /// When usage is added up again.
    pub quota_policy: maildir::quota::Policy,
    /// Socket of inlookup.
    pub socket: PathBuf,
    /// How long it may take to answer.
    pub patience: Duration,
    /// What is forced to the disk.
    pub durability: Durability,
    /// Where our programs are.
    pub layout: Layout,
    /// Variables of the delivery.
    pub environment: Environment,
    /// It was not started from a dot-qmail file of the domain: it works in the account's home.
    pub in_account_home: bool,
    /// Set in a worker.
    pub(crate) resident: Resident,
}

impl Settings {
    /// The address asked for.
    #[must_use]
    pub fn address(&self) -> Vec<u8> {
        [&self.local[..], b"@", &self.domain].concat()
    }
}

fn main(invocation: &Invocation) -> Exit {
    let settings = match load(invocation) {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    let end = crate::with_message(|message| deliver(&settings, message));
    if settings.discard_bounce && matches!(end, End::Permanent(_)) {
        return Exit::OK;
    }
    say(end.text());
    end.exit()
}

fn load(invocation: &Invocation) -> Result<Settings, Exit> {
    let parsed = invocation.parse()?;
    let Some((instruction, environment)) = task(invocation, &parsed) else {
        invocation.complain("fatal", "expected two operands, or the nine of qmail-local");
        return Err(Exit::PERMANENT);
    };
    let mut loader = Loader::new(&environment);
    let settings = read(invocation, &parsed, instruction, &mut loader);
    invocation.finish(loader, settings, Exit::PERMANENT)
}

/// The same in a worker: the exit code and what would have been printed. `None`: a program is needed, or
/// there is something to complain about, which vdelivermail does; nothing has been delivered.
pub(crate) fn deliver_here(
    invocation: &Invocation,
    message: &Message,
    resident: &Resident,
) -> Option<(Exit, String)> {
    let parsed = Parsed::read(invocation.spec, &invocation.arguments).ok()?;
    let (instruction, environment) = task(invocation, &parsed)?;
    let mut loader = Loader::new(&environment);
    let settings = read(invocation, &parsed, instruction, &mut loader);
    let settings = Settings { resident: resident.clone(), ..loader.finish(settings).ok()? };
    match try_deliver(&settings, message) {
        Ok(()) if settings.in_account_home => Some((Exit::OK, SUMMARY.to_owned())),
        Ok(()) => Some((Exit::OK, String::new())),
        Err(End::NeedsProgram) => None,
        Err(End::Permanent(_)) if settings.discard_bounce => Some((Exit::OK, String::new())),
        Err(end) => Some((end.exit(), end.text().to_owned())),
    }
}

/// The instruction and the variables that the operands stand for.
fn task<'p>(invocation: &Invocation, parsed: &'p Parsed) -> Option<(&'p [u8], Environment)> {
    match &parsed.operands[..] {
        [_, instruction] => Some((instruction.as_bytes(), invocation.environment.clone())),
        all @ [_, _, _, _, _, _, _, _, _] => Some((&b"bounce-no-mailbox"[..], as_local(invocation, all))),
        _ => None,
    }
}

fn read(invocation: &Invocation, parsed: &Parsed, instruction: &[u8], loader: &mut Loader<'_>) -> Settings {
    let env = loader.environment();
    let variable = crate::variable;
    let only_shown = invocation.shows_settings();
    let (place, stand_in) = (parsed.operand_source(1), parsed.operand_source(1) == "not given");
    let instruction = if stand_in { b"bounce-no-mailbox" } else { instruction };
    loader.show("instruction", instruction.escape_ascii(), place);
    let instruction = Instruction::parse(instruction).unwrap_or_else(|what| {
        loader.problem(format!("second operand: {}: {what}", parsed.operands[1].display()));
        Instruction::Bounce
    });
    let ext = env.bytes("EXT").filter(|e| !e.is_empty()).unwrap_or(b"postmaster");
    let local = message::address::unquote(ext).unwrap_or_else(|| {
        loader.problem(format!("variable EXT: {}: a quote that has no end", ext.escape_ascii()));
        Vec::new()
    });
    let mut needed = |name: &str| match env.bytes(name) {
        Some(value) => {
            loader.show(name, value.escape_ascii(), format_args!("variable {name}"));
            value.to_vec()
        }
        None if only_shown => {
            loader.show(name, "not set", "default");
            Vec::new()
        }
        None => {
            loader.problem(format!("variable {name} is not set; run vdelivermail from a dot-qmail file"));
            Vec::new()
        }
    };
    let (domain, sender) = (needed("HOST"), needed("SENDER"));
    let script = invocation.layout.libexec("overquota.sh");
    let given = env.get("OVERQUOTA_CMD").filter(|v| !v.is_empty()).map(PathBuf::from);
    Settings {
        local: local.to_ascii_lowercase(),
        domain: domain.to_ascii_lowercase(),
        sender,
        instruction,
        switches: Switches {
            no_alias: env.is_set("NOALIAS"),
            allow_inactive: env.is_set("ALLOW_INACTIVE"),
            filtered: env.is_set("BOUNCE_MAIL"),
            extensions: env.is_set("QMAIL_EXT"),
        },
        discard_bounce: env.is_set("DISCARD_BOUNCE"),
        folder: env.bytes("MAILDIRFOLDER").filter(|f| !f.is_empty()).map(<[u8]>::to_vec),
        hold_file: loader.path("hold file", variable("HOLDOVERQUOTA"), "holdoverquota"),
        over_quota_command: given.or_else(|| script.exists().then_some(script)),
        small_message: loader.number("small message", variable("OVERQUOTA_MAILSIZE"), 1000, 0..=u64::MAX),
        quota_policy: maildir::quota::Policy {
            max_age: loader.number("maildirsize age", variable("MAILDIRSIZE_MAX_AGE"), 43_200, 0..=u64::MAX),
            max_size: loader.number("maildirsize size", variable("MAILDIRSIZE_MAX_SIZE"), 8192, 0..=u64::MAX),
            include_trash: env.is_set("INCLUDE_TRASH"),
            fast: env.is_set("FAST_QUOTA"),
        },
        socket: loader.path("inlookup socket", variable("INLOOKUP_SOCKET"), lookup::mail::DEFAULT_SOCKET),
        patience: Duration::from_secs(loader.number(
            "inlookup timeout",
            variable("INLOOKUP_TIMEOUT"),
            30,
            1..=3600,
        )),
        durability: crate::durability(env),
        layout: invocation.layout.clone(),
        in_account_home: parsed.operands.len() > 2,
        environment: env.clone(),
        resident: None,
    }
}

/// The environment that qmail-local would have made of its operands.
fn as_local(invocation: &Invocation, operands: &[OsString]) -> Environment {
    let settings = local::Settings::new(operands, &invocation.layout, &invocation.environment);
    local::environment::Facts::new(&settings, local::environment::Owner::None, None).environment
}

/// Delivers; whoever calls this has become the domain's user.
#[must_use]
pub fn deliver(settings: &Settings, message: &Message) -> End {
    match try_deliver(settings, message) {
        Ok(()) => {
            if settings.in_account_home {
                // In the place of qmail-local: what it would have said of us.
                say(SUMMARY);
            }
            End::Done
        }
        Err(end) => end,
    }
}

fn try_deliver(settings: &Settings, message: &Message) -> Result<(), End> {
    if unix::Uid::effective().is_root() {
        return Err(End::Temporary("not allowed to deliver mail as root (#4.3.0)".to_owned()));
    }
    unix::host::umask(0o077);
    let unreadable = |e: std::io::Error| End::Temporary(format!("cannot read the message: {e} (#4.3.0)"));
    if message.size().map_err(unreadable)? == 0 {
        return Ok(());
    }
    let delivered_to = headers::delivered_to(settings);
    if message.count_line(&delivered_to).map_err(unreadable)? > 0 {
        return Err(End::Permanent("the message is looping: it has been here before (#5.4.6)".to_owned()));
    }
    let mailbox = find(settings)?;
    let home_lines = match &mailbox {
        Some(m) if !m.alias_only && !settings.switches.no_alias && m.aliases.is_empty() => lines::of_home(m)?,
        _ => None,
    };
    if settings.in_account_home {
        enter(mailbox.as_ref().map_or(&b"/"[..], |m| &m.home))?;
    }
    match plan(mailbox.as_ref(), home_lines, &settings.switches) {
        Plan::Nothing => Ok(()),
        Plan::Maildir(mailbox) => mailbox::deliver(settings, message, mailbox),
        Plan::Lines(mailbox, text) => lines::obey(settings, message, mailbox, &text),
        Plan::Instruction(reason) => instruct(settings, message, reason),
    }
}

/// Finds the account: in the answer that qmail-lspawn handed on, else by asking.
fn find(settings: &Settings) -> Result<Option<Mailbox>, End> {
    let address = settings.address();
    let value = settings.environment.bytes(handed::VARIABLE).unwrap_or_default();
    if let Some(answer) = handed::take(value, &address) {
        return Ok(answer);
    }
    if settings.resident.is_some() {
        // Asking may take its time, and what this process takes others wait for.
        return Err(End::NeedsProgram);
    }
    let not_now =
        |e: lookup::Unavailable| End::Temporary(format!("cannot look the account up: {e} (#4.3.0)"));
    let mut client = Client::new(&settings.socket, settings.patience);
    let found = client.mailbox_or_base(&address, settings.switches.extensions).map_err(not_now)?;
    if found.is_none() && client.domain(&settings.domain).map_err(not_now)?.is_none() {
        let domain = settings.domain.escape_ascii();
        return Err(End::Permanent(format!("the domain {domain} is not here (#5.1.2)")));
    }
    Ok(found)
}

/// Works in the account's home, or, while there is none, where nothing can be written.
fn enter(home: &[u8]) -> Result<(), End> {
    let home = std::path::Path::new(OsStr::from_bytes(home));
    let place = if home.is_dir() { home } else { std::path::Path::new("/") };
    std::env::set_current_dir(place)
        .map_err(|e| End::Temporary(format!("cannot enter the home {}: {e} (#4.3.0)", place.display())))
}

/// What the operand says about mail that no account takes.
fn instruct(settings: &Settings, message: &Message, reason: Reason) -> Result<(), End> {
    match &settings.instruction {
        Instruction::Delete => Ok(()),
        Instruction::Bounce => {
            let address = settings.address();
            Err(End::Permanent(
                reason.text(&String::from_utf8_lossy(&address.escape_ascii().collect::<Vec<u8>>())),
            ))
        }
        Instruction::Directory(path) => {
            lines::to_directory(settings, message, std::path::Path::new(OsStr::from_bytes(path)))
        }
        Instruction::Forward(address) => lines::forward(settings, message, std::slice::from_ref(address)),
    }
}
