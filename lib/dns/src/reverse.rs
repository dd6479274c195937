//! Names of addresses in zones that are asked about addresses.

use std::fmt::Write;
use std::net::IpAddr;

/// The name of an address below `zone`: its bytes or, for IPv6, its hexadecimal digits, last first. An IPv4
/// address in IPv6 form is asked about as IPv4.
#[must_use]
pub fn name(ip: IpAddr, zone: &str) -> String {
    let mut out = String::new();
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            for byte in ip.octets().iter().rev() {
                let _ = write!(out, "{byte}.");
            }
        }
        IpAddr::V6(ip) => {
            for byte in ip.octets().iter().rev() {
                let _ = write!(out, "{:x}.{:x}.", byte & 0xf, byte >> 4);
            }
        }
    }
    out.push_str(zone.trim_matches('.'));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families() {
        let name = |ip: &str| name(ip.parse().unwrap(), "z.example.");
        assert_eq!(name("127.0.0.2"), "2.0.0.127.z.example");
        assert_eq!(name("::ffff:192.0.2.99"), "99.2.0.192.z.example");
        let nibbles = "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.z.example";
        assert_eq!(name("2001:db8::567:89ab"), nibbles);
    }
}
