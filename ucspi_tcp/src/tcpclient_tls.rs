//! tcpclient with TLS: the connection is made as without; then this process speaks TLS with the server and plain
//! pipes with the program.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use program::{Environment, Exit, Invocation, Place, Program, Spec, chain};
use tls::facts::Facts;
use tls::relay::{End, Pipes, handshake, relay};
use tls::rustls::pki_types::ServerName;
use tls::rustls::{ClientConnection, Connection};
use tls::{client, suites};
use unix::Pid;
use unix::child::{Ending, wait_for};
use unix::clock::Deadline;
use unix::fd::Raw;
use unix::wait::{self, Interest};

use crate::relay::{self as plain_relay, Direction, Until, plain};
use crate::tcpclient::settings::{Settings, Tls};
use crate::tcpclient::starttls::{Dialogue, Step};
use crate::tcpclient::{self, Connected};

/// How long the handshake may take, what the protocol needs before it included.
const HANDSHAKE: Duration = Duration::from_secs(60);

/// The table of tcpclient-tls: that of tcpclient, which starts it.
pub static SPEC: Spec = Spec {
    name: tcpclient::TLS_EXECUTABLE,
    summary: "tcpclient with TLS, started by tcpclient for its options -n, -c, -m and -s",
    section: 8,
    place: Place::Libexec,
    options: tcpclient::SPEC.options,
    operands: tcpclient::OPERANDS,
    variables: tcpclient::SPEC.variables,
    exits: tcpclient::SPEC.exits,
    description: tcpclient::SPEC.description,
    ..Spec::EMPTY
};

/// tcpclient-tls.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

fn main(invocation: &Invocation) -> Exit {
    let settings = match tcpclient::settings::load(invocation) {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    let Some(tls) = &settings.tls else {
        invocation.complain("fatal", "no option for TLS: start tcpclient instead");
        return Exit::PERMANENT;
    };
    let fatal = |message: String| {
        tcpclient::fatal(invocation, &settings, &message);
        Exit::TEMPORARY
    };
    let config = match options(tls).and_then(|options| options.load().map_err(|e| e.to_string())) {
        Ok(config) => config,
        Err(e) => return fatal(format!("unable to speak TLS: {e}")),
    };
    let Connected { socket, environment } = match tcpclient::open(invocation, &settings) {
        Ok(connected) => connected,
        Err(exit) => return exit,
    };
    let Ok(name) = ServerName::try_from(tls.name.clone()) else {
        return fatal(format!("{}: expected a host name or an address", tls.name.escape_debug()));
    };
    let connection = ClientConnection::new(config, name).map_err(|e| e.to_string());
    match connection.and_then(|c| converse(&settings, tls, Connection::from(c), &socket, environment)) {
        Ok(code) => Exit(code),
        Err(e) => fatal(e),
    }
}

fn options(tls: &Tls) -> Result<client::Options, String> {
    let mut options = client::Options {
        authorities: tls.authorities.clone(),
        revoked: tls.revoked.clone(),
        certificate: tls.certificate.clone(),
        ..client::Options::default()
    };
    if let Some(versions) = &tls.versions {
        options.versions = suites::versions(versions).map_err(|e| format!("option -M: {e}"))?;
    }
    if let Some(file) = &tls.cipher_file {
        let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
        let line = text.lines().next().unwrap_or_default();
        options.suites = suites::list(line).map_err(|e| format!("{}: {e}", file.display()))?;
    }
    Ok(options)
}

/// The whole conversation; the exit code.
fn converse(
    settings: &Settings,
    tls: &Tls,
    mut connection: Connection,
    socket: &OwnedFd,
    mut environment: Environment,
) -> Result<u8, String> {
    let deadline = Deadline::after(HANDSHAKE);
    let greeting = match tls.starttls {
        Some(protocol) => before(Dialogue::new(protocol, &own_literal(&environment)), socket, deadline)?,
        None => Vec::new(),
    };
    handshake(&mut connection, socket.as_fd(), deadline).map_err(|e| format!("TLS handshake: {e}"))?;
    describe(&Facts::of(&connection), tls.provider, &mut environment);
    let (program, pipes) = start(settings, &environment)?;
    // It was said before TLS, but the program expects it first.
    let mut input = Raw(pipes.input.as_fd());
    io::Write::write_all(&mut input, &greeting)
        .map_err(|e| format!("unable to pass the greeting on: {e}"))?;
    let end = relay(&mut connection, socket.as_fd(), pipes, settings.idle.unwrap_or(Duration::MAX), None);
    let ending = wait_for(program).map_err(|e| format!("unable to wait for the program: {e}"))?;
    match (end, ending) {
        (End::Idle, _) => Err("nothing moved on the connection for the time of option -a".into()),
        (End::Broken(e), Ending::Exited(0)) => Err(format!("the connection broke: {e}")),
        (_, Ending::Exited(code)) => Ok(u8::try_from(code).unwrap_or(Exit::TEMPORARY.0)),
        (_, Ending::Killed(signal)) => Err(format!("the program was killed by signal {signal}")),
    }
}

/// Talks until the server waits for the handshake; returns its greeting.
fn before(mut dialogue: Dialogue, socket: &OwnedFd, deadline: Deadline) -> Result<Vec<u8>, String> {
    let mut buffer = [0; 4096];
    loop {
        if !wait::one(socket.as_fd(), Interest::Read, deadline).map_err(|e| e.to_string())? {
            return Err("the server does not answer".into());
        }
        let count = unix::socket::receive(socket, &mut buffer).map_err(|e| e.to_string())?;
        if count == 0 {
            return Err("the server closed the connection before TLS".into());
        }
        match dialogue.feed(&buffer[..count])? {
            Step::Wait => {}
            // A line or two: they fit into the buffer of any new connection.
            Step::Send(bytes) => {
                io::Write::write_all(&mut Raw(socket.as_fd()), &bytes).map_err(|e| e.to_string())?;
            }
            Step::Ready(greeting) => return Ok(greeting),
        }
    }
}

fn own_literal(environment: &Environment) -> String {
    let ip = environment.get("TCPLOCALIP").map_or("127.0.0.1".into(), |ip| ip.to_string_lossy().into_owned());
    if ip.contains(':') { format!("[IPv6:{ip}]") } else { format!("[{ip}]") }
}

fn describe(facts: &Facts, provider: bool, environment: &mut Environment) {
    let Facts { version, cipher, bits, .. } = facts;
    environment.set("SSL_PROTOCOL", version.as_str());
    environment.set("SSL_CIPHER", cipher.as_str());
    environment.set("SSL_CIPHER_USEKEYSIZE", bits.to_string());
    if let Some(server) = &facts.client {
        environment.set("SSL_SERVER_S_DN", server.subject.as_str());
        environment.set("SSL_SERVER_I_DN", server.issuer.as_str());
    }
    if provider {
        // Both ends speak the version that was agreed on.
        let text =
            format!("tcpclient, TLS Server={version}, Client={version}, Ciphers={cipher}, bits={bits}");
        environment.set("TLS_PROVIDER", text);
    }
}

/// Starts the program with pipes as descriptors 6 and 7; without one, a copy of this process that passes
/// standard input and output on: these may be shared with others and must not become non-blocking.
fn start(settings: &Settings, environment: &Environment) -> Result<(Pid, Pipes), String> {
    let attempt = || -> io::Result<(Pid, Pipes)> {
        let (theirs_in, input) = unix::fd::pipe()?;
        let (output, theirs_out) = unix::fd::pipe()?;
        let pipes = Pipes { input, output };
        let Some((program, args)) = settings.command.split_first() else {
            let pid = pass_on(theirs_in, theirs_out, &pipes)?;
            return Ok((pid, pipes));
        };
        let pid = unix::child::Launch::new(program)
            .args(args)
            .env_exactly(environment.to_vec())
            .descriptor(theirs_in.as_fd(), 6)?
            .descriptor(theirs_out.as_fd(), 7)?
            .start()?;
        Ok((pid, pipes))
    };
    let name = settings
        .command
        .first()
        .map_or("copying".into(), |n| n.as_encoded_bytes().escape_ascii().to_string());
    attempt().map_err(|e| format!("unable to run {name}: {}", chain::phrase(&e)))
}

fn pass_on(from: OwnedFd, to: OwnedFd, pipes: &Pipes) -> io::Result<Pid> {
    let (stdin, stdout) =
        (io::stdin().as_fd().try_clone_to_owned()?, io::stdout().as_fd().try_clone_to_owned()?);
    let theirs = [pipes.input.as_fd(), pipes.output.as_fd()].map(|fd| fd.as_raw_fd());
    unix::child::run_beside(move || {
        // The copy must not hold the other ends open.
        drop(theirs.map(unix::fd::inherited));
        let directions = vec![Direction::new(stdin, to, plain()), Direction::new(from, stdout, plain())];
        match plain_relay::run(directions, Until::One(1), None) {
            Ok(()) => Exit::OK.0,
            Err(_) => Exit::TEMPORARY.0,
        }
    })
}
