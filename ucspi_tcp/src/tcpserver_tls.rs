//! tcpserver with TLS: the same server; each connection has a process that speaks TLS with the client and plain
//! pipes with the program.
//!
//! Keys and certificates are read before root is given up, and again at HUP. The process of a connection is a
//! copy of the server, so that nothing is read or started for a handshake; the tickets by which clients resume a
//! session are good for all copies.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use program::{Environment, Exit, Invocation, Place, Program, Spec};
use tls::facts::Facts;
use tls::relay::{End, Pipes, handshake, relay};
use tls::rustls::{Connection, ServerConfig, ServerConnection};
use tls::{server, suites};
use unix::child::{Ending, Launch, wait_for};
use unix::clock::Deadline;
use unix::signals::Signals;
use unix::{Pid, Signal};

use crate::tcpserver;
use crate::tcpserver::peers::safe;
use crate::tcpserver::secure::{Conversation, Secure};
use crate::tcpserver::settings::Tls;

/// New keys for tickets after this time: who learns one can read what was resumed with it.
const TICKET_KEYS: Duration = Duration::from_secs(6 * 3600);
/// Exit code of a connection that cannot be served.
const DROPPED: u8 = 111;

/// The table of tcpserver-tls: that of tcpserver, which starts it.
pub static SPEC: Spec = Spec {
    name: tcpserver::TLS_EXECUTABLE,
    summary: "tcpserver with TLS, started by tcpserver for its options -s and -n",
    section: 8,
    place: Place::Libexec,
    options: tcpserver::SPEC.options,
    operands: tcpserver::OPERANDS,
    variables: tcpserver::SPEC.variables,
    exits: tcpserver::SPEC.exits,
    description: tcpserver::SPEC.description,
    ..Spec::EMPTY
};

/// tcpserver-tls.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

fn main(invocation: &Invocation) -> Exit {
    let settings = match tcpserver::load(invocation) {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    let Some(tls) = &settings.tls else {
        invocation.complain("fatal", "neither -s nor -n: start tcpserver instead");
        return Exit::PERMANENT;
    };
    match Keys::load(tls) {
        Ok(mut keys) => tcpserver::run(&settings, Some(&mut keys)),
        Err(Wrong::Option(e)) => {
            invocation.complain("fatal", e);
            Exit::PERMANENT
        }
        Err(Wrong::File(e)) => {
            invocation.complain("fatal", format_args!("unable to speak TLS: {e}"));
            Exit::TEMPORARY
        }
    }
}

/// Why there are no keys.
enum Wrong {
    Option(String),
    File(String),
}

/// Certificates, keys and what else a handshake needs.
struct Keys<'a> {
    settings: &'a Tls,
    config: Arc<ServerConfig>,
    since: Instant,
}

impl<'a> Keys<'a> {
    fn load(settings: &'a Tls) -> Result<Self, Wrong> {
        Ok(Self { settings, config: config(settings)?, since: Instant::now() })
    }
}

fn config(settings: &Tls) -> Result<Arc<ServerConfig>, Wrong> {
    let mut options = server::Options::new(&settings.certificate);
    options.names = Some(settings.names.clone());
    options.clients = settings.authorities.as_ref().map(|authorities| server::Clients {
        authorities: authorities.clone(),
        revoked: settings.revoked.clone(),
        required: settings.required,
    });
    if let Some(versions) = &settings.versions {
        options.versions =
            suites::versions(versions).map_err(|e| Wrong::Option(format!("option -M: {e}")))?;
    }
    if let Some(file) = &settings.cipher_file {
        let shown = file.display();
        let text = std::fs::read_to_string(file).map_err(|e| Wrong::File(format!("{shown}: {e}")))?;
        let line = text.lines().next().unwrap_or_default();
        options.suites = suites::list(line).map_err(|e| Wrong::File(format!("{shown}: {e}")))?;
    } else {
        let list = settings.ciphers.iter().flatten().cloned().collect::<Vec<_>>().join(":");
        if !list.is_empty() {
            let wrong = |e| Wrong::Option(format!("variables TLS_CIPHER_LIST and TLS_CIPHER_SUITE: {e}"));
            options.suites = suites::list(&list).map_err(wrong)?;
        }
    }
    options.load().map_err(|e| Wrong::File(e.to_string()))
}

impl Secure for Keys<'_> {
    fn reload(&mut self) -> Result<(), String> {
        match config(self.settings) {
            Ok(config) => {
                self.config = config;
                self.since = Instant::now();
                Ok(())
            }
            Err(Wrong::Option(e) | Wrong::File(e)) => Err(e),
        }
    }

    fn refresh(&mut self) {
        if self.since.elapsed() > TICKET_KEYS {
            self.since = Instant::now();
            let mut config = (*self.config).clone();
            // Without new keys the old ones go on.
            if let Ok(ticketer) = tls::server::tickets() {
                config.ticketer = ticketer;
                self.config = Arc::new(config);
            }
        }
    }

    fn serve(&self, conversation: Conversation<'_>) -> u8 {
        let (log, shown) = (conversation.log, conversation.shown.to_owned());
        match self.converse(conversation) {
            Ok(code) => code,
            Err(e) => {
                log.error(&format!("dropping connection from {shown}: {e}"));
                DROPPED
            }
        }
    }
}

impl Keys<'_> {
    fn converse(&self, mut conversation: Conversation<'_>) -> Result<u8, String> {
        let socket = unix::fd::duplicate_above(io::stdin(), 3).map_err(|e| e.to_string())?;
        let tls = ServerConnection::new(self.config.clone()).map_err(|e| e.to_string())?;
        let mut tls = Connection::from(tls);
        handshake(&mut tls, socket.as_fd(), Deadline::after(self.settings.handshake))
            .map_err(|e| format!("TLS handshake: {e}"))?;
        let Connection::Server(server) = &tls else { return Err("not a server".into()) };
        self.describe(&Facts::of_server(server), &mut conversation.environment);
        if let Some(banner) = conversation.banner {
            io::Write::write_all(&mut tls.writer(), banner).map_err(|e| e.to_string())?;
        }
        let terminated = Signals::listen(&[Signal::SIGTERM]).map_err(|e| e.to_string())?;
        let (program, pipes) = start(&conversation)?;
        let mut pass_on = || {
            while terminated.take().is_some() {
                // It may have ended already.
                let _ = nix::sys::signal::kill(program, Signal::SIGTERM);
            }
        };
        let also = Some((terminated.as_fd(), &mut pass_on as &mut dyn FnMut()));
        match relay(&mut tls, socket.as_fd(), pipes, self.settings.idle, also) {
            End::Done => {}
            End::Idle => conversation.log.error(&format!(
                "ending connection from {}: nothing has moved for {} seconds",
                conversation.shown,
                self.settings.idle.as_secs()
            )),
            End::Broken(e) => {
                conversation.log.detail(|| format!("connection from {}: {e}", conversation.shown))
            }
        }
        drop(socket);
        ending(program, &terminated)
    }

    fn describe(&self, facts: &Facts, environment: &mut Environment) {
        let Facts { version, cipher, bits, name, client } = facts;
        environment.set("SSL_PROTOCOL", version.as_str());
        environment.set("SSL_CIPHER", cipher.as_str());
        environment.set("SSL_CIPHER_USEKEYSIZE", bits.to_string());
        if let Some(name) = name {
            environment.set("SSL_TLS_SNI", safe(name));
        }
        environment.set("SSL_CLIENT_VERIFY", if client.is_some() { "SUCCESS" } else { "NONE" });
        if let Some(client) = client {
            environment.set("SSL_CLIENT_S_DN", client.subject.as_str());
            environment.set("SSL_CLIENT_I_DN", client.issuer.as_str());
        }
        if self.settings.provider {
            // Both ends speak the version that was agreed on.
            let text =
                format!("tcpserver, TLS Server={version}, Client={version}, Ciphers={cipher}, bits={bits}");
            environment.set("TLS_PROVIDER", text);
        }
    }
}

/// Starts the program with pipes as descriptors 0 and 1.
fn start(conversation: &Conversation<'_>) -> Result<(Pid, Pipes), String> {
    let (program, args) = conversation.command.split_first().ok_or("no program")?;
    let attempt = || -> io::Result<(Pid, Pipes)> {
        let (stdin, input) = unix::fd::pipe()?;
        let (output, stdout) = unix::fd::pipe()?;
        let file = conversation.path.map_or(program.as_os_str(), std::path::Path::as_os_str);
        let pid = Launch::new(file)
            .arg0(program)
            .args(args)
            .env_exactly(conversation.environment.to_vec())
            .descriptor(stdin.as_fd(), 0)?
            .descriptor(stdout.as_fd(), 1)?
            .start()?;
        Ok((pid, Pipes { input, output }))
    };
    attempt().map_err(|e| format!("unable to run {}: {e}", program.as_encoded_bytes().escape_ascii()))
}

/// Waits for the program and ends as it did, so that the server logs how.
fn ending(program: Pid, terminated: &Signals) -> Result<u8, String> {
    let handle = unix::process::Handle::open(program).map_err(|e| e.to_string())?;
    loop {
        use unix::wait::Interest::Read;
        let got = unix::wait::ready(&[(handle.as_fd(), Read), (terminated.as_fd(), Read)], None);
        let got = got.map_err(|e| e.to_string())?;
        if got[0].read {
            break;
        }
        while terminated.take().is_some() {
            let _ = handle.signal(Signal::SIGTERM);
        }
    }
    match wait_for(program).map_err(|e| e.to_string())? {
        Ending::Exited(code) => Ok(u8::try_from(code).unwrap_or(DROPPED)),
        Ending::Killed(number) => {
            unix::signals::restore().map_err(|e| e.to_string())?;
            if let Ok(signal) = Signal::try_from(number) {
                // The same end, without a second core file of a process that did nothing wrong.
                let _ = unix::privilege::forbid_core_dumps();
                let _ = nix::sys::signal::raise(signal);
            }
            Ok(DROPPED)
        }
    }
}
