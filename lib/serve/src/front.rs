//! The loop: accepts, reads, writes, keeps deadlines.

use std::collections::HashMap;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use lookup::frame::{self, MAX_FRAME};
use lookup::mail::STATUS_TEMPORARY;
use unix::readiness::{Readiness, Ready, Watched};
use unix::signals::Signals;
use unix::socket::Peer;
use unix::{Errno, Signal, Uid};
use zeroize::Zeroize as _;

use crate::connection::{Connection, bare_reply};
use crate::handle::Handle;
use crate::notify::{self, Watchdog};
use crate::settings::count;
use crate::timers::Timers;
use crate::workers::{self, Job, Shared, Ticket};
use crate::{Answer, Error, Lane, Service, Settings};

const LISTENER: usize = 0;
const SIGNALS: usize = 1;
/// Keys of connections start here.
const FIRST: usize = 2;

/// How long accepting rests when the process has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How a front ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// Every request was answered.
    Clean,
    /// Some were still on their way when the time to drain was up.
    Cut,
}

/// Where a request goes.
enum Route {
    /// Nowhere: it is answered.
    Answered(Answer),
    /// To the workers of this lane.
    Lane(Lane),
}

fn route<S: Service>(service: &S, peer: &Peer, bytes: &[u8]) -> Route {
    let Ok(Some((frame, _))) = frame::split(bytes, MAX_FRAME) else { return Route::Lane(Lane::Quick) };
    // A fault of the service's memory must not end the front; a worker gets the question then.
    let at_once = catch_unwind(AssertUnwindSafe(|| service.at_once(peer, &frame))).ok().flatten();
    at_once.map_or_else(|| Route::Lane(service.lane(&frame)), Route::Answered)
}

struct Slot {
    stream: Watched<UnixStream>,
    connection: Connection,
    /// The earliest look that is in the timers.
    look: Instant,
    /// What is being watched for, `None` after an event.
    armed: Option<(bool, bool)>,
}

/// The front of a daemon.
pub struct Front<S: Service> {
    settings: Settings,
    service: Arc<S>,
    readiness: Readiness,
    listener: Option<Watched<UnixListener>>,
    accept_again: Option<Instant>,
    signals: Option<Watched<Signals>>,
    handle: Handle,
    shared: Arc<Shared>,
    slots: HashMap<usize, Slot>,
    next_key: usize,
    users: HashMap<Uid, usize>,
    timers: Timers,
    drain_until: Option<Instant>,
}

/// The signals a front obeys: TERM and INT stop, HUP reloads, USR1 asks for the status.
pub const SIGNALS_OBEYED: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1];

impl<S: Service> Front<S> {
    /// A front on this listener. With `signals` (of [`SIGNALS_OBEYED`], made before any thread) it
    /// obeys them.
    ///
    /// # Errors
    /// No event loop.
    pub fn new(
        mut settings: Settings,
        listener: UnixListener,
        signals: Option<Signals>,
        service: Arc<S>,
    ) -> Result<Self, Error> {
        settings.fit_descriptors()?;
        listener.set_nonblocking(true)?;
        let readiness = Readiness::new()?;
        let listener = readiness.add(LISTENER, listener)?;
        let signals = signals.map(|s| readiness.add(SIGNALS, s)).transpose()?;
        let shared = Shared::new(&settings, readiness.waker());
        Ok(Self {
            settings,
            service,
            listener: Some(listener),
            accept_again: None,
            signals,
            handle: Handle::new(readiness.waker()),
            shared,
            slots: HashMap::new(),
            next_key: FIRST,
            users: HashMap::new(),
            timers: Timers::default(),
            drain_until: None,
            readiness,
        })
    }

    /// A handle for other threads.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves until it is told to stop.
    ///
    /// # Errors
    /// The event loop failed.
    pub fn run(mut self) -> Result<Stopped, Error> {
        let threads = workers::start(&self.settings, &self.service, &self.shared)?;
        self.watch_listener()?;
        if let Some(signals) = &self.signals {
            signals.watch(true, false)?;
        }
        let mut watchdog = Watchdog::of_this_process(Instant::now());
        notify::ready(self.settings.ready_descriptor);
        let stopped = loop {
            let now = Instant::now();
            watchdog.ping(now);
            if let Some(stopped) = self.stopped(now) {
                break stopped;
            }
            let until = [self.timers.next(), watchdog.due(), self.accept_again, self.drain_until];
            let until = until.into_iter().flatten().min();
            let events = self.readiness.wait(until.map(|u| u.saturating_duration_since(now)))?;
            let now = Instant::now();
            for event in events {
                self.event(event, now)?;
            }
            self.commands(now);
            for (ticket, answer) in self.shared.answers() {
                self.answered(ticket, answer, now);
            }
            self.look_at_due(now);
            if self.accept_again.is_some_and(|t| t <= now) {
                self.accept_again = None;
                self.watch_listener()?;
            }
        };
        self.shared.close();
        if stopped == Stopped::Clean {
            for thread in threads {
                // A worker that panicked outside a request has nothing left to say.
                let _ = thread.join();
            }
        }
        Ok(stopped)
    }

    fn stopped(&self, now: Instant) -> Option<Stopped> {
        let until = self.drain_until?;
        if self.slots.is_empty() {
            return Some(Stopped::Clean);
        }
        (until <= now).then_some(Stopped::Cut)
    }

    fn watch_listener(&self) -> io::Result<()> {
        self.listener.as_ref().map_or(Ok(()), |l| l.watch(true, false))
    }

    /// What signals and [`Handle`]s ask for.
    fn commands(&mut self, now: Instant) {
        let wanted = self.handle.take();
        if wanted.status() {
            self.service.status(&self.settings.statistics.read());
        }
        if wanted.reload() {
            notify::reloading(|| self.service.reload());
        }
        if wanted.stop() && self.drain_until.is_none() {
            notify::stopping();
            self.drain_until = Some(now + self.settings.drain);
            self.listener = None;
            let keys: Vec<usize> = self.slots.keys().copied().collect();
            for key in keys {
                // What was asked before is still answered; nothing more is read.
                if let Some(slot) = self.slots.get_mut(&key) {
                    slot.connection.end_input();
                }
                self.go_on(key, now);
            }
        }
    }

    fn signals(&mut self) -> io::Result<()> {
        let Some(signals) = &self.signals else { return Ok(()) };
        while let Some(signal) = signals.take() {
            self.handle.signal(signal);
        }
        signals.watch(true, false)
    }

    fn event(&mut self, event: Ready, now: Instant) -> io::Result<()> {
        match event.key {
            LISTENER => self.accept(now),
            SIGNALS => self.signals(),
            key => {
                let armed = self.slots.get_mut(&key).and_then(|s| s.armed.take());
                if armed == Some((false, false)) {
                    // Nothing was asked for, so it hung up: nobody is left to answer.
                    self.close(key);
                } else if event.read {
                    self.read(key);
                }
                self.go_on(key, now);
                Ok(())
            }
        }
    }

    /// Accepts a batch, so that connections that are open get their turn in between.
    fn accept(&mut self, now: Instant) -> io::Result<()> {
        for _ in 0..64 {
            let Some(listener) = &self.listener else { return Ok(()) };
            match listener.accept() {
                Ok((stream, _)) => self.admit(stream, now),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => match e.raw_os_error().map(Errno::from_raw) {
                    Some(Errno::EINTR | Errno::ECONNABORTED) => {}
                    // No descriptor, no memory: make room if possible, and rest a moment.
                    _ => {
                        self.evict_longest_idle();
                        self.accept_again = Some(now + ACCEPT_PAUSE);
                        return Ok(());
                    }
                },
            }
        }
        self.watch_listener()
    }

    fn admit(&mut self, stream: UnixStream, now: Instant) {
        count(&self.settings.statistics.accepted);
        let Ok(peer) = unix::socket::peer(&stream) else { return };
        let of_user = self.users.get(&peer.uid).copied().unwrap_or(0);
        let too_many = self.slots.len() >= self.settings.connections && !self.evict_longest_idle();
        if too_many || (!peer.uid.is_root() && of_user >= self.settings.connections_per_user) {
            count(&self.settings.statistics.turned_away);
            // The socket's buffer is empty, so this fits; a peer that is gone does not care.
            let _ = unix::socket::send_quietly(&stream, &bare_reply(STATUS_TEMPORARY));
            return;
        }
        let key = self.next_key;
        let watched = stream.set_nonblocking(true).and_then(|()| self.readiness.add(key, stream));
        let Ok(stream) = watched else { return };
        // Never used twice, so that late events and answers find nobody.
        self.next_key += 1;
        let connection = Connection::new(peer, now);
        let look = connection.deadline(&self.settings);
        self.timers.push(look, key);
        *self.users.entry(peer.uid).or_insert(0) += 1;
        self.slots.insert(key, Slot { stream, connection, look, armed: None });
        self.note_connections();
        // Most clients have sent their question by now.
        self.read(key);
        self.go_on(key, now);
    }

    fn evict_longest_idle(&mut self) -> bool {
        let idle = self.slots.iter().filter(|(_, s)| s.connection.is_idle());
        let longest = idle.min_by_key(|(_, s)| s.connection.idle_since()).map(|(&key, _)| key);
        let Some(key) = longest else { return false };
        count(&self.settings.statistics.turned_away);
        self.close(key);
        true
    }

    fn read(&mut self, key: usize) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        let mut buffer = [0; 4096];
        if slot.connection.wants_input(&self.settings) {
            match unix::socket::receive(&*slot.stream, &mut buffer) {
                Ok(0) => slot.connection.end_of_input(),
                Ok(n) => slot.connection.received(buffer.get(..n).unwrap_or_default()),
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(_) => self.close(key),
            }
        }
        buffer.zeroize();
    }

    fn take_requests(&mut self, key: usize, now: Instant) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        loop {
            match slot.connection.next_request(&self.settings, now) {
                Ok(None) => break,
                Ok(Some(incoming)) => {
                    count(&self.settings.statistics.requests);
                    let sequence = incoming.sequence;
                    let peer = slot.connection.peer;
                    let lane = match route(&*self.service, &peer, &incoming.bytes) {
                        Route::Answered(answer) => {
                            slot.connection.answered(sequence, answer, now);
                            continue;
                        }
                        Route::Lane(lane) => lane,
                    };
                    let job = Job {
                        ticket: Ticket { key, sequence },
                        peer,
                        bytes: incoming.bytes,
                        deadline: incoming.deadline,
                    };
                    if !self.shared.submit(lane, job) {
                        count(&self.settings.statistics.shed);
                        slot.connection.answered(sequence, Answer::Temporary, now);
                    }
                }
                Err(_) => {
                    count(&self.settings.statistics.malformed);
                    slot.connection.refuse_and_end(now);
                }
            }
        }
    }

    fn answered(&mut self, ticket: Ticket, answer: Answer, now: Instant) {
        let Some(slot) = self.slots.get_mut(&ticket.key) else { return };
        if answer == Answer::Malformed {
            count(&self.settings.statistics.malformed);
        }
        slot.connection.answered(ticket.sequence, answer, now);
        self.go_on(ticket.key, now);
    }

    /// Whatever can be done on this connection now: take requests, write, watch, set the timer.
    fn go_on(&mut self, key: usize, now: Instant) {
        self.take_requests(key, now);
        let Some(slot) = self.slots.get_mut(&key) else { return };
        while !slot.connection.output().is_empty() {
            match unix::socket::send_quietly(&*slot.stream, slot.connection.output()) {
                Ok(n) => slot.connection.took(n, now),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return self.close(key),
            }
        }
        if slot.connection.is_done() {
            return self.close(key);
        }
        let wanted = (slot.connection.wants_input(&self.settings), !slot.connection.output().is_empty());
        if slot.armed != Some(wanted) {
            if slot.stream.watch(wanted.0, wanted.1).is_err() {
                return self.close(key);
            }
            slot.armed = Some(wanted);
        }
        let look = slot.connection.deadline(&self.settings);
        if look < slot.look {
            slot.look = look;
            self.timers.push(look, key);
        }
    }

    fn look_at_due(&mut self, now: Instant) {
        while let Some(key) = self.timers.pop(now) {
            let Some(slot) = self.slots.get_mut(&key) else { continue };
            if slot.connection.is_overdue(&self.settings, now) {
                self.close(key);
                continue;
            }
            let expired = slot.connection.expire(now);
            self.settings.statistics.expired.fetch_add(expired, Ordering::Relaxed);
            if slot.look <= now {
                // This was the entry that counts; the next one takes its place.
                let look = slot.connection.deadline(&self.settings).max(now + Duration::from_millis(1));
                slot.look = look;
                self.timers.push(look, key);
            }
            self.go_on(key, now);
        }
    }

    fn close(&mut self, key: usize) {
        let Some(slot) = self.slots.remove(&key) else { return };
        let uid = slot.connection.peer.uid;
        if let Some(n) = self.users.get_mut(&uid) {
            *n -= 1;
            if *n == 0 {
                self.users.remove(&uid);
            }
        }
        self.note_connections();
    }

    fn note_connections(&self) {
        let now = u64::try_from(self.slots.len()).unwrap_or(u64::MAX);
        self.settings.statistics.connections.store(now, Ordering::Relaxed);
    }
}
