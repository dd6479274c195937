//! What the daemon is told, and its table.

use std::path::PathBuf;
use std::time::Duration;

use program::{
    Control, ExitCodeDoc, Invocation, Loader, Operands, OptionSpec, Place, Source, Spec, Variable,
};

use crate::throttle;

/// The table of `inlookup`.
pub static SPEC: Spec = Spec {
    name: "inlookup",
    summary: "answer mail and login questions",
    section: 8,
    place: Place::Sbin,
    options: &[
        OptionSpec::value('i', "N", "workers that look accounts up, each with a store connection (default 4)"),
        OptionSpec::value('a', "N", "workers that check passwords, each with a store connection (default 2)"),
        OptionSpec::flag('v', "log every question and how it was answered (never a password)"),
    ],
    operands: Operands { synopsis: "", min: 0, max: Some(0) },
    variables: &[
        Variable { name: "INLOOKUP_SOCKET", help: "the socket to listen on (default /run/indimail/inlookup.sock)" },
        Variable { name: "INLOOKUP_TTL", help: "seconds for which an answer is remembered, 0 to 86400 (default 300)" },
        Variable {
            name: "INLOOKUP_NEGATIVE_TTL",
            help: "seconds for which \"no such account\" is remembered, 0 to 86400 (default 30)",
        },
        Variable { name: "MAX_BTREE_COUNT", help: "the most answers that are remembered (default 65536; 0: none)" },
        Variable {
            name: "INLOOKUP_FAILURES",
            help: "wrong passwords of one account in a window after which it must wait (default 20; 0: no limit)",
        },
        Variable {
            name: "INLOOKUP_HOST_FAILURES",
            help: "wrong passwords from one remote host in a window after which it must wait (default 100; 0: no limit)",
        },
        Variable { name: "INLOOKUP_FAILURE_WINDOW", help: "seconds of that window (default 300)" },
        Variable {
            name: "RELAY_CLEAR_MINUTES",
            help: "minutes for which a login by POP or IMAP allows relaying from its address (default 60)",
        },
        Variable { name: "NOLASTAUTH", help: "when set, logins are not noted in the store" },
        Variable {
            name: "MIN_LOGIN_INTERVAL",
            help: "seconds in which a login of one account by one service from one address is noted once (default 60)",
        },
        Variable {
            name: "OPEN_SMTP",
            help: "when set, a login by IMAP or POP3 allows relaying from its address, unless the account may not relay",
        },
        Variable { name: "DOMAINDIR", help: "home of the mail system, where accounts.sqlite is (default /var/indimail)" },
        Variable { name: "ASSIGNDIR", help: "directory of the domain table users/cdb (default /etc/indimail/users)" },
        Variable { name: "CONTROLDIR", help: "directory of the control files (default /etc/indimail/control)" },
        Variable { name: "SYSCONFDIR", help: "base of a relative CONTROLDIR (default /etc/indimail)" },
        Variable { name: "NOTIFY_SOCKET", help: "where systemd waits for readiness" },
    ],
    controls: &[
        Control { name: "accountstore", help: "where accounts are: sqlite:/path or mysql:" },
        Control { name: "timeoutread", help: "seconds to wait for the store's answer, 1 to 60 (default 4)" },
        Control { name: "timeoutwrite", help: "seconds to wait for the store to take a question, 1 to 60 (default 4)" },
        Control { name: "host.mysql", help: "the database server: host:user:password:socket_or_port" },
        Control { name: "mysql.ca", help: "path of a PEM file with the authority of the server's certificate" },
    ],
    exits: &[
        ExitCodeDoc { code: 0, meaning: "stopped by SIGTERM or SIGINT" },
        ExitCodeDoc { code: 1, meaning: "cannot start: a setting is wrong, or another daemon listens" },
        ExitCodeDoc { code: 2, meaning: "wrong usage" },
    ],
    description: "inlookup keeps the connections to the account store and answers questions about accounts, \
domains and passwords on a Unix socket (mode 0660, group qmail). Password hashes never leave it.

Answers about accounts are remembered for a while, also \"no such account\"; failures of the store never are. \
Passwords are always checked against the store, so a changed password counts at once. The administration tools \
tell the daemon what they changed.

A store that hangs is left alone for two seconds at a time, so that the answer \"cannot tell\" comes at once.

Passwords are checked by workers of their own, so that a flood of logins does not slow lookups down. An unknown \
account costs as much work as a wrong password. After too many wrong passwords of an account, or from a remote \
host, the answer is \"later\" at once, until the window is over; an account's failures do not count against hosts \
from which its owner has logged in within a day, and loopback addresses are not counted as hosts.

SIGHUP forgets remembered answers and failures, SIGUSR1 logs a line of counters, SIGTERM stops.",
    usage_exit: 2,
};

/// Where the choice of the store is written.
#[derive(Debug, Clone)]
pub struct Places {
    /// Control files.
    pub control: control::Directory,
    /// Home of the mail system.
    pub domaindir: PathBuf,
    /// Directory of the domain table.
    pub assigndir: PathBuf,
    /// How long to wait for the store.
    pub timeouts: accounts::Timeouts,
    /// Connections to the store.
    pub connections: usize,
}

impl Places {
    /// Reads what the control files say now.
    ///
    /// # Errors
    /// They cannot be read or make no sense.
    pub fn accounts(&self) -> Result<accounts::Settings, accounts::Unavailable> {
        let mut settings = accounts::Settings::load(&self.control, &self.domaindir, &self.assigndir)?;
        settings.store.timeouts = self.timeouts;
        settings.store.connections = self.connections;
        Ok(settings)
    }
}

/// What the daemon is told.
#[derive(Debug)]
pub struct Settings {
    /// Where the choice of the store is written.
    pub places: Places,
    /// The store of accounts and the domain table.
    pub accounts: accounts::Settings,
    /// The socket to listen on.
    pub socket: PathBuf,
    /// Workers that look accounts up.
    pub workers: usize,
    /// Workers that check passwords.
    pub hashers: usize,
    /// Log every question.
    pub verbose: bool,
    /// How answers are remembered.
    pub cache: CacheSettings,
    /// How failures are limited.
    pub limits: throttle::Limits,
    /// How logins are noted.
    pub notes: NoteSettings,
    /// How long a relay row counts.
    pub relay_lifetime: Duration,
}

/// How logins are noted in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoteSettings {
    /// Are they at all?
    pub enabled: bool,
    /// Not more often than this for one account, service and remote address.
    pub interval: Duration,
    /// Does a login by IMAP or POP3 allow relaying from its address?
    pub open_relay: bool,
}

/// How answers are remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheSettings {
    /// For how long; zero: not at all.
    pub positive: Duration,
    /// For how long "no such account" is; zero: not at all.
    pub negative: Duration,
    /// At most so many answers.
    pub capacity: usize,
}

impl Settings {
    /// Reads options, variables and control files.
    ///
    /// # Errors
    /// The exit code to end with; what is wrong has been printed.
    pub fn load(invocation: &Invocation) -> Result<Self, program::Exit> {
        let parsed = invocation.parse()?;
        let mut loader = Loader::new(&invocation.environment);
        let option =
            |letter| Source { option: parsed.value(letter).map(|v| (letter, v)), ..Source::default() };
        let variable = |name| Source { variable: Some(name), ..Source::default() };
        let control = |name| Source { control: Some(name), ..Source::default() };
        let read = seconds(loader.number("timeout read", control("timeoutread"), 4, 1..=60));
        let write = seconds(loader.number("timeout write", control("timeoutwrite"), 4, 1..=60));
        let workers = count(loader.number("workers", option("i"), 4, 1..=256));
        let hashers = count(loader.number("password workers", option("a"), 2, 1..=256));
        let places = Places {
            // One more for the thread that notes logins.
            connections: workers.saturating_add(hashers).saturating_add(1),
            timeouts: accounts::Timeouts { connect: write, read, write },
            control: loader.control().clone(),
            domaindir: loader.path("domaindir", variable("DOMAINDIR"), "/var/indimail"),
            assigndir: loader.path("assigndir", variable("ASSIGNDIR"), "/etc/indimail/users"),
        };
        let accounts = match places.accounts() {
            Ok(accounts) => accounts,
            Err(why) => {
                loader.problem(why);
                accounts::Settings {
                    store: accounts::StoreSettings::sqlite("/nonexistent"),
                    assign_dir: places.assigndir.clone(),
                }
            }
        };
        let source = loader.source(&[], &["accountstore", "host.mysql", "mysql.ca"]);
        loader.show("account store", accounts.store.describe(), source);
        let settings = Self {
            places,
            accounts,
            socket: loader.path("socket", variable("INLOOKUP_SOCKET"), lookup::mail::DEFAULT_SOCKET),
            workers,
            hashers,
            verbose: parsed.flag("v"),
            cache: CacheSettings {
                positive: seconds(loader.number("ttl", variable("INLOOKUP_TTL"), 300, 0..=86_400)),
                negative: seconds(loader.number(
                    "negative ttl",
                    variable("INLOOKUP_NEGATIVE_TTL"),
                    30,
                    0..=86_400,
                )),
                capacity: count(loader.number(
                    "remembered answers",
                    variable("MAX_BTREE_COUNT"),
                    65_536,
                    0..=10_000_000,
                )),
            },
            limits: throttle::Limits {
                account: small(loader.number(
                    "account failures",
                    variable("INLOOKUP_FAILURES"),
                    20,
                    0..=1_000_000,
                )),
                host: small(loader.number(
                    "host failures",
                    variable("INLOOKUP_HOST_FAILURES"),
                    100,
                    0..=1_000_000,
                )),
                window: seconds(loader.number(
                    "failure window",
                    variable("INLOOKUP_FAILURE_WINDOW"),
                    300,
                    1..=86_400,
                )),
            },
            notes: NoteSettings {
                enabled: !invocation.environment.is_set("NOLASTAUTH"),
                interval: seconds(loader.number(
                    "login interval",
                    variable("MIN_LOGIN_INTERVAL"),
                    60,
                    0..=86_400,
                )),
                open_relay: invocation.environment.is_set("OPEN_SMTP"),
            },
            relay_lifetime: seconds(
                60 * loader.number("relay minutes", variable("RELAY_CLEAR_MINUTES"), 60, 1..=100_000),
            ),
        };
        let (noted, opened) = (loader.source(&["NOLASTAUTH"], &[]), loader.source(&["OPEN_SMTP"], &[]));
        loader.show("logins noted", settings.notes.enabled, noted);
        loader.show("logins open the relay", settings.notes.open_relay, opened);
        invocation.finish(loader, settings, program::Exit(1))
    }
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn count(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

fn small(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
