//! udpclient and udplogger: lines as datagrams.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use program::{
    Exit, ExitCodeDoc, Invocation, Loader, Operands, OptionSpec, Parsed, Place, Program, Source, Spec, chain,
};
use unix::buffered::{Input, Output};
use unix::clock::Deadline;
use unix::resolve::{Family, addresses_of};
use unix::wait::{self, Interest};

/// The port that both use when none is given.
const PORT: u64 = 3000;
/// Longest datagram.
const MAX_DATAGRAM: usize = 65_536;

/// The table of udpclient.
pub static CLIENT: Spec = Spec {
    name: "udpclient",
    summary: "send each line of the input as a datagram",
    section: 1,
    place: Place::Bin,
    options: &[
        OptionSpec::value('h', "host", "where to (default 127.0.0.1)"),
        OptionSpec::value('p', "port", "which port (default 3000)"),
        OptionSpec::value(
            't',
            "seconds",
            "wait so long for an answer to each line and print it; 0: do not wait (default 0)",
        ),
        OptionSpec::value('r', "n", "with -t: send a line that is not answered n more times (default 0)"),
    ],
    operands: Operands { synopsis: "", min: 0, max: Some(0) },
    exits: &[
        ExitCodeDoc { code: 100, meaning: "wrong usage" },
        ExitCodeDoc { code: 111, meaning: "a line could not be sent or was not answered" },
    ],
    description: "\
Each line is sent without its newline, in a datagram of its own. Datagrams may be lost on their way, and nobody says so; \
with -t an answer shows that they were not.",
    ..Spec::EMPTY
};

/// The table of udplogger.
pub static LOGGER: Spec = Spec {
    name: "udplogger",
    summary: "print datagrams",
    section: 8,
    place: Place::Sbin,
    options: &[
        OptionSpec::value('p', "port", "the port, 0 for any that is free (default 3000)"),
        OptionSpec::flag('1', "print the port first"),
    ],
    operands: Operands { synopsis: "[address]", min: 0, max: Some(1) },
    exits: &[
        ExitCodeDoc { code: 100, meaning: "wrong usage" },
        ExitCodeDoc { code: 111, meaning: "the port cannot be used or the output not be written" },
    ],
    description: "\
Receives datagrams at address (default: all addresses) and prints each line of each, with the sender's address and a blank before it. What is not \
printable becomes ?. It is meant to write to multilog(8).

Anybody who can reach the port can write to the log; give an address that only the right ones can reach.",
    ..Spec::EMPTY
};

/// udpclient.
pub const CLIENT_PROGRAM: Program = Program { spec: &CLIENT, main: client };
/// udplogger.
pub const LOGGER_PROGRAM: Program = Program { spec: &LOGGER, main: logger };

fn number(
    parsed: &Parsed,
    loader: &mut Loader<'_>,
    option: &str,
    default: u64,
    range: std::ops::RangeInclusive<u64>,
) -> u64 {
    let from = Source { option: parsed.value(option).map(|v| (option, v)), ..Source::default() };
    loader.number(option, from, default, range)
}

fn client(invocation: &Invocation) -> Exit {
    let loaded = invocation.parse().and_then(|parsed| {
        let mut loader = Loader::new(&invocation.environment);
        let port = number(&parsed, &mut loader, "p", PORT, 1..=65_535);
        let patience = number(&parsed, &mut loader, "t", 0, 0..=3600);
        let retries = number(&parsed, &mut loader, "r", 0, 0..=1000);
        let host = parsed.value("h").map_or("127.0.0.1".into(), |h| h.to_string_lossy().into_owned());
        loader.show("h", &host, parsed.source(&["h"]));
        let port = u16::try_from(port).unwrap_or(0);
        invocation.finish(loader, (host, port, Duration::from_secs(patience), retries), Exit::PERMANENT)
    });
    let (host, port, patience, retries) = match loaded {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let sent = connect(&host, port).and_then(|socket| {
        send_lines(&socket, patience, retries, |line, e| {
            invocation.complain("warning", format_args!("line {line}: {}", chain::phrase(e)));
        })
    });
    match sent {
        Ok(true) => Exit::OK,
        Ok(false) => Exit::TEMPORARY,
        Err(e) => {
            let shown = host.escape_debug();
            invocation.complain(
                "fatal",
                format_args!("unable to send to {shown} port {port}: {}", chain::phrase(&e)),
            );
            Exit::TEMPORARY
        }
    }
}

fn connect(host: &str, port: u16) -> io::Result<UdpSocket> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "it has no address");
    for mut address in addresses_of(host, Family::Any)? {
        address.set_port(port);
        let any: IpAddr =
            if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        match UdpSocket::bind((any, 0)).and_then(|socket| socket.connect(address).map(|()| socket)) {
            Ok(socket) => return Ok(socket),
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// Was everything sent, and answered where an answer was waited for?
fn send_lines(
    socket: &UdpSocket,
    patience: Duration,
    retries: u64,
    mut tell: impl FnMut(u64, &io::Error),
) -> io::Result<bool> {
    let (mut input, mut output) = (Input::stdin(), Output::stdout());
    let (mut line, mut count, mut all) = (Vec::new(), 0, true);
    while input.line(&mut [&mut output], &mut line)? {
        count += 1;
        let bytes = line.strip_suffix(b"\n").unwrap_or(&line);
        match exchange(socket, bytes, patience, retries) {
            Ok(Some(answer)) => {
                output.write_all(&answer)?;
                output.write_all(b"\n")?;
            }
            Ok(None) => {}
            Err(e) => {
                all = false;
                tell(count, &e);
            }
        }
        line.clear();
    }
    output.flush()?;
    Ok(all)
}

fn exchange(
    socket: &UdpSocket,
    bytes: &[u8],
    patience: Duration,
    retries: u64,
) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = vec![0; MAX_DATAGRAM];
    for _ in 0..=retries {
        // An error may also be about an earlier line that nobody took: this one has not been sent.
        socket.send(bytes).or_else(|_| socket.send(bytes))?;
        if patience.is_zero() {
            return Ok(None);
        }
        if wait::one(socket.as_fd(), Interest::Read, Deadline::after(patience))? {
            match socket.recv(&mut buffer) {
                Ok(count) => {
                    buffer.truncate(count);
                    return Ok(Some(buffer));
                }
                // Nobody there yet: the next try waits its time before.
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused && retries > 0 => {
                    wait::pause(patience)
                }
                Err(e) => return Err(e),
            }
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "no answer"))
}

fn logger(invocation: &Invocation) -> Exit {
    let loaded = invocation.parse().and_then(|parsed| {
        let mut loader = Loader::new(&invocation.environment);
        let port = number(&parsed, &mut loader, "p", PORT, 0..=65_535);
        let address = parsed.operands.first().map(|a| a.to_string_lossy().into_owned());
        let ips = match address.as_deref() {
            None | Some("" | "0" | "::") => {
                Some(vec![Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()])
            }
            Some(text) => text.parse::<IpAddr>().ok().map(|ip| vec![ip]),
        };
        let ips = ips.unwrap_or_else(|| {
            loader
                .problem(format_args!("{}: expected an address", address.unwrap_or_default().escape_debug()));
            Vec::new()
        });
        let port = u16::try_from(port).unwrap_or(0);
        invocation.finish(loader, (ips, port, parsed.flag("1")), Exit::PERMANENT)
    });
    let (ips, port, announce) = match loaded {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let addresses: Vec<SocketAddr> = ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
    let logged = UdpSocket::bind(addresses.as_slice()).and_then(|socket| print(&socket, announce));
    match logged {
        Ok(()) => Exit::OK,
        Err(e) => {
            invocation
                .complain("fatal", format_args!("unable to log from port {port}: {}", chain::phrase(&e)));
            Exit::TEMPORARY
        }
    }
}

fn print(socket: &UdpSocket, announce: bool) -> io::Result<()> {
    let mut output = Output::stdout();
    if announce {
        writeln!(output, "{}", socket.local_addr()?.port())?;
    }
    socket.set_nonblocking(true)?;
    let mut buffer = vec![0; MAX_DATAGRAM];
    let mut lines = Vec::new();
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((count, from)) => {
                lines.clear();
                format(&from.ip().to_canonical().to_string(), &buffer[..count], &mut lines);
                output.write_all(&lines)?;
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                output.flush()?;
                wait::ready(&[(socket.as_fd(), Interest::Read)], None)?;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// The lines of the log for one datagram; an empty one is an empty line.
fn format(from: &str, datagram: &[u8], out: &mut Vec<u8>) {
    let text = datagram.strip_suffix(b"\n").unwrap_or(datagram);
    for line in text.split(|&b| b == b'\n') {
        out.extend_from_slice(from.as_bytes());
        out.push(b' ');
        out.extend(line.iter().map(|&b| if (b' '..=b'~').contains(&b) || b == b'\t' { b } else { b'?' }));
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn datagrams_as_lines() {
        let lines = |datagram: &[u8]| {
            let mut out = Vec::new();
            format("::1", datagram, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(lines(b"a\tb\x1b[1m\xff"), "::1 a\tb?[1m?\n");
        assert_eq!(lines(b"a\r\n\nb\n"), "::1 a?\n::1 \n::1 b\n");
        assert_eq!(lines(b""), "::1 \n");
    }

    proptest! {
        #[test]
        fn no_datagram_can_forge_a_line(datagram: Vec<u8>) {
            let mut out = Vec::new();
            format("10.0.0.1", &datagram, &mut out);
            let text = String::from_utf8(out).unwrap();
            prop_assert!(text.ends_with('\n') && text.lines().all(|l| l.starts_with("10.0.0.1 ")));
        }
    }
}
