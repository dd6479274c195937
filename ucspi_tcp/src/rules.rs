//! What a rules database says about a client.
//!
//! A value is a sequence of NUL-terminated items: `D` denies, `+NAME=value` sets a variable, `-NAME` removes
//! one. The first key that is found counts, nothing is merged: see [`keys`] for their order. Without a record
//! the client is allowed.

use std::ffi::OsString;
use std::net::IpAddr;
use std::os::unix::ffi::OsStringExt;

use program::Environment;

/// What is done with a client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Refused?
    pub deny: bool,
    /// Changes to the environment, in order: name, and value or removal.
    pub changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Verdict {
    /// Reads a value of the database.
    #[must_use]
    pub fn decode(value: &[u8]) -> Self {
        let mut verdict = Self::default();
        for item in value.split(|&b| b == 0) {
            match item {
                [b'D', ..] => verdict.deny = true,
                [b'+', setting @ ..] => {
                    let at = setting.iter().position(|&b| b == b'=').unwrap_or(setting.len());
                    let value = setting.get(at + 1..).unwrap_or_default().to_vec();
                    verdict.set(&setting[..at], Some(value));
                }
                [b'-', name @ ..] => verdict.set(name, None),
                _ => {}
            }
        }
        verdict
    }

    /// The value of the database.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = if self.deny { b"D\0".to_vec() } else { Vec::new() };
        for (name, value) in &self.changes {
            out.push(if value.is_some() { b'+' } else { b'-' });
            out.extend(name);
            if let Some(value) = value {
                out.push(b'=');
                out.extend(value);
            }
            out.push(0);
        }
        out
    }

    fn set(&mut self, name: &[u8], value: Option<Vec<u8>>) {
        if !name.is_empty() {
            self.changes.push((name.to_vec(), value));
        }
    }

    /// Makes the changes.
    pub fn apply(&self, environment: &mut Environment) {
        for (name, value) in &self.changes {
            match (value, std::str::from_utf8(name)) {
                (Some(value), _) => {
                    environment.set(OsString::from_vec(name.clone()), OsString::from_vec(value.clone()));
                }
                (None, Ok(name)) => environment.remove(name),
                (None, Err(_)) => {}
            }
        }
    }

    /// The last value given to a variable, if any.
    #[must_use]
    pub fn value(&self, name: &[u8]) -> Option<&[u8]> {
        self.changes.iter().rev().find(|(n, _)| n == name).and_then(|(_, v)| v.as_deref())
    }
}

/// A client, as far as it is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Who<'a> {
    /// Its address.
    pub ip: Option<IpAddr>,
    /// Its name (TCPREMOTEHOST).
    pub host: Option<&'a str>,
    /// Its user (TCPREMOTEINFO).
    pub info: Option<&'a str>,
}

/// The keys under which a client may be found, in the order in which they count: `info@ip`, `info@=host`,
/// `ip`, `=host`, IPv4 prefixes that end in a dot (the longest first), networks (the longest first),
/// `=.suffix` of the name (the longest first), `=` for whoever has a name, and the empty key.
///
/// An IPv6 address is looked for in its long form, then in its short one; an IPv4 address in IPv6 form is
/// that IPv4 address.
#[must_use]
pub fn keys(who: Who<'_>) -> Vec<Vec<u8>> {
    let ip = who.ip.map(|ip| ip.to_canonical());
    // Databases may hold names in any case, and so may the DNS.
    let lower = who.host.map(str::to_ascii_lowercase).filter(|lower| who.host != Some(lower));
    let hosts: Vec<&str> = who.host.into_iter().chain(lower.as_deref()).collect();
    let addresses = match ip {
        None => Vec::new(),
        Some(IpAddr::V4(v4)) => vec![v4.to_string()],
        Some(IpAddr::V6(v6)) => vec![expanded(v6), v6.to_string()],
    };
    let mut keys: Vec<Vec<u8>> = Vec::new();
    if let Some(info) = who.info {
        keys.extend(addresses.iter().map(|ip| format!("{info}@{ip}").into_bytes()));
        keys.extend(hosts.iter().map(|host| format!("{info}@={host}").into_bytes()));
    }
    keys.extend(addresses.iter().map(|ip| ip.clone().into_bytes()));
    keys.extend(hosts.iter().map(|host| format!("={host}").into_bytes()));
    if let Some(ip) = ip {
        if let (IpAddr::V4(_), Some(text)) = (ip, addresses.first()) {
            let dots: Vec<usize> = text.match_indices('.').map(|(at, _)| at).collect();
            keys.extend(dots.iter().rev().map(|&at| text.as_bytes()[..=at].to_vec()));
        }
        let bits = bits(ip);
        keys.extend((0..=bits.len()).rev().map(|length| network_key(ip, &bits[..length])));
    }
    if let Some(host) = who.host {
        for (at, _) in host.match_indices('.') {
            keys.extend(hosts.iter().map(|host| format!("={}", &host[at..]).into_bytes()));
        }
        keys.push(b"=".to_vec());
    }
    keys.push(Vec::new());
    keys
}

/// The key of a CIDR network: a sign for the family and one digit a bit.
#[must_use]
pub fn network_key(ip: IpAddr, bits: &[u8]) -> Vec<u8> {
    let mut key = vec![if ip.is_ipv4() { b'_' } else { b'^' }];
    key.extend(bits);
    key
}

/// All bits of an address as the digits 0 and 1.
#[must_use]
pub fn bits(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(v4) => format!("{:032b}", u32::from(v4)).into_bytes(),
        IpAddr::V6(v6) => format!("{:0128b}", u128::from(v6)).into_bytes(),
    }
}

/// An IPv6 address with all eight groups of four digits.
#[must_use]
pub fn expanded(v6: std::net::Ipv6Addr) -> String {
    v6.segments().map(|s| format!("{s:04x}")).join(":")
}

/// Looks a client up; `find` asks the database.
///
/// # Errors
/// The database cannot be read.
pub fn look_up<E>(
    who: Who<'_>,
    find: impl Fn(&[u8]) -> Result<Option<Vec<u8>>, E>,
) -> Result<Option<(Vec<u8>, Verdict)>, E> {
    for key in keys(who) {
        if let Some(value) = find(&key)? {
            return Ok(Some((key, Verdict::decode(&value))));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::convert::Infallible;

    fn found_as(rules: &[&str], who: Who<'_>) -> Option<String> {
        let find = |key: &[u8]| Ok::<_, Infallible>(rules.iter().any(|r| r.as_bytes() == key).then(Vec::new));
        look_up(who, find).unwrap().map(|(key, _)| String::from_utf8(key).unwrap())
    }

    fn found(rules: &[&str], ip: &str) -> Option<String> {
        found_as(rules, Who { ip: Some(ip.parse().unwrap()), ..Who::default() })
    }

    #[test]
    fn the_first_key_counts() {
        let rules = ["1.2.3.4", "1.2.3.", "1.", "_00000001000000100000001100000101", ""];
        assert_eq!(found(&rules, "1.2.3.4").unwrap(), "1.2.3.4");
        assert_eq!(found(&rules, "1.2.3.5").unwrap(), "1.2.3.", "prefixes before networks");
        assert_eq!(found(&rules, "1.9.9.9").unwrap(), "1.");
        assert_eq!(found(&rules, "2.0.0.1").unwrap(), "");
        assert_eq!(found(&rules, "::ffff:1.2.3.4").unwrap(), "1.2.3.4", "one client, one form");
        assert_eq!(found(&["_0000101"], "10.1.2.3").unwrap(), "_0000101");
        assert_eq!(found(&["_0000101", "_00001010"], "10.1.2.3").unwrap(), "_00001010", "longest first");
        assert_eq!(found(&["1."], "2001:db8::1"), None);
        assert_eq!(found(&["2001:0db8:0000:0000:0000:0000:0000:0001"], "2001:db8::1").unwrap().len(), 39);
        assert_eq!(found(&["2001:db8::1"], "2001:db8::1").unwrap(), "2001:db8::1");
        assert_eq!(found(&["^0010000000000001"], "2001:db8::1").unwrap().len(), 17);
        assert_eq!(found(&["_", "^", ""], "1.2.3.4").unwrap(), "_", "all of IPv4");
        assert_eq!(found(&["_", ""], "::1").unwrap(), "");
    }

    #[test]
    fn names_and_users_have_their_places_in_the_order() {
        let ip = Some("1.2.3.4".parse().unwrap());
        let who = Who { ip, host: Some("A.Example.COM"), info: Some("jane") };
        let mut rules = vec![
            "jane@1.2.3.4",
            "jane@=a.example.com",
            "1.2.3.4",
            "=a.example.com",
            "1.2.3.",
            "1.2.",
            "1.",
            "_00000001000000100000001100000100",
            "_0",
            "=.example.com",
            "=.com",
            "=",
            "",
        ];
        while let Some(first) = rules.first() {
            assert_eq!(found_as(&rules, who).as_deref(), Some(*first));
            rules.remove(0);
        }
        let names = ["jane@1.2.3.4", "jane@=a.example.com", "=a.example.com", "=.example.com", "="];
        assert_eq!(found_as(&names, Who { ip, ..Who::default() }), None, "without a name, no rule by name");
        assert_eq!(found_as(&["="], Who { ip, host: None, info: Some("jane") }), None);
        assert_eq!(found_as(&["="], Who { ip: None, ..who }).as_deref(), Some("="));
    }

    #[test]
    fn values() {
        let verdict = Verdict::decode(b"+RELAYCLIENT=\0+X=a=b\0-Y\0");
        assert!(!verdict.deny);
        let mut env = Environment::from_iter([("Y", "1")]);
        verdict.apply(&mut env);
        assert_eq!(env.bytes("RELAYCLIENT"), Some(&b""[..]));
        assert_eq!(env.bytes("X"), Some(&b"a=b"[..]));
        assert!(!env.is_set("Y"));
        assert!(Verdict::decode(b"D\0").deny);
    }

    proptest! {
        #[test]
        fn any_value_can_be_read(value: Vec<u8>) {
            let _ = Verdict::decode(&value);
        }

        #[test]
        fn round_trip(deny: bool, changes in proptest::collection::vec(("[A-Z]{1,4}", proptest::option::of("[a-z=%]{0,4}")), 0..4)) {
            let changes = changes.into_iter().map(|(n, v)| (n.into_bytes(), v.map(String::into_bytes))).collect();
            let verdict = Verdict { deny, changes };
            prop_assert_eq!(Verdict::decode(&verdict.encode()), verdict);
        }
    }
}
