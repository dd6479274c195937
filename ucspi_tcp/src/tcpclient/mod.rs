//! tcpclient: connect, then become a program that talks through descriptors 6 and 7, or copy.

pub mod connect;
pub mod hosts;
pub mod settings;

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};

use program::{
    Environment, Exit, ExitCodeDoc, Invocation, Operands, OptionSpec, Place, Program, Spec, chain,
};

use crate::relay::{self, Direction, Until, plain};
use crate::tcp_env;
use crate::tcpserver::peers::{self, Peers};
use crate::tcpserver::settings::Verbosity;
use connect::Target;
use settings::Settings;

/// The table of tcpclient.
pub static SPEC: Spec = Spec {
    name: "tcpclient",
    summary: "connect to a server and run a program that talks to it",
    section: 1,
    place: Place::Bin,
    options: &[
        OptionSpec::flag('q', "print nothing"),
        OptionSpec::flag('Q', "print errors (the default)"),
        OptionSpec::flag('v', "print errors and whom it is connected to"),
        OptionSpec::value('T', "x+y", "try each address for x seconds, then those that did not answer for y (default 2+58)"),
        OptionSpec::value('i', "address", "the local address (default: the kernel's choice)"),
        OptionSpec::value('p', "port", "the local port (default: the kernel's choice)"),
        OptionSpec::flag('4', "IPv4 only"),
        OptionSpec::flag('6', "IPv6 only"),
        OptionSpec::value('I', "interface", "the network interface for link-local addresses"),
        OptionSpec::flag('d', "delay small packets (the default)"),
        OptionSpec::flag('D', "never delay small packets"),
        OptionSpec::flag('h', "look up the server's name for TCPREMOTEHOST (the default)"),
        OptionSpec::flag('H', "do not look it up"),
        OptionSpec::value('l', "name", "the value of TCPLOCALHOST, instead of looking up the local address"),
        OptionSpec::flag('r', "ask the server's host for TCPREMOTEINFO (RFC 1413, the default)"),
        OptionSpec::flag('R', "do not ask"),
        OptionSpec::value('t', "seconds", "how long to wait for that answer (default 26)"),
        OptionSpec::value('e', "file", "a file in the form of /etc/hosts that is asked for host first"),
        OptionSpec::value('a', "seconds", "without a program: give up when nothing moves for so long (default: never)"),
    ],
    operands: Operands { synopsis: "host port [program [arg ...]] | /socket [program [arg ...]]", min: 1, max: None },
    exits: &[
        ExitCodeDoc { code: 100, meaning: "wrong usage" },
        ExitCodeDoc { code: 111, meaning: "no connection, or the program cannot be run; otherwise its own codes" },
    ],
    description: "\
Connects to port (a number or a name from /etc/services) of host, or to a Unix socket, and becomes program, which reads from the \
connection on descriptor 6 and writes to it on descriptor 7. host 0 is this host (127.0.0.1).

Without a program its own input goes to the server, and what the server sends to its output, until the server closes the connection.

The program gets PROTO, TCPLOCALIP, TCPLOCALPORT, TCPLOCALHOST, TCPREMOTEIP, TCPREMOTEPORT, TCPREMOTEHOST and TCPREMOTEINFO as tcpserver(1) has \
them; for a Unix socket PROTO=UNIX and UNIXREMOTEPATH. What cannot be found out is not set.",
    ..Spec::EMPTY
};

/// tcpclient.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

/// Without `-v`, `-Q` or `-q`.
pub(crate) const DEFAULT_VERBOSITY: Verbosity = Verbosity::Errors;

fn main(invocation: &Invocation) -> Exit {
    match settings::load(invocation) {
        Ok(settings) => run(invocation, settings),
        Err(exit) => exit,
    }
}

fn run(invocation: &Invocation, settings: Settings) -> Exit {
    let fatal = |message: &str| {
        if settings.verbosity > Verbosity::Quiet {
            invocation.complain("fatal", message);
        }
        Exit::TEMPORARY
    };
    let tell = |address: &str, error: &io::Error| {
        if settings.verbosity > Verbosity::Quiet {
            let why = chain::phrase(error);
            invocation.complain("warning", format_args!("unable to connect to {address}: {why}"));
        }
    };
    let socket = match connect::connect(&settings.target, &settings.how, tell) {
        Ok(socket) => socket,
        Err(e) => return fatal(&e),
    };
    let mut environment = settings.environment.clone();
    let socket = match describe(&settings, socket, &mut environment) {
        Ok((socket, shown)) => {
            if settings.verbosity == Verbosity::Status {
                invocation.complain("status", format_args!("connected to {shown}"));
            }
            socket
        }
        Err(e) => return fatal(&format!("unable to use the connection: {e}")),
    };
    if settings.command.is_empty() {
        return match copy(socket, settings.idle) {
            Ok(()) => Exit::OK,
            Err(e) if e.kind() == io::ErrorKind::TimedOut => {
                fatal("nothing moved on the connection for the time of option -a")
            }
            Err(e) => fatal(&format!("unable to copy: {}", chain::phrase(&e))),
        };
    }
    let error = chain::replace_with(&settings.command, &environment, environment.get("PATH"), |launch| {
        launch.descriptor(socket.as_fd(), 6)?.descriptor(socket.as_fd(), 7)
    });
    chain::cannot_run(invocation, &settings.command, &error)
}

/// Sets the variables; the second value is for the log.
fn describe(
    settings: &Settings,
    socket: OwnedFd,
    environment: &mut Environment,
) -> io::Result<(OwnedFd, String)> {
    if let Target::Unix(path) = &settings.target {
        peers::describe_unix_client(path, environment);
        return Ok((socket, path.display().to_string()));
    }
    let stream = TcpStream::from(socket);
    if settings.no_delay {
        stream.set_nodelay(true)?;
    }
    let peers = Peers { local: stream.local_addr()?, remote: stream.peer_addr()?, force_v6: false };
    peers.describe(settings.local_host.as_deref(), environment);
    if !settings.command.is_empty() && settings.lookups.any() {
        tcp_env::ask(peers, settings.lookups, environment);
    }
    let shown = format!("{} port {}", peers.remote_ip(), peers.remote.port());
    Ok((stream.into(), shown))
}

/// Copies both ways until the server ends.
fn copy(socket: OwnedFd, idle: Option<std::time::Duration>) -> io::Result<()> {
    let out = socket.try_clone()?;
    let directions = vec![
        Direction::new(io::stdin().as_fd().try_clone_to_owned()?, out, plain()),
        Direction::new(socket, io::stdout().as_fd().try_clone_to_owned()?, plain()),
    ];
    relay::run(directions, Until::One(1), idle)
}
