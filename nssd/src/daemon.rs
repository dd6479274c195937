//! The service and its life.

use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use accounts::{Accounts, AccountsPool};
use lookup::identity::{Reply, Request};
use program::{Exit, Invocation};
use serve::{Answer, Breaker, Counters, Frame, Front, Peer, SIGNALS_OBEYED, Service, Stopped};
use unix::Uid;
use unix::signals::Signals;

use crate::answers::{Answers, Asker};
use crate::log::{Level, Log};
use crate::published::Publisher;
use crate::settings::{self, Settings, Task};
use crate::source::Guarded;

/// Everybody may ask; what is answered depends on who does.
const SOCKET_MODE: u32 = 0o666;

/// A store that hung is left alone for so long.
const REST: Duration = Duration::from_secs(1);

/// Complaints of one kind are logged once in so many milliseconds.
const QUIET: u64 = 10_000;

/// The body of the program.
pub fn main(invocation: &Invocation) -> Exit {
    let settings = match settings::load(invocation) {
        Ok(Task::Serve(settings)) => *settings,
        Ok(Task::Checked) => return Exit::OK,
        Err(exit) => return exit,
    };
    let log = Log { level: settings.level };
    let reread = {
        let again = Again::of(invocation);
        move || again.load()
    };
    match run(settings, log, reread) {
        Ok(()) => Exit::OK,
        Err(why) => {
            log.line(Level::Fatal, why);
            Exit(1)
        }
    }
}

/// How to read the settings again: the command line and environment of the start.
struct Again {
    invocation: Invocation,
}

impl Again {
    fn of(invocation: &Invocation) -> Self {
        let arguments = invocation.arguments.clone();
        let environment = invocation.environment.clone();
        let layout = invocation.layout.clone();
        Self { invocation: Invocation::new(invocation.spec, arguments, environment, layout) }
    }

    fn load(&self) -> Option<Settings> {
        match settings::load(&self.invocation) {
            Ok(Task::Serve(settings)) => Some(*settings),
            Ok(Task::Checked) | Err(_) => None,
        }
    }
}

/// Serves until a signal stops it.
///
/// # Errors
/// What is wrong, for the last line of the log.
fn run(
    settings: Settings,
    log: Log,
    reread: impl Fn() -> Option<Settings> + Send + Sync + 'static,
) -> Result<(), Box<dyn std::error::Error>> {
    // Before any thread and any name: this process must never wait for itself.
    unix::name_service::leave_out_own_module();
    let signals = Signals::listen(&SIGNALS_OBEYED)?;
    let mut administrators = vec![Uid::from_raw(0), Uid::effective()];
    administrators.extend(unix::ids::user("indimail")?.map(|u| u.uid));
    let front = serve::Settings {
        workers: settings.threads,
        connections: settings.max_connections,
        connections_per_user: settings.max_connections / 2,
        request: settings.timeout,
        ready_descriptor: settings.ready_descriptor,
        ..serve::Settings::default()
    };
    let listener = serve::listener(&settings.socket, SOCKET_MODE)?;
    log.line(
        Level::Notice,
        format_args!(
            "listening on {}, accounts in {}",
            settings.socket.display(),
            settings.accounts.store.describe()
        ),
    );
    let daemon = Arc::new(Daemon {
        workers: settings.threads,
        answers: Answers::new(settings.rules),
        accounts: Mutex::new(AccountsPool::new(&settings.accounts)),
        breaker: Arc::new(Breaker::new(settings.timeout / 2, REST)),
        administrators,
        statistics: Arc::clone(&front.statistics),
        log,
        quiet_until: AtomicU64::new(0),
        reread: Box::new(reread),
        publisher: settings.map.map(Publisher::new),
    });
    keep_map(&daemon)?;
    let stopped = Front::new(front, listener, Some(signals), Arc::clone(&daemon))?.run()?;
    if let Some(publisher) = &daemon.publisher {
        publisher.stop();
    }
    if stopped == Stopped::Cut {
        log.line(Level::Warning, "stopped with questions unanswered: the account store did not answer");
    }
    log.line(Level::Notice, "stopped");
    Ok(())
}

/// Builds the map and keeps it right beside the service.
fn keep_map(daemon: &Arc<Daemon>) -> std::io::Result<()> {
    if daemon.publisher.is_none() {
        return Ok(());
    }
    let start = |name: &str, work: fn(&Daemon, &Publisher)| {
        let daemon = Arc::clone(daemon);
        let body = move || {
            if let Some(publisher) = &daemon.publisher {
                work(&daemon, publisher);
            }
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(body).map(drop)
    };
    start("map-beat", |_, publisher| publisher.beat())?;
    start("map", |daemon, publisher| {
        let open = || (daemon.pool().open(), daemon.answers.rules().policy.clone());
        publisher.work(open, |done, text| {
            daemon.log.line(if done { Level::Notice } else { Level::Warning }, text);
        });
    })
}

struct Daemon {
    /// As many connections, also after a reload: it starts and stops no worker.
    workers: usize,
    answers: Answers,
    /// Where workers get their connections, until the next reload.
    accounts: Mutex<AccountsPool>,
    breaker: Arc<Breaker>,
    administrators: Vec<Uid>,
    statistics: Arc<serve::Statistics>,
    log: Log,
    quiet_until: AtomicU64,
    reread: Box<dyn Fn() -> Option<Settings> + Send + Sync>,
    publisher: Option<Publisher>,
}

/// A worker's own store connection, and when it was made.
struct Worker {
    accounts: Guarded<Accounts>,
    epoch: u64,
}

impl Daemon {
    fn open(&self) -> Guarded<Accounts> {
        Guarded::new(self.pool().open(), Arc::clone(&self.breaker))
    }

    fn pool(&self) -> MutexGuard<'_, AccountsPool> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Warns, but not about everything all the time.
    fn complain(&self, what: &dyn Display) {
        let now = unix::clock::monotonic_milliseconds();
        let until = self.quiet_until.load(Ordering::Relaxed);
        if now >= until || self.log.wants(Level::Debug) {
            self.quiet_until.store(now + QUIET, Ordering::Relaxed);
            self.log.line(Level::Warning, what);
        }
    }

    fn rebuild(&self) {
        if let Some(publisher) = &self.publisher {
            publisher.rebuild();
        }
    }

    fn asker(&self, peer: &Peer) -> Asker {
        Asker { is_root: peer.uid.is_root(), is_administrator: self.administrators.contains(&peer.uid) }
    }

    fn reply(&self, worker: &mut Worker, peer: &Peer, request: &Request<'_>) -> Reply {
        let asker = self.asker(peer);
        if matches!(request, Request::Status) && asker.is_administrator {
            return Reply::Status(self.rows());
        }
        let complain = |what: &dyn Display| self.complain(what);
        let flushed = match (request, &self.publisher) {
            (Request::Flush(key), Some(publisher)) if asker.is_administrator => Some((*key, publisher)),
            _ => None,
        };
        if let Some((key, publisher)) = flushed {
            self.answers.flush(key);
            publisher.flush(key, &mut worker.accounts, &self.answers.rules().policy);
            return Reply::Done;
        }
        self.answers.answer(&mut worker.accounts, asker, request, Instant::now(), &complain).unwrap_or_else(
            |why| {
                self.complain(&why);
                Reply::Temporary
            },
        )
    }

    fn finish(&self, peer: &Peer, request: &Request<'_>, reply: Reply) -> Answer {
        if self.log.wants(Level::Debug) {
            let outcome = match reply {
                Reply::Absent => "absent",
                Reply::Temporary => "cannot tell",
                Reply::Refused => "refused",
                _ => "answered",
            };
            let (pid, uid) = (peer.pid, peer.uid);
            self.log.line(Level::Debug, format_args!("pid {pid} uid {uid}: {request:?}: {outcome}"));
        }
        let mut bytes = Vec::new();
        match reply {
            Reply::Temporary => Answer::Temporary,
            Reply::Refused => Answer::Refused,
            reply => reply.encode(&mut bytes).map_or(Answer::Temporary, |()| Answer::Reply(bytes)),
        }
    }

    fn rows(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let own = &self.answers.counters;
        let get = |c: &AtomicU64| c.load(Ordering::Relaxed);
        let remembered = u64::try_from(self.answers.remembered()).unwrap_or(u64::MAX);
        let own = [
            ("hits", get(&own.hits)),
            ("misses", get(&own.misses)),
            ("unavailable", get(&own.unavailable)),
            ("remembered", remembered),
        ];
        let map = self.publisher.as_ref().map(Publisher::rows).unwrap_or_default();
        let rows = self.statistics.read().rows().into_iter().chain(own).chain(map);
        rows.map(|(name, value)| (name.as_bytes().to_vec(), value.to_string().into_bytes())).collect()
    }
}

impl Service for Daemon {
    type Worker = Worker;

    fn worker(&self) -> Worker {
        Worker { accounts: self.open(), epoch: self.answers.reloads() }
    }

    fn at_once(&self, peer: &Peer, frame: &Frame<'_>) -> Option<Answer> {
        let request = Request::decode(frame).ok()?;
        let reply = self.answers.recall(&request, Instant::now())?;
        Some(self.finish(peer, &request, reply))
    }

    fn answer(&self, worker: &mut Worker, peer: &Peer, frame: &Frame<'_>) -> Answer {
        let Ok(request) = Request::decode(frame) else { return Answer::Malformed };
        let epoch = self.answers.reloads();
        if worker.epoch != epoch {
            *worker = Worker { accounts: self.open(), epoch };
        }
        let reply = self.reply(worker, peer, &request);
        self.finish(peer, &request, reply)
    }

    fn reload(&self) {
        match (self.reread)() {
            Some(mut settings) => {
                settings.accounts.store.connections = settings::connections(self.workers);
                let pool = AccountsPool::new(&settings.accounts);
                *self.accounts.lock().unwrap_or_else(PoisonError::into_inner) = pool;
                self.answers.reload(settings.rules);
                self.rebuild();
                self.log.line(Level::Notice, "configuration read again, answers forgotten");
            }
            None => {
                self.answers.flush(lookup::Key::All);
                self.rebuild();
                self.log.line(Level::Warning, "configuration not changed, answers forgotten");
            }
        }
    }

    fn status(&self, _counters: &Counters) {
        let rows = self.rows();
        let text: Vec<String> = rows
            .iter()
            .map(|(name, value)| {
                format!("{} {}", String::from_utf8_lossy(name), String::from_utf8_lossy(value))
            })
            .collect();
        self.log.line(Level::Notice, text.join(" "));
    }
}
