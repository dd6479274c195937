//! Who is connected: limits and counts, without I/O.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::time::Instant;

use unix::Pid;

use crate::networks::Network;

/// What counts as one client: an IPv4 address, an IPv6 network of 64 bits, or everybody at a Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Client {
    /// By address.
    Ip(IpAddr),
    /// A Unix socket has no addresses.
    Local,
}

impl Client {
    /// The client at an address.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(v4) => Self::Ip(v4.into()),
            IpAddr::V6(v6) => Self::Ip(Ipv6Addr::from(u128::from(v6) >> 64 << 64).into()),
        }
    }
}

/// A limit for all clients of one network together: `n`, `n/bits` or `n/bits/bits`, for IPv4 and IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetworkLimit {
    /// Connections; 0: no limit.
    pub limit: usize,
    v4: u8,
    v6: u8,
}

impl NetworkLimit {
    /// The network that this client belongs to.
    #[must_use]
    pub fn network(&self, client: Client) -> Option<Network> {
        match client {
            Client::Ip(ip) => Network::of(ip, if ip.is_ipv4() { self.v4 } else { self.v6 }),
            Client::Local => None,
        }
    }
}

impl FromStr for NetworkLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?}: expected n, n/bits or n/bits/bits: at most 32 for IPv4, then 64 for IPv6");
        let mut words = text.trim().split('/');
        let limit = words.next().and_then(|w| w.parse().ok()).ok_or_else(wrong)?;
        let (v4, v6) = match (words.next().map(str::parse::<u8>), words.next().map(str::parse::<u8>)) {
            (None, _) => (24, 48),
            // A rule is about one family and need not name the other's bits.
            (Some(Ok(bits)), None) if bits <= 64 => (bits.min(32), bits.min(64)),
            (Some(Ok(v4)), Some(Ok(v6))) if v4 <= 32 => (v4, v6),
            _ => return Err(wrong()),
        };
        if words.next().is_some() || v6 > 64 { Err(wrong()) } else { Ok(Self { limit, v4, v6 }) }
    }
}

/// The limits for one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Its own; 0: none.
    pub client: usize,
    /// Its network's.
    pub network: Option<NetworkLimit>,
}

/// A limit that is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// The client's own, so many.
    Client(usize),
    /// That of its network.
    Network(Network, usize),
}

/// How many connections there are already that count for one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// The client's own.
    pub own: usize,
    /// Those of its network, when that has a limit.
    pub network: usize,
}

impl Share {
    /// Is there a limit that one more connection would pass?
    #[must_use]
    pub fn reached(&self, client: Client, limits: &Limits) -> Option<Reached> {
        if client == Client::Local {
            return None;
        }
        if limits.client > 0 && self.own >= limits.client {
            return Some(Reached::Client(limits.client));
        }
        let network = limits.network.filter(|n| n.limit > 0 && self.network >= n.limit)?;
        Some(Reached::Network(network.network(client)?, network.limit))
    }
}

/// One connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Who counts.
    pub client: Client,
    /// The address as it is logged.
    pub shown: String,
    /// When its program was started.
    pub since: Instant,
}

/// All connections.
#[derive(Debug)]
pub struct Table {
    limit: usize,
    connections: BTreeMap<Pid, Connection>,
    per_client: BTreeMap<Client, usize>,
}

impl Table {
    /// An empty table for at most `limit` connections.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, connections: BTreeMap::new(), per_client: BTreeMap::new() }
    }

    /// The limit in force.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Another limit; connections above it stay.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Are there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// How many this client has.
    #[must_use]
    pub fn of(&self, client: Client) -> usize {
        self.per_client.get(&client).copied().unwrap_or(0)
    }

    /// How many all clients of a network have.
    #[must_use]
    pub fn in_network(&self, network: &Network) -> usize {
        self.per_client.range(Client::Ip(network.first())..=Client::Ip(network.last())).map(|(_, n)| n).sum()
    }

    /// What counts for this client under these limits.
    #[must_use]
    pub fn share(&self, client: Client, limits: &Limits) -> Share {
        let network = limits.network.and_then(|n| n.network(client));
        Share { own: self.of(client), network: network.map_or(0, |n| self.in_network(&n)) }
    }

    /// A child was started.
    pub fn add(&mut self, pid: Pid, connection: Connection) {
        *self.per_client.entry(connection.client).or_default() += 1;
        self.connections.insert(pid, connection);
    }

    /// A child ended; `None` when it is none of ours.
    pub fn remove(&mut self, pid: Pid) -> Option<Connection> {
        let connection = self.connections.remove(&pid)?;
        if let Some(count) = self.per_client.get_mut(&connection.client) {
            *count -= 1;
            if *count == 0 {
                self.per_client.remove(&connection.client);
            }
        }
        Some(connection)
    }

    /// All of them, by process id.
    pub fn iter(&self) -> impl Iterator<Item = (Pid, &Connection)> {
        self.connections.iter().map(|(pid, connection)| (*pid, connection))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn client(text: &str) -> Client {
        Client::of(text.parse().unwrap())
    }

    fn connection(client: Client) -> Connection {
        Connection { client, shown: String::new(), since: Instant::now() }
    }

    #[test]
    fn who_is_the_same_client() {
        assert_eq!(client("::ffff:10.0.0.1"), client("10.0.0.1"));
        assert_ne!(client("10.0.0.1"), client("10.0.0.2"));
        assert_eq!(client("2001:db8:1:2::1"), client("2001:db8:1:2:ffff::9"));
        assert_ne!(client("2001:db8:1:2::1"), client("2001:db8:1:3::1"));
    }

    #[test]
    fn limits() {
        let mut table = Table::new(2);
        let of = |table: &Table, who: &str, own, network: Option<&str>| {
            let limits = Limits { client: own, network: network.map(|n| n.parse().unwrap()) };
            table.share(client(who), &limits).reached(client(who), &limits)
        };
        table.add(Pid::from_raw(1), connection(client("1.1.1.1")));
        assert_eq!(of(&table, "1.1.1.1", 1, None), Some(Reached::Client(1)));
        assert_eq!(of(&table, "1.1.1.1", 2, None), None);
        assert_eq!(of(&table, "1.1.1.1", 0, None), None);
        assert_eq!(
            of(&table, "1.1.2.1", 1, Some("1/16")),
            Some(Reached::Network("1.1.0.0/16".parse().unwrap(), 1))
        );
        assert_eq!(of(&table, "1.1.2.1", 1, Some("2/16")), None);
        assert_eq!(of(&table, "1.1.2.1", 1, Some("1")), None, "another network of 24 bits");
        assert_eq!(
            of(&table, "9.9.9.9", 1, Some("1/0/0")),
            Some(Reached::Network("0.0.0.0/0".parse().unwrap(), 1))
        );
        assert_eq!(of(&table, "::9", 1, Some("1/0/0")), None, "another family");
        table.add(Pid::from_raw(2), connection(Client::Local));
        let one = Limits { client: 1, network: None };
        assert_eq!(table.share(Client::Local, &one).reached(Client::Local, &one), None);
        table.set_limit(1);
        assert_eq!((table.len(), table.limit()), (2, 1), "connections above a lowered limit stay");
        table.remove(Pid::from_raw(1));
        table.remove(Pid::from_raw(2));
        assert!(table.is_empty());
    }

    #[test]
    fn network_limits_as_text() {
        let network =
            |text: &str, who| text.parse::<NetworkLimit>().unwrap().network(client(who)).unwrap().to_string();
        assert_eq!(network("5", "10.1.2.3"), "10.1.2.0/24");
        assert_eq!(network("5", "2001:db8:1:2::1"), "2001:db8:1::/48");
        assert_eq!(network("5/8", "10.1.2.3"), "10.0.0.0/8");
        assert_eq!(network("5/56", "2001:db8:1:2ff::1"), "2001:db8:1:200::/56");
        assert_eq!(network("5/16/32", "2001:db8:1:2::1"), "2001:db8::/32");
        for bad in ["", "x", "5/", "5/33/64", "5/24/65", "5/65", "5/24/48/1", "-1"] {
            assert!(bad.parse::<NetworkLimit>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn counts_agree(steps in proptest::collection::vec((any::<bool>(), 1i32..6, 0u8..3), 0..40)) {
            let mut table = Table::new(10);
            let mut model: BTreeMap<i32, u8> = BTreeMap::new();
            for (add, pid, ip) in steps {
                if add && !model.contains_key(&pid) {
                    table.add(Pid::from_raw(pid), connection(Client::of(IpAddr::from([10, 0, ip, ip]))));
                    model.insert(pid, ip);
                } else if !add {
                    prop_assert_eq!(table.remove(Pid::from_raw(pid)).is_some(), model.remove(&pid).is_some());
                }
                prop_assert_eq!(table.len(), model.len());
                for ip in 0..3 {
                    let count = model.values().filter(|&&i| i == ip).count();
                    prop_assert_eq!(table.of(Client::of(IpAddr::from([10, 0, ip, ip]))), count);
                    let network = Network::of(IpAddr::from([10, 0, ip, 0]), 24).unwrap();
                    prop_assert_eq!(table.in_network(&network), count);
                }
                let all = Network::of(IpAddr::from([10, 0, 0, 0]), 8).unwrap();
                prop_assert_eq!(table.in_network(&all), model.len());
            }
        }

        #[test]
        fn any_limit_can_be_read(text in "[0-9/x]{0,12}") {
            let _ = text.parse::<NetworkLimit>();
        }
    }
}
