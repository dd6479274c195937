//! Version 1: `PROXY TCP4 source destination port port CR LF`.

use std::net::{IpAddr, SocketAddr};

use super::{Ends, Header, Parsed};

/// How it begins.
pub(super) const SIGNATURE: &[u8] = b"PROXY ";
/// Longest line with its end.
const MAX_LINE: usize = 107;

pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let window = &bytes[..bytes.len().min(MAX_LINE)];
    let Some(end) = window.windows(2).position(|w| w == b"\r\n") else {
        return if bytes.len() < MAX_LINE {
            Parsed::Incomplete
        } else {
            Parsed::Invalid("the line has no end")
        };
    };
    match line(&window[..end]) {
        Some(ends) => Parsed::Done(Header { ends, ..Header::default() }, end + 2),
        None => Parsed::Invalid("the line is malformed"),
    }
}

fn line(line: &[u8]) -> Option<Option<Ends>> {
    let text = std::str::from_utf8(line.strip_prefix(SIGNATURE)?).ok()?;
    // Whatever follows the word has no meaning.
    if text == "UNKNOWN" || text.starts_with("UNKNOWN ") {
        return Some(None);
    }
    let words: Vec<&str> = text.split(' ').collect();
    let [family, source, destination, source_port, destination_port] = words[..] else { return None };
    let ip = |text: &str| -> Option<IpAddr> {
        let ip: IpAddr = text.parse().ok()?;
        (ip.is_ipv4() == (family == "TCP4") && matches!(family, "TCP4" | "TCP6")).then_some(ip)
    };
    Some(Some(Ends {
        source: SocketAddr::new(ip(source)?, port(source_port)?),
        destination: SocketAddr::new(ip(destination)?, port(destination_port)?),
    }))
}

fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

/// The line for these ends, which are of one family; `None`: unknown.
#[must_use]
pub fn encode(ends: Option<&Ends>) -> Vec<u8> {
    let Some(Ends { source, destination }) = ends else { return b"PROXY UNKNOWN\r\n".to_vec() };
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (a, b) = (source.ip(), destination.ip());
    format!("PROXY {family} {a} {b} {} {}\r\n", source.port(), destination.port()).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let parsed = |text: &str| parse(text.as_bytes());
        let ends = Ends {
            source: "192.0.2.7:4000".parse().unwrap(),
            destination: "198.51.100.1:25".parse().unwrap(),
        };
        let good = Header { ends: Some(ends), ..Header::default() };
        assert_eq!(parsed("PROXY TCP4 192.0.2.7 198.51.100.1 4000 25\r\nEHLO x\r\n"), Parsed::Done(good, 43));
        for unknown in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN ffff::1 ::2 1 2\r\n"] {
            assert_eq!(parsed(unknown), Parsed::Done(Header::default(), unknown.len()));
        }
        for bad in [
            "PROXY TCP4 192.0.2.7 198.51.100.1 4000\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 4000 25 \r\n",
            "PROXY TCP4 192.0.2.7  198.51.100.1 4000 25\r\n",
            "PROXY TCP4 ::1 ::2 4000 25\r\n",
            "PROXY TCP6 192.0.2.7 198.51.100.1 4000 25\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 04000 25\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 +400 25\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 65536 25\r\n",
            "PROXY UDP4 192.0.2.7 198.51.100.1 4000 25\r\n",
            "PROXY UNKNOWNX\r\n",
            "PROXY \r\n",
        ] {
            assert!(matches!(parsed(bad), Parsed::Invalid(_)), "{bad}");
        }
        let long = format!("PROXY UNKNOWN {}", "x".repeat(100));
        assert!(matches!(parsed(&long), Parsed::Invalid(_)));
        assert_eq!(parsed("PROXY TCP4 1.2.3.4\n"), Parsed::Incomplete, "a bare newline is no end");
    }
}
