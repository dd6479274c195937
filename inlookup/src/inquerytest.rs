//! `inquerytest`: asks the daemon one question and prints the answer.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lookup::mail::{Client, Counters, Mailbox, UserStatus, Verdict};
use lookup::{Key, Unavailable};
use program::{
    Exit, ExitCodeDoc, Invocation, Loader, Operands, OptionSpec, Place, Program, Source, Spec, Variable,
};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

/// The program `inquerytest`.
pub const PROGRAM: Program = Program { spec: &SPEC, main: run };

/// Bytes of a password that are read, at most.
const MAX_PASSWORD: usize = 4096;
/// Nobody waits longer for an answer, in seconds, unless told otherwise.
const PATIENCE: u64 = 5;

/// The question was answered with yes.
const YES: Exit = Exit(0);
/// No such thing, or refused.
const NO: Exit = Exit(1);
/// Wrong usage.
const USAGE: Exit = Exit(2);
/// The daemon cannot tell.
const TEMPORARY: Exit = Exit(75);

static SPEC: Spec = Spec {
    name: "inquerytest",
    summary: "ask inlookup a question",
    section: 8,
    place: Place::Bin,
    options: &[
        OptionSpec::value(
            'q',
            "TYPE",
            "the question: 1 user, 2 relay, 3 mailbox, 5 alias, 7 domain, 8 authenticate, or account, status, flush; by number or name",
        ),
        OptionSpec::value('s', "PATH", "the daemon's socket (default: INLOOKUP_SOCKET)"),
        OptionSpec::value('t', "SECONDS", "how long to wait for an answer, 1 to 600 (default 5)"),
        OptionSpec::flag('v', "also print how long the answer took, on stderr"),
        OptionSpec::long_flag("json", "print the answer as one JSON object"),
        OptionSpec::long_value(
            "password-fd",
            "N",
            "for authenticate: descriptor to read the password from (default 0)",
        ),
        OptionSpec::long_value(
            "service",
            "NAME",
            "for authenticate and account: the service (default login)",
        ),
    ],
    operands: Operands { synopsis: "[address [ip]]", min: 0, max: Some(2) },
    variables: &[Variable {
        name: "INLOOKUP_SOCKET",
        help: "the daemon's socket (default /run/indimail/inlookup.sock)",
    }],
    controls: &[],
    exits: &[
        ExitCodeDoc { code: 0, meaning: "found, allowed, granted" },
        ExitCodeDoc { code: 1, meaning: "not found, not allowed, refused" },
        ExitCodeDoc { code: 2, meaning: "wrong usage" },
        ExitCodeDoc { code: 75, meaning: "the daemon cannot tell, or cannot be reached" },
    ],
    description: "inquerytest asks one question and prints the answer, one value a line. The address of a \
domain question is a bare domain. For relay the ip is the client's; for authenticate it is the remote host.

flush makes the daemon forget what it remembers about an address, a domain or, without one, everything.

Types 4 (host) and 6 (limits) of older versions are not answered by this inlookup.",
    usage_exit: 2,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    User,
    Relay,
    Mailbox,
    Alias,
    Domain,
    Authenticate,
    Account,
    Status,
    Flush,
}

impl Question {
    const NAMES: [(&'static str, &'static str, Self); 9] = [
        ("1", "user", Self::User),
        ("2", "relay", Self::Relay),
        ("3", "mailbox", Self::Mailbox),
        ("5", "alias", Self::Alias),
        ("7", "domain", Self::Domain),
        ("8", "authenticate", Self::Authenticate),
        ("account", "account", Self::Account),
        ("status", "status", Self::Status),
        ("flush", "flush", Self::Flush),
    ];

    fn read(text: &OsStr) -> Option<Self> {
        Self::NAMES.iter().find(|(number, name, _)| text == *number || text == *name).map(|(_, _, q)| *q)
    }

    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, _, q)| *q == self).map_or("", |(_, name, _)| name)
    }
}

#[derive(Debug)]
struct Settings {
    question: Question,
    socket: PathBuf,
    patience: Duration,
    verbose: bool,
    json: bool,
    password_fd: i32,
    service: Vec<u8>,
    address: Vec<u8>,
    ip: Vec<u8>,
}

impl Settings {
    fn load(invocation: &Invocation) -> Result<Self, Exit> {
        let parsed = invocation.parse()?;
        let mut loader = Loader::new(&invocation.environment);
        let option = |name| Source { option: parsed.value(name).map(|v| (name, v)), ..Source::default() };
        let question = match parsed.value("q").map(|text| (text, Question::read(text))) {
            Some((_, Some(question))) => question,
            Some((text, None)) => {
                loader.problem(format!(
                    "option -q: {}: expected 1 user, 2 relay, 3 mailbox, 5 alias, 7 domain, 8 authenticate, account, status or flush",
                    text.display()
                ));
                Question::Status
            }
            None if invocation.shows_settings() => Question::Status,
            None => {
                loader.problem("option -q is missing: it says what to ask");
                Question::Status
            }
        };
        loader.show("question", question.name(), parsed.source(&["q"]));
        let operand = |n: usize| parsed.operands.get(n).map_or(Vec::new(), |o| o.as_bytes().to_vec());
        let (address, ip) = (operand(0), operand(1));
        let asks = !invocation.shows_settings();
        if asks && address.is_empty() && !matches!(question, Question::Status | Question::Flush) {
            loader.problem(format!("{} needs an address", question.name()));
        }
        if asks && ip.is_empty() && question == Question::Relay {
            loader.problem("relay needs an address and an ip");
        }
        let password_fd = loader.number("password descriptor", option("password-fd"), 0, 0..=1023);
        let socket = Source { variable: Some("INLOOKUP_SOCKET"), ..option("s") };
        let settings = Self {
            question,
            socket: loader.path("socket", socket, lookup::mail::DEFAULT_SOCKET),
            patience: Duration::from_secs(loader.number("patience", option("t"), PATIENCE, 1..=600)),
            verbose: parsed.flag("v"),
            json: parsed.flag("json"),
            password_fd: i32::try_from(password_fd).unwrap_or(0),
            service: loader.bytes("service", option("service")).unwrap_or_else(|| b"login".to_vec()),
            address,
            ip,
        };
        invocation.finish(loader, settings, USAGE)
    }
}

fn run(invocation: &Invocation) -> Exit {
    let settings = match Settings::load(invocation) {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    let password = match settings.question {
        Question::Authenticate => match read_password(settings.password_fd) {
            Ok(password) => password,
            Err(why) => {
                invocation.complain("fatal", format!("descriptor {}: {why}", settings.password_fd));
                return USAGE;
            }
        },
        _ => Zeroizing::default(),
    };
    let start = Instant::now();
    let told = ask(&settings, &password);
    if settings.verbose {
        invocation
            .complain("status", format!("{} answered in {:.1?}", settings.question.name(), start.elapsed()));
    }
    let answer = match told {
        Ok(answer) => answer,
        Err(why) => {
            invocation.complain("fatal", format!("{}: {why}", settings.socket.display()));
            return TEMPORARY;
        }
    };
    let text = if settings.json { format!("{}\n", Value::Object(answer.json())) } else { answer.text() };
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => answer.exit,
        Err(why) => {
            invocation.complain("fatal", format!("standard output: {why}"));
            TEMPORARY
        }
    }
}

/// The password up to its end or a newline.
fn read_password(fd: i32) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let Some(fd) = unix::fd::inherited(fd) else {
        return Err(std::io::Error::other("not open; give the password on it with --password-fd"));
    };
    let mut bytes =
        Zeroizing::new(unix::fd::read_to_end_limited(&mut std::fs::File::from(fd), MAX_PASSWORD)?);
    let end = bytes.iter().position(|&b| b == b'\n').unwrap_or(bytes.len());
    bytes.truncate(end);
    Ok(bytes)
}

/// An answer ready to be printed: rows in order, values as bytes.
struct Printed {
    exit: Exit,
    outcome: &'static str,
    rows: Vec<(String, Vec<Vec<u8>>)>,
}

impl Printed {
    fn new(exit: Exit, outcome: &'static str) -> Self {
        Self { exit, outcome, rows: Vec::new() }
    }

    fn row(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.rows.push((name.to_owned(), vec![value.as_ref().to_vec()]));
        self
    }

    fn list(mut self, name: &str, values: &[Vec<u8>]) -> Self {
        self.rows.push((name.to_owned(), values.to_vec()));
        self
    }

    fn mailbox(self, mailbox: &Mailbox) -> Self {
        let limit = |n: Option<u64>| n.map_or_else(|| "none".to_owned(), |n| n.to_string());
        let printed = self
            .row("address", &mailbox.address)
            .row("uid", mailbox.uid.to_string())
            .row("gid", mailbox.gid.to_string())
            .row("home", &mailbox.home)
            .row("gecos", &mailbox.gecos)
            .row("quota-bytes", limit(mailbox.quota.bytes))
            .row("quota-messages", limit(mailbox.quota.messages))
            .row("flags", format!("{:#x}", mailbox.flags))
            .row("active", mailbox.active.to_string())
            .row("alias-only", mailbox.alias_only.to_string());
        printed.list("aliases", &mailbox.aliases)
    }

    fn counters(mut self, rows: Counters) -> Self {
        self.rows.extend(rows.into_iter().map(|(n, v)| (n.escape_ascii().to_string(), vec![v])));
        self
    }

    fn text(&self) -> String {
        let mut text = format!("{}\n", self.outcome);
        for (name, values) in &self.rows {
            for value in values {
                let _ = writeln!(text, "{name} {}", value.escape_ascii());
            }
        }
        text
    }

    fn json(&self) -> Map<String, Value> {
        let mut map = Map::new();
        map.insert("answer".to_owned(), json!(self.outcome));
        let string = |v: &Vec<u8>| json!(String::from_utf8_lossy(v));
        for (name, values) in &self.rows {
            let value = match (name.as_str(), values.as_slice()) {
                ("aliases", all) => Value::Array(all.iter().map(string).collect()),
                (_, [one]) => string(one),
                (_, all) => Value::Array(all.iter().map(string).collect()),
            };
            map.insert(name.clone(), value);
        }
        map
    }
}

fn ask(settings: &Settings, password: &[u8]) -> Result<Printed, Unavailable> {
    let mut client = Client::new(&settings.socket, settings.patience);
    let (address, ip, service) = (&settings.address, &settings.ip, &settings.service);
    let absent = || Printed::new(NO, "absent");
    Ok(match settings.question {
        Question::User => match client.user(address)? {
            UserStatus::Found => Printed::new(YES, "found"),
            UserStatus::Absent => absent(),
            UserStatus::Inactive => Printed::new(YES, "inactive"),
            UserStatus::OverQuota => Printed::new(YES, "over quota"),
            UserStatus::Alias => Printed::new(YES, "alias"),
        },
        Question::Relay if client.relay(address, ip)? => Printed::new(YES, "allowed"),
        Question::Relay => Printed::new(NO, "not allowed"),
        Question::Mailbox => match client.mailbox(address)? {
            Some(mailbox) => Printed::new(YES, "found").mailbox(&mailbox),
            None => absent(),
        },
        Question::Alias => match client.mailbox(address)? {
            Some(mailbox) if !mailbox.aliases.is_empty() => {
                Printed::new(YES, "found").list("aliases", &mailbox.aliases)
            }
            _ => absent(),
        },
        Question::Domain => match client.domain(address)? {
            Some(real) => Printed::new(YES, "found").row("domain", real),
            None => absent(),
        },
        Question::Authenticate => verdict(client.authenticate(address, password, service, ip)?),
        Question::Account => verdict(client.account(address, service)?),
        Question::Status => Printed::new(YES, "running").counters(client.status()?),
        Question::Flush => {
            client.flush(key(address))?;
            Printed::new(YES, "done")
        }
    })
}

fn key(name: &[u8]) -> Key<'_> {
    match name {
        [] => Key::All,
        _ if name.contains(&b'@') => Key::Address(name),
        _ => Key::Domain(name),
    }
}

fn verdict(verdict: Verdict) -> Printed {
    let outcome = match verdict {
        Verdict::Granted(mailbox) => return Printed::new(YES, "granted").mailbox(&mailbox),
        Verdict::Absent => "absent",
        Verdict::Wrong => "wrong",
        Verdict::Disabled => "disabled",
        Verdict::Expired => "expired",
        Verdict::PasswordExpired => "password expired",
        Verdict::Later => "later",
    };
    Printed::new(NO, outcome)
}
