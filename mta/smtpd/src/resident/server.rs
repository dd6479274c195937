//! The event loop: accepts, lets in, waits for everybody.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use program::{Environment, Invocation};
use ucspi_tcp::networks::Networks;
use ucspi_tcp::proxy::{self, Parsed};
use ucspi_tcp::rules::{Verdict, Who};
use ucspi_tcp::tcpserver::book::{Book, Decision, max_per_ip, max_per_network};
use ucspi_tcp::tcpserver::listener::{From, Listener, prepare};
use ucspi_tcp::tcpserver::log::Log as RulesLog;
use ucspi_tcp::tcpserver::peers::{Names, Peers};
use ucspi_tcp::tcpserver::settings::Verbosity;
use ucspi_tcp::tcpserver::table::{self, Client, Limits, Table};
use unix::Signal;
use unix::readiness::{Readiness, Ready, Watched};
use unix::signals::Signals;

use super::connection::{Connection, Newcomer, Shaking, Stage};
use super::flow::{Context, eprint_line};
use super::notify::{self, Watchdog};
use super::options::{Options, Service};
use super::profiles::Profiles;
use super::timers::Timers;
use super::wire::{Got, Wire};
use super::workers::{Done, Workers};
use crate::facts::Facts;
use crate::log::Log;

/// Bytes read at a time.
const PIECE: usize = 32 * 1024;
/// How long accepting rests when the process has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections accepted before those that are open have their turn.
const BATCH: usize = 64;
/// How long clients have to take the last words of a server that stops.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long a proxy may take to say for whom it speaks.
const PROXY_PATIENCE: Duration = Duration::from_secs(10);

/// A resident server.
pub(super) struct Server<'a> {
    options: &'a Options,
    environment: &'a Environment,
    readiness: Readiness,
    listeners: Vec<(Watched<Listener>, Service)>,
    signals: Watched<Signals>,
    book: Option<Book>,
    profiles: Profiles,
    connections: HashMap<usize, Connection>,
    table: Table,
    timers: Timers,
    workers: Workers,
    /// Never used twice, so that late events and answers find nobody.
    next_key: usize,
    next_number: u32,
    accept_again: Option<Instant>,
    drain_until: Option<Instant>,
    /// The time to drain is over; last words are on their way.
    cutting: bool,
    buffer: Vec<u8>,
}

impl<'a> Server<'a> {
    pub(super) fn new(
        invocation: &'a Invocation,
        options: &'a Options,
        listeners: Vec<(Listener, Service)>,
        signals: Signals,
    ) -> io::Result<Self> {
        let readiness = Readiness::new()?;
        let first = listeners.len();
        let listeners: io::Result<Vec<_>> = listeners
            .into_iter()
            .enumerate()
            .map(|(key, (listener, service))| Ok((readiness.add(key, listener)?, service)))
            .collect();
        let book = options.rules.as_ref().map(|rules| Book::open(rules.clone(), false));
        if let Some(problem) = book.as_ref().and_then(Book::problem) {
            eprint_line(&format!("warning: {problem}"));
        }
        Ok(Self {
            environment: &invocation.environment,
            listeners: listeners?,
            signals: readiness.add(first, signals)?,
            book,
            profiles: Profiles::new(invocation.layout.clone()),
            connections: HashMap::new(),
            table: Table::new(options.connections),
            timers: Timers::default(),
            workers: Workers::new(options.questions, options.commits, readiness.waker()),
            next_key: first + 1,
            next_number: std::process::id(),
            accept_again: None,
            drain_until: None,
            cutting: false,
            buffer: vec![0; PIECE],
            readiness,
            options,
        })
    }

    /// Serves until it is told to stop.
    pub(super) fn run(&mut self) -> io::Result<()> {
        self.signals.watch(true, false)?;
        self.watch_listeners()?;
        self.check_settings();
        let mut watchdog = Watchdog::of_this_process(Instant::now());
        for (listener, _) in &self.listeners {
            eprint_line(&format!("listening on port {}", listener.port()?));
        }
        notify::ready();
        loop {
            let now = Instant::now();
            watchdog.ping(now);
            if self.drain_until.is_some() && self.connections.is_empty() {
                break;
            }
            let until = [self.timers.next(), watchdog.due(), self.accept_again, self.drain_until];
            let until = until.into_iter().flatten().min();
            let events = self.readiness.wait(until.map(|u| u.saturating_duration_since(now)))?;
            let now = Instant::now();
            for event in events {
                self.event(event, now)?;
            }
            for (key, done) in self.workers.done() {
                self.done(key, done, now);
            }
            while let Some(key) = self.timers.pop(now) {
                self.look(key, now);
            }
            if self.accept_again.is_some_and(|t| t <= now) {
                self.accept_again = None;
                self.watch_listeners()?;
            }
            if self.drain_until.is_some_and(|t| t <= now) {
                if std::mem::replace(&mut self.cutting, true) {
                    // What a worker still has is lost to us; its client has not been told anything.
                    break;
                }
                self.drain_until = Some(now + LAST_WORDS);
                self.tell_to_stop(true, now);
            }
        }
        eprint_line("stopped");
        Ok(())
    }

    /// Says at the start what every connection would fail of.
    fn check_settings(&mut self) {
        let environment = self.environment.clone();
        for (number, (listener, service)) in self.listeners.iter().enumerate() {
            let port = listener.port().unwrap_or(0);
            let any: std::net::IpAddr = std::net::Ipv4Addr::UNSPECIFIED.into();
            let (local, remote) = (SocketAddr::new(any, port), SocketAddr::new(any, 0));
            let environment =
                variables(&environment, self.options, *service, local, remote, &Verdict::default());
            let kind = (number, port, Vec::new());
            let _ = self.profiles.find(&kind, &environment, &|problem| {
                eprint_line(&format!("warning: {problem}"));
            });
        }
    }

    fn watch_listeners(&self) -> io::Result<()> {
        self.listeners.iter().try_for_each(|(listener, _)| listener.watch(true, false))
    }

    fn event(&mut self, event: Ready, now: Instant) -> io::Result<()> {
        match event.key {
            key if key < self.listeners.len() => self.accept(key, now),
            key if self.connections.contains_key(&key) => {
                if matches!(self.connections.get(&key).map(|c| &c.stage), Some(Stage::Proxy(_))) {
                    self.proxy_header(key, now);
                } else {
                    self.with(key, now, Connection::ready);
                }
                Ok(())
            }
            _ => self.obey(now),
        }
    }

    /// Does what signals ask for; also called for an event of a connection that is gone, which is harmless.
    fn obey(&mut self, now: Instant) -> io::Result<()> {
        while let Some(signal) = self.signals.take() {
            if signal == Signal::SIGHUP {
                let (profiles, book) = (&mut self.profiles, &mut self.book);
                notify::reloading(|| {
                    profiles.forget();
                    book.as_mut().map(Book::refresh);
                });
                self.check_settings();
            } else if self.drain_until.is_none() {
                notify::stopping();
                self.drain_until = Some(now + self.options.drain);
                self.listeners.clear();
                self.accept_again = None;
                self.tell_to_stop(false, now);
            }
        }
        self.signals.watch(true, false)
    }

    fn tell_to_stop(&mut self, at_once: bool, now: Instant) {
        let keys: Vec<usize> = self.connections.keys().copied().collect();
        keys.into_iter().for_each(|key| self.with(key, now, |c, x| c.told_to_stop(at_once, x)));
    }

    /// Moves a connection on, and sees to what came of it.
    fn with(&mut self, key: usize, now: Instant, step: impl FnOnce(&mut Connection, &mut Context<'_>)) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let mut context = Context {
            key,
            now,
            draining: self.drain_until.is_some(),
            buffer: &mut self.buffer,
            workers: &self.workers,
        };
        step(connection, &mut context);
        if matches!(connection.stage, Stage::Over) {
            return self.remove(key);
        }
        if let Some(deadline) = connection.deadline
            && connection.look.is_none_or(|look| look > deadline)
        {
            connection.look = Some(deadline);
            self.timers.push(deadline, key);
        }
    }

    /// A deadline may have passed.
    fn look(&mut self, key: usize, now: Instant) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        if connection.look.is_some_and(|look| look > now) {
            return;
        }
        connection.look = None;
        match connection.deadline {
            Some(deadline) if deadline <= now => {
                connection.deadline = None;
                self.with(key, now, Connection::late);
            }
            // It was moved to a later time meanwhile.
            Some(_) => self.with(key, now, |_, _| {}),
            None => {}
        }
    }

    fn done(&mut self, key: usize, done: Done, now: Instant) {
        self.with(key, now, |connection, context| match done {
            Done::Session(core, pause) => connection.go_on(core, pause, context),
            Done::Handshake(tls, result) => connection.shaken(tls, result, context),
            Done::Lost => {
                connection.say_and_cut(b"421 internal fault, try again later (#4.3.0)\r\n", context)
            }
        });
    }

    fn remove(&mut self, key: usize) {
        let Some(connection) = self.connections.remove(&key) else { return };
        if connection.counted {
            self.table.remove(connection.id());
            if self.options.verbose {
                let (status, open) = (connection.status, self.table.len());
                eprint_line(&format!("end {} status {status}", connection.number));
                eprint_line(&format!("status: {open}/{}", self.options.connections));
            }
        }
    }

    fn accept(&mut self, number: usize, now: Instant) -> io::Result<()> {
        for _ in 0..BATCH {
            let Some((listener, _)) = self.listeners.get(number) else { return Ok(()) };
            match listener.accept() {
                Ok(Some(accepted)) => {
                    let From::Tcp(local, remote) = accepted.from else { continue };
                    let ready = prepare(accepted.socket.as_fd(), true, true)
                        .and_then(|()| unix::fd::set_nonblocking(&accepted.socket, true))
                        .and_then(|()| self.readiness.add(self.next_key, accepted.socket));
                    match ready {
                        Ok(socket) => self.arrived(number, Wire::new(socket), (local, remote), now),
                        Err(e) => self.dropped(remote, &e.to_string()),
                    }
                }
                Ok(None) => break,
                Err(e) => {
                    // No descriptor, no memory: rest a moment; those who wait keep their places.
                    eprint_line(&format!("warning: cannot accept: {e}"));
                    self.accept_again = Some(now + ACCEPT_PAUSE);
                    return Ok(());
                }
            }
        }
        self.listeners.get(number).map_or(Ok(()), |(listener, _)| listener.watch(true, false))
    }

    fn dropped(&self, remote: SocketAddr, why: &str) {
        eprint_line(&format!("warning: dropping connection from {}: {why}", remote.ip().to_canonical()));
    }

    fn arrived(&mut self, listener: usize, wire: Wire, ends: (SocketAddr, SocketAddr), now: Instant) {
        let key = self.next_key;
        self.next_key += 1;
        let number = self.next_number;
        self.next_number = number.checked_add(1).filter(|n| i32::try_from(*n).is_ok()).unwrap_or(1);
        let connection = Connection {
            wire,
            stage: Stage::Over,
            number,
            listener,
            ends,
            deadline: None,
            look: None,
            last: now + self.options.session,
            status: 1,
            counted: false,
        };
        let trusted = is_in(&self.options.proxies, ends.1);
        // Those who are turned away are not many at a time; they too must have an end.
        if self.connections.len() >= self.options.connections.saturating_add(BATCH) {
            return self.dropped(ends.1, "too many connections");
        }
        self.connections.insert(key, connection);
        if self.table.len() >= self.options.connections {
            return self.turn_away(key, "too many connections, try again later (#4.3.2)", now);
        }
        if trusted {
            self.with(key, now, |connection, context| {
                connection.stage = Stage::Proxy(Vec::new());
                connection.deadline = Some(context.now + PROXY_PATIENCE);
            });
            // It is usually there already.
            return self.proxy_header(key, now);
        }
        self.let_in(key, now);
    }

    /// 421 and the end. Under TLS nothing can be said yet.
    fn turn_away(&mut self, key: usize, why: &str, now: Instant) {
        let Some(connection) = self.connections.get(&key) else { return };
        self.dropped(connection.ends.1, why);
        let tls = self.is_tls(connection);
        let text = if tls { String::new() } else { format!("421 {why}\r\n") };
        self.with(key, now, |connection, context| connection.say_and_cut(text.as_bytes(), context));
    }

    fn service(&self, connection: &Connection) -> Service {
        self.listeners.get(connection.listener).map(|l| l.1).unwrap_or_default()
    }

    fn is_tls(&self, connection: &Connection) -> bool {
        self.service(connection).tls || self.environment.is_set("SMTPS")
    }

    /// Reads what a proxy says about its client.
    fn proxy_header(&mut self, key: usize, now: Instant) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let Stage::Proxy(bytes) = &mut connection.stage else { return };
        loop {
            match proxy::parse(bytes) {
                Parsed::Incomplete => {}
                Parsed::Invalid(why) => return self.give_up_on_proxy(key, why),
                Parsed::Done(header, length) => {
                    connection.wire.early = bytes.split_off(length);
                    if let Some(ends) = header.ends {
                        connection.ends = (ends.destination, ends.source);
                    }
                    return self.let_in(key, now);
                }
            }
            match connection.wire.read(&mut self.buffer) {
                Got::Bytes(n) if bytes.len() + n <= proxy::MAX_LENGTH + PIECE => {
                    bytes.extend_from_slice(&self.buffer[..n]);
                }
                Got::Nothing => return connection.wire.watch(true, false),
                Got::Bytes(_) | Got::End => return self.give_up_on_proxy(key, "no PROXY header"),
            }
        }
    }

    fn give_up_on_proxy(&mut self, key: usize, why: &str) {
        if let Some(connection) = self.connections.get(&key) {
            self.dropped(connection.ends.1, &format!("proxy: {why}"));
        }
        self.remove(key);
    }

    /// Rules, limits and settings; then the greeting.
    fn let_in(&mut self, key: usize, now: Instant) {
        let Some(connection) = self.connections.get(&key) else { return };
        let (local, remote) = connection.ends;
        let (number, listener, service) = (connection.number, connection.listener, self.service(connection));
        let (peers, client) = (Peers { local, remote, force_v6: false }, Client::of(remote.ip()));
        let hostname = self.options.hostname.as_deref();
        let shown = peers.shown(hostname.and_then(|h| h.to_str()), Names::default());
        let verdict = match self.decide(peers) {
            Decision::Allow(verdict) => verdict,
            Decision::Deny => {
                if self.options.verbose {
                    eprint_line(&format!("deny {number} {shown}"));
                }
                return self.remove(key);
            }
            Decision::Drop(why) => {
                self.dropped(remote, &why);
                return self.turn_away(key, "try again later (#4.3.0)", now);
            }
        };
        let limits = Limits {
            client: max_per_ip(&verdict).unwrap_or(self.options.per_client),
            network: max_per_network(&verdict).or(self.options.per_network),
        };
        if self.table.share(client, &limits).reached(client, &limits).is_some() {
            return self.turn_away(
                key,
                "too many connections from your network, try again later (#4.7.0)",
                now,
            );
        }
        let ip = peers.remote_ip().to_string();
        self.table.add(
            table_key(&self.connections, key),
            table::Connection { client, shown: ip.clone(), since: now },
        );
        let variables = variables(self.environment, self.options, service, local, remote, &verdict);
        let kind = (listener, local.port(), verdict.changes);
        let found = self.profiles.find(&kind, &variables, &|problem| {
            eprint_line(&format!("warning: {problem}"));
        });
        if let Some(connection) = self.connections.get_mut(&key) {
            connection.counted = true;
        }
        if self.options.verbose {
            let open = self.table.len();
            eprint_line(&format!("status: {open}/{}", self.options.connections));
            eprint_line(&format!("pid {number} from {ip}"));
            eprint_line(&format!("ok {number} {shown}"));
        }
        let delay = self.options.greet_delay;
        self.with(key, now, |connection, context| {
            let Some((settings, policy)) = found else {
                return connection.say_and_cut(b"451 unable to read controls (#4.3.0)\r\n", context);
            };
            let facts = Facts::read(&variables, hostname);
            let log = Log::new(&facts.origin, number);
            let newcomer = Box::new(Newcomer { settings, policy, facts, log });
            if newcomer.settings.implicit_tls {
                match newcomer.settings.tls().and_then(|config| connection.wire.start_tls(config)) {
                    Ok(()) => connection.shake(Shaking::First(newcomer), context),
                    Err(e) => {
                        newcomer.log.line(&format!("TLS: {e}"));
                        connection.say_and_cut(b"", context);
                    }
                }
            } else if !delay.is_zero() {
                connection.stage = Stage::Silence(newcomer);
                connection.deadline = Some(context.now + delay);
                connection.wire.watch(true, false);
            } else {
                let core = newcomer.begin(None, number);
                connection.advance(core, context);
            }
        });
    }

    fn decide(&mut self, peers: Peers) -> Decision {
        let Some(book) = &mut self.book else { return Decision::Allow(Verdict::default()) };
        if book.refresh()
            && let Some(problem) = book.problem()
        {
            eprint_line(&format!("warning: {problem}"));
        }
        let who = Who { ip: Some(peers.remote.ip().to_canonical()), ..Who::default() };
        book.decide(who, RulesLog(Verbosity::Quiet))
    }
}

fn is_in(networks: &Networks, address: SocketAddr) -> bool {
    networks.contain(address.ip())
}

fn table_key(connections: &HashMap<usize, Connection>, key: usize) -> unix::Pid {
    connections.get(&key).map_or(unix::Pid::from_raw(0), Connection::id)
}

/// The variables that tcpserver would start a program with.
fn variables(
    base: &Environment,
    options: &Options,
    service: Service,
    local: SocketAddr,
    remote: SocketAddr,
    verdict: &Verdict,
) -> Environment {
    let mut all = base.clone();
    if service.submission {
        all.set("SUBMISSION", "1");
    }
    if service.tls {
        all.set("SMTPS", "1");
    }
    let hostname = options.hostname.as_deref().and_then(|name| name.to_str());
    Peers { local, remote, force_v6: false }.describe(hostname, &mut all);
    verdict.apply(&mut all);
    all
}
