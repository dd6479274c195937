//! From the command line and the variables to the settings.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use program::{Exit, Invocation, Loader, Parsed, Source};
use unix::{Pid, Uid, ids};

use super::settings::{
    Address, DEFAULT_LIMIT, Identity, Limit, Lookups, MAX_CONNECTIONS, Proxies, Rules, Settings, Tls,
    Verbosity,
};
use crate::networks::Networks;

/// What an outer server may have left in the environment and no program may believe.
const STALE: [&str; 13] = [
    "NOTIFY_SOCKET",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "TCPPROXYIP",
    "TCPPROXYPORT",
    "TLS_PROVIDER",
    "SSL_PROTOCOL",
    "SSL_CIPHER",
    "SSL_CIPHER_USEKEYSIZE",
    "SSL_TLS_SNI",
    "SSL_CLIENT_VERIFY",
    "SSL_CLIENT_S_DN",
];

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
    let per_network = per_network(&parsed, &mut loader);
    let trusted = option("proxy-from");
    let trusted: Option<Networks> = trusted.option.and_then(|(_, v)| parse(v, "--proxy-from", &mut loader));
    let patience = Duration::from_secs(loader.number("proxy_timeout", option("proxy-timeout"), 5, 1..=3600));
    let proxies = Proxies { trusted: trusted.unwrap_or_default(), patience };
    let drain = parsed
        .value("drain")
        .is_some()
        .then(|| Duration::from_secs(loader.number("drain", option("drain"), 0, 0..=86_400)));
    let tls = tls(&parsed, &mut loader);
    let path = |letter: &str| parsed.value(letter).map(PathBuf::from);
    let rules = path("x").map(|path| Rules { path, optional: parsed.flag("X") });
    let table = path("m").map(|path| (path, parsed.flag("X")));
    if rules.is_some() && table.is_some() {
        loader.problem("options -x and -m: rules come from one place only");
    }
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
    let verbosity = match parsed.in_order().filter(|(o, _)| ["q", "Q", "v", "V"].contains(o)).last() {
        Some(("q", _)) => Verbosity::Quiet,
        Some(("v", _)) => Verbosity::Status,
        Some(("V", _)) => Verbosity::Detail,
        _ => Verbosity::Errors,
    };
    let identity = identity(&parsed, &mut loader);
    let inherited = inherited(&parsed, &mut loader);
    let mut environment = invocation.environment.clone();
    STALE.iter().for_each(|name| environment.remove(name));
    environment.remove("SSL_CLIENT_I_DN");
    let settings = Settings {
        address,
        command,
        verbosity,
        limit,
        per_client: usize::try_from(per_client).unwrap_or(usize::MAX),
        backlog: u32::try_from(backlog).unwrap_or(u32::MAX),
        per_network,
        rules,
        table,
        proxies,
        tls,
        banner: parsed.value("B").map(|b| b.as_encoded_bytes().to_vec()),
        identity,
        print_port: parsed.flag("1"),
        only_v4: parsed.flag("4"),
        interface: parsed.value("I").map(|i| i.to_string_lossy().into_owned()),
        inherited,
        drain,
        status: path("status"),
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
    show(&settings, &parsed, &mut loader);
    invocation.finish(loader, settings, Exit::PERMANENT)
}

fn show(settings: &Settings, parsed: &Parsed, loader: &mut Loader<'_>) {
    loader.show("address", format_args!("{:?}", settings.address), parsed.operand_source(0));
    loader.show("limit", format_args!("{:?}", settings.limit), parsed.source(&["c"]));
    loader.show("rules", format_args!("{:?}", settings.rules), parsed.source(&["x", "X"]));
    loader.show("table", format_args!("{:?}", settings.table), parsed.source(&["m"]));
    let deciding = parsed.source(&["h", "H", "p", "P", "r", "R", "l", "t"]);
    loader.show("lookups", format_args!("{:?}", settings.lookups), deciding);
    loader.show("proxies", format_args!("{:?}", settings.proxies.trusted), parsed.source(&["proxy-from"]));
    let deciding = parsed.source(&["s", "n", "i", "a", "L", "f", "M", "z"]);
    loader.show("tls", format_args!("{:?}", settings.tls), deciding);
    let passed = if settings.inherited > 0 { "variable LISTEN_FDS" } else { "default" };
    loader.show("inherited", settings.inherited, passed);
    let network = match loader.environment().is_set("MAXPERNET") {
        true => "variable MAXPERNET".to_owned(),
        false => parsed.source(&["per-network"]),
    };
    loader.show("per_network", format_args!("{:?}", settings.per_network), network);
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

fn parse<T: std::str::FromStr<Err = String>>(
    value: &OsStr,
    option: &str,
    loader: &mut Loader<'_>,
) -> Option<T> {
    match value.to_string_lossy().parse() {
        Ok(value) => Some(value),
        Err(e) => {
            loader.problem(format_args!("option {option}: {e}"));
            None
        }
    }
}

fn per_network(parsed: &Parsed, loader: &mut Loader<'_>) -> Option<super::table::NetworkLimit> {
    let environment = loader.environment();
    if let Some(value) = environment.get("MAXPERNET").filter(|v| !v.is_empty()) {
        return match value.to_string_lossy().parse() {
            Ok(limit) => Some(limit),
            Err(e) => {
                loader.problem(format_args!("variable MAXPERNET: {e}"));
                None
            }
        };
    }
    parsed.value("per-network").and_then(|v| parse(v, "--per-network", loader))
}

/// How many sockets were passed to this very process.
fn inherited(parsed: &Parsed, loader: &mut Loader<'_>) -> u32 {
    let text = |name| loader.environment().get(name).and_then(OsStr::to_str);
    let mine = text("LISTEN_PID").and_then(|pid| pid.parse().ok()) == Some(Pid::this().as_raw());
    let count = text("LISTEN_FDS").filter(|_| mine);
    match count.map(str::parse) {
        None => 0,
        Some(Ok(count)) if count <= 64 => {
            if count > 0 && parsed.flag("1") {
                loader.problem("option -1: the port of an inherited socket is known to who made it");
            }
            count
        }
        Some(_) => {
            loader.problem("variable LISTEN_FDS: expected a number from 0 to 64");
            0
        }
    }
}

fn tls(parsed: &Parsed, loader: &mut Loader<'_>) -> Option<Tls> {
    let option = |letter| Source { option: parsed.value(letter).map(|v| (letter, v)), ..Source::default() };
    let handshake = Duration::from_secs(loader.number("tls_handshake_timeout", option("S"), 60, 1..=3600));
    let idle = Duration::from_secs(loader.number("tls_idle_timeout", option("T"), 300, 1..=86_400));
    let wanted = parsed.flag("s") || parsed.value("n").is_some();
    if !wanted {
        let orphans = ["i", "a", "L", "f", "M", "N", "z", "S", "T", "client-certificate"];
        if let Some(orphan) = orphans.iter().find(|o| parsed.flag(o)) {
            loader.problem(format_args!("option {orphan}: TLS needs -s, or -n with a certificate"));
        }
        return None;
    }
    let environment = loader.environment();
    let set = |name| environment.get(name).filter(|v| !v.is_empty());
    let directory = parsed.value("i").or_else(|| set("CERTDIR")).map_or_else(
        || Path::new(set("SYSCONFDIR").unwrap_or(OsStr::new(control::DEFAULT_SYSCONFDIR))).join("certs"),
        PathBuf::from,
    );
    // As with control files: names are looked for in the directory, paths are paths.
    let file = |name: &OsStr| {
        if name.as_encoded_bytes().starts_with(b".") { PathBuf::from(name) } else { directory.join(name) }
    };
    let given = parsed.value("n").filter(|n| !n.is_empty()).or_else(|| set("TLS_CERTFILE"));
    let required = match parsed.value("client-certificate").map(|v| v.to_str()) {
        None | Some(Some("required")) => true,
        Some(Some("optional")) => false,
        Some(_) => {
            loader.problem("option --client-certificate: expected required or optional");
            true
        }
    };
    if parsed.value("a").is_none() && (parsed.flag("L") || parsed.flag("client-certificate")) {
        loader.problem("options -L and --client-certificate need -a, the authorities of clients");
    }
    let text = |v: &OsStr| v.to_string_lossy().into_owned();
    Some(Tls {
        certificate: file(given.unwrap_or(OsStr::new("servercert.pem"))),
        names: directory.join("sni"),
        authorities: parsed.value("a").map(file),
        revoked: parsed.value("L").map(file),
        required,
        cipher_file: parsed.value("f").map(file),
        ciphers: ["TLS_CIPHER_LIST", "TLS_CIPHER_SUITE"].map(|name| set(name).map(text)),
        versions: parsed.value("M").map(text),
        handshake,
        idle,
        provider: parsed.flag("z"),
    })
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
