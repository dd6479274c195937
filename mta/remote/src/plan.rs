//! Which addresses to try, in which order.

use std::net::IpAddr;

use crate::dns::{Dns, Mx, Unavailable};
use crate::route::Route;

/// Most mail exchangers of a domain that are looked at.
const MAX_EXCHANGERS: usize = 100;

/// One address to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Name of the host, for certificates and reports.
    pub name: String,
    /// Address.
    pub ip: IpAddr,
    /// Port.
    pub port: u16,
}

/// Why there is nothing to try.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The domain cannot be a domain.
    #[error("sorry, {0} is not a domain name (#5.1.2)")]
    BadName(String),
    /// There is no such domain.
    #[error("sorry, I couldn't find any host named {0} (#5.1.2)")]
    NoSuchDomain(String),
    /// The domain says that it takes no mail.
    #[error("sorry, {0} does not take mail (#5.1.10)")]
    NoMail(String),
    /// The domain is there, its mail exchangers have no address.
    #[error("sorry, I couldn't find a mail exchanger or IP address of {0} (#5.4.4)")]
    NoHost(String),
    /// This host is the best mail exchanger, and does not think so.
    #[error(
        "sorry, although I'm listed as a best-preference MX or A for {0}, it isn't in my control/locals file, so I don't treat it as local (#5.4.6)"
    )]
    Loop(String),
    /// The relay of a route cannot be used. Whoever wrote the route can mend it, so mail waits.
    #[error("the relay {0} of a route {1}: correct smtproutes or SMTPROUTE (#4.3.5)")]
    Relay(String, &'static str),
    /// The DNS cannot tell.
    #[error("DNS lookup failed temporarily: {0} (#4.4.3)")]
    Unavailable(String),
}

impl PlanError {
    /// Will trying again help?
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Relay(..))
    }
}

impl From<Unavailable> for PlanError {
    fn from(e: Unavailable) -> Self {
        Self::Unavailable(e.0)
    }
}

/// What a plan needs to know of the world.
pub trait World: Dns {
    /// Is this an address of this host?
    fn is_own(&self, ip: IpAddr) -> bool;

    /// A random number, to spread load over equal exchangers.
    fn random(&self) -> u64;
}

/// The addresses for mail to `host`, best first.
///
/// # Errors
/// See [`PlanError`].
pub fn targets(world: &impl World, host: &[u8], route: Option<&Route>) -> Result<Vec<Target>, PlanError> {
    let port = route.map_or(crate::route::SMTP, |r| r.port);
    if let Some(relay) = route.and_then(|r| r.relay.as_deref()) {
        return relay_targets(world, relay, port);
    }
    let shown = host.escape_ascii().to_string();
    let domain = std::str::from_utf8(host).map_err(|_| PlanError::BadName(shown.clone()))?;
    if let Some(ip) = literal(domain) {
        if world.is_own(ip) {
            return Err(PlanError::Loop(domain.to_owned()));
        }
        return Ok(vec![Target { name: domain.to_owned(), ip, port }]);
    }
    let domain = ascii(domain).ok_or(PlanError::BadName(shown))?;
    let mut exchangers = world.mx(&domain)?.ok_or_else(|| PlanError::NoSuchDomain(domain.clone()))?;
    if exchangers.iter().any(|mx| !mx.host.is_empty()) {
        exchangers.retain(|mx| !mx.host.is_empty());
    } else if !exchangers.is_empty() {
        return Err(PlanError::NoMail(domain));
    } else {
        exchangers.push(Mx { preference: 0, host: domain.clone() });
    }
    let ranked = addresses(world, in_order(world, exchangers), port)?;
    let limit = ranked.iter().filter(|(_, t)| world.is_own(t.ip)).map(|(p, _)| *p).min();
    let usable: Vec<Target> =
        ranked.iter().filter(|(p, _)| limit.is_none_or(|l| *p < l)).map(|(_, t)| t.clone()).collect();
    match (usable.is_empty(), limit) {
        (false, _) => Ok(usable),
        (true, Some(_)) => Err(PlanError::Loop(domain)),
        (true, None) => Err(PlanError::NoHost(domain)),
    }
}

/// A relay may be this host when another server of ours listens on the port.
fn relay_targets(world: &impl World, relay: &str, port: u16) -> Result<Vec<Target>, PlanError> {
    let wrong = |why| PlanError::Relay(relay.escape_default().to_string(), why);
    let ips = match literal(relay).or_else(|| relay.parse().ok()) {
        Some(ip) => vec![ip],
        None => {
            let name = ascii(relay).ok_or_else(|| wrong("is no name of a host"))?;
            world.addresses(&name)?.ok_or_else(|| wrong("does not exist"))?
        }
    };
    if ips.is_empty() {
        return Err(wrong("has no address"));
    }
    let mut all: Vec<_> = ips.into_iter().map(|ip| Target { name: relay.to_owned(), ip, port }).collect();
    if port == crate::route::SMTP {
        all.retain(|t| !world.is_own(t.ip));
    }
    if all.is_empty() { Err(wrong("is this host")) } else { Ok(all) }
}

/// By preference, equal ones in random order.
fn in_order(world: &impl World, exchangers: Vec<Mx>) -> Vec<Mx> {
    let mut keyed: Vec<(u16, u64, Mx)> =
        exchangers.into_iter().map(|mx| (mx.preference, world.random(), mx)).collect();
    keyed.sort_by_key(|(preference, random, _)| (*preference, *random));
    keyed.into_iter().map(|(_, _, mx)| mx).take(MAX_EXCHANGERS).collect()
}

/// The addresses of the exchangers. One that cannot be looked up is left out as long as another
/// one can; a name that is not there has no address.
fn addresses(world: &impl World, exchangers: Vec<Mx>, port: u16) -> Result<Vec<(u16, Target)>, PlanError> {
    let (mut all, mut trouble) = (Vec::new(), None);
    for mx in exchangers {
        // Some publish an address where a name belongs.
        let found = match mx.host.parse::<IpAddr>() {
            Ok(ip) => Ok(Some(vec![ip])),
            Err(_) => world.addresses(&mx.host),
        };
        match found {
            Ok(ips) => all.extend(
                ips.into_iter()
                    .flatten()
                    .map(|ip| (mx.preference, Target { name: mx.host.clone(), ip: ip.to_canonical(), port })),
            ),
            Err(e) => trouble = Some(e),
        }
    }
    match trouble {
        Some(e) if all.is_empty() => Err(e.into()),
        _ => Ok(all),
    }
}

/// `[192.0.2.1]`, `[IPv6:2001:db8::1]`
fn literal(domain: &str) -> Option<IpAddr> {
    let text = domain.strip_prefix('[')?.strip_suffix(']')?;
    let tagged = text.get(..5).is_some_and(|tag| tag.eq_ignore_ascii_case("IPv6:"));
    text[if tagged { 5 } else { 0 }..].parse().ok()
}

/// The name as the DNS wants it; `None` when it cannot be one.
fn ascii(domain: &str) -> Option<String> {
    let name =
        if domain.is_ascii() { domain.to_ascii_lowercase() } else { idna::domain_to_ascii(domain).ok()? };
    let name = name.trim_end_matches('.');
    let sane = (1..=253).contains(&name.len())
        && name.split('.').all(|label| (1..=63).contains(&label.len()))
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    sane.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::collections::BTreeMap;

    #[derive(Default)]
    struct Fake {
        mx: BTreeMap<&'static str, Vec<(u16, &'static str)>>,
        hosts: BTreeMap<&'static str, Vec<&'static str>>,
        own: Vec<&'static str>,
        broken: Vec<&'static str>,
        random: Cell<u64>,
    }

    impl Dns for Fake {
        fn mx(&self, domain: &str) -> Result<Option<Vec<Mx>>, Unavailable> {
            if self.broken.contains(&domain) {
                return Err(Unavailable("servfail".into()));
            }
            let known = self.hosts.contains_key(domain).then(Vec::new);
            let of = |all: &Vec<(u16, &str)>| {
                all.iter().map(|&(preference, host)| Mx { preference, host: host.into() }).collect()
            };
            Ok(self.mx.get(domain).map(of).or(known))
        }

        fn addresses(&self, host: &str) -> Result<Option<Vec<IpAddr>>, Unavailable> {
            if self.broken.contains(&host) {
                return Err(Unavailable("servfail".into()));
            }
            Ok(self.hosts.get(host).map(|ips| ips.iter().map(|ip| ip.parse().unwrap()).collect()))
        }
    }

    impl World for Fake {
        fn is_own(&self, ip: IpAddr) -> bool {
            self.own.iter().any(|o| o.parse::<IpAddr>().unwrap() == ip)
        }

        fn random(&self) -> u64 {
            self.random.set(self.random.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99));
            self.random.get()
        }
    }

    fn world() -> Fake {
        Fake {
            mx: BTreeMap::from([
                ("d.example", vec![(20, "b.example"), (10, "a.example"), (30, "c.example")]),
                ("null.example", vec![(0, "")]),
                ("lost.example", vec![(10, "nowhere.example")]),
                ("equal.example", vec![(5, "a.example"), (5, "b.example"), (5, "c.example")]),
            ]),
            hosts: BTreeMap::from([
                ("a.example", vec!["192.0.2.1", "2001:db8::1"]),
                ("b.example", vec!["192.0.2.2"]),
                ("c.example", vec!["192.0.2.3"]),
                ("plain.example", vec!["192.0.2.9"]),
                ("empty.example", vec![]),
            ]),
            ..Fake::default()
        }
    }

    fn shown(world: &Fake, host: &str, route: Option<&str>) -> String {
        let route = route.map(|r| crate::route::parse(r.as_bytes()).unwrap());
        match targets(world, host.as_bytes(), route.as_ref()) {
            Ok(all) => all.iter().map(|t| format!("{}:{}", t.ip, t.port)).collect::<Vec<_>>().join(" "),
            Err(e) => e.to_string().rsplit("(#").next().unwrap().trim_end_matches(')').to_owned(),
        }
    }

    #[test]
    fn exchangers_by_preference_with_all_addresses() {
        assert_eq!(
            shown(&world(), "D.Example", None),
            "192.0.2.1:25 2001:db8::1:25 192.0.2.2:25 192.0.2.3:25"
        );
        assert_eq!(shown(&world(), "plain.example", None), "192.0.2.9:25");
        assert_eq!(shown(&world(), "[192.0.2.7]", None), "192.0.2.7:25");
        assert_eq!(shown(&world(), "[IPv6:2001:db8::7]", None), "2001:db8::7:25");
        assert_eq!(shown(&world(), "[ipv6:2001:db8::7]", None), "2001:db8::7:25");
    }

    #[test]
    fn no_such_name_no_host_no_mail_and_cannot_tell_differ() {
        let w = Fake { broken: vec!["sick.example"], ..world() };
        assert_eq!(shown(&w, "absent.example", None), "5.1.2");
        assert_eq!(shown(&w, "empty.example", None), "5.4.4");
        assert_eq!(shown(&w, "lost.example", None), "5.4.4");
        assert_eq!(shown(&w, "null.example", None), "5.1.10");
        assert_eq!(shown(&w, "sick.example", None), "4.4.3");
        assert_eq!(shown(&w, "bad name", None), "5.1.2");
        assert_eq!(shown(&w, "", None), "5.1.2");
    }

    #[test]
    fn one_sick_exchanger_does_not_hide_the_others() {
        let w = Fake { broken: vec!["a.example"], ..world() };
        assert_eq!(shown(&w, "d.example", None), "192.0.2.2:25 192.0.2.3:25");
        let w = Fake { broken: vec!["a.example", "b.example", "c.example"], ..world() };
        assert_eq!(shown(&w, "d.example", None), "4.4.3");
    }

    #[test]
    fn fix_4_own_host_cuts_the_list_and_never_loops() {
        let w = Fake { own: vec!["192.0.2.2"], ..world() };
        assert_eq!(shown(&w, "d.example", None), "192.0.2.1:25 2001:db8::1:25");
        let w = Fake { own: vec!["192.0.2.1"], ..world() };
        assert_eq!(shown(&w, "d.example", None), "5.4.6");
        let w = Fake { own: vec!["192.0.2.9"], ..world() };
        assert_eq!(shown(&w, "plain.example", None), "5.4.6");
        assert_eq!(shown(&w, "[192.0.2.9]", None), "5.4.6");
    }

    #[test]
    fn relays_are_not_asked_for_exchangers_and_may_be_this_host_on_another_port() {
        let w = Fake { own: vec!["192.0.2.9"], ..world() };
        assert_eq!(shown(&w, "anything at all", Some("plain.example:2525")), "192.0.2.9:2525");
        // A relay that cannot be one is a mistake in a file of ours, not of the sender.
        for relay in ["plain.example", "d.example", "empty.example", "no_such_host", "bad\u{1}name"] {
            assert_eq!(shown(&w, "x", Some(relay)), "4.3.5", "{relay}");
            let route = crate::route::parse(relay.as_bytes()).unwrap();
            assert!(targets(&w, b"x", Some(&route)).unwrap_err().is_temporary(), "{relay}");
        }
        assert_eq!(shown(&w, "x", Some("192.0.2.5:26")), "192.0.2.5:26");
        assert_eq!(
            shown(&w, "d.example", Some(":26")),
            "192.0.2.1:26 2001:db8::1:26 192.0.2.2:26 192.0.2.3:26"
        );
    }

    #[test]
    fn equal_exchangers_take_turns() {
        let w = world();
        let mut firsts: Vec<String> =
            (0..50).map(|_| shown(&w, "equal.example", None).split(' ').next().unwrap().to_owned()).collect();
        firsts.sort();
        firsts.dedup();
        assert_eq!(firsts.len(), 3);
    }
}
