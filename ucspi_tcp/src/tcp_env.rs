//! tcp-env: describe the connection on descriptor 0, ask about its client, become the program.
//!
//! tcpserver runs it when names or identities have to be asked for, which may take long and must not hold
//! up other connections. Each question has a deadline; no answer is no variable.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::time::Duration;

use program::{Environment, Exit, ExitCodeDoc, Invocation, Operands, OptionSpec, Place, Program, Spec};
use unix::child::Launch;
use unix::clock::Deadline;

use crate::tcpserver::peers::{Peers, safe};
use crate::tcpserver::settings::Lookups;

/// The longest the resolver is waited for.
const NAME_PATIENCE: Duration = Duration::from_secs(30);
/// The port of RFC 1413.
const IDENT_PORT: u16 = 113;
/// The longest answer of RFC 1413.
const MAX_ANSWER: usize = 1000;

/// The table of tcp-env.
pub static SPEC: Spec = Spec {
    name: "tcp-env",
    summary: "run a program with variables that describe its connection",
    section: 1,
    place: Place::Bin,
    options: &[
        OptionSpec::flag('h', "look up the client's name for TCPREMOTEHOST (the default)"),
        OptionSpec::flag('H', "do not look it up"),
        OptionSpec::flag('p', "believe a name only when it leads back to the address"),
        OptionSpec::flag('P', "believe every name (the default)"),
        OptionSpec::value('l', "name", "the value of TCPLOCALHOST, instead of looking up the local address"),
        OptionSpec::flag('r', "ask the client's host for TCPREMOTEINFO (RFC 1413, the default)"),
        OptionSpec::flag('R', "do not ask"),
        OptionSpec::value('t', "seconds", "how long to wait for that answer (default 26)"),
    ],
    operands: Operands { synopsis: "program [arg ...]", min: 1, max: None },
    exits: &[
        ExitCodeDoc { code: 100, meaning: "wrong usage" },
        ExitCodeDoc { code: 111, meaning: "the program cannot be run" },
    ],
    description: "\
Sets the variables of tcpserver(1) from the TCP connection on descriptor 0, as from inetd, and runs the program. Variables that tcpserver \
has set already (PROTO is TCP or TCP6) stay.",
    ..Spec::EMPTY
};

/// tcp-env.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

fn main(invocation: &Invocation) -> Exit {
    let parsed = match invocation.parse_all() {
        Ok(parsed) => parsed,
        Err(exit) => return exit,
    };
    let last = |on: &str, off: &str, default: bool| {
        parsed.in_order().filter(|(o, _)| *o == on || *o == off).last().map_or(default, |(o, _)| o == on)
    };
    let seconds = match parsed.value("t").map(|t| t.to_str().and_then(|t| t.parse().ok())) {
        None => 26,
        Some(Some(seconds)) => seconds,
        Some(None) => {
            invocation.complain("fatal", "option -t: expected seconds");
            return Exit::PERMANENT;
        }
    };
    let local_host = parsed.value("l").map(|l| l.to_string_lossy().into_owned());
    let lookups = Lookups {
        host: last("h", "H", true),
        paranoid: last("p", "P", false),
        info: last("r", "R", true).then(|| Duration::from_secs(seconds)),
        local_host: local_host.is_none(),
    };
    let mut environment = invocation.environment.clone();
    if let Some((local, remote)) = connection() {
        let peers = Peers { local, remote, force_v6: false };
        if !matches!(environment.bytes("PROTO"), Some(b"TCP" | b"TCP6")) {
            peers.describe(local_host.as_deref(), &mut environment);
        }
        ask(peers, lookups, &mut environment);
    }
    let argv = &parsed.operands;
    let error = Launch::new(&argv[0]).args(&argv[1..]).env_exactly(environment.to_vec()).replace();
    invocation.complain(
        "fatal",
        format_args!("unable to run {}: {error}", argv[0].as_encoded_bytes().escape_ascii()),
    );
    Exit::TEMPORARY
}

/// Both ends of the connection on descriptor 0.
fn connection() -> Option<(SocketAddr, SocketAddr)> {
    let stream = TcpStream::from(std::io::stdin().as_fd().try_clone_to_owned().ok()?);
    Some((stream.local_addr().ok()?, stream.peer_addr().ok()?))
}

/// Asks what is to be looked up and sets the variables of the answers.
pub(crate) fn ask(peers: Peers, lookups: Lookups, environment: &mut Environment) {
    let mapped = matches!(peers.remote, SocketAddr::V6(_));
    let mut set = |name: &str, value: &str| {
        environment.set(format!("TCP{name}"), value);
        if mapped {
            environment.set(format!("TCP6{name}"), value);
        }
    };
    if lookups.local_host
        && let Some(name) = within(NAME_PATIENCE, move || name_of(peers.local.ip()))
    {
        set("LOCALHOST", &name);
    }
    if lookups.host {
        let ip = peers.remote.ip().to_canonical();
        if let Some(name) = within(NAME_PATIENCE, move || name_of(ip)) {
            let checked = name.clone();
            if !lookups.paranoid
                || within(NAME_PATIENCE, move || leads_back(&checked, ip).then_some(())).is_some()
            {
                set("REMOTEHOST", &name);
            } else {
                set("PARANOID", &name);
            }
        }
    }
    if let Some(patience) = lookups.info
        && let Some(info) = ident(peers, patience)
    {
        set("REMOTEINFO", &info);
    }
}

/// Runs a question that has no deadline of its own. The thread that asks it ends with this process image, at
/// the latest when the program takes its place.
fn within<T: Send + 'static>(
    patience: Duration,
    question: impl FnOnce() -> Option<T> + Send + 'static,
) -> Option<T> {
    let (answer, wait) = mpsc::sync_channel(1);
    std::thread::spawn(move || answer.send(question()));
    wait.recv_timeout(patience).ok().flatten()
}

/// Could not tell and has none look the same to the program: no variable.
fn name_of(ip: IpAddr) -> Option<String> {
    unix::resolve::name_of(ip.to_canonical()).ok().flatten()
}

fn leads_back(name: &str, ip: IpAddr) -> bool {
    (name, 0).to_socket_addrs().is_ok_and(|mut all| all.any(|a| a.ip().to_canonical() == ip))
}

fn ident(peers: Peers, patience: Duration) -> Option<String> {
    let deadline = Deadline::after(patience);
    let (theirs, ours) = (peers.remote.port(), peers.local.port());
    let (near, far) = (peers.local.ip().to_canonical(), peers.remote.ip().to_canonical());
    let mut server = peers.remote;
    if far != server.ip() {
        server.set_ip(far);
    }
    server.set_port(IDENT_PORT);
    // The question is about a connection between these two addresses, so it has to come from ours.
    let is_link_local = matches!(near, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let from = unix::dial::From { ip: Some(near).filter(|_| !is_link_local), port: 0 };
    let mut stream = TcpStream::from(unix::dial::tcp(server, from, deadline).ok()?);
    stream.set_write_timeout(Some(patience)).ok()?;
    stream.write_all(format!("{theirs} , {ours}\r\n").as_bytes()).ok()?;
    let mut answer = Vec::new();
    let mut byte = [0];
    while answer.len() < MAX_ANSWER && !answer.ends_with(b"\n") {
        let left = deadline.left();
        if left.is_zero() {
            return None;
        }
        stream.set_read_timeout(Some(left)).ok()?;
        match stream.read(&mut byte) {
            Ok(1) => answer.push(byte[0]),
            _ => break,
        }
    }
    parse_ident(&answer, theirs, ours)
}

/// The user in an answer of RFC 1413 to the question about these ports.
#[must_use]
pub fn parse_ident(answer: &[u8], theirs: u16, ours: u16) -> Option<String> {
    let text = String::from_utf8_lossy(answer);
    let mut fields = text.trim_end().splitn(4, ':');
    let ports = fields.next()?.split_once(',')?;
    let port = |text: &str| text.trim().parse().ok();
    if (port(ports.0), port(ports.1)) != (Some(theirs), Some(ours)) || fields.next()?.trim() != "USERID" {
        return None;
    }
    let _system = fields.next()?;
    Some(safe(fields.next()?.trim_start())).filter(|user| !user.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn answers() {
        let parse = |text: &str| parse_ident(text.as_bytes(), 6193, 23);
        assert_eq!(parse("6193, 23 : USERID : UNIX : stjohns\r\n").as_deref(), Some("stjohns"));
        assert_eq!(parse("6193,23:USERID:OTHER,US-ASCII:a:b c%").as_deref(), Some("a:b?c?"));
        for none in [
            "",
            "6193, 23 : ERROR : HIDDEN-USER",
            "6193, 24 : USERID : UNIX : x",
            "6193, 23 : USERID : UNIX : ",
            "junk",
        ] {
            assert_eq!(parse(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn any_answer_can_be_read(answer: Vec<u8>) {
            if let Some(user) = parse_ident(&answer, 1, 2) {
                prop_assert!(user.bytes().all(|b| b.is_ascii_graphic()));
            }
        }
    }
}
