//! Lists of networks.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// A network of one family; an IPv4 network also holds its addresses in IPv6 form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    ip: IpAddr,
    length: u8,
}

impl Network {
    /// The network of `length` bits that holds `ip`; `None` when addresses have fewer bits.
    #[must_use]
    pub fn of(ip: IpAddr, length: u8) -> Option<Self> {
        let ip = ip.to_canonical();
        let ip = match ip {
            IpAddr::V4(v4) => {
                let host_bits = 32u32.checked_sub(length.into())?;
                IpAddr::V4(u32::from(v4).checked_shr(host_bits).map_or(0, |n| n << host_bits).into())
            }
            IpAddr::V6(v6) => {
                let host_bits = 128u32.checked_sub(length.into())?;
                IpAddr::V6(u128::from(v6).checked_shr(host_bits).map_or(0, |n| n << host_bits).into())
            }
        };
        // A shift by all bits leaves nothing in the way that is meant: a network of no bits.
        Some(Self { ip, length })
    }

    /// Its first address.
    #[must_use]
    pub fn first(&self) -> IpAddr {
        self.ip
    }

    /// Its last address.
    #[must_use]
    pub fn last(&self) -> IpAddr {
        match self.ip {
            IpAddr::V4(v4) => {
                let hosts = u32::MAX.checked_shr(self.length.into()).unwrap_or(0);
                IpAddr::V4((u32::from(v4) | hosts).into())
            }
            IpAddr::V6(v6) => {
                let hosts = u128::MAX.checked_shr(self.length.into()).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from(u128::from(v6) | hosts))
            }
        }
    }

    /// Is the address in it?
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip.is_ipv4() == self.ip.is_ipv4() && (self.first()..=self.last()).contains(&ip)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.length)
    }
}

impl FromStr for Network {
    type Err = String;

    /// `address` or `address/length`; bits after the length must be 0, else it is a mistake.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?}: expected an address or address/bits");
        let (ip, length) = match text.split_once('/') {
            Some((ip, length)) => (ip, Some(length)),
            None => (text, None),
        };
        let ip: IpAddr = ip.parse().map_err(|_| wrong())?;
        let length = match length {
            None => {
                if ip.to_canonical().is_ipv4() {
                    32
                } else {
                    128
                }
            }
            Some(length) => length.parse().map_err(|_| wrong())?,
        };
        let network = Self::of(ip, length).ok_or_else(wrong)?;
        if network.ip == ip.to_canonical() {
            Ok(network)
        } else {
            Err(format!("{text:?}: bits are set after the first {length}; the network is {network}"))
        }
    }
}

/// Some networks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

impl Networks {
    /// Are there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Is the address in one of them?
    #[must_use]
    pub fn contain(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|n| n.contains(ip))
    }
}

impl FromStr for Networks {
    type Err = String;

    /// Networks separated by commas.
    fn from_str(text: &str) -> Result<Self, String> {
        let words = text.split(',').map(str::trim).filter(|w| !w.is_empty());
        words.map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lists() {
        let all: Networks = "10.0.0.0/8, 192.0.2.1,2001:db8::/32".parse().unwrap();
        for inside in ["10.255.0.1", "::ffff:10.1.2.3", "192.0.2.1", "2001:db8:ffff::1"] {
            assert!(all.contain(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["11.0.0.0", "192.0.2.2", "2001:db9::", "::10.0.0.1"] {
            assert!(!all.contain(outside.parse().unwrap()), "{outside}");
        }
        assert!("".parse::<Networks>().unwrap().is_empty());
        for bad in ["10.0.0.1/8", "10.0.0.0/33", "10.", "x", "::/129", "10.0.0.0/"] {
            assert!(bad.parse::<Networks>().is_err(), "{bad}");
        }
    }

    #[test]
    fn all_addresses_and_one() {
        let all: Network = "0.0.0.0/0".parse().unwrap();
        assert_eq!((all.first(), all.last()), (IpAddr::from([0; 4]), IpAddr::from([255; 4])));
        assert!(all.contains("1.2.3.4".parse().unwrap()) && !all.contains("::1".parse().unwrap()));
        let all: Network = "::/0".parse().unwrap();
        assert!(all.contains("ffff::1".parse().unwrap()));
        let one: Network = "1.2.3.4".parse().unwrap();
        assert_eq!((one.first(), one.last()), (one.last(), one.first()));
    }

    proptest! {
        #[test]
        fn an_address_is_in_its_network_and_its_bits_say_so(a: u128, b: u128, v4: bool, length in 0u8..=128) {
            let ip = |n: u128| if v4 {
                IpAddr::from(u32::try_from(n & 0xffff_ffff).unwrap().to_be_bytes())
            } else {
                IpAddr::from(n.to_be_bytes()).to_canonical()
            };
            let (a, b) = (ip(a), ip(b));
            let Some(network) = Network::of(a, length) else { return Ok(()) };
            prop_assert!(network.contains(a));
            let (x, y) = (crate::rules::bits(a), crate::rules::bits(b));
            let same = a.is_ipv4() == b.is_ipv4() && x[..usize::from(length)] == y[..usize::from(length)];
            prop_assert_eq!(network.contains(b), same);
            prop_assert_eq!(network.to_string().parse::<Network>(), Ok(network));
        }

        #[test]
        fn any_text_can_be_read(text in "[0-9a-f.:/, ]{0,30}") {
            let _ = text.parse::<Networks>();
        }
    }
}
