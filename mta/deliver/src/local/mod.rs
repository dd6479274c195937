//! qmail-local: one message for one recipient, by the recipient's dot-qmail file.

pub mod environment;
mod steps;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use program::{
    Control, Environment, Exit, ExitCodeDoc, Invocation, Layout, Loader, Operands, OptionSpec, Parsed, Place,
    Program, Source, Spec, Variable,
};
use unix::child::Ending;
use unix::durable::Durability;

use crate::dotqmail::{self, Action, FindError, Instruction, Interpreter};
use crate::message_file::Message;
use crate::shell;
use crate::{End, Resident, say, virtual_delivery};

static SPEC: Spec = Spec {
    name: "qmail-local",
    summary: "deliver a message by the recipient's dot-qmail file",
    section: 8,
    place: Place::Sbin,
    options: &[
        OptionSpec::flag('n', "print what would be done instead of doing it"),
        OptionSpec::flag('N', "deliver (the default)"),
    ],
    operands: Operands {
        synopsis: "user homedir local dash ext domain sender defaultdelivery extraheader",
        min: 9,
        max: Some(9),
    },
    variables: &[
        Variable {
            name: "LOCALDOMAINS",
            help: "when set, only senders of domains in the control file localdomains are taken; a file .localdomains in the home does the same",
        },
        Variable {
            name: "SANITIZE_ENV",
            help: "when set, drop all variables but those of the message and of this colon list",
        },
        Variable {
            name: "EXPORTED_HEADERS",
            help: "names of the variables made from header lines, set by qmail-lspawn",
        },
        Variable { name: "QMAILQUEUE", help: "program that takes forwards (PREFIX/sbin/qmail-queue)" },
        Variable { name: "USE_FSYNC", help: "0: do not force mailboxes to the disk (1)" },
        Variable { name: "USE_FDATASYNC", help: "1: use fdatasync instead of fsync (0)" },
        Variable { name: "USE_SYNCDIR", help: "0: do not force directories to the disk (as USE_FSYNC)" },
    ],
    controls: &[
        Control {
            name: "conf-patrn",
            help: "permission bits, octal, that a home and a dot-qmail file must not have (002)",
        },
        Control {
            name: "maxdeliveredto",
            help: "how often the message may have been here already; -1: any number (0)",
        },
        Control {
            name: "localdomains",
            help: "domains whose senders are taken where LOCALDOMAINS asks for it",
        },
    ],
    exits: &[
        ExitCodeDoc { code: 0, meaning: "delivered" },
        ExitCodeDoc { code: 100, meaning: "cannot be delivered, or wrong usage" },
        ExitCodeDoc { code: 111, meaning: "cannot be delivered now" },
    ],
    description: "qmail-local is started by qmail-lspawn as the recipient, with the message on descriptor 0, and obeys the first \
        of the files .qmail-EXT, .qmail-PREFIX-default, .qmail-default in the home that exists. Lines act in their \
        order, except forwards, which are sent last, together: |command, /path/mbox, /path/Maildir/, &address, +list (only \
        forwards from here), :label, ?label [command] (skip forward, with a command if it exits 99), %directory (load \
        variables), # comment. An empty file means defaultdelivery.\n\n\
        Programs get DTLINE, RPLINE, UFLINE, SENDER, NEWSENDER, RECIPIENT, LOCAL, HOST to HOST4, EXT to EXT4, DEFAULT, USER, \
        HOME, QQEH, and exit with 0, 99 (no more lines), 100, 64, 65, 70, 76, 77, 78, 112 (bounce) or anything else (try again). \
        A command is a line for /bin/sh; one that is a path and plain words runs without a shell, and vdelivermail of this \
        installation in a copy of qmail-local, whose name ps then shows.",
    ..Spec::EMPTY
};

/// The program.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

/// One delivery.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Print only.
    pub dry_run: bool,
    /// User name.
    pub user: Vec<u8>,
    /// Home directory.
    pub home: PathBuf,
    /// Local part of the recipient.
    pub local: Vec<u8>,
    /// `-` or nothing.
    pub dash: Vec<u8>,
    /// Extension.
    pub ext: Vec<u8>,
    /// Domain of the recipient.
    pub domain: Vec<u8>,
    /// Envelope sender.
    pub sender: Vec<u8>,
    /// Lines that stand in for a missing or empty dot-qmail file.
    pub default_delivery: Vec<u8>,
    /// Header lines to put before the message.
    pub extra_header: Vec<u8>,
    /// Permission bits that make a file untrusted.
    pub untrusted_bits: u32,
    /// How often the message may have been here; `None`: any number.
    pub max_delivered_to: Option<usize>,
    /// Domains of senders that are taken; `None`: no restriction asked for by the environment.
    pub local_domains: Option<Vec<Vec<u8>>>,
    /// What is forced to the disk.
    pub durability: Durability,
    /// Where our programs are.
    pub layout: Layout,
    /// Variables of the service and of this message.
    pub environment: Environment,
    /// Set in a worker.
    pub(crate) resident: Resident,
}

impl Settings {
    /// A delivery with these nine operands, strict defaults for everything that control files say.
    pub(crate) fn new(operands: &[OsString], layout: &Layout, environment: &Environment) -> Self {
        let bytes = |n: usize| operands.get(n).map(|o| o.as_bytes().to_vec()).unwrap_or_default();
        Self {
            dry_run: false,
            user: bytes(0),
            home: operands.get(1).map(PathBuf::from).unwrap_or_default(),
            local: bytes(2),
            dash: bytes(3),
            ext: bytes(4),
            domain: bytes(5),
            sender: bytes(6),
            default_delivery: bytes(7),
            extra_header: bytes(8),
            untrusted_bits: 0o002,
            max_delivered_to: Some(0),
            local_domains: None,
            durability: crate::durability(environment),
            layout: layout.clone(),
            environment: environment::sanitized(environment),
            resident: None,
        }
    }
}

fn main(invocation: &Invocation) -> Exit {
    let settings = match load(invocation) {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    let end = crate::with_message(|message| deliver(&settings, message));
    say(end.text());
    end.exit()
}

fn load(invocation: &Invocation) -> Result<Settings, Exit> {
    let parsed = invocation.parse()?;
    let mut loader = Loader::new(&invocation.environment);
    let settings = read(invocation, &parsed, &mut loader);
    invocation.finish(loader, settings, Exit::TEMPORARY)
}

fn read(invocation: &Invocation, parsed: &Parsed, loader: &mut Loader<'_>) -> Settings {
    let control = |name| Source { control: Some(name), ..Source::default() };
    let untrusted = loader.bytes("conf-patrn", control("conf-patrn"));
    let untrusted_bits = untrusted.map_or(Some(0o002), |text| {
        let text = std::str::from_utf8(&text).ok()?;
        u32::from_str_radix(text, 8).ok().filter(|bits| *bits <= 0o777)
    });
    if untrusted_bits.is_none() {
        loader.problem("control file conf-patrn: expected permission bits in octal, as in 022");
    }
    let times: i64 =
        loader.parsed("maxdeliveredto", control("maxdeliveredto"), 0, "a number, or -1 for no limit");
    // Read only where asked for, but then an unreadable list must not count as an empty one.
    let list = loader.control().list("localdomains");
    let listed = loader.take(list).unwrap_or_default();
    let wants_local_domains = invocation.environment.is_set("LOCALDOMAINS");
    let settings = Settings::new(&parsed.operands, &invocation.layout, &invocation.environment);
    let in_home = dotqmail::exists(&settings.home, b".localdomains").unwrap_or_else(|e| {
        loader.problem(e);
        false
    });
    Settings {
        dry_run: parsed.in_order().last().is_some_and(|(name, _)| name == "n"),
        untrusted_bits: untrusted_bits.unwrap_or(0o002),
        max_delivered_to: usize::try_from(times).ok(),
        local_domains: (wants_local_domains || in_home).then_some(listed),
        ..settings
    }
}

/// The same in a worker: the exit code of qmail-local and what it would have printed. `None`: a program is
/// needed, or there is something to complain about, which qmail-local does; nothing has been delivered.
pub(crate) fn deliver_here(
    invocation: &Invocation,
    message: &Message,
    resident: &Resident,
) -> Option<(Exit, String)> {
    let parsed = Parsed::read(invocation.spec, &invocation.arguments).ok()?;
    let mut loader = Loader::new(&invocation.environment);
    let settings = read(invocation, &parsed, &mut loader);
    let settings = Settings { resident: resident.clone(), ..loader.finish(settings).ok()? };
    match prepare(&settings, message).and_then(|delivery| delivery.here(&settings, message, resident)) {
        Ok(text) => Some((Exit::OK, text)),
        Err(End::NeedsProgram) => None,
        Err(end) => Some((end.exit(), end.text().to_owned())),
    }
}

/// Delivers; whoever calls this has become the recipient.
#[must_use]
pub fn deliver(settings: &Settings, message: &Message) -> End {
    match try_deliver(settings, message) {
        Ok(summary) => {
            if !settings.dry_run {
                say(&summary);
            }
            End::Done
        }
        Err(end) => end,
    }
}

/// A delivery of which nothing has been done yet.
struct Delivery {
    facts: environment::Facts,
    /// Where the lines come from.
    name: String,
    lines: Vec<Instruction>,
    forwards_only: bool,
}

impl Delivery {
    fn steps(&self, settings: &Settings, message: &Message) -> Result<String, End> {
        steps::Steps::new(settings, message, &self.facts).run(&self.name, &self.lines, self.forwards_only)
    }

    /// Without programs: to Maildirs only, or the one line that makes a domain of accounts.
    fn here(&self, settings: &Settings, message: &Message, resident: &Resident) -> Result<String, End> {
        let mut interpreter = Interpreter::new(&self.lines, self.forwards_only);
        let mut account = None;
        for number in 0.. {
            match interpreter.next_action() {
                Action::Finish => break,
                Action::Maildir(_) if account.is_none() => {}
                Action::Program(line) if number == 0 => {
                    account =
                        Some(shell::vdelivermail(line, &self.facts.environment).ok_or(End::NeedsProgram)?);
                    interpreter.program_ended(shell::Meaning::GoOn);
                }
                _ => return Err(End::NeedsProgram),
            }
        }
        if !interpreter.forwards.is_empty() {
            return Err(End::NeedsProgram);
        }
        let Some(invocation) = account else { return self.steps(settings, message) };
        let (code, text) =
            virtual_delivery::deliver_here(&invocation, message, resident).ok_or(End::NeedsProgram)?;
        match shell::Meaning::of(Ending::Exited(i32::from(code.0))) {
            shell::Meaning::GoOn | shell::Meaning::Stop => {
                let line = if text.is_empty() { String::new() } else { format!("{text}\n") };
                Ok(format!("{line}did 0+0+1"))
            }
            shell::Meaning::Permanent => Err(End::Permanent(text)),
            shell::Meaning::Temporary => Err(End::Temporary(text)),
        }
    }
}

fn try_deliver(settings: &Settings, message: &Message) -> Result<String, End> {
    prepare(settings, message)?.steps(settings, message)
}

fn prepare(settings: &Settings, message: &Message) -> Result<Delivery, End> {
    if unix::Uid::effective().is_root() {
        return Err(End::Temporary("not allowed to deliver mail as root (#4.3.0)".to_owned()));
    }
    unix::host::umask(0o077);
    enter_home(settings)?;
    check_sender(settings)?;
    let not_now = |e: FindError| End::Temporary(format!("{e} (#4.2.1)"));
    let home = Path::new(".");
    let found =
        dotqmail::find(home, &settings.dash, &settings.ext, settings.untrusted_bits).map_err(not_now)?;
    let owner = owner(settings).map_err(not_now)?;
    let default_at = found.as_ref().and_then(|f| f.default_at);
    let facts = environment::Facts::new(settings, owner, default_at);
    check_loop(settings, message, &facts)?;
    let (name, text, forwards_only) = match found {
        None if !settings.dash.is_empty() => {
            return Err(End::Permanent("no mailbox here by that name (#5.1.1)".to_owned()));
        }
        Some(file) if !file.text.is_empty() => {
            (file.path.display().to_string(), file.text, file.forwards_only)
        }
        Some(_) | None => ("defaultdelivery".to_owned(), settings.default_delivery.clone(), false),
    };
    let lines = dotqmail::parse(&text).map_err(|e| End::Temporary(format!("{name}: {e} (#4.2.1)")))?;
    Ok(Delivery { facts, name, lines, forwards_only })
}

fn enter_home(settings: &Settings) -> Result<(), End> {
    let home = settings.home.display();
    let trouble = |e: std::io::Error| End::Temporary(format!("cannot enter the home {home}: {e} (#4.3.0)"));
    std::env::set_current_dir(&settings.home).map_err(trouble)?;
    let mode = std::fs::metadata(".").map_err(trouble)?.permissions().mode();
    if mode & settings.untrusted_bits != 0 {
        return Err(End::Temporary(format!(
            "the home {home} is writable for others; mode {:04o} (#4.7.0)",
            mode & 0o7777
        )));
    }
    if mode & 0o1000 != 0 {
        return Err(End::Temporary(
            "the home is sticky: the user is editing the dot-qmail files (#4.2.1)".to_owned(),
        ));
    }
    Ok(())
}

fn check_sender(settings: &Settings) -> Result<(), End> {
    let Some(domains) = &settings.local_domains else {
        return Ok(());
    };
    let domain = message::Address::from_envelope(&settings.sender).domain.unwrap_or_default();
    if domains.iter().any(|d| d.eq_ignore_ascii_case(&domain)) {
        return Ok(());
    }
    Err(End::Permanent("this address takes mail from local senders only (#5.7.1)".to_owned()))
}

/// Does the recipient have an `-owner` file, and an `-owner-default` file?
fn owner(settings: &Settings) -> Result<environment::Owner, FindError> {
    let safe = dotqmail::safe_extension(&settings.ext);
    let name = |suffix: &[u8]| [&b".qmail"[..], &settings.dash, &safe, suffix].concat();
    let home = Path::new(".");
    Ok(if !dotqmail::exists(home, &name(b"-owner"))? {
        environment::Owner::None
    } else if dotqmail::exists(home, &name(b"-owner-default"))? {
        environment::Owner::PerRecipient
    } else {
        environment::Owner::Plain
    })
}

fn check_loop(settings: &Settings, message: &Message, facts: &environment::Facts) -> Result<(), End> {
    let Some(allowed) = settings.max_delivered_to else {
        return Ok(());
    };
    let times = message
        .count_line(&facts.delivered_to)
        .map_err(|e| End::Temporary(format!("cannot read the message: {e} (#4.3.0)")))?;
    if times > allowed {
        return Err(End::Permanent("the message is looping: it has been here before (#5.4.6)".to_owned()));
    }
    Ok(())
}

/// Bytes as the system's strings.
pub(crate) fn os(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}

/// Bytes as a path.
pub(crate) fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

#[cfg(test)]
pub(crate) mod tests_support {
    use super::*;

    /// A delivery to joe-a@x.y.
    pub(crate) fn settings() -> Settings {
        let operands = ["joe", "/nonexistent", "joe-a", "-", "a", "x.y", "s@t", "./Mailbox", ""];
        Settings::new(&operands.map(OsString::from), &Layout::at("/usr"), &Environment::default())
    }
}
