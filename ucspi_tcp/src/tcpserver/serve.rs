//! The loop: accept, start, reap, and the signals.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use program::Exit;
use unix::Signal;
use unix::child::Ending;
use unix::clock::Deadline;
use unix::image::Image;
use unix::signals::Signals;
use unix::wait::Interest;

use super::book::Book;
use super::from_table::FromTable;
use super::listener::Listener;
use super::log::Log;
use super::peers::{forget, safe};
use super::pending::Pending;
use super::secure::Secure;
use super::settings::{Address, Rules, Settings};
use super::status::{Row, Snapshot};
use super::table::Table;

/// After an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// Connections accepted in one turn.
const BATCH: usize = 64;
/// The first descriptor that a service manager passes.
const FIRST_INHERITED: i32 = 3;

/// Serves until TERM. `secure` speaks TLS with the clients; without it the program gets the connection itself.
pub fn run(settings: &Settings, secure: Option<&mut dyn Secure>) -> Exit {
    match Server::start(settings, secure) {
        Ok(mut server) => server.serve(),
        Err(message) => {
            Log(settings.verbosity).always(&format!("fatal: {message}"));
            Exit::TEMPORARY
        }
    }
}

/// What happened since the start.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) accepted: u64,
    pub(super) denied: u64,
    pub(super) limited: u64,
    pub(super) dropped: u64,
}

pub(super) struct Server<'a, 's> {
    pub(super) settings: &'a Settings,
    pub(super) secure: Option<&'s mut dyn Secure>,
    pub(super) log: Log,
    pub(super) book: Option<Book>,
    from_table: Option<FromTable>,
    pub(super) table: Table,
    pub(super) pending: Vec<Pending>,
    pub(super) counts: Counts,
    /// The program's file, when its name has no slash.
    pub(super) program: Option<PathBuf>,
    /// The program with its arguments and the variables that are the same for all connections.
    pub(super) image: Image,
    /// Descriptors that we were started with and programs get as well.
    pub(super) passed_on: Vec<RawFd>,
    signals: Signals,
    listeners: Vec<Listener>,
    status: Option<UnixListener>,
    accept_again: Option<Deadline>,
    stop: bool,
    draining: Option<Deadline>,
    _pid_file: Option<Flock<File>>,
}

impl<'a, 's> Server<'a, 's> {
    fn start(settings: &'a Settings, secure: Option<&'s mut dyn Secure>) -> Result<Self, String> {
        use Signal::{SIGCHLD, SIGHUP, SIGTERM, SIGUSR1};
        unix::fd::sanitize_standard().map_err(|e| format!("unable to open /dev/null: {e}"))?;
        let log = Log(settings.verbosity);
        let signals = Signals::listen(&[SIGCHLD, SIGTERM, SIGHUP, SIGUSR1])
            .map_err(|e| format!("unable to catch signals: {e}"))?;
        let (limit, note) = settings.limit.read().map_err(|e| e.to_string())?;
        let pid_file = settings.pid_file.as_deref().map(single_instance).transpose()?;
        let listeners = listen(settings)?;
        let status = settings.status.as_deref().map(|path| open_status(path, settings)).transpose()?;
        // All that is open by now and ours is close-on-exec.
        let passed_on =
            unix::fd::passed_on().map_err(|e| format!("unable to list descriptors in /proc: {e}"))?;
        if let Some(id) = &settings.identity {
            unix::privilege::become_user(id.uid, id.gid, &id.groups)
                .map_err(|e| format!("unable to become the user of -u, -g or -U: {e}"))?;
        }
        if settings.print_port {
            let port = listeners.first().map_or(Ok(0), Listener::port);
            let port = port.map_err(|e| format!("unable to tell the port: {e}"))?;
            let mut out = io::stdout();
            writeln!(out, "{port}")
                .and_then(|()| out.flush())
                .map_err(|e| format!("unable to print the port: {e}"))?;
        }
        let names = settings.lookups.host || settings.lookups.info.is_some();
        let from_table = settings.table.as_ref().map(|(conf, _)| {
            let port = listeners.first().map_or(Ok(0), Listener::port);
            port.and_then(|port| FromTable::start(conf, port, settings))
        });
        let from_table =
            from_table.transpose().map_err(|e| format!("unable to follow the table of -m: {e}"))?;
        let optional = settings.table.as_ref().is_some_and(|(_, optional)| *optional);
        let by_table = from_table.as_ref().map(|t| Rules { path: t.path(), optional });
        let book = settings.rules.clone().or(by_table).map(|rules| Book::open(rules, names));
        for problem in note.into_iter().chain(book.as_ref().and_then(Book::problem)) {
            log.error(&problem);
        }
        // Variables of a connection that an outer server has left are in nobody's way then.
        let mut common = settings.environment.clone();
        forget(&mut common);
        let image = Image::new(settings.command.iter().map(OsString::as_os_str), common.iter())
            .map_err(|e| format!("the program cannot be started with these arguments: {e}"))?;
        let mut server = Self {
            settings,
            secure,
            log,
            book,
            from_table,
            table: Table::new(limit),
            pending: Vec::new(),
            counts: Counts::default(),
            program: None,
            passed_on,
            image,
            signals,
            listeners,
            status,
            accept_again: None,
            stop: false,
            draining: None,
            _pid_file: pid_file,
        };
        server.find_program();
        Ok(server)
    }

    fn serve(&mut self) -> Exit {
        self.notify("READY=1\n");
        self.status_line("");
        while !self.stop {
            if let Err(e) = self.turn() {
                self.log.error(&format!("unable to wait for connections: {e}"));
                unix::wait::pause(ACCEPT_PAUSE);
            }
        }
        self.notify("STOPPING=1\n");
        self.listeners.iter().for_each(Listener::clean_up);
        if let Some(path) = self.settings.status.as_deref().filter(|_| self.status.is_some()) {
            // It is of no use without us.
            let _ = std::fs::remove_file(path);
        }
        self.log.step(&format!("sigterm: {}/{}", self.table.len(), self.table.limit()));
        Exit::OK
    }

    /// Must new connections wait?
    fn is_full(&self) -> bool {
        self.table.len() + self.pending.len() >= self.table.limit()
    }

    fn turn(&mut self) -> io::Result<()> {
        self.accept_again = self.accept_again.filter(|d| !d.passed());
        let accepting = !self.is_full() && self.accept_again.is_none();
        let mut fds: Vec<(BorrowedFd<'_>, Interest)> = vec![(self.signals.as_fd(), Interest::Read)];
        fds.extend(self.status.iter().map(|s| (s.as_fd(), Interest::Read)));
        let first_pending = fds.len();
        fds.extend(self.pending.iter().map(|p| (p.accepted.socket.as_fd(), Interest::Read)));
        let first_listener = fds.len();
        if accepting {
            fds.extend(self.listeners.iter().map(|l| (l.as_fd(), Interest::Read)));
        }
        let ready = unix::wait::ready(&fds, self.next_deadline())?;
        let read = |at: usize| ready.get(at).is_some_and(|r| r.read);
        if read(0) {
            self.take_signals()?;
        }
        if first_pending > 1 && read(1) {
            self.answer();
        }
        if first_listener > first_pending {
            self.take_headers();
        }
        for at in 0..self.listeners.len() {
            if read(first_listener + at) && !self.stop {
                self.accept(at);
            }
        }
        if let Some(Err(e)) = self.from_table.as_mut().map(|t| t.restart_if_due(self.settings)) {
            self.log.error(&format!("unable to follow the table of -m: {e}"));
        }
        if self.draining.is_some_and(|d| d.passed()) || (self.draining.is_some() && self.is_idle()) {
            self.end_draining();
        }
        Ok(())
    }

    fn is_idle(&self) -> bool {
        self.table.is_empty() && self.pending.is_empty()
    }

    fn next_deadline(&self) -> Option<Deadline> {
        let pending = self.pending.iter().map(|p| p.deadline);
        let restart = self.from_table.as_ref().and_then(|t| t.again);
        pending.chain(restart).chain(self.accept_again).chain(self.draining).min_by_key(|d| d.left())
    }

    fn take_signals(&mut self) -> io::Result<()> {
        while let Some(signal) = self.signals.take() {
            match signal {
                Signal::SIGTERM => self.terminate(),
                Signal::SIGHUP => self.reload(),
                Signal::SIGUSR1 => self.print_table(),
                _ => {}
            }
        }
        while let Some((pid, ending)) = unix::child::reap()? {
            if self.from_table.as_mut().is_some_and(|t| t.ended(pid)) {
                self.log.error("the process that follows the table of -m ended; it is started again");
                continue;
            }
            let Some(connection) = self.table.remove(pid) else { continue };
            match ending {
                Ending::Exited(code) => self.log.step(&format!("end {pid} status {code}")),
                Ending::Killed(signal) => self.log.step(&format!("end {pid} killed by signal {signal}")),
            }
            self.status_line(&format!(" end, pid={pid}, IP {}", connection.shown));
        }
        Ok(())
    }

    fn accept(&mut self, at: usize) {
        for _ in 0..BATCH {
            if self.is_full() {
                return;
            }
            match self.listeners[at].accept() {
                Ok(Some(accepted)) => self.connection(accepted),
                Ok(None) => return,
                Err(e) => {
                    self.log.error(&format!("unable to accept: {e}"));
                    self.accept_again = Some(Deadline::after(ACCEPT_PAUSE));
                    return;
                }
            }
        }
    }

    fn terminate(&mut self) {
        let Some(patience) = self.settings.drain.filter(|_| self.draining.is_none()) else {
            self.stop = true;
            return;
        };
        self.listeners.iter().for_each(Listener::clean_up);
        self.listeners.clear();
        self.draining = Some(Deadline::after(patience));
        self.notify("STOPPING=1\n");
        self.log.step(&format!("draining: {}/{}", self.table.len(), self.table.limit()));
    }

    /// The time is over, or nobody is left. What still runs is asked to end.
    fn end_draining(&mut self) {
        for (pid, _) in self.table.iter() {
            // It may have ended just now.
            let _ = nix::sys::signal::kill(pid, Signal::SIGTERM);
        }
        self.stop = true;
    }

    fn reload(&mut self) {
        match self.settings.limit.read() {
            Ok((limit, note)) => {
                self.table.set_limit(limit);
                note.iter().for_each(|n| self.log.error(n));
            }
            Err(e) => self.log.error(&format!("keeping the limit of {}: {e}", self.table.limit())),
        }
        self.from_table.iter().for_each(FromTable::reload);
        self.refresh_rules();
        self.find_program();
        if let Some(Err(e)) = self.secure.as_mut().map(|s| s.reload()) {
            self.log.error(&format!("keeping the certificates in force: {e}"));
        }
        self.log.step(&format!("sighup: {}/{}", self.table.len(), self.table.limit()));
    }

    pub(super) fn refresh_rules(&mut self) {
        if let Some(book) = &mut self.book
            && book.refresh()
            && let Some(problem) = book.problem()
        {
            self.log.error(&problem);
        }
    }

    fn notify(&self, message: &str) {
        if let Some(socket) = &self.settings.notify_socket
            && let Err(e) = unix::notify::send(socket, message)
        {
            self.log.error(&format!("unable to notify {}: {e}", socket.display()));
        }
    }

    fn print_table(&self) {
        self.log.always(&format!("connections: {}/{}", self.table.len(), self.table.limit()));
        for (pid, connection) in self.table.iter() {
            self.log.always(&format!("connection: pid={pid}, IP {}", connection.shown));
        }
    }

    /// Tells whoever asks.
    fn answer(&self) {
        let Some((client, _)) = self.status.as_ref().and_then(|s| s.accept().ok()) else { return };
        // Nobody is waited for: what does not fit the socket's buffer is cut off, which the reader notices.
        let _ = client.set_nonblocking(true);
        let _ = unix::socket::send_quietly(client.as_fd(), self.snapshot().encode().as_bytes());
    }

    fn snapshot(&self) -> Snapshot {
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let Counts { accepted, denied, limited, dropped } = self.counts;
        let rows = self.table.iter().map(|(pid, connection)| Row {
            pid: u64::try_from(pid.as_raw()).unwrap_or(0),
            ip: connection.shown.clone(),
            seconds: connection.since.elapsed().as_secs(),
        });
        Snapshot {
            counters: [
                u64::from(std::process::id()),
                count(self.table.limit()),
                count(self.table.len()),
                count(self.pending.len()),
                accepted,
                denied,
                limited,
                dropped,
            ],
            draining: self.draining.is_some(),
            connections: rows.collect(),
        }
    }

    pub(super) fn status_line(&self, event: &str) {
        self.log.step(&format!("status: {}/{}{event}", self.table.len(), self.table.limit()));
    }
}

fn listen(settings: &Settings) -> Result<Vec<Listener>, String> {
    if settings.inherited > 0 {
        let last = FIRST_INHERITED.saturating_add_unsigned(settings.inherited);
        return (FIRST_INHERITED..last)
            .map(Listener::inherit)
            .collect::<io::Result<_>>()
            .map_err(|e| format!("inherited socket: {e}"));
    }
    let interface = settings.interface.as_deref();
    let shown = || match &settings.address {
        Address::Tcp { host, port } => format!("{} {}", safe(host), safe(port)),
        Address::Unix(path) => path.display().to_string(),
    };
    Listener::open(&settings.address, settings.only_v4, interface, settings.backlog)
        .map(|listener| vec![listener])
        .map_err(|e| format!("unable to listen on {}: {e}", shown()))
}

/// For the user that the server will be, and root.
fn open_status(path: &std::path::Path, settings: &Settings) -> Result<UnixListener, String> {
    let open = || -> io::Result<UnixListener> {
        let listener = unix::socket::listen(path, 0o600)?;
        listener.set_nonblocking(true)?;
        if let Some(id) = &settings.identity {
            std::os::unix::fs::chown(path, Some(id.uid.as_raw()), Some(id.gid.as_raw()))?;
        }
        Ok(listener)
    };
    open().map_err(|e| format!("unable to listen on {}: {e}", path.display()))
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
