//! The event loop: accepts, lets in, waits for everybody.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use program::{Environment, Invocation};
use serve::Timers;
use serve::notify::{self, Watchdog};
use ucspi_tcp::rules::Verdict;
use ucspi_tcp::tcpserver::book::Book;
use ucspi_tcp::tcpserver::listener::{From, Listener, prepare};
use ucspi_tcp::tcpserver::table::Table;
use unix::Signal;
use unix::readiness::{Readiness, Ready, Watched};
use unix::signals::Signals;

use super::admit::variables;
use super::connection::{Connection, Stage};
use super::flow::{Context, eprint_line, eprint_lines};
use super::options::{Options, Service};
use super::profiles::Profiles;
use super::wire::Wire;
use super::workers::{Done, Workers};

/// Bytes read at a time.
pub(super) const PIECE: usize = 32 * 1024;
/// How long accepting rests when the process has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections accepted before those that are open have their turn.
pub(super) const BATCH: usize = 64;
/// How long clients have to take the last words of a server that stops.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A resident server.
pub(super) struct Server<'a> {
    pub(super) options: &'a Options,
    pub(super) environment: &'a Environment,
    readiness: Readiness,
    pub(super) listeners: Vec<(Watched<Listener>, Service)>,
    signals: Watched<Signals>,
    pub(super) book: Option<Book>,
    pub(super) profiles: Profiles,
    pub(super) connections: HashMap<usize, Connection>,
    pub(super) table: Table,
    timers: Timers,
    workers: Workers,
    /// Never used twice, so that late events and answers find nobody.
    pub(super) next_key: usize,
    pub(super) next_number: u32,
    accept_again: Option<Instant>,
    drain_until: Option<Instant>,
    /// The time to drain is over; last words are on their way.
    cutting: bool,
    pub(super) buffer: Vec<u8>,
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
        notify::ready(self.options.ready_descriptor);
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
    pub(super) fn with(
        &mut self,
        key: usize,
        now: Instant,
        step: impl FnOnce(&mut Connection, &mut Context<'_>),
    ) {
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

    pub(super) fn remove(&mut self, key: usize) {
        let Some(connection) = self.connections.remove(&key) else { return };
        if connection.counted {
            self.table.remove(connection.id());
            if self.options.verbose {
                let (open, most) = (self.table.len(), self.options.connections);
                eprint_lines(&[
                    &format!("end {} status {}", connection.number, connection.status),
                    &format!("status: {open}/{most}"),
                ]);
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

    pub(super) fn dropped(&self, remote: SocketAddr, why: &str) {
        eprint_line(&format!("warning: dropping connection from {}: {why}", remote.ip().to_canonical()));
    }
}
