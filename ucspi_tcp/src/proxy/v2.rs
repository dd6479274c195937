//! Version 2: a signature, two bytes, a length; addresses; then fields of type, length and value.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Ends, Header, MAX_LENGTH, Parsed, Tls};

/// How it begins.
pub(super) const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const PREFIX: usize = 16;

const AUTHORITY: u8 = 0x02;
const CHECKSUM: u8 = 0x03;
const SSL: u8 = 0x20;
const SSL_VERSION: u8 = 0x21;
const SSL_COMMON_NAME: u8 = 0x22;
const SSL_CIPHER: u8 = 0x23;
/// The client spoke TLS; it showed a certificate, in this connection or in the session.
const CLIENT_SSL: u8 = 1;
const CLIENT_CERT: u8 = 2 | 4;

pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let Some((prefix, _)) = bytes.split_at_checked(PREFIX) else { return Parsed::Incomplete };
    if prefix[12] >> 4 != 2 {
        return Parsed::Invalid("neither version 1 nor 2");
    }
    let total = PREFIX + usize::from(u16::from_be_bytes([prefix[14], prefix[15]]));
    if total > MAX_LENGTH {
        return Parsed::Invalid("the header is too long");
    }
    let Some(header) = bytes.get(..total) else { return Parsed::Incomplete };
    match body(header) {
        Ok(found) => Parsed::Done(found, total),
        Err(why) => Parsed::Invalid(why),
    }
}

fn body(header: &[u8]) -> Result<Header, &'static str> {
    let (command, family, rest) = (header[12] & 15, header[13], &header[PREFIX..]);
    let (ends, rest) = match (command, family) {
        // The proxy for itself: addresses, if any, are to be skipped, and nothing else is about a client.
        (0, _) => return Ok(Header::default()),
        (1, 0x00) => (None, rest),
        (1, 0x11) => {
            let (a, rest) = take::<4>(rest)?;
            let (b, rest) = take::<4>(rest)?;
            let (ends, rest) = ports(Ipv4Addr::from(a).into(), Ipv4Addr::from(b).into(), rest)?;
            (Some(ends), rest)
        }
        (1, 0x21) => {
            let (a, rest) = take::<16>(rest)?;
            let (b, rest) = take::<16>(rest)?;
            let (ends, rest) = ports(Ipv6Addr::from(a).into(), Ipv6Addr::from(b).into(), rest)?;
            (Some(ends), rest)
        }
        // Unix sockets: two paths, which say nothing about a client of the network.
        (1, 0x31) => (None, take::<216>(rest)?.1),
        (1, _) => return Err("the client's connection is of an unknown kind"),
        _ => return Err("an unknown command"),
    };
    let mut found = Header { ends, ..Header::default() };
    let mut fields = Fields(rest);
    while let Some((kind, value)) = fields.next()? {
        match kind {
            AUTHORITY => found.authority = Some(value.to_vec()),
            SSL => found.tls = tls(value)?,
            CHECKSUM => {
                let at = header.len() - fields.0.len() - value.len();
                check(header, at, value)?;
            }
            _ => {}
        }
    }
    Ok(found)
}

fn take<const N: usize>(bytes: &[u8]) -> Result<([u8; N], &[u8]), &'static str> {
    bytes.split_first_chunk().map(|(first, rest)| (*first, rest)).ok_or("the addresses are cut short")
}

fn ports(source: IpAddr, destination: IpAddr, rest: &[u8]) -> Result<(Ends, &[u8]), &'static str> {
    let (a, rest) = take::<2>(rest)?;
    let (b, rest) = take::<2>(rest)?;
    let source = SocketAddr::new(source, u16::from_be_bytes(a));
    let destination = SocketAddr::new(destination, u16::from_be_bytes(b));
    Ok((Ends { source, destination }, rest))
}

/// Fields of type, length and value.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn next(&mut self) -> Result<Option<(u8, &'a [u8])>, &'static str> {
        let &[kind, high, low, ref rest @ ..] = self.0 else {
            return if self.0.is_empty() { Ok(None) } else { Err("a field is cut short") };
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (value, rest) = rest.split_at_checked(length).ok_or("a field is longer than the header")?;
        self.0 = rest;
        Ok(Some((kind, value)))
    }
}

fn tls(value: &[u8]) -> Result<Option<Tls>, &'static str> {
    let &[client, a, b, c, d, ref rest @ ..] = value else { return Err("the TLS field is cut short") };
    let mut found = Tls {
        // 0 is what a verification without an error returns.
        verified: client & CLIENT_CERT != 0 && [a, b, c, d] == [0; 4],
        ..Tls::default()
    };
    let mut fields = Fields(rest);
    while let Some((kind, value)) = fields.next()? {
        match kind {
            SSL_VERSION => found.version = value.to_vec(),
            SSL_COMMON_NAME => found.common_name = value.to_vec(),
            SSL_CIPHER => found.cipher = value.to_vec(),
            _ => {}
        }
    }
    Ok((client & CLIENT_SSL != 0).then_some(found))
}

/// The checksum is over the whole header with zeroes in its own place.
fn check(header: &[u8], at: usize, value: &[u8]) -> Result<(), &'static str> {
    let wanted: [u8; 4] = value.try_into().map_err(|_| "the checksum is not of four bytes")?;
    let zeroed = |(i, &byte): (usize, &u8)| if (at..at + 4).contains(&i) { 0 } else { byte };
    let sum = crc32c(header.iter().enumerate().map(zeroed));
    if sum == u32::from_be_bytes(wanted) { Ok(()) } else { Err("the checksum is wrong") }
}

/// CRC-32C (Castagnoli).
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    let each = |crc: u32, byte: u8| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
    };
    !bytes.fold(u32::MAX, each)
}

/// The header, with a checksum. Texts are cut at 255 bytes.
#[must_use]
pub fn encode(header: &Header) -> Vec<u8> {
    let mut out = SIGNATURE.to_vec();
    out.push(0x21);
    match &header.ends {
        Some(ends) => {
            out.extend([if ends.source.is_ipv4() { 0x11 } else { 0x21 }, 0, 0]);
            for end in [ends.source, ends.destination] {
                match end.ip() {
                    IpAddr::V4(v4) => out.extend(v4.octets()),
                    IpAddr::V6(v6) => out.extend(v6.octets()),
                }
            }
            out.extend([ends.source, ends.destination].map(|e| e.port().to_be_bytes()).concat());
        }
        None => out.extend([0, 0, 0]),
    }
    if let Some(authority) = &header.authority {
        field(&mut out, AUTHORITY, authority);
    }
    if let Some(tls) = &header.tls {
        let mut value = vec![CLIENT_SSL | if tls.verified { 2 } else { 0 }, 0, 0, 0, u8::from(!tls.verified)];
        field(&mut value, SSL_VERSION, &tls.version);
        field(&mut value, SSL_COMMON_NAME, &tls.common_name);
        field(&mut value, SSL_CIPHER, &tls.cipher);
        out.push(SSL);
        out.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend(value);
    }
    field(&mut out, CHECKSUM, &[0; 4]);
    let length = u16::try_from(out.len() - PREFIX).unwrap_or(u16::MAX);
    out[14..16].copy_from_slice(&length.to_be_bytes());
    let sum = crc32c(out.iter().copied());
    let at = out.len() - 4;
    out[at..].copy_from_slice(&sum.to_be_bytes());
    out
}

fn field(out: &mut Vec<u8>, kind: u8, value: &[u8]) {
    let value = &value[..value.len().min(255)];
    out.extend([kind, 0, u8::try_from(value.len()).unwrap_or(u8::MAX)]);
    out.extend(value);
}

/// Does the header of these bytes carry a checksum where fields are looked for?
#[cfg(test)]
pub(super) fn has_checksum(bytes: &[u8]) -> bool {
    let skip = match bytes[13] {
        0x11 => 12,
        0x21 => 36,
        _ => 0,
    };
    let mut fields = Fields(&bytes[PREFIX + skip..]);
    while let Ok(Some((kind, _))) = fields.next() {
        if kind == CHECKSUM {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    #[test]
    fn known_bytes() {
        assert_eq!(crc32c(b"123456789".iter().copied()), 0xe306_9283);
        let bytes = raw(0x21, 0x11, &[192, 0, 2, 7, 198, 51, 100, 1, 0x0f, 0xa0, 0, 25]);
        let ends = Ends {
            source: "192.0.2.7:4000".parse().unwrap(),
            destination: "198.51.100.1:25".parse().unwrap(),
        };
        assert_eq!(parse(&bytes), Parsed::Done(Header { ends: Some(ends), ..Header::default() }, 28));
    }

    #[test]
    fn for_itself_and_of_other_kinds() {
        let itself = Parsed::Done(Header::default(), 16);
        assert_eq!(parse(&raw(0x20, 0, &[])), itself);
        assert_eq!(parse(&raw(0x21, 0, &[])), itself);
        assert_eq!(parse(&raw(0x20, 0x11, &[1; 12])), Parsed::Done(Header::default(), 28));
        assert_eq!(parse(&raw(0x21, 0x31, &[0; 216])), Parsed::Done(Header::default(), 232));
        for (command, family, rest) in [
            (0x11, 0x11, &[0; 12][..]),
            (0x22, 0x11, &[0; 12]),
            (0x21, 0x12, &[0; 12]),
            (0x21, 0x11, &[0; 11]),
            (0x21, 0x21, &[0; 35]),
            (0x21, 0x00, &[2, 0]),
            (0x21, 0x00, &[2, 0, 9, 1]),
            (0x21, 0x00, &[CHECKSUM, 0, 4, 1, 2, 3, 4]),
            (0x21, 0x00, &[CHECKSUM, 0, 1, 1]),
            (0x21, 0x00, &[SSL, 0, 1, 1]),
            (0x21, 0x00, &[0; 4097]),
        ] {
            let got = parse(&raw(command, family, rest));
            assert!(matches!(got, Parsed::Invalid(_)), "{command:x} {family:x} {got:?}");
        }
    }
}
