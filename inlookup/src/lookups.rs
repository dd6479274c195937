//! The service behind the front: who may ask, what is asked, what is counted and logged.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use accounts::{Accounts, Answer as Told};
use lookup::Key;
use lookup::mail::{Counters as Rows, Reply, Request, UserStatus, Verdict};
use serve::{Answer, Breaker, Counters as FrontCounters, Frame, Lane, Peer, Service, Statistics};

use crate::answers::{Answers, Login, Now, Shared};
use crate::breaker::Guarded;
use crate::counters::Count;
use crate::log::Log;
use crate::peers::{Peers, Right};
use crate::settings::{Places, Settings};

/// A store that fails after this time is hanging, not refusing.
const HANGING: Duration = Duration::from_secs(1);
/// How long a hanging store is left alone.
const REST: Duration = Duration::from_secs(2);

/// The daemon's service.
#[derive(Debug)]
pub struct Lookups {
    shared: Arc<Shared>,
    breaker: Arc<Breaker>,
    places: Places,
    accounts: RwLock<accounts::Settings>,
    /// Counts reloads; a worker of an older generation opens the accounts anew.
    generation: AtomicU64,
    peers: Peers,
    statistics: Arc<Statistics>,
    log: Log,
}

/// What one worker thread owns.
#[derive(Debug)]
pub struct Worker {
    generation: u64,
    answers: Answers<Guarded<Accounts>>,
}

impl Lookups {
    /// The service with these settings.
    #[must_use]
    pub fn new(settings: Settings, peers: Peers, statistics: Arc<Statistics>, log: Log) -> Self {
        Self {
            shared: Arc::new(Shared::new(settings.cache, settings.limits, settings.relay_lifetime)),
            breaker: Arc::new(Breaker::new(HANGING, REST)),
            places: settings.places,
            accounts: RwLock::new(settings.accounts),
            generation: AtomicU64::new(0),
            peers,
            statistics,
            log,
        }
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
        let generation = self.generation.load(Ordering::Acquire);
        let settings = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
        let source = Guarded::new(Accounts::open(&settings), Arc::clone(&self.breaker));
        Worker { generation, answers: Answers::new(source, Arc::clone(&self.shared)) }
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
        if worker.generation != self.generation.load(Ordering::Acquire) {
            *worker = self.worker();
        }
        let now = Now::read();
        let told = self.told(&mut worker.answers, &request, now);
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
        match self.places.accounts() {
            Ok(settings) => {
                self.log.line(format_args!("status: reloaded, accounts in {}", settings.store.describe()));
                *self.accounts.write().unwrap_or_else(PoisonError::into_inner) = settings;
                self.generation.fetch_add(1, Ordering::AcqRel);
            }
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
