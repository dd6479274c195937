//! The socket, the threads, the end.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::chown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;

use mta_queue::exit::{Class, Code};
use mta_queue::inject::Failure;
use mta_queue::inject::batch::Committer;
use mta_queue::injector::place::{Caller, KnownUsers, candidates};
use mta_queue::injector::variables::Variables;
use mta_queue::layout::{Queue, Shape};
use mta_queue::qmqp;
use program::{Exit, Invocation};
use unix::Signal;
use unix::durable::Disk;
use unix::fd::Raw;
use unix::ids::Roles;
use unix::signals::Signals;
use unix::together::Together;
use unix::wait::{Interest, ready};

use crate::committer::{self, Job};
use crate::receiver::{Context, Target, Trouble, receive};
use crate::settings::Settings;

/// For the members of group qmail.
const SOCKET_MODE: u32 = 0o660;
/// What a connection needs of a stack; its buffers are on the heap.
const STACK: usize = 128 * 1024;

pub(crate) fn main(invocation: &Invocation) -> Exit {
    let settings = match Settings::load(invocation) {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    match run(invocation, &settings) {
        Ok(()) => Exit::OK,
        Err(what) => {
            invocation.complain("fatal", what);
            Exit::TEMPORARY
        }
    }
}

fn run(invocation: &Invocation, settings: &Settings) -> Result<(), String> {
    // Before any thread, so that all of them leave signals to the loop.
    let signals = Signals::listen(&[Signal::SIGTERM, Signal::SIGINT]).map_err(|e| format!("signals: {e}"))?;
    unix::host::umask(0o033);
    let listener = serve::listener(&settings.socket, SOCKET_MODE).map_err(|e| e.to_string())?;
    hand_over(&listener)?;
    let variables = Variables::found_by(|name| invocation.environment.get(name).map(Into::into));
    let directories = candidates(&variables, &Caller::of_this_process()).map_err(|e| e.to_string())?;
    let places = directories.iter().map(|directory| place(directory, &variables, settings));
    let places = places.collect::<Result<Vec<Place>, String>>()?;
    let context = Context { variables, known: Arc::new(KnownUsers::look_up()) };
    let service = Service {
        settings,
        context,
        log: &|line| invocation.complain("info", line),
        numbers: AtomicU32::new(std::process::id()),
        open: Mutex::default(),
    };
    let shown: Vec<_> = directories.iter().map(|d| d.display().to_string()).collect();
    let status = format!("listening on {}, queue {}", settings.socket.display(), shown.join(" "));
    invocation.complain("info", &status);
    let end = service.serve(&listener, &signals, &places);
    invocation.complain("info", "stopped");
    end.map_err(|e| format!("event loop: {e}"))
}

/// Gives the socket to qmailq and group qmail, and becomes qmailq when this is root. In a private instance
/// everybody is one user.
fn hand_over(listener: &UnixListener) -> Result<(), String> {
    let roles = Roles::for_this_process();
    if roles.is_single_user() {
        return Ok(());
    }
    let owner = roles.role("qmailq", "qmail").map_err(|e| e.to_string())?;
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    if let Some(path) = address.as_pathname() {
        chown(path, Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))
            .map_err(|e| format!("cannot hand the socket to qmailq: {e}"))?;
    }
    unix::privilege::become_user(owner.uid, owner.gid, &[]).map_err(|e| format!("cannot become qmailq: {e}"))
}

/// A queue that messages go to.
struct Place {
    queue: Queue,
    disk: Disk<'static>,
    together: Option<Together>,
}

fn place(directory: &Path, variables: &Variables, settings: &Settings) -> Result<Place, String> {
    let unusable =
        |e: io::Error| format!("cannot use the queue {}: {e}; see queue-fix(8)", directory.display());
    let shape =
        Shape::of(directory, variables.value("CONFSPLIT"), variables.value("BIGTODO")).map_err(unusable)?;
    // Say now what every message would fail of.
    std::fs::read_dir(directory.join("pid")).map_err(unusable)?;
    let durability = variables.durability();
    let together = if settings.together && durability.is_full() {
        Together::new(directory).map_err(unusable)?
    } else {
        None
    };
    Ok(Place { queue: Queue::new(directory, shape), disk: Disk::new(durability), together })
}

struct Service<'a> {
    settings: &'a Settings,
    context: Context,
    log: &'a (dyn Fn(&str) + Sync),
    /// What stands for a process id in the files and logs of a message.
    numbers: AtomicU32,
    /// Connections whose request is not complete: they are cut off at the end.
    open: Mutex<HashMap<u32, UnixStream>>,
}

impl Service<'_> {
    fn lock(&self) -> MutexGuard<'_, HashMap<u32, UnixStream>> {
        // Nothing panics while it is held.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, listener: &UnixListener, signals: &Signals, places: &[Place]) -> io::Result<()> {
        let (wake, waker) = unix::fd::pipe()?;
        unix::fd::set_nonblocking(&wake, true)?;
        unix::fd::set_nonblocking(&waker, true)?;
        std::thread::scope(|scope| {
            let mut ways = Vec::new();
            for place in places {
                let (jobs, queue) = sync_channel(self.settings.connections);
                let committer = Committer::new(place.disk, place.together.as_ref());
                std::thread::Builder::new()
                    .name("committer".to_owned())
                    .spawn_scoped(scope, move || committer::run(&place.queue, &committer, &queue))?;
                ways.push((Target { queue: &place.queue, disk: place.disk }, jobs));
            }
            tell(&[sd_notify::NotifyState::Ready]);
            let end = self.accept_all(scope, listener, signals, &ways, (&wake, &waker));
            tell(&[sd_notify::NotifyState::Stopping]);
            // Complete requests are answered; the others hear nothing and try elsewhere.
            for stream in self.lock().values() {
                let _ = stream.shutdown(Shutdown::Read);
            }
            drop(ways);
            end
        })
    }

    fn accept_all<'s, 'e: 's>(
        &'e self,
        scope: &'s Scope<'s, 'e>,
        listener: &UnixListener,
        signals: &Signals,
        ways: &[(Target<'e>, SyncSender<Job<'e>>)],
        (wake, waker): (&'e OwnedFd, &'e OwnedFd),
    ) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let mut next = ways.iter().cycle();
        loop {
            // Whoever comes when all are busy waits in the kernel's queue.
            let full = self.lock().len() >= self.settings.connections;
            let interest = if full { Interest::Nothing } else { Interest::Read };
            let got = ready(
                &[
                    (signals.as_fd(), Interest::Read),
                    (wake.as_fd(), Interest::Read),
                    (listener.as_fd(), interest),
                ],
                None,
            )?;
            if got.first().is_some_and(|r| r.read) && signals.take().is_some() {
                return Ok(());
            }
            if got.get(1).is_some_and(|r| r.read) {
                let _ = io::Read::read(&mut Raw(wake.as_fd()), &mut [0; 64]);
            }
            if full || !got.get(2).is_some_and(|r| r.read) {
                continue;
            }
            let Ok((stream, _)) = listener.accept() else { continue };
            let Some((target, jobs)) = next.next() else { return Ok(()) };
            let (target, jobs) = (*target, jobs.clone());
            let number = self.numbers.fetch_add(1, Ordering::Relaxed);
            let Ok(copy) = stream.try_clone() else { continue };
            self.lock().insert(number, copy);
            let started = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, move || {
                self.connection(stream, target, &jobs, number);
                if self.lock().remove(&number).is_some() {
                    let _ = Raw(waker.as_fd()).write(b"x");
                }
            });
            if let Err(e) = started {
                self.lock().remove(&number);
                (self.log)(&format!("cannot start a thread: {e}"));
            }
        }
    }

    /// One request and its answer.
    fn connection<'q>(
        &self,
        mut stream: UnixStream,
        target: Target<'q>,
        jobs: &SyncSender<Job<'q>>,
        number: u32,
    ) {
        let limits = stream.set_nonblocking(false).and_then(|()| {
            stream.set_read_timeout(Some(self.settings.patience))?;
            stream.set_write_timeout(Some(self.settings.patience))
        });
        let peer = limits.and_then(|()| unix::socket::peer(&stream));
        let Ok(peer) = peer else { return };
        let answer = match receive(&mut stream, &self.context, target, peer.uid, number) {
            Ok(envelope) => commit(envelope, jobs),
            Err(Trouble::Refused(failure)) => Err(failure),
            Err(Trouble::Gone(e)) => {
                if self.settings.verbose {
                    (self.log)(&format!("uid {} qp {number}: request not complete: {e}", peer.uid));
                }
                return;
            }
        };
        let text = match &answer {
            Ok(id) => {
                if self.settings.verbose {
                    (self.log)(&format!("uid {} qp {number}: queued {id}", peer.uid));
                }
                format!("Kok {} qp {number}", unix::clock::unix_seconds())
            }
            Err(failure) => {
                (self.log)(&format!("uid {} qp {number}: {failure}", peer.uid));
                let letter = if failure.code.class() == Class::Permanent { 'D' } else { 'Z' };
                format!("{letter}{}", failure.code.text())
            }
        };
        let mut bytes = Vec::new();
        qmqp::netstring(&mut bytes, text.as_bytes());
        // A client that does not wait for the answer does not get one.
        let _ = stream.write_all(&bytes);
    }
}

fn commit<'q>(
    envelope: mta_queue::inject::Envelope<'q>,
    jobs: &SyncSender<Job<'q>>,
) -> Result<mta_queue::layout::MessageId, Failure> {
    let (answer, answered) = sync_channel(1);
    let gone = || Failure::new(Code::BUG, "the committer is gone");
    jobs.send(Job { envelope, answer }).map_err(|_| gone())?;
    answered.recv().map_err(|_| gone())?
}

/// A manager that does not listen is none of our business.
fn tell(states: &[sd_notify::NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}
