//! The loop: accept, decide, start, reap.

use std::fs::File;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use program::{Environment, Exit};
use unix::child::{Ending, Launch};
use unix::clock::Deadline;
use unix::signals::Signals;
use unix::wait::Interest;
use unix::{Pid, Signal};

use super::listener::{Accepted, Listener, prepare};
use super::peers::{describe_unix, safe};
use super::settings::{Address, Settings, Verbosity};
use super::table::{Client, Connection, Table};
use crate::rules::{Verdict, look_up};
use crate::tcp_env;

/// After an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// Connections accepted in one turn.
const BATCH: usize = 64;

/// Serves until TERM.
pub(super) fn run(settings: &Settings) -> Exit {
    let server = Server::start(settings);
    match server {
        Ok(mut server) => server.serve(),
        Err(message) => {
            report(&format!("fatal: {message}"));
            Exit::TEMPORARY
        }
    }
}

struct Server<'a> {
    settings: &'a Settings,
    signals: Signals,
    listener: Listener,
    rules: Option<cdb::Reader>,
    table: Table,
    accept_again: Option<Deadline>,
    stop: bool,
    _pid_file: Option<Flock<File>>,
}

/// What the rules say about a client.
enum Decision {
    Serve(Verdict),
    Deny,
    /// The rules cannot be read: nobody is let in by mistake.
    Drop(String),
}

impl<'a> Server<'a> {
    fn start(settings: &'a Settings) -> Result<Self, String> {
        use Signal::{SIGCHLD, SIGHUP, SIGTERM, SIGUSR1};
        unix::fd::sanitize_standard().map_err(|e| format!("unable to open /dev/null: {e}"))?;
        let signals = Signals::listen(&[SIGCHLD, SIGTERM, SIGHUP, SIGUSR1])
            .map_err(|e| format!("unable to catch signals: {e}"))?;
        let limit = settings.limit.read().map_err(|e| e.to_string())?;
        let pid_file = settings.pid_file.as_deref().map(single_instance).transpose()?;
        let listener = Listener::open(&settings.address, settings.only_v4, settings.backlog)
            .map_err(|e| format!("unable to listen on {}: {e}", shown_address(&settings.address)))?;
        if let Some(id) = &settings.identity {
            unix::privilege::become_user(id.uid, id.gid, &id.groups)
                .map_err(|e| format!("unable to become the user of -u, -g or -U: {e}"))?;
        }
        if settings.print_port {
            let port = listener.port().map_err(|e| format!("unable to tell the port: {e}"))?;
            let mut out = io::stdout();
            writeln!(out, "{port}")
                .and_then(|()| out.flush())
                .map_err(|e| format!("unable to print the port: {e}"))?;
        }
        let mut server = Self {
            settings,
            signals,
            listener,
            rules: None,
            table: Table::new(limit),
            accept_again: None,
            stop: false,
            _pid_file: pid_file,
        };
        server.open_rules();
        Ok(server)
    }

    fn serve(&mut self) -> Exit {
        self.notify("READY=1\n");
        self.status("");
        while !self.stop {
            if let Err(e) = self.turn() {
                self.error(&format!("unable to wait for connections: {e}"));
            }
        }
        self.notify("STOPPING=1\n");
        self.listener.clean_up();
        self.step(&format!("sigterm: {}/{}", self.table.len(), self.table.limit()));
        Exit::OK
    }

    fn turn(&mut self) -> io::Result<()> {
        self.accept_again = self.accept_again.filter(|d| !d.passed());
        let accepting = !self.table.is_full() && self.accept_again.is_none();
        let mut fds = vec![(self.signals.as_fd(), Interest::Read)];
        if accepting {
            fds.push((self.listener.as_fd(), Interest::Read));
        }
        let ready = unix::wait::ready(&fds, self.accept_again)?;
        if ready[0].read {
            self.take_signals()?;
        }
        if ready.get(1).is_some_and(|r| r.read) && !self.stop {
            self.accept();
        }
        Ok(())
    }

    fn take_signals(&mut self) -> io::Result<()> {
        while let Some(signal) = self.signals.take() {
            match signal {
                Signal::SIGTERM => self.stop = true,
                Signal::SIGHUP => self.reload(),
                Signal::SIGUSR1 => self.print_table(),
                _ => {}
            }
        }
        while let Some((pid, ending)) = unix::child::reap()? {
            self.ended(pid, ending);
        }
        Ok(())
    }

    fn accept(&mut self) {
        for _ in 0..BATCH {
            if self.table.is_full() {
                return;
            }
            match self.listener.accept() {
                Ok(Some(accepted)) => self.connection(&accepted),
                Ok(None) => return,
                Err(e) => {
                    self.error(&format!("unable to accept: {e}"));
                    self.accept_again = Some(Deadline::after(ACCEPT_PAUSE));
                    return;
                }
            }
        }
    }

    fn connection(&mut self, accepted: &Accepted) {
        let settings = self.settings;
        let peers = accepted.peers(settings.force_v6);
        let (client, shown) = match peers {
            Some(peers) => (Client::of(peers.remote.ip()), peers.remote_ip().to_string()),
            None => (Client::Local, "unix".to_owned()),
        };
        if let (Some(_), Err(e)) =
            (peers, prepare(accepted.socket.as_fd(), settings.no_delay, settings.kill_options))
        {
            self.error(&format!("unable to set up the connection from {shown}: {e}"));
            return;
        }
        if let Some(banner) = &settings.banner {
            // A new connection has room for it; a client that is gone already is found out by the program.
            let _ = unix::socket::send_quietly(accepted.socket.as_fd(), banner);
        }
        let verdict = match self.decide(peers.map(|p| p.remote.ip().to_canonical())) {
            Decision::Serve(verdict) => verdict,
            Decision::Deny => {
                let ends = peers.map_or(shown, |p| p.shown(settings.local_host.as_deref()));
                self.step(&format!("deny {} {ends}", std::process::id()));
                return;
            }
            Decision::Drop(why) => {
                self.error(&format!("dropping connection from {shown}: {why}"));
                return;
            }
        };
        let by_rule = verdict.value(b"MAXPERIP").and_then(|v| std::str::from_utf8(v).ok()?.parse().ok());
        let per_client = by_rule.unwrap_or(settings.per_client);
        if !self.table.admits(client, per_client) {
            self.step(&format!("end {shown} perIPlimit {per_client}"));
            return;
        }
        let mut environment = settings.environment.clone();
        match (&peers, &settings.address) {
            (Some(peers), _) => peers.describe(settings.local_host.as_deref(), &mut environment),
            (None, Address::Unix(path)) => describe_unix(path, &mut environment),
            (None, Address::Tcp { .. }) => {}
        }
        verdict.apply(&mut environment);
        match self.launch(accepted, &environment) {
            Ok(pid) => {
                self.table.add(pid, Connection { client, shown: shown.clone() });
                self.status(&format!(" start, pid={pid}, IP {shown}"));
                self.step(&format!("pid {pid} from {shown}"));
                let ends = peers.map_or(shown, |p| p.shown(settings.local_host.as_deref()));
                self.step(&format!("ok {pid} {ends}:maxperip={per_client}"));
            }
            Err(e) => {
                let program = settings.command.first().map_or(&b""[..], |c| c.as_encoded_bytes());
                self.error(&format!(
                    "dropping connection from {shown}: unable to run {}: {e}",
                    program.escape_ascii()
                ));
            }
        }
    }

    fn launch(&self, accepted: &Accepted, environment: &Environment) -> io::Result<Pid> {
        let (program, args) = self.settings.command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        nonblocking_off(accepted)?;
        let launch = if self.settings.lookups.any() && accepted.ends.is_some() {
            // The same executable under another name.
            Launch::new(unix::host::executable()?)
                .arg0(tcp_env::SPEC.name)
                .args(tcp_env::arguments(self.settings))
                .args(&self.settings.command)
        } else {
            Launch::new(program).args(args)
        };
        launch
            .env_exactly(environment.to_vec())
            .descriptor(accepted.socket.as_fd(), 0)?
            .descriptor(accepted.socket.as_fd(), 1)?
            .start()
    }

    /// By the client's own address, not by the network that it counts for.
    fn decide(&self, ip: Option<IpAddr>) -> Decision {
        let (Some(rules), Some(ip)) = (&self.settings.rules, ip) else {
            return Decision::Serve(Verdict::default());
        };
        let Some(reader) = &self.rules else {
            return if rules.optional {
                Decision::Serve(Verdict::default())
            } else {
                Decision::Drop(format!("{} cannot be read", rules.path.display()))
            };
        };
        match look_up(crate::rules::Who { ip: Some(ip), ..Default::default() }, |key| reader.get(key)) {
            Ok(Some((_, verdict))) if verdict.deny => Decision::Deny,
            Ok(Some((_, verdict))) => Decision::Serve(verdict),
            Ok(None) => Decision::Serve(Verdict::default()),
            Err(e) => Decision::Drop(format!("{}: {e}", rules.path.display())),
        }
    }

    fn ended(&mut self, pid: Pid, ending: Ending) {
        let Some(connection) = self.table.remove(pid) else { return };
        match ending {
            Ending::Exited(code) => self.step(&format!("end {pid} status {code}")),
            Ending::Killed(signal) => self.step(&format!("end {pid} killed by signal {signal}")),
        }
        self.status(&format!(" end, pid={pid}, IP {}", connection.shown));
    }

    fn reload(&mut self) {
        match self.settings.limit.read() {
            Ok(limit) => self.table.set_limit(limit),
            Err(e) => self.error(&format!("keeping the limit of {}: {e}", self.table.limit())),
        }
        self.open_rules();
        self.step(&format!("sighup: {}/{}", self.table.len(), self.table.limit()));
    }

    fn open_rules(&mut self) {
        let Some(rules) = &self.settings.rules else { return };
        match cdb::Reader::open(&rules.path) {
            Ok(reader) => self.rules = reader,
            Err(e) => {
                self.rules = None;
                self.error(&format!("unable to read {}: {e}", rules.path.display()));
            }
        }
    }

    fn notify(&self, message: &str) {
        if let Some(socket) = &self.settings.notify_socket
            && let Err(e) = unix::notify::send(socket, message)
        {
            self.error(&format!("unable to notify {}: {e}", socket.display()));
        }
    }

    fn print_table(&self) {
        report(&format!("connections: {}/{}", self.table.len(), self.table.limit()));
        for (pid, connection) in self.table.iter() {
            report(&format!("connection: pid={pid}, IP {}", connection.shown));
        }
    }

    fn status(&self, event: &str) {
        self.step(&format!("status: {}/{}{event}", self.table.len(), self.table.limit()));
    }

    fn step(&self, line: &str) {
        if self.settings.verbosity >= Verbosity::Status {
            report(line);
        }
    }

    fn error(&self, line: &str) {
        if self.settings.verbosity >= Verbosity::Errors {
            report(&format!("warning: {line}"));
        }
    }
}

/// Programs expect a connection that blocks, and get nothing of ours through exec.
fn nonblocking_off(accepted: &Accepted) -> io::Result<()> {
    unix::fd::set_nonblocking(accepted.socket.as_fd(), false)
}

fn report(line: &str) {
    // One write for a line, since stderr has no buffer and each one wakes the logger.
    // Nobody may be reading the log; that must not stop the service.
    let _ = io::stderr().write_all(format!("tcpserver: {line}\n").as_bytes());
}

fn shown_address(address: &Address) -> String {
    match address {
        Address::Tcp { host, port } => format!("{} {}", safe(host), safe(port)),
        Address::Unix(path) => path.display().to_string(),
    }
}

fn single_instance(path: &std::path::Path) -> Result<Flock<File>, String> {
    let shown = path.display();
    let open = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .open(path);
    let file = open.map_err(|e| format!("unable to open {shown}: {e}"))?;
    let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, e)| format!("unable to lock {shown}: another instance is running ({e})"))?;
    lock.set_len(0)
        .and_then(|()| writeln!(&*lock, "{}", std::process::id()))
        .map_err(|e| format!("unable to write {shown}: {e}"))?;
    Ok(lock)
}
