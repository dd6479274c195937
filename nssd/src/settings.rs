//! What the daemon is told: the table, the options, `nssd.conf`.

use std::ffi::OsStr;
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use lookup::identity::is_clean;
use program::{
    Control, Exit, ExitCodeDoc, Invocation, Loader, Operands, OptionSpec, Place, Source, Spec, Variable,
};

use crate::answers::{Lifetimes, Rules};
use crate::conf::{self, Bad, Entry};
use crate::local::LocalIds;
use crate::log::Level;
use crate::policy::Policy;
use crate::published::MapSettings;

/// Where `nssd.conf` is unless `-f` names another file; below SYSCONFDIR.
const FILE: &str = "nssd.conf";

/// The table of `nssd`.
pub static SPEC: Spec = Spec {
    name: "nssd",
    summary: "answer who is who among the mail accounts",
    section: 8,
    place: Place::Sbin,
    options: &[
        OptionSpec::value('f', "FILE", "read this file instead of /etc/indimail/nssd.conf; it must exist"),
        OptionSpec::value('d', "LEVEL", "log down to this level: error, warning, notice or debug (default notice)"),
        OptionSpec::long_flag("check-config", "say what is wrong with the configuration and end"),
    ],
    operands: Operands { synopsis: "", min: 0, max: Some(0) },
    variables: &[
        Variable { name: "NSSD_SOCKET", help: "the socket to listen on (default /run/indimail/nssd.sock)" },
        Variable { name: "SYSCONFDIR", help: "directory of nssd.conf (default /etc/indimail)" },
        Variable { name: "CONTROLDIR", help: "directory of the control files (default /etc/indimail/control)" },
        Variable { name: "ASSIGNDIR", help: "directory of the domain table (default /etc/indimail/users)" },
        Variable { name: "DOMAINDIR", help: "directory of the SQLite store (default /var/indimail)" },
        Variable { name: "READY_FD", help: "number of a descriptor that gets a newline when the daemon is ready" },
        Variable { name: "NOTIFY_SOCKET", help: "where systemd waits for readiness" },
    ],
    controls: &[
        Control { name: "accountstore", help: "where accounts are: sqlite:/path or mysql:" },
        Control { name: "host.mysql", help: "the database server: host:user:password:socket_or_port" },
        Control { name: "mysql.ca", help: "path of a PEM file with the authority of the server's certificate" },
    ],
    exits: &[
        ExitCodeDoc { code: 0, meaning: "stopped by SIGTERM or SIGINT; the configuration is right" },
        ExitCodeDoc { code: 1, meaning: "cannot start: a setting is wrong, or another daemon listens" },
        ExitCodeDoc { code: 2, meaning: "wrong usage" },
    ],
    description: "nssd answers questions about users and groups on a Unix socket (mode 0666). The module \
libnss_indimail.so.2 asks it when nsswitch.conf names indimail: passwd: files indimail; group: files indimail; \
shadow: files indimail. Keep indimail the last service of each line.

An account is the user USER@DOMAIN, a domain is the group DOMAIN. The password field is x. An account that is \
switched off or may not log in to hosts has the shell /usr/sbin/nologin. Shadow records are for root. A store that \
is away is reported as a temporary failure and never as an unknown user.

nssd.conf has lines of key and value. A # in the first column begins a comment, a backslash at the end continues a \
line. A key that is not known is a warning. The keys:

shell PATH: shell of accounts that may log in (default /usr/sbin/nologin; /bin/sh lets them log in).

minimum_uid N: users and groups with a lower id do not exist; 0 itself never does (default 500).

local_ids refuse|allow: whether an account may have the id or name of a user or group in /etc/passwd or /etc/group, the ids of \
the mail system apart (default refuse; read at the start and on SIGHUP).

shadow_hashes yes|no: put password hashes into shadow records, which root alone can read (default no: *, so that \
pam_unix knows the account and pam_multi checks the password).

enumeration off|root|all: who may list all users and groups (default root).

positive_ttl SECONDS, negative_ttl SECONDS: how long an answer, and a no, is remembered (default 300 and 20; 0: not).

cache_size N: the most answers that are remembered (default 65536).

threads N: workers, each with a store connection, 1 to 64 (default 5).

timeout MILLISECONDS: a question that is not answered by then gets a temporary failure, 50 to 30000 (default 800; \
below the time that the module waits).

max_connections N: connections at a time, 16 to 65536 (default 4096).

map on|off: whether the public records of all users and groups (never shadow records) are published in a file beside the socket, \
/run/indimail/nssd.map, that the module reads in place of asking (default on). Changes by the account commands are seen at \
once, also in programs that run.

map_refresh SECONDS: how often the store is read again for changes that nobody announced, those made with other SQL \
clients say, 5 to 86400 (default 300). Until then the map has the old state, also for a name that is new.

map_limit SECONDS: for how long the map counts after the last time it was compared with the store, also without nssd, 60 to 2592000 \
(default 86400). Without nssd, only users that are found in it are answered for; other questions are temporary failures.

SIGHUP reads the file again, forgets what is remembered and builds the map anew (threads, timeout, max_connections and the map keys \
need a restart). \
SIGUSR1 logs counters. SIGTERM stops.",
    usage_exit: 2,
};

/// What the daemon is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The socket to listen on.
    pub socket: PathBuf,
    /// Lines below this level are not logged.
    pub level: Level,
    /// Worker threads.
    pub threads: usize,
    /// How long a question may take.
    pub timeout: Duration,
    /// Connections at a time.
    pub max_connections: usize,
    /// What a reload changes.
    pub rules: Rules,
    /// Where accounts are.
    pub accounts: accounts::Settings,
    /// The map; `None`: there is none.
    pub map: Option<MapSettings>,
    /// Gets a newline when the daemon is ready.
    pub ready_descriptor: Option<i32>,
}

/// What to do.
#[derive(Debug)]
pub enum Task {
    /// Serve.
    Serve(Box<Settings>),
    /// The configuration was to be checked, and is right.
    Checked,
}

/// Reads options, variables, `nssd.conf` and control files.
///
/// # Errors
/// The exit code to end with; what is wrong has been printed.
pub fn load(invocation: &Invocation) -> Result<Task, Exit> {
    let parsed = invocation.parse()?;
    let mut loader = Loader::new(&invocation.environment);
    let level = parsed.value("d").map(|v| ("d", v));
    let level = Source { option: level, ..Source::default() };
    let level =
        loader.parsed("level", level, Level::Notice, "a syslog level: error, warning, notice or debug");
    let mut reading = Reading { file: file(&mut loader, parsed.value("f")), loader, warnings: Vec::new() };
    let settings = reading.settings(level);
    let Reading { loader, warnings, .. } = reading;
    warnings.iter().for_each(|w| invocation.complain("warning", w));
    let settings = invocation.finish(loader, settings, Exit(1))?;
    match settings {
        Some(settings) if !parsed.flag("check-config") => Ok(Task::Serve(Box::new(settings))),
        _ => Ok(Task::Checked),
    }
}

/// `nssd.conf` as read.
struct File {
    path: PathBuf,
    entries: Vec<Result<Entry, Bad>>,
}

fn file(loader: &mut Loader<'_>, option: Option<&OsStr>) -> File {
    let environment = loader.environment();
    let sysconfdir =
        environment.get("SYSCONFDIR").filter(|v| !v.is_empty()).unwrap_or("/etc/indimail".as_ref());
    let path = option.map_or_else(|| Path::new(sysconfdir).join(FILE), PathBuf::from);
    let entries = match std::fs::read(&path) {
        Ok(text) => conf::parse(&text),
        Err(e) if e.kind() == io::ErrorKind::NotFound && option.is_none() => Vec::new(),
        Err(e) => {
            loader.problem(format!("{}: {e}", path.display()));
            Vec::new()
        }
    };
    File { path, entries }
}

/// Keys that the original's file has and that mean nothing here.
const FORMER: [&str; 18] = [
    "getpwnam",
    "getpwuid",
    "getpwent",
    "getspnam",
    "getspent",
    "getgrnam",
    "getgrgid",
    "getgrent",
    "memsbygid",
    "gidsbymem",
    "host",
    "database",
    "username",
    "password",
    "socket",
    "port",
    "pidfile",
    "facility",
];

/// What `timeout` was set to when a wait was to have no end.
const NO_LIMIT: [&[u8]; 2] = [b"-1", b"0"];

const KEYS: [&str; 14] = [
    "shell",
    "minimum_uid",
    "local_ids",
    "shadow_hashes",
    "enumeration",
    "positive_ttl",
    "negative_ttl",
    "cache_size",
    "threads",
    "timeout",
    "max_connections",
    "map",
    "map_refresh",
    "map_limit",
];

struct Reading<'a> {
    file: File,
    loader: Loader<'a>,
    warnings: Vec<String>,
}

impl Reading<'_> {
    /// `None` when the account settings cannot be read, which is then a problem.
    fn settings(&mut self, level: Level) -> Option<Settings> {
        self.check_lines();
        let default = Policy::default();
        let local = self.value("local_ids", LocalPolicy::Refuse, "refuse or allow");
        let local = match local {
            LocalPolicy::Allow => Ok(LocalIds::default()),
            LocalPolicy::Refuse => LocalIds::read(),
        };
        let local = local.unwrap_or_else(|e| {
            self.loader.problem(e);
            LocalIds::default()
        });
        let policy = Policy {
            shell: self.shell(default.shell),
            minimum_id: small(self.number("minimum_uid", default.minimum_id.into(), 0..=u32::MAX.into())),
            shadow_hashes: self.value("shadow_hashes", YesNo(default.shadow_hashes), "yes or no").0,
            enumeration: self.value("enumeration", default.enumeration, "off, root or all"),
            local,
        };
        let lifetimes = Lifetimes {
            positive: Duration::from_secs(self.number("positive_ttl", 300, 0..=86_400)),
            negative: Duration::from_secs(self.number("negative_ttl", 20, 0..=86_400)),
            capacity: count(self.number("cache_size", 65_536, 0..=10_000_000)),
        };
        let threads = count(self.number("threads", 5, 1..=64));
        let timeout = Duration::from_millis(self.number("timeout", 800, 50..=30_000));
        let max_connections = count(self.number("max_connections", 4096, 16..=65_536));
        let map = self.value("map", OnOff(true), "on or off").0;
        let refresh = Duration::from_secs(self.number("map_refresh", 300, 5..=86_400));
        let limit = Duration::from_secs(self.number("map_limit", 86_400, 60..=2_592_000));
        let loader = &mut self.loader;
        let variable = |name| Source { variable: Some(name), ..Source::default() };
        let socket = loader.path("socket", variable("NSSD_SOCKET"), lookup::identity::DEFAULT_SOCKET);
        let assign = loader.path("domain table", variable("ASSIGNDIR"), "/etc/indimail/users");
        let domains = loader.path("domains", variable("DOMAINDIR"), "/var/indimail");
        let ready = match loader.environment().bytes("READY_FD").filter(|v| !v.is_empty()) {
            Some(_) => loader.number("ready descriptor", variable("READY_FD"), 0, 0..=1_000_000),
            None => {
                loader.show("ready descriptor", "none", "default");
                0
            }
        };
        let mut accounts = match accounts::Settings::load(loader.control(), &domains, &assign) {
            Ok(accounts) => accounts,
            Err(e) => {
                loader.problem(e);
                return None;
            }
        };
        let source = loader.source(&[], &["accountstore", "host.mysql", "mysql.ca"]);
        loader.show("store", accounts.store.describe(), source);
        // A store that hangs must not hold a worker much longer than anybody waits for it.
        accounts.store.timeouts.connect = timeout.min(accounts.store.timeouts.connect);
        accounts.store.timeouts.read = timeout.min(accounts.store.timeouts.read);
        accounts.store.connections = connections(threads);
        let path = lookup::conf::map_beside(&socket);
        loader.show("map file", path.display(), "default");
        Some(Settings {
            socket,
            level,
            threads,
            timeout,
            max_connections,
            rules: Rules { policy, lifetimes },
            accounts,
            map: map.then_some(MapSettings { path, refresh, limit }),
            ready_descriptor: i32::try_from(ready).ok().filter(|&fd| fd > 2),
        })
    }

    fn check_lines(&mut self) {
        let path = self.file.path.display();
        for entry in &self.file.entries {
            match entry {
                Err(bad) => self.loader.problem(format!("{path}:{}: {}", bad.line, bad.why)),
                Ok(entry) => {
                    let known = |table: &[&str]| table.iter().any(|k| k.as_bytes() == entry.key);
                    let key = entry.key.escape_ascii();
                    if entry.key == b"timeout" && NO_LIMIT.contains(&entry.value.as_slice()) {
                        self.warnings.push(format!(
                            "{path}:{}: timeout {}: no longer used: every wait has a limit, here the default",
                            entry.line,
                            entry.value.escape_ascii()
                        ));
                    } else if known(&FORMER) || entry.key == b"priority" {
                        self.warnings.push(format!(
                            "{path}:{}: {key}: no longer used: accounts come from the account store (control file accountstore)",
                            entry.line
                        ));
                    } else if !known(&KEYS) {
                        self.warnings.push(format!("{path}:{}: {key}: unknown key, passed over", entry.line));
                    }
                }
            }
        }
    }

    /// The last line with this key.
    fn line(&self, key: &str) -> Option<(Vec<u8>, String)> {
        let mut entries = self.file.entries.iter().flatten().rev();
        let entry = entries.find(|e| e.key == key.as_bytes())?;
        if key == "timeout" && NO_LIMIT.contains(&entry.value.as_slice()) {
            return None;
        }
        Some((entry.value.clone(), format!("{}:{}", self.file.path.display(), entry.line)))
    }

    fn value<T: FromStr + Display>(&mut self, key: &str, default: T, expected: &str) -> T {
        let Some((value, place)) = self.line(key) else {
            self.loader.show(key, &default, "default");
            return default;
        };
        match std::str::from_utf8(&value).ok().and_then(|v| v.parse().ok()) {
            Some(value) => {
                self.loader.show(key, &value, place);
                value
            }
            None => {
                self.loader.problem(format!("{place}: {key} {}: expected {expected}", value.escape_ascii()));
                default
            }
        }
    }

    fn number(&mut self, key: &str, default: u64, range: std::ops::RangeInclusive<u64>) -> u64 {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        let value = self.value(key, default, &expected);
        if range.contains(&value) {
            return value;
        }
        let place = self.line(key).map(|(_, place)| place).unwrap_or_default();
        self.loader.problem(format!("{place}: {key} {value}: expected {expected}"));
        default
    }

    fn shell(&mut self, default: Vec<u8>) -> Vec<u8> {
        let Some((value, place)) = self.line("shell") else {
            self.loader.show("shell", default.escape_ascii(), "default");
            return default;
        };
        if value.starts_with(b"/") && value.len() <= 128 && is_clean(&value) {
            self.loader.show("shell", value.escape_ascii(), place);
            return value;
        }
        let shown = value.escape_ascii();
        self.loader
            .problem(format!("{place}: shell {shown}: expected an absolute path of at most 128 bytes"));
        default
    }
}

/// What about ids that are taken?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LocalPolicy {
    Refuse,
    Allow,
}

impl FromStr for LocalPolicy {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        match word {
            "refuse" => Ok(Self::Refuse),
            "allow" => Ok(Self::Allow),
            _ => Err(()),
        }
    }
}

impl Display for LocalPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Refuse => "refuse",
            Self::Allow => "allow",
        })
    }
}

struct YesNo(bool);

impl FromStr for YesNo {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        match word {
            "yes" => Ok(Self(true)),
            "no" => Ok(Self(false)),
            _ => Err(()),
        }
    }
}

impl Display for YesNo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0 { "yes" } else { "no" })
    }
}

struct OnOff(bool);

impl FromStr for OnOff {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        match word {
            "on" => Ok(Self(true)),
            "off" => Ok(Self(false)),
            _ => Err(()),
        }
    }
}

impl Display for OnOff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0 { "on" } else { "off" })
    }
}

/// Connections to the store: one for each worker, and one for the map.
pub(crate) fn connections(workers: usize) -> usize {
    workers.saturating_add(1)
}

fn count(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

fn small(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
