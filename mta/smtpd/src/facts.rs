//! Connection scope: what the variables say of one client.

use std::ffi::{OsStr, OsString};
use std::net::IpAddr;

use program::Environment;
use smtp::reply::Reply;
use smtp::server::{Gate, Peer, TlsFacts};

use crate::received::Origin;

/// What is known of one client from the start.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) peer: Peer,
    pub(crate) origin: Origin,
    /// For the queue program.
    pub(crate) queue_environment: Vec<(OsString, OsString)>,
}

impl Facts {
    /// Reads the variables of a connection. `hostname` is our name, where they do not tell it.
    pub(crate) fn read(env: &Environment, hostname: Option<&OsStr>) -> Self {
        let origin = origin(env, hostname);
        Self { peer: peer(env, &origin), origin, queue_environment: queue_environment(env) }
    }
}

fn peer(env: &Environment, origin: &Origin) -> Peer {
    let ip = |text: Option<&[u8]>| {
        let ip: IpAddr = std::str::from_utf8(text?).ok()?.parse().ok()?;
        Some(ip.to_canonical())
    };
    Peer {
        ip: ip(Some(&origin.ip)),
        local_ip: ip(either(env, "TCP6LOCALIP", "TCPLOCALIP")),
        relay: env.bytes("RELAYCLIENT").map(<[u8]>::to_vec),
        tls: origin.tls_provider.as_ref().map(|text| {
            let version = text.split(|&b| b == b',').next().unwrap_or_default();
            TlsFacts { version: smtp::command::sanitized(version), cipher: String::new() }
        }),
        gate: gate(env, origin),
    }
}

fn origin(env: &Environment, hostname: Option<&OsStr>) -> Origin {
    let given = |name| env.bytes(name).filter(|v| !v.is_empty()).map(<[u8]>::to_vec);
    let ip = either(env, "TCP6REMOTEIP", "TCPREMOTEIP").unwrap_or(b"unknown");
    let parsed: Option<IpAddr> = std::str::from_utf8(ip).ok().and_then(|t| t.parse().ok());
    Origin {
        host: given("TCPREMOTEHOST").unwrap_or_else(|| b"unknown".to_vec()),
        // One client has one name everywhere: v4-mapped addresses are shown as IPv4.
        ip: parsed.map_or_else(|| ip.to_vec(), |ip| ip.to_canonical().to_string().into_bytes()),
        info: given("TCPREMOTEINFO"),
        local: given("TCPLOCALHOST")
            .or_else(|| hostname.map(|h| h.as_encoded_bytes().to_vec()))
            .unwrap_or_else(|| unix::host::name().into_bytes()),
        hide: env.is_set("HIDE_HOST"),
        tls_provider: given("TLS_PROVIDER"),
    }
}

/// Clients that get no service; the first reason counts.
fn gate(env: &Environment, origin: &Origin) -> Option<Gate> {
    let text = |name| env.bytes(name).map(|v| String::from_utf8_lossy(v).into_owned());
    if let Some(value) = text("SHUTDOWN") {
        let code = value.get(..3).and_then(|c| c.parse::<u16>().ok()).filter(|c| (400..600).contains(c));
        let greeting = match code {
            Some(code) => Reply::plain(code, value[3..].trim_start()),
            None => Reply::new(421, "4.3.2", "sorry, this service is closed for now"),
        };
        let later = Reply::new(503, "5.3.2", "sorry, this service is closed for now");
        return Some(Gate { greeting, later, slow: false });
    }
    let refused = |text: &str| {
        let reply = Reply::new(553, "5.7.1", text);
        Some(Gate { greeting: reply.clone(), later: reply, slow: true })
    };
    if env.is_set("OPENRELAY") {
        return refused("sorry, no mail from open relays");
    }
    if env.is_set("TCPPARANOID") {
        let names =
            format!("{} {}", smtp::command::sanitized(&origin.host), smtp::command::sanitized(&origin.ip));
        return refused(&format!("sorry, your names and addresses do not match: {names}"));
    }
    match text("REQPTR") {
        Some(reason) if origin.host == b"unknown" => {
            refused(if reason.is_empty() { "sorry, your address has no name" } else { &reason })
        }
        _ => None,
    }
}

/// The queue program hears of the connection and of its own settings, and of nothing else.
fn queue_environment(env: &Environment) -> Vec<(OsString, OsString)> {
    const NAMES: [&str; 14] = [
        "PATH",
        "PROTO",
        "NULLQUEUE",
        "ERROR_FD",
        "CONTROLDIR",
        "SYSCONFDIR",
        "DOMAINDIR",
        "CERTDIR",
        "TMPDIR",
        "FILTERARGS",
        "SPAMFILTER",
        "SPAMEXITCODE",
        "RELAYCLIENT",
        "TLS_PROVIDER",
    ];
    const PREFIXES: [&str; 6] = ["TCP", "QMAIL", "QUEUE", "QHPSI", "DKIM", "INLOOKUP_"];
    let wanted = |name: &OsStr| {
        name.to_str().is_some_and(|n| NAMES.contains(&n) || PREFIXES.iter().any(|p| n.starts_with(p)))
    };
    env.iter().filter(|(n, _)| wanted(n)).map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
}

/// The first of two variables that is not empty.
pub(crate) fn either<'a>(env: &'a Environment, first: &str, second: &str) -> Option<&'a [u8]> {
    [first, second].into_iter().find_map(|n| env.bytes(n).filter(|v| !v.is_empty()))
}
