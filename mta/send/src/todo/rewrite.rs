//! Where a recipient goes: to this host or to another, and under which address.

use control::Map;
use mta_queue::layout::Channel;

/// What the control files say about addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Domain for addresses without `@`.
    pub envnoathost: Vec<u8>,
    /// Domains delivered here.
    pub locals: Map,
    /// Domains whose local parts may hold a route: `user%other@domain`.
    pub percenthack: Map,
    /// Addresses and domains delivered here with a prefix.
    pub virtualdomains: Map,
}

impl Rules {
    /// The channel and the address for it.
    #[must_use]
    pub fn rewrite(&self, recipient: &[u8]) -> (Channel, Vec<u8>) {
        let mut address = recipient.to_vec();
        if !address.contains(&b'@') {
            address.push(b'@');
            address.extend_from_slice(&self.envnoathost);
        }
        self.unfold_percents(&mut address);
        let domain = domain(&address);
        if self.locals.contains(domain) {
            return (Channel::Local, address);
        }
        match self.virtual_prefix(&address) {
            Some(prefix) if !prefix.is_empty() => (Channel::Local, [prefix, b"-", &address].concat()),
            _ => (Channel::Remote, address),
        }
    }

    /// The virtual domain's value for an address: whole address, domain, suffixes, empty key.
    fn virtual_prefix(&self, address: &[u8]) -> Option<&[u8]> {
        self.virtualdomains.get(address).or_else(|| self.virtualdomains.for_domain(domain(address)))
    }

    fn unfold_percents(&self, address: &mut Vec<u8>) {
        while let Some(at) = address.iter().rposition(|&b| b == b'@') {
            let Some(percent) = address[..at].iter().rposition(|&b| b == b'%') else {
                return;
            };
            if !self.percenthack.contains(&address[at + 1..]) {
                return;
            }
            address.truncate(at);
            address[percent] = b'@';
        }
    }
}

/// What follows the last `@`.
fn domain(address: &[u8]) -> &[u8] {
    address.iter().rposition(|&b| b == b'@').map_or(b"", |at| &address[at + 1..])
}

/// The address as the sender wrote it: without the prefix its virtual domain has put before it.
///
/// Entries for single addresses do not count, since they leave no trace that could be told from
/// a plain address.
#[must_use]
pub fn strip_prefix<'a>(virtualdomains: &Map, address: &'a [u8]) -> &'a [u8] {
    let prefix = virtualdomains.for_domain(domain(address)).unwrap_or_default();
    if prefix.is_empty() {
        return address;
    }
    address.strip_prefix(prefix).and_then(|rest| rest.strip_prefix(b"-")).unwrap_or(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules() -> Rules {
        Rules {
            envnoathost: b"default.example".to_vec(),
            locals: Map::new(&["local.example", "here.example"]),
            percenthack: Map::new(&["local.example", "hop.example"]),
            virtualdomains: Map::new(&[
                "one@virtual.example:single",
                "virtual.example:virt",
                "except.wild.example:",
                ".wild.example:wild",
            ]),
        }
    }

    fn to(address: &str) -> String {
        let (channel, address) = rules().rewrite(address.as_bytes());
        format!("{} {}", channel.name(), String::from_utf8_lossy(&address))
    }

    #[test]
    fn rules_apply_in_order() {
        for (address, wanted) in [
            ("a@local.example", "local a@local.example"),
            ("a@LOCAL.Example", "local a@LOCAL.Example"),
            ("a@far.example", "remote a@far.example"),
            ("plain", "remote plain@default.example"),
            ("", "remote @default.example"),
            ("a%far.example@local.example", "remote a@far.example"),
            ("a%b%here.example@local.example", "local a%b@here.example"),
            ("a%b%hop.example@local.example", "remote a@b"),
            ("a%b@far.example", "remote a%b@far.example"),
            ("a@virtual.example", "local virt-a@virtual.example"),
            ("One@Virtual.example", "local single-One@Virtual.example"),
            ("a@x.wild.example", "local wild-a@x.wild.example"),
            ("a@except.wild.example", "remote a@except.wild.example"),
            ("a@wild.example", "remote a@wild.example"),
            ("a@b@local.example", "local a@b@local.example"),
        ] {
            assert_eq!(to(address), wanted, "{address}");
        }
        let mut all = rules();
        all.virtualdomains = Map::new(&[":catch"]);
        assert_eq!(all.rewrite(b"a@far.example"), (Channel::Local, b"catch-a@far.example".to_vec()));
    }

    #[test]
    fn prefixes_are_taken_off_again() {
        let map = rules().virtualdomains;
        let strip = |a: &'static str| strip_prefix(&map, a.as_bytes());
        assert_eq!(strip("virt-a@virtual.example"), b"a@virtual.example");
        assert_eq!(strip("virta@virtual.example"), b"virta@virtual.example");
        assert_eq!(strip("single-one@virtual.example"), b"single-one@virtual.example");
        assert_eq!(strip("wild-a@x.wild.example"), b"a@x.wild.example");
        assert_eq!(strip("x-a@except.wild.example"), b"x-a@except.wild.example");
    }

    proptest! {
        #[test]
        fn every_address_goes_somewhere_with_a_domain(address in prop::collection::vec(any::<u8>(), 0..80)) {
            let (_, rewritten) = rules().rewrite(&address);
            prop_assert!(rewritten.contains(&b'@'));
        }

        #[test]
        fn percents_always_come_to_an_end(parts in prop::collection::vec("[ab%]{0,3}(local.example|hop.example)", 1..8)) {
            let address = format!("{}@hop.example", parts.join("%"));
            let (_, rewritten) = rules().rewrite(address.as_bytes());
            prop_assert!(rewritten.len() <= address.len() + 8);
        }

        #[test]
        fn a_virtual_address_comes_back_unprefixed(local in "[a-z]{1,9}") {
            let address = format!("{local}@v.example");
            let rules = Rules { virtualdomains: Map::new(&["v.example:v"]), ..Rules::default() };
            let (channel, rewritten) = rules.rewrite(address.as_bytes());
            prop_assert_eq!(channel, Channel::Local);
            prop_assert_eq!(strip_prefix(&rules.virtualdomains, &rewritten), address.as_bytes());
        }
    }
}
