//! What the resident server is told on its command line.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use program::{Exit, Invocation, Loader, Parsed, Source};
use ucspi_tcp::networks::Networks;
use ucspi_tcp::tcpserver::settings::{Address, Rules};
use ucspi_tcp::tcpserver::table::NetworkLimit;

/// What a listener serves, where its port does not say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Service {
    /// A submission service, whatever the port.
    pub(crate) submission: bool,
    /// TLS from the first byte.
    pub(crate) tls: bool,
}

impl Service {
    /// By the name of a socket or after an address.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "smtp" => Self::default(),
            "smtps" => Self { tls: true, submission: false },
            "submission" => Self { submission: true, tls: false },
            "submissions" => Self { submission: true, tls: true },
            _ => return None,
        })
    }
}

/// The resident server's settings.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) listen: Vec<(Address, Service)>,
    /// Take over the sockets that the service manager passed.
    pub(crate) inherit: bool,
    pub(crate) rules: Option<Rules>,
    pub(crate) connections: usize,
    pub(crate) per_client: usize,
    pub(crate) per_network: Option<NetworkLimit>,
    pub(crate) backlog: u32,
    /// Who must send a PROXY header first.
    pub(crate) proxies: Networks,
    /// How long clients have to be silent before the greeting.
    pub(crate) greet_delay: Duration,
    /// Longest session.
    pub(crate) session: Duration,
    /// How long sessions may go on after SIGTERM.
    pub(crate) drain: Duration,
    /// Threads that ask; as many for passwords.
    pub(crate) questions: usize,
    /// Threads that hand messages to the queue.
    pub(crate) commits: usize,
    pub(crate) user: Option<String>,
    pub(crate) groups: Option<String>,
    pub(crate) verbose: bool,
    /// A descriptor that gets a newline when the server is ready.
    pub(crate) ready_descriptor: Option<i32>,
    /// Our name, where control files do not tell it.
    pub(crate) hostname: Option<OsString>,
}

/// Is this the command line of a resident server?
pub(crate) fn wanted(parsed: &Parsed) -> bool {
    parsed.flag("listen") || parsed.flag("inherit")
}

/// Reads the options.
///
/// # Errors
/// The exit code, after what is wrong was said.
pub(crate) fn load(invocation: &Invocation, parsed: &Parsed) -> Result<Options, Exit> {
    let mut loader = Loader::new(&invocation.environment);
    let l = &mut loader;
    let mut listen = Vec::new();
    for (_, value) in parsed.in_order().filter(|(name, _)| *name == "listen") {
        match value.and_then(OsStr::to_str).and_then(address) {
            Some(one) => listen.push(one),
            None => l.problem(format!(
                "option --listen: {}: expected address:port, or address:port, a comma and smtp, smtps, \
                 submission or submissions",
                value.unwrap_or_default().display()
            )),
        }
    }
    let text = |name: &str| parsed.value(name).map(|v| v.to_string_lossy().into_owned());
    let shown = |name: &str, default: &str| text(name).unwrap_or_else(|| default.to_owned());
    l.show("listen", shown("listen", "inherited sockets"), parsed.source(&["listen", "inherit"]));
    let number = |l: &mut Loader<'_>, name: &'static str, default, range| {
        let from = Source { option: parsed.value(name).map(|v| (name, v)), ..Source::default() };
        l.number(name, from, default, range)
    };
    let seconds =
        |l: &mut Loader<'_>, name, default, range| Duration::from_secs(number(l, name, default, range));
    let count = |l: &mut Loader<'_>, name, default, range| {
        usize::try_from(number(l, name, default, range)).unwrap_or(usize::MAX)
    };
    let ready_descriptor = l.environment().is_set("READY_FD").then(|| {
        let from = Source { variable: Some("READY_FD"), ..Source::default() };
        i32::try_from(l.number("ready descriptor", from, 3, 3..=1_000_000)).unwrap_or(3)
    });
    let options = Options {
        inherit: parsed.flag("inherit"),
        rules: parsed
            .value("rules")
            .map(|path| Rules { path: PathBuf::from(path), optional: parsed.flag("rules-optional") }),
        connections: count(l, "connections", 1000, 1..=1_000_000),
        per_client: count(l, "per-client", 0, 0..=1_000_000),
        per_network: parse(l, "per-network", text("per-network")),
        backlog: u32::try_from(number(l, "backlog", 1024, 1..=65_535)).unwrap_or(1024),
        proxies: parse(l, "proxy-from", text("proxy-from")).unwrap_or_default(),
        greet_delay: seconds(l, "greet-delay", 0, 0..=300),
        session: seconds(l, "session", 14_400, 1..=604_800),
        drain: seconds(l, "drain", 30, 0..=3600),
        questions: count(l, "questions", 8, 1..=256),
        commits: count(l, "commits", 100, 1..=1000),
        user: text("user"),
        groups: text("groups"),
        verbose: parsed.flag("verbose"),
        ready_descriptor,
        hostname: parsed.operands.first().cloned(),
        listen,
    };
    invocation.finish(loader, options, Exit::PERMANENT)
}

fn parse<T: std::str::FromStr<Err = String>>(
    l: &mut Loader<'_>,
    name: &str,
    text: Option<String>,
) -> Option<T> {
    let text = text?;
    match text.parse() {
        Ok(value) => {
            l.show(name, &text, format!("option --{name}"));
            Some(value)
        }
        Err(e) => {
            l.problem(format!("option --{name}: {e}"));
            None
        }
    }
}

/// `host:port`, `[v6]:port`, `:port`, with `,service` after it.
fn address(text: &str) -> Option<(Address, Service)> {
    let (place, service) = match text.rsplit_once(',') {
        Some((place, name)) => (place, Service::named(name)?),
        None => (text, Service::default()),
    };
    let (host, port) = place.rsplit_once(':')?;
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    // Else `2001:db8::1` without a port would be taken for a host and a port.
    if port.is_empty() || (bare.is_none() && host.contains(':')) {
        return None;
    }
    let host = bare.unwrap_or(host).to_owned();
    Some((Address::Tcp { host, port: port.to_owned() }, service))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_what_is_served_there() {
        let read = |text: &str| match address(text)? {
            (Address::Tcp { host, port }, service) => Some((host, port, service.submission, service.tls)),
            (Address::Unix(_), _) => None,
        };
        let found = |h: &str, p: &str, s, t| Some((h.to_owned(), p.to_owned(), s, t));
        assert_eq!(read("127.0.0.1:25"), found("127.0.0.1", "25", false, false));
        assert_eq!(read(":smtp"), found("", "smtp", false, false));
        assert_eq!(read("[::1]:465,submissions"), found("::1", "465", true, true));
        assert_eq!(read("0:587,submission"), found("0", "587", true, false));
        for wrong in ["25", "2001:db8::1", "127.0.0.1:", "h:25,pop3", ""] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
