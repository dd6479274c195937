//! What tcpclient is told at its start.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use program::{Environment, Exit, Invocation, Loader, Parsed, Source};
use unix::dial;
use unix::resolve::Family;

use super::DEFAULT_VERBOSITY;
use super::connect::{How, Target};
use super::starttls::Protocol;
use crate::tcpserver::settings::{Lookups, Verbosity};

/// Certificates, when CERTDIR is not set.
const CERTIFICATES: &str = "/etc/indimail/certs";
/// Where Debian keeps the authorities that everybody believes.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// The longest wait that can be asked for, seconds.
const MAX_WAIT: u64 = 86_400;

/// TLS; the files are read by who speaks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Our certificate chain and key.
    pub certificate: Option<PathBuf>,
    /// Whom to believe; `None`: anybody.
    pub authorities: Option<PathBuf>,
    /// Revoked certificates.
    pub revoked: Option<PathBuf>,
    /// The name that the server's certificate is to have; asked for in any case.
    pub name: String,
    /// A file whose first line is a list of ciphers.
    pub cipher_file: Option<PathBuf>,
    /// Versions.
    pub versions: Option<String>,
    /// How to ask for TLS; `None`: it begins at once.
    pub starttls: Option<Protocol>,
    /// Set TLS_PROVIDER?
    pub provider: bool,
}

/// The settings.
#[derive(Debug)]
pub struct Settings {
    /// Whom to connect to.
    pub target: Target,
    /// In which way.
    pub how: How,
    /// What to run; empty: copy.
    pub command: Vec<OsString>,
    /// How much to print.
    pub verbosity: Verbosity,
    /// TCP_NODELAY?
    pub no_delay: bool,
    /// TCPLOCALHOST.
    pub local_host: Option<String>,
    /// Lookups.
    pub lookups: Lookups,
    /// Without a program, or with TLS: how long nothing may move.
    pub idle: Option<Duration>,
    /// TLS.
    pub tls: Option<Tls>,
    /// The environment for the program.
    pub environment: Environment,
}

/// Reads the command line.
///
/// # Errors
/// The exit code to end with.
pub fn load(invocation: &Invocation) -> Result<Settings, Exit> {
    let parsed = invocation.parse()?;
    let mut loader = Loader::new(&invocation.environment);
    let (target, command) = operands(&parsed, &mut loader);
    let option = |letter| Source { option: parsed.value(letter).map(|v| (letter, v)), ..Source::default() };
    let wait = Duration::from_secs(loader.number("ident_timeout", option("t"), 26, 1..=3600));
    let port = loader.number("local_port", option("p"), 0, 0..=65_535);
    let idle = parsed.value("a").map(|_| {
        let seconds = loader.number("data_timeout", option("a"), 1, 1..=MAX_WAIT);
        Duration::from_secs(seconds)
    });
    let how = how(&parsed, u16::try_from(port).unwrap_or(0), &mut loader);
    // In each pair the last one counts.
    let last = |on: &str, off: &str, default: bool| {
        parsed.in_order().filter(|(o, _)| *o == on || *o == off).last().map_or(default, |(o, _)| o == on)
    };
    let local_host = parsed.value("l").map(|l| l.to_string_lossy().into_owned());
    let lookups = Lookups {
        host: last("h", "H", true),
        paranoid: false,
        info: last("r", "R", true).then_some(wait),
        local_host: local_host.is_none(),
    };
    let verbosity = match parsed.in_order().filter(|(o, _)| ["q", "Q", "v"].contains(o)).last() {
        Some(("q", _)) => Verbosity::Quiet,
        Some(("v", _)) => Verbosity::Status,
        _ => DEFAULT_VERBOSITY,
    };
    let tls = tls(&parsed, &target, &mut loader);
    let settings = Settings {
        target,
        how,
        command,
        verbosity,
        no_delay: last("D", "d", false),
        local_host,
        lookups,
        idle,
        tls,
        environment: invocation.environment.clone(),
    };
    loader.show("target", format_args!("{:?}", settings.target), parsed.operand_source(0));
    let deciding = parsed.source(&["h", "H", "r", "R", "l", "t"]);
    loader.show("lookups", format_args!("{:?}", settings.lookups), deciding);
    loader.show("timeouts", format_args!("{:?}", settings.how.patience), parsed.source(&["T"]));
    loader.show("tls", format_args!("{:?}", settings.tls), parsed.source(&["n", "c", "m", "s"]));
    invocation.finish(loader, settings, Exit::PERMANENT)
}

fn operands(parsed: &Parsed, loader: &mut Loader<'_>) -> (Target, Vec<OsString>) {
    let first = &parsed.operands[0];
    if first.as_encoded_bytes().starts_with(b"/") {
        return (Target::Unix(PathBuf::from(first)), parsed.operands[1..].to_vec());
    }
    if parsed.operands.len() < 2 {
        loader.problem("missing operand: a host needs a port");
    }
    let text = |o: &OsString| o.to_string_lossy().into_owned();
    let port = parsed.operands.get(1).map(text).unwrap_or_default();
    (Target::Tcp { host: text(first), port }, parsed.operands.get(2..).unwrap_or_default().to_vec())
}

fn tls(parsed: &Parsed, target: &Target, loader: &mut Loader<'_>) -> Option<Tls> {
    if !["n", "c", "m", "s"].iter().any(|option| parsed.value(option).is_some()) {
        return None;
    }
    let set = loader.environment().get("CERTDIR").filter(|d| !d.is_empty());
    let directory = parsed.value("C").or(set).map_or_else(|| PathBuf::from(CERTIFICATES), PathBuf::from);
    // A file of that directory, or wherever a name with a slash says.
    let file = |value: &OsStr| match value.as_encoded_bytes().contains(&b'/') {
        true => PathBuf::from(value),
        false => directory.join(value),
    };
    let given = |option: &str| parsed.value(option).filter(|v| !v.is_empty()).map(file);
    let text = |option: &str| parsed.value(option).map(|v| v.to_string_lossy().into_owned());
    let starttls = text("s").and_then(|name| {
        let protocol = Protocol::parse(&name);
        if protocol.is_none() {
            loader.problem(format_args!("option -s: {}: expected smtp, pop3 or imap", name.escape_debug()));
        }
        protocol
    });
    let system = parsed.value("m").map(|_| PathBuf::from(SYSTEM_AUTHORITIES));
    let authorities = given("c").or(system);
    let name = match (text("m"), target) {
        (Some(name), _) => name,
        (None, Target::Tcp { host, .. }) if host != "0" => host.clone(),
        (None, Target::Tcp { .. }) => "localhost".to_owned(),
        (None, Target::Unix(_)) => {
            if authorities.is_some() {
                loader.problem(
                    "option -c: a Unix socket has no host name; give the one of the certificate with -m",
                );
            }
            "localhost".to_owned()
        }
    };
    Some(Tls {
        certificate: given("n"),
        authorities,
        revoked: given("L"),
        name,
        cipher_file: parsed.value("f").map(PathBuf::from),
        versions: text("M"),
        starttls,
        provider: parsed.flag("z"),
    })
}

fn how(parsed: &Parsed, port: u16, loader: &mut Loader<'_>) -> How {
    let mut how = How { hosts: parsed.value("e").map(PathBuf::from), ..How::default() };
    if let Some(text) = parsed.value("T") {
        match patience(text, how.patience) {
            Some(patience) => how.patience = patience,
            None => loader.problem(format_args!(
                "option -T: {}: expected seconds, or seconds+seconds, from 1 to {MAX_WAIT}",
                text.display()
            )),
        }
    }
    how.family = match parsed.in_order().filter(|(o, _)| ["4", "6"].contains(o)).last() {
        Some(("4", _)) => Family::V4,
        Some(("6", _)) => Family::V6,
        _ => Family::Any,
    };
    how.from.port = port;
    if let Some(text) = parsed.value("i") {
        match text.to_str().and_then(|t| if t == "0" { Some(None) } else { t.parse().ok().map(Some) }) {
            Some(ip) => how.from = dial::From { ip, port },
            None => loader.problem(format_args!("option -i: {}: expected an address", text.display())),
        }
    }
    if let Some(name) = parsed.value("I") {
        match dial::interface(&name.to_string_lossy()) {
            Ok(number) => how.interface = number,
            Err(e) => loader.problem(format_args!("option -I: {}: {e}", name.display())),
        }
    }
    how
}

/// `x`, `x+y` or `+y`.
fn patience(text: &OsStr, default: [Duration; 2]) -> Option<[Duration; 2]> {
    let seconds = |text: &str, default| match text {
        "" => Some(default),
        _ => {
            let number = text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())??;
            (1..=MAX_WAIT).contains(&number).then(|| Duration::from_secs(number))
        }
    };
    let text = text.to_str().filter(|t| !t.is_empty() && *t != "+")?;
    let (first, second) = text.split_once('+').unwrap_or((text, ""));
    Some([seconds(first, default[0])?, seconds(second, default[1])?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_rounds() {
        let read =
            |text: &str| patience(OsStr::new(text), How::default().patience).map(|p| p.map(|d| d.as_secs()));
        assert_eq!(read("10"), Some([10, 58]));
        assert_eq!(read("10+20"), Some([10, 20]));
        assert_eq!(read("+20"), Some([2, 20]));
        for bad in ["", "+", "x", "1+x", "0", "1+0", "1+2+3", "-1", "99999999"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
