//! The service behind the front: who may ask, what is asked, what is counted and logged.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use accounts::{Accounts, Answer as Told};
use lookup::Key;
use lookup::mail::{Counters as Rows, Reply, Request, UserStatus, Verdict};
use serve::{Answer, Breaker, Counters as FrontCounters, Frame, Lane, Peer, Service, Statistics};

use crate::answers::{Answers, Login, Now, Shared};
use crate::breaker::Guarded;
use crate::counters::Count;
use crate::log::Log;
use crate::notes::{Note, Notes};
use crate::peers::{Peers, Right};
use crate::settings::Settings;
use crate::store::{Opened, Store};

/// A store that fails after this time is hanging, not refusing.
const HANGING: Duration = Duration::from_secs(1);
/// How long a hanging store is left alone.
const REST: Duration = Duration::from_secs(2);

/// The daemon's service.
#[derive(Debug)]
pub struct Lookups {
    shared: Arc<Shared>,
    breaker: Arc<Breaker>,
    store: Arc<Store>,
    notes: Notes,
    peers: Peers,
    statistics: Arc<Statistics>,
    log: Arc<Log>,
}

/// What one worker thread owns.
pub type Worker = Opened<Answers<Guarded<Accounts>>>;

impl Lookups {
    /// The service with these settings.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn new(settings: Settings, peers: Peers, statistics: Arc<Statistics>, log: Log) -> io::Result<Self> {
        let log = Arc::new(log);
        let store = Arc::new(Store::new(settings.places, &settings.accounts));
        let notes = Notes::start(settings.notes, writer(Arc::clone(&store), Arc::clone(&log)))?;
        Ok(Self {
            shared: Arc::new(Shared::new(settings.cache, settings.limits, settings.relay_lifetime)),
            breaker: Arc::new(Breaker::new(HANGING, REST)),
            store,
            notes,
            peers,
            statistics,
            log,
        })
    }

    fn rows(&self, now: Instant) -> Rows {
        let mut rows: Rows = Vec::new();
        let mut row = |name: &str, value: u64| {
            rows.push((name.as_bytes().to_vec(), value.to_string().into_bytes()));
        };
        row("uptime", self.shared.counters.uptime(now).as_secs());
        self.shared.counters.rows().for_each(|(name, value)| row(name, value));
        row("remembered", u64::try_from(self.shared.remembered()).unwrap_or(u64::MAX));
        self.statistics.read().rows().iter().for_each(|(name, value)| row(name, *value));
        rows
    }

    /// The answer to one question of a peer that may ask it.
    fn told(&self, answers: &mut Answers<Guarded<Accounts>>, request: &Request<'_>, now: Now) -> Told<Reply> {
        Ok(match *request {
            Request::User(address) => Reply::User(answers.user(address, now)?),
            Request::Mailbox(address) => answers.mailbox(address, now)?.map_or(Reply::Absent, Reply::Mailbox),
            Request::Domain(name) => answers.domain(name)?.map_or(Reply::Absent, Reply::Domain),
            Request::Relay { address, ip } => {
                if answers.relay(address, ip, now)? {
                    Reply::Yes
                } else {
                    Reply::Absent
                }
            }
            Request::Authenticate { address, password, service, remote_host } => {
                let login = Login { address, service, remote_host };
                let verdict = answers.authenticate(&login, password, now)?;
                self.log_login(&login, &verdict);
                if let Verdict::Granted(mailbox) = &verdict
                    && !self.notes.take(&login, mailbox, now)
                {
                    self.log.failure(&"login not noted: too many wait", now.instant);
                }
                Reply::Verdict(verdict)
            }
            Request::Account { address, service } => Reply::Verdict(answers.account(address, service, now)?),
            Request::Flush(key) => {
                match key {
                    Key::All => self.shared.forget(b""),
                    Key::Address(name) | Key::Domain(name) => self.shared.forget(name),
                }
                Reply::Yes
            }
            Request::Status => Reply::Status(self.rows(now.instant)),
        })
    }

    /// Refused logins are always logged: they are what an administrator looks for.
    fn log_login(&self, login: &Login<'_>, verdict: &Verdict) {
        let why = match verdict {
            Verdict::Wrong => "wrong password",
            Verdict::Absent => "no such account",
            Verdict::Disabled => "disabled",
            Verdict::Expired => "account expired",
            Verdict::PasswordExpired => "password expired",
            // One guesser would fill the log with these; they are counted.
            Verdict::Later | Verdict::Granted(_) => return,
        };
        let host = if login.remote_host.is_empty() { b"here" } else { login.remote_host };
        self.log.line(format_args!(
            "login: {} from {} for {}: {why}",
            login.address.escape_ascii(),
            host.escape_ascii(),
            login.service.escape_ascii(),
        ));
    }

    fn log_question(&self, peer: &Peer, request: &Request<'_>, answer: &Told<Reply>, start: Instant) {
        let mut text = format!("query: {}", describe(request));
        let _ = match answer {
            Ok(reply) => write!(text, ": {}", outcome(reply)),
            Err(_) => write!(text, ": cannot tell"),
        };
        self.log.line(format_args!("{text}, uid {}, {:.1?}", peer.uid, start.elapsed()));
    }
}

impl Service for Lookups {
    type Worker = Worker;

    fn worker(&self) -> Worker {
        self.store.open(|accounts| {
            Answers::new(Guarded::new(accounts, Arc::clone(&self.breaker)), Arc::clone(&self.shared))
        })
    }

    fn lane(&self, frame: &Frame<'_>) -> Lane {
        match Request::decode(frame) {
            Ok(Request::Authenticate { .. }) => Lane::Slow,
            _ => Lane::Quick,
        }
    }

    fn answer(&self, worker: &mut Worker, peer: &Peer, frame: &Frame<'_>) -> Answer {
        let Ok(request) = Request::decode(frame) else {
            return Answer::Malformed;
        };
        let (right, count) = class(&request);
        if !self.peers.allows(*peer, right) {
            self.shared.counters.add(Count::Refused);
            self.log.line(format_args!(
                "warning: refused: {}: uid {} may not ask",
                describe(&request),
                peer.uid
            ));
            return Answer::Refused;
        }
        if let Some(count) = count {
            self.shared.counters.add(count);
        }
        if self.store.is_old(worker) {
            *worker = self.worker();
        }
        let now = Now::read();
        let told = self.told(&mut worker.value, &request, now);
        if self.log.is_verbose() {
            self.log_question(peer, &request, &told, now.instant);
        }
        match told {
            Ok(reply) => {
                let mut out = Vec::new();
                match reply.encode(&mut out) {
                    Ok(()) => Answer::Reply(out),
                    Err(why) => {
                        // A mailbox with more alias lines than a frame holds.
                        self.log.failure(&format_args!("{}: {why}", describe(&request)), now.instant);
                        Answer::Temporary
                    }
                }
            }
            Err(why) => {
                self.shared.counters.add(Count::Unavailable);
                self.log.failure(&why, now.instant);
                Answer::Temporary
            }
        }
    }

    fn reload(&self) {
        match self.store.reload() {
            Ok(name) => self.log.line(format_args!("status: reloaded, accounts in {name}")),
            Err(why) => self.log.line(format_args!("warning: reload: {why}; the old settings stay")),
        }
        self.shared.reset();
    }

    fn status(&self, _: &FrontCounters) {
        let mut text = String::from("status:");
        for (name, value) in self.rows(Instant::now()) {
            let _ = write!(text, " {} {}", name.escape_ascii(), value.escape_ascii());
        }
        self.log.line(format_args!("{text}"));
    }
}

/// Writes notes to the store, over a connection of its own.
fn writer(store: Arc<Store>, log: Arc<Log>) -> impl FnMut(&Note) + Send {
    let mut opened = None;
    move |note| {
        let mut accounts = opened.take().filter(|o| !store.is_old(o)).unwrap_or_else(|| store.open(|a| a));
        let told = accounts.value.store().note(&note.address, &note.event).and_then(|()| {
            let (ip, at) = (&note.event.remote_ip, note.event.at);
            if note.relay { accounts.value.store().open_relay(&note.address, ip, at) } else { Ok(()) }
        });
        if let Err(why) = told {
            log.failure(&format_args!("login not noted: {why}"), Instant::now());
        }
        opened = Some(accounts);
    }
}

/// The right a question needs, and where it is counted.
fn class(request: &Request<'_>) -> (Right, Option<Count>) {
    match request {
        Request::User(_) => (Right::Look, Some(Count::User)),
        Request::Mailbox(_) => (Right::Look, Some(Count::Mailbox)),
        Request::Domain(_) => (Right::Look, Some(Count::Domain)),
        Request::Relay { .. } => (Right::Look, Some(Count::Relay)),
        Request::Authenticate { .. } => (Right::Login, Some(Count::Authenticate)),
        Request::Account { .. } => (Right::Login, Some(Count::Account)),
        Request::Flush(_) | Request::Status => (Right::Manage, None),
    }
}

fn describe(request: &Request<'_>) -> String {
    match *request {
        Request::User(a) => format!("user {}", a.escape_ascii()),
        Request::Mailbox(a) => format!("mailbox {}", a.escape_ascii()),
        Request::Domain(d) => format!("domain {}", d.escape_ascii()),
        Request::Relay { address, ip } => format!("relay {} {}", address.escape_ascii(), ip.escape_ascii()),
        Request::Authenticate { address, service, remote_host, .. } => format!(
            "authenticate {} {} {}",
            address.escape_ascii(),
            service.escape_ascii(),
            remote_host.escape_ascii()
        ),
        Request::Account { address, service } => {
            format!("account {} {}", address.escape_ascii(), service.escape_ascii())
        }
        Request::Flush(_) => "flush".to_owned(),
        Request::Status => "status".to_owned(),
    }
}

fn outcome(reply: &Reply) -> &'static str {
    match reply {
        Reply::Yes => "yes",
        Reply::Absent | Reply::User(UserStatus::Absent) | Reply::Verdict(Verdict::Absent) => "absent",
        Reply::User(UserStatus::Found) | Reply::Mailbox(_) | Reply::Domain(_) | Reply::Status(_) => "found",
        Reply::User(UserStatus::Inactive) => "inactive",
        Reply::User(UserStatus::OverQuota) => "over quota",
        Reply::User(UserStatus::Alias) => "alias",
        Reply::Verdict(Verdict::Granted(_)) => "granted",
        Reply::Verdict(Verdict::Wrong) => "wrong",
        Reply::Verdict(Verdict::Disabled) => "disabled",
        Reply::Verdict(Verdict::Expired) => "expired",
        Reply::Verdict(Verdict::PasswordExpired) => "password expired",
        Reply::Verdict(Verdict::Later) => "later",
        Reply::Temporary => "temporary",
        Reply::Refused => "refused",
    }
}
