//! From a host and a port to a connection.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use program::chain;
use unix::clock::Deadline;
use unix::dial;
use unix::resolve::{self, Family};

use super::hosts;
use crate::tcpserver::listener::port_number;

/// Whom to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A Unix socket.
    Unix(PathBuf),
    /// A host by name or address, a port by number or name.
    Tcp {
        /// Host.
        host: String,
        /// Port.
        port: String,
    },
}

/// In which way.
#[derive(Debug, Clone)]
pub struct How {
    /// How long an address is tried in the first and in the second round.
    pub patience: [Duration; 2],
    /// Which addresses.
    pub family: Family,
    /// From where.
    pub from: dial::From,
    /// The interface of link-local addresses, 0 for none.
    pub interface: u32,
    /// A file of hosts that is asked before the resolver.
    pub hosts: Option<PathBuf>,
}

impl Default for How {
    fn default() -> Self {
        Self {
            patience: [Duration::from_secs(2), Duration::from_secs(58)],
            family: Family::Any,
            from: dial::From::default(),
            interface: 0,
            hosts: None,
        }
    }
}

/// Connects. `tell` gets each address that did not work, and why, but for the last.
///
/// # Errors
/// In words: no such host or port, or nobody there.
pub fn connect(
    target: &Target,
    how: &How,
    mut tell: impl FnMut(&str, &io::Error),
) -> Result<OwnedFd, String> {
    let (host, port) = match target {
        Target::Unix(path) => {
            return UnixStream::connect(path)
                .map(OwnedFd::from)
                .map_err(|e| format!("unable to connect to {}: {}", path.display(), chain::phrase(&e)));
        }
        Target::Tcp { host, port } => (host, port),
    };
    let number = port_number(port).map_err(|e| e.to_string())?;
    let mut addresses = addresses(host, how)?;
    addresses.iter_mut().for_each(|address| complete(address, number, how.interface));
    if addresses.is_empty() {
        return Err(format!("no address for {}", host.escape_debug()));
    }
    try_each(addresses, how.patience, &mut tell, |address, patience| {
        dial::tcp(address, how.from, Deadline::after(patience))
    })
    .map_err(|(address, e)| format!("unable to connect to {}: {}", shown(address), chain::phrase(&e)))
}

fn shown(address: SocketAddr) -> String {
    format!("{} port {}", address.ip(), address.port())
}

/// Tries all, then once more, for longer, those that gave no answer at all. The last that did not work is the error.
fn try_each<T>(
    mut addresses: Vec<SocketAddr>,
    patience: [Duration; 2],
    tell: &mut dyn FnMut(&str, &io::Error),
    mut attempt: impl FnMut(SocketAddr, Duration) -> io::Result<T>,
) -> Result<T, (SocketAddr, io::Error)> {
    let mut failed: Option<(SocketAddr, io::Error)> = None;
    for (round, patience) in patience.into_iter().enumerate() {
        let mut silent = Vec::new();
        for &address in &addresses {
            match attempt(address, patience) {
                Ok(connection) => return Ok(connection),
                Err(e) if e.kind() == io::ErrorKind::TimedOut && round == 0 => silent.push(address),
                Err(e) => {
                    if let Some((before, e)) = failed.replace((address, e)) {
                        tell(&shown(before), &e);
                    }
                }
            }
        }
        addresses = silent;
    }
    let nothing = || (SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0), io::ErrorKind::TimedOut.into());
    Err(failed.unwrap_or_else(nothing))
}

fn addresses(host: &str, how: &How) -> Result<Vec<SocketAddr>, String> {
    // An address may stand in brackets.
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    if matches!(host, "" | "0") {
        return Ok(vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)]);
    }
    if let Some(path) = &how.hosts {
        let text = fs::read(path).map_err(|e| format!("unable to read {}: {e}", path.display()))?;
        let wanted = |ip: &IpAddr| match how.family {
            Family::Any => true,
            Family::V4 => ip.is_ipv4(),
            Family::V6 => ip.is_ipv6(),
        };
        let all = hosts::addresses(&String::from_utf8_lossy(&text), host);
        let found: Vec<_> = all.into_iter().filter(wanted).map(|ip| SocketAddr::new(ip, 0)).collect();
        if !found.is_empty() {
            return Ok(found);
        }
    }
    resolve::addresses_of(host, how.family)
        .map_err(|e| format!("unable to find the address of {}: {e}", host.escape_debug()))
}

fn complete(address: &mut SocketAddr, port: u16, interface: u32) {
    address.set_port(port);
    if let SocketAddr::V6(v6) = address
        && v6.ip().is_unicast_link_local()
        && v6.scope_id() == 0
    {
        v6.set_scope_id(interface);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silent_addresses_get_a_second_longer_try_and_refusals_do_not() {
        let address = |last| SocketAddr::new(IpAddr::from([10, 0, 0, last]), 25);
        let patience = [Duration::from_secs(2), Duration::from_secs(58)];
        let mut tried = Vec::new();
        let mut told = Vec::new();
        let found = try_each(
            vec![address(1), address(2), address(3)],
            patience,
            &mut |who: &str, e: &io::Error| told.push(format!("{who} {:?}", e.kind())),
            |a, p| {
                tried.push((a, p.as_secs()));
                match (a.to_string().as_str(), p.as_secs()) {
                    ("10.0.0.2:25", _) => Err(io::ErrorKind::ConnectionRefused.into()),
                    ("10.0.0.3:25", 58) => Ok(7),
                    _ => Err(io::ErrorKind::TimedOut.into()),
                }
            },
        );
        assert_eq!(found.ok(), Some(7));
        let (one, two, three) = (address(1), address(2), address(3));
        assert_eq!(tried, [(one, 2), (two, 2), (three, 2), (one, 58), (three, 58)]);
        assert_eq!(told, ["10.0.0.2 port 25 ConnectionRefused"]);
    }

    #[test]
    fn link_local_addresses_get_the_interface() {
        let shown = |text: &str| {
            let mut address: SocketAddr = text.parse().unwrap();
            complete(&mut address, 25, 3);
            address.to_string()
        };
        assert_eq!(shown("[fe80::1]:0"), "[fe80::1%3]:25");
        assert_eq!(shown("[fe80::1%2]:0"), "[fe80::1%2]:25");
        assert_eq!(shown("[2001:db8::1]:0"), "[2001:db8::1]:25");
    }
}
