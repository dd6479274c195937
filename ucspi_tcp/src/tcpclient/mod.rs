//! tcpclient: connect, then become a program that talks through descriptors 6 and 7, or copy.

pub mod connect;
pub mod hosts;
pub mod settings;
pub mod starttls;

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};

use program::{
    Environment, Exit, ExitCodeDoc, Invocation, Operands, OptionSpec, Place, Program, Spec, Variable, chain,
};
use unix::child::Launch;

use crate::relay::{self, Direction, Until, plain};
use crate::tcp_env;
use crate::tcpserver::peers::{self, Peers};
use crate::tcpserver::settings::Verbosity;
use connect::Target;
use settings::Settings;

/// The operands, with and without TLS.
pub const OPERANDS: Operands =
    Operands { synopsis: "host port [program [arg ...]] | /socket [program [arg ...]]", min: 1, max: None };

/// The executable that speaks TLS, in the directory of this one.
pub const TLS_EXECUTABLE: &str = "tcpclient-tls";

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
        OptionSpec::value('a', "seconds", "without a program, or with TLS: give up when nothing moves for so long (default: never)"),
        OptionSpec::value('n', "file", "speak TLS, with our private key and certificate chain in this file; nothing: without"),
        OptionSpec::value('c', "file", "speak TLS, and believe only certificates of the authorities in this file (with -m alone: those of the system)"),
        OptionSpec::value('C', "directory", "where files of -n, -c and -L without a slash are (default CERTDIR)"),
        OptionSpec::value('L', "file", "lists of revoked certificates"),
        OptionSpec::value('m', "host", "speak TLS, and believe only a certificate for this name (subjectAltName); without it and with -c: for host"),
        OptionSpec::value('f', "file", "the ciphers offered, a list in the first line of this file"),
        OptionSpec::value('M', "version", "TLSv1_2, TLSv1_3 or lowest:highest (default both)"),
        OptionSpec::value('s', "protocol", "speak TLS after asking for it in smtp, pop3 or imap"),
        OptionSpec::flag('z', "set TLS_PROVIDER"),
    ],
    operands: OPERANDS,
    variables: &[Variable::new("CERTDIR", "Directory of certificates (default /etc/indimail/certs).")],
    exits: &[
        ExitCodeDoc { code: 100, meaning: "wrong usage" },
        ExitCodeDoc { code: 111, meaning: "no connection, or the program cannot be run; otherwise its own codes" },
    ],
    description: "\
Connects to port (a number or a name from /etc/services) of host, or to a Unix socket, and becomes program, which reads from the \
connection on descriptor 6 and writes to it on descriptor 7. host 0 is this host (127.0.0.1).

Without a program its own input goes to the server, and what the server sends to its output, until the server closes the connection.

The program gets PROTO, TCPLOCALIP, TCPLOCALPORT, TCPLOCALHOST, TCPREMOTEIP, TCPREMOTEPORT, TCPREMOTEHOST and TCPREMOTEINFO as tcpserver(1) has \
them; for a Unix socket PROTO=UNIX and UNIXREMOTEPATH. What cannot be found out is not set.

With -n, -c, -m or -s tcpclient speaks TLS with the server and pipes with the program, waits for it and ends with its code. SSL_PROTOCOL, \
SSL_CIPHER, SSL_CIPHER_USEKEYSIZE, SSL_SERVER_S_DN and SSL_SERVER_I_DN are set. With -s the program first reads the greeting, which the server \
sent before TLS; a server that does not offer TLS, or sends anything ahead of the handshake, is an error. Without -c and -m the server's certificate \
is not looked at: that hides the conversation only from who cannot take the server's place.",
    ..Spec::EMPTY
};

/// tcpclient.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

/// Without `-v`, `-Q` or `-q`.
pub(crate) const DEFAULT_VERBOSITY: Verbosity = Verbosity::Errors;

fn main(invocation: &Invocation) -> Exit {
    match settings::load(invocation) {
        Ok(settings) if settings.tls.is_some() => {
            // An executable of its own, so that nothing of TLS weighs on plain connections.
            let error = match unix::host::executable() {
                Ok(file) => Launch::new(file.with_file_name(TLS_EXECUTABLE))
                    .arg0(TLS_EXECUTABLE)
                    .args(&invocation.arguments)
                    .replace(),
                Err(e) => e,
            };
            invocation.complain("fatal", format_args!("unable to run {TLS_EXECUTABLE}: {error}"));
            Exit::TEMPORARY
        }
        Ok(settings) => run(invocation, &settings),
        Err(exit) => exit,
    }
}

/// Says what ends the program, unless it is to be quiet.
pub(crate) fn fatal(invocation: &Invocation, settings: &Settings, message: &str) {
    if settings.verbosity > Verbosity::Quiet {
        invocation.complain("fatal", message);
    }
}

/// A connection and the variables that describe it.
pub(crate) struct Connected {
    pub(crate) socket: OwnedFd,
    pub(crate) environment: Environment,
}

/// Connects; what goes wrong is said and becomes the exit code.
pub(crate) fn open(invocation: &Invocation, settings: &Settings) -> Result<Connected, Exit> {
    let tell = |address: &str, error: &io::Error| {
        if settings.verbosity > Verbosity::Quiet {
            let why = chain::phrase(error);
            invocation.complain("warning", format_args!("unable to connect to {address}: {why}"));
        }
    };
    let mut environment = settings.environment.clone();
    let connected = connect::connect(&settings.target, &settings.how, tell).and_then(|socket| {
        describe(settings, socket, &mut environment).map_err(|e| format!("unable to use the connection: {e}"))
    });
    match connected {
        Ok((socket, shown)) => {
            if settings.verbosity == Verbosity::Status {
                invocation.complain("status", format_args!("connected to {shown}"));
            }
            Ok(Connected { socket, environment })
        }
        Err(e) => {
            fatal(invocation, settings, &e);
            Err(Exit::TEMPORARY)
        }
    }
}

fn run(invocation: &Invocation, settings: &Settings) -> Exit {
    let Connected { socket, environment } = match open(invocation, settings) {
        Ok(connected) => connected,
        Err(exit) => return exit,
    };
    if settings.command.is_empty() {
        let message = match copy(socket, settings.idle) {
            Ok(()) => return Exit::OK,
            Err(e) if e.kind() == io::ErrorKind::TimedOut => {
                "nothing moved on the connection for the time of option -a".to_owned()
            }
            Err(e) => format!("unable to copy: {}", chain::phrase(&e)),
        };
        fatal(invocation, settings, &message);
        return Exit::TEMPORARY;
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
