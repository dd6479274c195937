//! Who is let in, and with which settings.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use program::Environment;
use ucspi_tcp::proxy::{self, Parsed};
use ucspi_tcp::rules::{Verdict, Who};
use ucspi_tcp::tcpserver::book::{Decision, max_per_ip, max_per_network};
use ucspi_tcp::tcpserver::log::Log as RulesLog;
use ucspi_tcp::tcpserver::peers::{Names, Peers};
use ucspi_tcp::tcpserver::settings::Verbosity;
use ucspi_tcp::tcpserver::table::{self, Client, Limits};

use super::connection::{Connection, Newcomer, Shaking, Stage};
use super::flow::{eprint_line, eprint_lines};
use super::options::{Options, Service};
use super::server::{BATCH, PIECE, Server};
use super::wire::{Got, Wire};
use crate::facts::Facts;
use crate::log::Log;

/// How long a proxy may take to say for whom it speaks.
const PROXY_PATIENCE: Duration = Duration::from_secs(10);

impl Server<'_> {
    /// A connection has been accepted.
    pub(super) fn arrived(
        &mut self,
        listener: usize,
        wire: Wire,
        ends: (SocketAddr, SocketAddr),
        now: Instant,
    ) {
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
        let trusted = self.options.proxies.contain(ends.1.ip());
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
    pub(super) fn proxy_header(&mut self, key: usize, now: Instant) {
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
        let id = connection.id();
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
        self.table.add(id, table::Connection { client, shown: ip.clone(), since: now });
        let variables = variables(self.environment, self.options, service, local, remote, &verdict);
        let kind = (listener, local.port(), verdict.changes);
        let found = self.profiles.find(&kind, &variables, &|problem| {
            eprint_line(&format!("warning: {problem}"));
        });
        if let Some(connection) = self.connections.get_mut(&key) {
            connection.counted = true;
        }
        if self.options.verbose {
            let (open, most) = (self.table.len(), self.options.connections);
            eprint_lines(&[
                &format!("status: {open}/{most}"),
                &format!("pid {number} from {ip}"),
                &format!("ok {number} {shown}"),
            ]);
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

/// The variables that tcpserver would start a program with.
pub(super) fn variables(
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
