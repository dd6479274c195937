//! Everything tcpserver is told at its start.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use control::Directory;
use program::{Environment, Exit, Invocation, Loader, Parsed, Source};
use unix::{Gid, Uid, ids};

/// Most connections that can be asked for.
const MAX_CONNECTIONS: u64 = 1_000_000;

/// How much is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Fatal errors.
    Quiet,
    /// All errors.
    Errors,
    /// Each step.
    Status,
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A host name, an address, or nothing for all; and a port number or service name.
    Tcp {
        /// Host.
        host: String,
        /// Port.
        port: String,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

/// The limit of connections, which may be read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Limit {
    /// A number.
    Fixed(usize),
    /// A control file.
    File(Directory, String),
}

/// The limit when a control file does not exist or holds no number.
pub const DEFAULT_LIMIT: usize = 40;

impl Limit {
    /// The number now.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self) -> Result<usize, control::Error> {
        match self {
            Self::Fixed(n) => Ok(*n),
            Self::File(directory, name) => {
                let number = directory.number(name)?;
                Ok(number.map_or(DEFAULT_LIMIT, |n| {
                    usize::try_from(n.min(MAX_CONNECTIONS)).unwrap_or(DEFAULT_LIMIT)
                }))
            }
        }
    }
}

/// Rules for clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The database.
    pub path: PathBuf,
    /// Allow everybody while it does not exist?
    pub optional: bool,
}

/// What is asked about a client before the program starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lookups {
    /// Its name.
    pub host: bool,
    /// Does the name have to lead back?
    pub paranoid: bool,
    /// Its user, and how long to wait for the answer.
    pub info: Option<Duration>,
    /// Our own name.
    pub local_host: bool,
}

impl Lookups {
    /// Is anything asked at all?
    #[must_use]
    pub fn any(self) -> bool {
        self.host || self.local_host || self.info.is_some()
    }
}

/// Who to become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User.
    pub uid: Uid,
    /// Group.
    pub gid: Gid,
    /// All groups.
    pub groups: Vec<Gid>,
}

/// The settings.
#[derive(Debug)]
pub struct Settings {
    /// Where to listen.
    pub address: Address,
    /// What to run.
    pub command: Vec<OsString>,
    /// How much to print.
    pub verbosity: Verbosity,
    /// Connections at a time.
    pub limit: Limit,
    /// Connections of one client; 0: no limit.
    pub per_client: usize,
    /// Connections that wait.
    pub backlog: u32,
    /// Rules.
    pub rules: Option<Rules>,
    /// Written to each connection.
    pub banner: Option<Vec<u8>>,
    /// Who to become.
    pub identity: Option<Identity>,
    /// Print the port?
    pub print_port: bool,
    /// IPv4 only?
    pub only_v4: bool,
    /// Keep the IPv6 form of IPv4 clients?
    pub force_v6: bool,
    /// Clear IP options?
    pub kill_options: bool,
    /// TCP_NODELAY?
    pub no_delay: bool,
    /// TCPLOCALHOST.
    pub local_host: Option<String>,
    /// Lookups.
    pub lookups: Lookups,
    /// A file for the process id.
    pub pid_file: Option<PathBuf>,
    /// Where to say that it is ready.
    pub notify_socket: Option<PathBuf>,
    /// The environment for programs.
    pub environment: Environment,
}

/// Reads the command line and the variables.
///
/// # Errors
/// The exit code to end with.
pub fn load(invocation: &Invocation) -> Result<Settings, Exit> {
    let parsed = invocation.parse()?;
    let mut loader = Loader::new(&invocation.environment);
    let (address, command) = operands(&parsed, &mut loader);
    let option = |letter| Source { option: parsed.value(letter).map(|v| (letter, v)), ..Source::default() };
    let limit = limit(parsed.value("c"), &mut loader);
    // Here the variable counts more than the option.
    let from = match loader.environment().get("MAXPERIP").is_some_and(|v| !v.is_empty()) {
        true => Source { variable: Some("MAXPERIP"), ..Source::default() },
        false => option("C"),
    };
    let per_client = loader.number("per_client", from, 20, 0..=MAX_CONNECTIONS);
    let backlog = loader.number("backlog", option("b"), 20, 0..=65_535);
    let wait = Duration::from_secs(loader.number("ident_timeout", option("t"), 26, 1..=3600));
    let path = |letter: &str| parsed.value(letter).map(PathBuf::from);
    let rules = path("x").map(|path| Rules { path, optional: parsed.flag("X") });
    let local_host = parsed.value("l").map(|l| l.to_string_lossy().into_owned());
    // In each pair the last one counts.
    let last = |on: &str, off: &str, default: bool| {
        parsed.in_order().filter(|(o, _)| *o == on || *o == off).last().map_or(default, |(o, _)| o == on)
    };
    let tcp = matches!(address, Address::Tcp { .. });
    let lookups = Lookups {
        host: tcp && last("h", "H", true),
        paranoid: last("p", "P", false),
        info: (tcp && last("r", "R", true)).then_some(wait),
        local_host: tcp && local_host.is_none(),
    };
    let verbosity = match parsed.in_order().filter(|(o, _)| ["q", "Q", "v"].contains(o)).last() {
        Some(("q", _)) => Verbosity::Quiet,
        Some(("v", _)) => Verbosity::Status,
        _ => Verbosity::Errors,
    };
    let identity = identity(&parsed, &mut loader);
    let mut environment = invocation.environment.clone();
    // The programs are not the ones to report readiness.
    environment.remove("NOTIFY_SOCKET");
    let settings = Settings {
        address,
        command,
        verbosity,
        limit,
        per_client: usize::try_from(per_client).unwrap_or(usize::MAX),
        backlog: u32::try_from(backlog).unwrap_or(u32::MAX),
        rules,
        banner: parsed.value("B").map(|b| b.as_encoded_bytes().to_vec()),
        identity,
        print_port: parsed.flag("1"),
        only_v4: parsed.flag("4"),
        force_v6: parsed.flag("6"),
        kill_options: last("O", "o", true),
        no_delay: last("D", "d", false),
        local_host,
        lookups,
        pid_file: path("e"),
        notify_socket: invocation
            .environment
            .get("NOTIFY_SOCKET")
            .filter(|s| !s.is_empty())
            .map(PathBuf::from),
        environment,
    };
    loader.show("address", format_args!("{:?}", settings.address), parsed.operand_source(0));
    loader.show("limit", format_args!("{:?}", settings.limit), parsed.source(&["c"]));
    loader.show("rules", format_args!("{:?}", settings.rules), parsed.source(&["x", "X"]));
    let deciding = parsed.source(&["h", "H", "p", "P", "r", "R", "l", "t"]);
    loader.show("lookups", format_args!("{:?}", settings.lookups), deciding);
    invocation.finish(loader, settings, Exit::PERMANENT)
}

fn operands(parsed: &Parsed, loader: &mut Loader<'_>) -> (Address, Vec<OsString>) {
    let first = &parsed.operands[0];
    if first.as_encoded_bytes().starts_with(b"/") {
        return (Address::Unix(PathBuf::from(first)), parsed.operands[1..].to_vec());
    }
    if parsed.operands.len() < 3 {
        loader.problem("missing operand: a host needs a port and a program");
    }
    let text = |o: &OsString| o.to_string_lossy().into_owned();
    let address = Address::Tcp { host: text(first), port: text(&parsed.operands[1]) };
    (address, parsed.operands.get(2..).unwrap_or_default().to_vec())
}

fn limit(value: Option<&OsStr>, loader: &mut Loader<'_>) -> Limit {
    let Some(value) = value else { return Limit::Fixed(DEFAULT_LIMIT) };
    let text = value.to_string_lossy();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        let from = Source { option: Some(("c", value)), ..Source::default() };
        let n = loader.number("limit", from, 40, 1..=MAX_CONNECTIONS);
        return Limit::Fixed(usize::try_from(n).unwrap_or(DEFAULT_LIMIT));
    }
    let limit = Limit::File(loader.control().clone(), text.into_owned());
    if let Err(e) = limit.read() {
        loader.problem(e);
    }
    limit
}

fn identity(parsed: &Parsed, loader: &mut Loader<'_>) -> Option<Identity> {
    let text = |value: &OsStr| value.to_string_lossy().into_owned();
    let variable = |name: &str| loader.environment().get(name).map(text);
    let (mut user, mut groups) = (parsed.value("u").map(text), parsed.value("g").map(text));
    if parsed.flag("U") {
        user = user.or_else(|| variable("UID"));
        groups = groups.or_else(|| variable("GID"));
    }
    if user.is_none() && groups.is_none() {
        return None;
    }
    match resolve(user.as_deref(), groups.as_deref()) {
        Ok(identity) => Some(identity),
        Err(problem) => {
            loader.problem(problem);
            None
        }
    }
}

fn resolve(user: Option<&str>, groups: Option<&str>) -> Result<Identity, String> {
    let groups = groups.map(ids::group_list).transpose().map_err(|e| format!("option -g: {e}"))?;
    let number = user.and_then(|u| u.parse().ok());
    let (uid, gid, mut all) = match (user, number) {
        (None, _) => (nix::unistd::getuid(), nix::unistd::getgid(), vec![]),
        (Some(_), Some(number)) => (Uid::from_raw(number), nix::unistd::getgid(), vec![]),
        (Some(name), None) => {
            let account = ids::user(name)
                .map_err(|e| format!("option -u: unable to look up user {name}: {e}"))?
                .ok_or_else(|| format!("option -u: unknown user {name}"))?;
            let groups =
                ids::groups_of(name, account.gid).map_err(|e| format!("option -u: groups of {name}: {e}"))?;
            (account.uid, account.gid, groups)
        }
    };
    match groups {
        Some(list) if !list.is_empty() => Ok(Identity { uid, gid: list[0], groups: list }),
        _ => {
            if all.is_empty() {
                all.push(gid);
            }
            Ok(Identity { uid, gid, groups: all })
        }
    }
}
