//! The two ends of a connection, as variables and as text for the log.

use std::net::{IpAddr, SocketAddr};

use program::Environment;

/// Longest text of a peer in the log, bytes.
const MAX_SHOWN: usize = 100;

/// Variables that describe a connection: an earlier server's values must not survive.
const VARIABLES: [&str; 20] = [
    "PROTO",
    "TCPLOCALIP",
    "TCPLOCALPORT",
    "TCPLOCALHOST",
    "TCPREMOTEIP",
    "TCPREMOTEPORT",
    "TCPREMOTEHOST",
    "TCPREMOTEINFO",
    "TCP6LOCALIP",
    "TCP6LOCALPORT",
    "TCP6LOCALHOST",
    "TCP6REMOTEIP",
    "TCP6REMOTEPORT",
    "TCP6INTERFACE",
    "TCP6REMOTEHOST",
    "TCP6REMOTEINFO",
    "TCPPARANOID",
    "TCP6PARANOID",
    "UNIXLOCALPATH",
    "UNIXREMOTEPATH",
];

/// A TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peers {
    /// Our end.
    pub local: SocketAddr,
    /// The client.
    pub remote: SocketAddr,
    /// Leave IPv4 clients of an IPv6 socket in the mapped form?
    pub force_v6: bool,
}

impl Peers {
    /// The client's address as rules, variables and the log have it.
    #[must_use]
    pub fn remote_ip(&self) -> IpAddr {
        self.plain(self.remote.ip())
    }

    fn plain(&self, ip: IpAddr) -> IpAddr {
        if self.force_v6 { ip } else { ip.to_canonical() }
    }

    /// Sets the variables of the contract.
    pub fn describe(&self, local_host: Option<&str>, environment: &mut Environment) {
        forget(environment);
        let (local, remote) = (self.plain(self.local.ip()), self.remote_ip());
        environment.set("PROTO", if remote.is_ipv4() { "TCP" } else { "TCP6" });
        environment.set("TCPLOCALIP", local.to_string());
        environment.set("TCPLOCALPORT", self.local.port().to_string());
        environment.set("TCPREMOTEIP", remote.to_string());
        environment.set("TCPREMOTEPORT", self.remote.port().to_string());
        if let Some(host) = local_host {
            environment.set("TCPLOCALHOST", host);
        }
        if let (SocketAddr::V6(local), SocketAddr::V6(remote)) = (self.local, self.remote) {
            environment.set("TCP6LOCALIP", local.ip().to_string());
            environment.set("TCP6LOCALPORT", local.port().to_string());
            environment.set("TCP6REMOTEIP", remote.ip().to_string());
            environment.set("TCP6REMOTEPORT", remote.port().to_string());
            if let Some(host) = local_host {
                environment.set("TCP6LOCALHOST", host);
            }
            if remote.scope_id() != 0 {
                environment.set("TCP6INTERFACE", interface(remote.scope_id()));
            }
        }
    }

    /// `localhost[localip]port remotehost[remoteip]info:port`.
    #[must_use]
    pub fn shown(&self, local_host: Option<&str>, names: Names<'_>) -> String {
        format!(
            "{}[{}]{} {}[{}]{}:{}",
            safe(local_host.unwrap_or_default()),
            self.plain(self.local.ip()),
            self.local.port(),
            safe(names.host.unwrap_or_default()),
            self.remote_ip(),
            safe(names.info.unwrap_or_default()),
            self.remote.port()
        )
    }
}

/// What was learned about a client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Names<'a> {
    /// Its name.
    pub host: Option<&'a str>,
    /// Its user.
    pub info: Option<&'a str>,
}

/// An interface's name, or its number when it has none.
fn interface(number: u32) -> String {
    let name = nix::net::if_::if_indextoname(number).ok().and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| number.to_string())
}

/// Sets the variables for a connection to a Unix socket.
pub fn describe_unix(path: &std::path::Path, environment: &mut Environment) {
    forget(environment);
    environment.set("PROTO", "UNIX");
    environment.set("UNIXLOCALPATH", path.as_os_str());
}

/// Sets the variables of a client of a Unix socket.
pub fn describe_unix_client(path: &std::path::Path, environment: &mut Environment) {
    forget(environment);
    environment.set("PROTO", "UNIX");
    environment.set("UNIXREMOTEPATH", path.as_os_str());
}

/// Removes what describes a connection.
pub fn forget(environment: &mut Environment) {
    VARIABLES.iter().for_each(|name| environment.remove(name));
}

/// Text that may go into the log: printable, without `%`, not too long.
#[must_use]
pub fn safe(text: &str) -> String {
    let plain = |b: u8| if (33..=126).contains(&b) && b != b'%' { char::from(b) } else { '?' };
    text.bytes().take(MAX_SHOWN).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(local: &str, remote: &str, force_v6: bool) -> Peers {
        Peers { local: local.parse().unwrap(), remote: remote.parse().unwrap(), force_v6 }
    }

    fn variables(peers: Peers) -> Vec<String> {
        let mut env =
            Environment::from_iter([("TCPREMOTEINFO", "forged"), ("UNIXLOCALPATH", "x"), ("A", "1")]);
        peers.describe(Some("0"), &mut env);
        env.iter().map(|(n, v)| format!("{}={}", n.to_str().unwrap(), v.to_str().unwrap())).collect()
    }

    #[test]
    fn ipv4() {
        let want = [
            "A=1",
            "PROTO=TCP",
            "TCPLOCALHOST=0",
            "TCPLOCALIP=10.0.0.1",
            "TCPLOCALPORT=25",
            "TCPREMOTEIP=10.0.0.2",
            "TCPREMOTEPORT=4000",
        ];
        assert_eq!(variables(peers("10.0.0.1:25", "10.0.0.2:4000", false)), want);
    }

    #[test]
    fn ipv4_client_of_an_ipv6_socket() {
        let mapped = peers("[::ffff:10.0.0.1]:25", "[::ffff:10.0.0.2]:4000", false);
        let all = variables(mapped);
        for want in
            ["PROTO=TCP", "TCPREMOTEIP=10.0.0.2", "TCP6REMOTEIP=::ffff:10.0.0.2", "TCP6REMOTEPORT=4000"]
        {
            assert!(all.iter().any(|v| v == want), "{want} {all:?}");
        }
        let all = variables(Peers { force_v6: true, ..mapped });
        assert!(
            all.iter().any(|v| v == "PROTO=TCP6") && all.iter().any(|v| v == "TCPREMOTEIP=::ffff:10.0.0.2")
        );
    }

    #[test]
    fn ipv6() {
        let all = variables(peers("[2001:db8::1]:25", "[2001:db8::2]:4000", false));
        for want in ["PROTO=TCP6", "TCPREMOTEIP=2001:db8::2", "TCP6LOCALHOST=0"] {
            assert!(all.iter().any(|v| v == want), "{want} {all:?}");
        }
    }

    #[test]
    fn log_text() {
        assert_eq!(
            peers("10.0.0.1:25", "10.0.0.2:4000", false).shown(Some("0"), Names::default()),
            "0[10.0.0.1]25 [10.0.0.2]:4000"
        );
        let names = Names { host: Some("a.example\n"), info: Some("%x") };
        assert_eq!(
            peers("[::1]:25", "[::2]:4000", false).shown(None, names),
            "[::1]25 a.example?[::2]?x:4000"
        );
        assert_eq!(interface(1), "lo");
        assert_eq!(interface(4_000_000_000), "4000000000");
        assert_eq!(safe("a b%c\n\u{e9}"), "a?b?c???");
        assert_eq!(safe(&"x".repeat(200)).len(), 100);
    }
}
