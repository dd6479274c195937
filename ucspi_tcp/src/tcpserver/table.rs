//! Who is connected: limits and counts, without I/O.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use unix::Pid;

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

/// One connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Who counts.
    pub client: Client,
    /// The address as it is logged.
    pub shown: String,
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

    /// Must new connections wait?
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.connections.len() >= self.limit
    }

    /// May this client have one more? `per_client`: its limit, 0 for none.
    #[must_use]
    pub fn admits(&self, client: Client, per_client: usize) -> bool {
        per_client == 0 || client == Client::Local || self.of(client) < per_client
    }

    /// How many this client has.
    #[must_use]
    pub fn of(&self, client: Client) -> usize {
        self.per_client.get(&client).copied().unwrap_or(0)
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
        let connection = |c| Connection { client: c, shown: String::new() };
        table.add(Pid::from_raw(1), connection(client("1.1.1.1")));
        assert!(!table.admits(client("1.1.1.1"), 1) && table.admits(client("1.1.1.1"), 2));
        assert!(table.admits(client("1.1.1.1"), 0) && table.admits(client("2.2.2.2"), 1));
        table.add(Pid::from_raw(2), connection(Client::Local));
        assert!(table.is_full() && table.admits(Client::Local, 1));
        table.set_limit(1);
        table.remove(Pid::from_raw(1));
        assert!(table.is_full(), "connections above a lowered limit count");
        table.remove(Pid::from_raw(2));
        assert!(!table.is_full() && table.is_empty());
    }

    proptest! {
        #[test]
        fn counts_agree(steps in proptest::collection::vec((any::<bool>(), 1i32..6, 0u8..3), 0..40)) {
            let mut table = Table::new(10);
            let mut model: BTreeMap<i32, u8> = BTreeMap::new();
            for (add, pid, ip) in steps {
                if add && !model.contains_key(&pid) {
                    let client = Client::of(IpAddr::from([10, 0, 0, ip]));
                    table.add(Pid::from_raw(pid), Connection { client, shown: String::new() });
                    model.insert(pid, ip);
                } else if !add {
                    prop_assert_eq!(table.remove(Pid::from_raw(pid)).is_some(), model.remove(&pid).is_some());
                }
                prop_assert_eq!(table.len(), model.len());
                for ip in 0..3 {
                    let count = model.values().filter(|&&i| i == ip).count();
                    prop_assert_eq!(table.of(Client::of(IpAddr::from([10, 0, 0, ip]))), count);
                }
            }
        }
    }
}
