//! Settings: control files, variables, and what the network says.

use std::cell::OnceCell;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use control::Map;
use program::{Exit, Invocation, Loader, Source};

use crate::dns::{Dns, Mx, System, Unavailable};
use crate::plan::World;
use crate::route::Routes;
use crate::tcpto::Limits;

/// What is to be delivered, from the arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Domain or host of the recipients.
    pub host: Vec<u8>,
    /// Envelope sender; empty for a bounce.
    pub sender: Vec<u8>,
    /// Envelope recipients, at least one.
    pub recipients: Vec<Vec<u8>>,
}

impl Job {
    /// Reads `host sender qqeh size recipient...`; `None` when something is missing.
    #[must_use]
    pub fn from_arguments(arguments: &[&[u8]]) -> Option<Self> {
        let [host, sender, _qqeh, _size, recipients @ ..] = arguments else {
            return None;
        };
        let recipients: Vec<_> = recipients.iter().map(|r| r.to_vec()).collect();
        let job = Self { host: host.to_vec(), sender: sender.to_vec(), recipients };
        (!job.recipients.is_empty()).then_some(job)
    }
}

/// Everything a delivery needs to know.
#[derive(Debug)]
pub struct Settings {
    pub(crate) helo: Vec<u8>,
    pub(crate) connect_timeout: Duration,
    pub(crate) timeout: Duration,
    pub(crate) routes: Routes,
    pub(crate) certificates: PathBuf,
    pub(crate) without_tls: Vec<Vec<u8>>,
    pub(crate) network: Network,
    pub(crate) tcpto: PathBuf,
    pub(crate) limits: Limits,
}

/// Reads the settings.
pub(crate) fn load(invocation: &Invocation) -> Result<Settings, Exit> {
    let env = &invocation.environment;
    let mut loader = Loader::new(env);
    let l = &mut loader;
    let seconds = |l: &mut Loader<'_>, name, default| {
        let from = Source { control: Some(name), ..Source::default() };
        Duration::from_secs(l.number(name, from, default, 1..=86_400))
    };
    let me = Source { control: Some("me"), ..Source::default() };
    let helo = Source { variable: Some("HELOHOST"), control: Some("helohost"), option: None };
    let helo = match l.bytes("helohost", helo).or_else(|| l.bytes("helohost", me)) {
        Some(name) => name,
        None => {
            l.problem(format!("{}: missing: put this host's name there", l.control().file("me").display()));
            Vec::new()
        }
    };
    let routes_file =
        l.path("smtproutes", Source { variable: Some("SMTPROUTESFILE"), ..Source::default() }, "smtproutes");
    let file = l.control().map(&routes_file.to_string_lossy());
    let variable: Vec<&[u8]> = env
        .bytes("SMTPROUTE")
        .map(|v| v.split(|&b| b == b'\n').filter(|e| !e.is_empty()).collect())
        .unwrap_or_default();
    let source = l.source(&["SMTPROUTE"], &[]);
    l.show("smtproute", variable.len(), source);
    let settings = Settings {
        helo,
        connect_timeout: seconds(l, "timeoutconnect", 60),
        timeout: seconds(l, "timeoutremote", 1200),
        routes: Routes { variable: Map::new(&variable), file: l.take(file).unwrap_or_default() },
        certificates: l.path(
            "certdir",
            Source { variable: Some("CERTDIR"), ..Source::default() },
            "/etc/indimail/certs",
        ),
        without_tls: list(l, "notlshosts"),
        tcpto: l
            .path("queue", Source { variable: Some("QUEUEDIR"), ..Source::default() }, "/var/indimail/queue")
            .join("lock/tcpto"),
        limits: limits(l),
        network: Network {
            system: OnceCell::new(),
            own: addresses(l, "moreipme"),
            foreign: addresses(l, "notipme"),
        },
    };
    invocation.finish(loader, settings, Exit::TEMPORARY)
}

fn limits(l: &mut Loader<'_>) -> Limits {
    let variable = |name| Source { variable: Some(name), ..Source::default() };
    let Limits { min_penalty, max_tolerance } = Limits::default();
    Limits {
        min_penalty: l.parsed("min penalty", variable("MIN_PENALTY"), min_penalty, "a number of seconds"),
        max_tolerance: l.parsed(
            "max tolerance",
            variable("MAX_TOLERANCE"),
            max_tolerance,
            "a number of seconds",
        ),
    }
}

fn list(l: &mut Loader<'_>, name: &str) -> Vec<Vec<u8>> {
    let answer = l.control().list(name);
    l.take(answer).unwrap_or_default()
}

fn addresses(l: &mut Loader<'_>, name: &str) -> Vec<IpAddr> {
    let file = l.control().file(name);
    let mut all = Vec::new();
    for (number, line) in list(l, name).into_iter().enumerate() {
        match std::str::from_utf8(&line).ok().and_then(|t| t.parse().ok()) {
            Some(ip) => all.push(ip),
            None => l.problem(format!(
                "{}: entry {}: {}: expected an IP address",
                file.display(),
                number + 1,
                line.escape_ascii()
            )),
        }
    }
    all
}

/// The DNS, asked when first needed, and the addresses of this host.
#[derive(Debug, Default)]
pub(crate) struct Network {
    system: OnceCell<Result<System, Unavailable>>,
    own: Vec<IpAddr>,
    foreign: Vec<IpAddr>,
}

impl Network {
    fn system(&self) -> Result<&System, Unavailable> {
        self.system.get_or_init(System::new).as_ref().map_err(Clone::clone)
    }
}

impl Dns for Network {
    fn mx(&self, domain: &str) -> Result<Option<Vec<Mx>>, Unavailable> {
        self.system()?.mx(domain)
    }

    fn addresses(&self, host: &str) -> Result<Option<Vec<IpAddr>>, Unavailable> {
        self.system()?.addresses(host)
    }
}

impl World for Network {
    /// The kernel says so: packets to an address of this host leave from that very address.
    fn is_own(&self, ip: IpAddr) -> bool {
        if self.foreign.contains(&ip) {
            return false;
        }
        if ip.is_unspecified() || self.own.contains(&ip) {
            return true;
        }
        let any: SocketAddr = match ip {
            IpAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            IpAddr::V6(_) => ([0; 8], 0).into(),
        };
        let source = UdpSocket::bind(any).and_then(|s| {
            s.connect((ip, crate::route::SMTP))?;
            s.local_addr()
        });
        source.is_ok_and(|s| s.ip() == ip)
    }

    fn random(&self) -> u64 {
        // Without randomness the order is the one the DNS gave.
        getrandom::u64().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        let job = Job::from_arguments(&[b"d", b"s", b"", b"10", b"a@d", b"b@d"]).unwrap();
        assert_eq!((job.host, job.recipients.len()), (b"d".to_vec(), 2));
        assert_eq!(Job::from_arguments(&[b"d", b"s", b"", b"10"]), None);
        assert_eq!(Job::from_arguments(&[b"d"]), None);
    }

    #[test]
    fn own_addresses() {
        let network = Network {
            own: vec!["192.0.2.1".parse().unwrap()],
            foreign: vec!["127.0.0.9".parse().unwrap()],
            ..Network::default()
        };
        let own = |ip: &str| network.is_own(ip.parse().unwrap());
        assert!(own("127.0.0.1") && own("0.0.0.0") && own("192.0.2.1"));
        assert!(!own("127.0.0.9") && !own("192.0.2.77"));
    }
}
