//! What a session asks of the world: lists, the lookup daemon, the queue.

use std::ffi::OsString;
use std::io;
use std::sync::Arc;

use lookup::mail::{UserStatus, Verdict};
use message::Moment;
use mta_queue::client::{Outcome, QueueProgram, Transfer};
use smtp::address;
use smtp::reply::Reply;
use smtp::server::{Additions, Answer, Login, Query, RecipientState, Trace};

use crate::facts::Facts;
use crate::log::Log;
use crate::lookups::Lookups;
use crate::received;
use crate::settings::{Masquerade, Settings};

/// Account flag: no mail to other hosts.
const NO_RELAY: u32 = 0x20;
/// Account flag: no SMTP login.
const NO_SMTP: u32 = 0x100;

/// Finds out what one session asks.
#[derive(Debug)]
pub(crate) struct World {
    settings: Arc<Settings>,
    facts: Facts,
    /// Stands for the session in Received fields and Message-IDs.
    number: u32,
    /// Messages so far.
    messages: u32,
    transfer: Option<Transfer>,
}

impl World {
    /// Nothing is opened before the first question about it.
    pub(crate) fn new(settings: Arc<Settings>, facts: Facts, number: u32) -> Self {
        Self { settings, facts, number, messages: 0, transfer: None }
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn answer(&mut self, query: Query, lookups: &mut Lookups, log: &Log) -> Answer {
        let found = match query {
            Query::LocalDomain(domain) => yes_or_no(self.settings.rcpthosts.matches(&domain)),
            Query::BadSender(sender) => yes_or_no(self.settings.badmailfrom.matches(&sender)),
            Query::BadRecipient(recipient) => yes_or_no(self.settings.badrcptto.matches(&recipient)),
            Query::Recipient(address) => self.recipient(&address, lookups).map(Answer::Recipient),
            Query::OwnsSender { user, sender } => self.owns(&user, &sender, lookups).map(Answer::from_bool),
            Query::Authenticate { user, password, .. } => {
                self.login(&user, &password, lookups).map(Answer::Login)
            }
            Query::PrepareTls => yes_or_no(self.settings.tls().map(|_| true)),
            Query::Open(trace) => self.open(&trace),
            Query::Commit { sender, recipients } => Ok(self.commit(&sender, &recipients)),
        };
        found.unwrap_or_else(|why| {
            log.line(&why);
            Answer::Unavailable
        })
    }

    /// Adds bytes to the open message.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        if let Some(transfer) = &mut self.transfer {
            transfer.write(bytes);
        }
    }

    /// Drops the open message.
    pub(crate) fn abandon(&mut self) {
        if let Some(transfer) = self.transfer.take() {
            transfer.abort();
        }
    }

    /// The answer to a question for which nothing has to be waited; else the question comes back.
    pub(crate) fn answer_at_once(&mut self, query: Query, log: &Log) -> Result<Answer, Query> {
        let listed = match &query {
            Query::LocalDomain(domain) => self.settings.rcpthosts.at_once(domain),
            Query::BadSender(sender) => self.settings.badmailfrom.at_once(sender),
            Query::BadRecipient(recipient) => self.settings.badrcptto.at_once(recipient),
            // Read once for all sessions.
            Query::PrepareTls => {
                Some(self.settings.tls().inspect_err(|e| log.line(&format!("TLS: {e}"))).is_ok())
            }
            Query::Open(_) if self.queue_program(&self.facts.queue_environment).waits() => None,
            Query::Open(trace) => {
                return Ok(self.open(trace).unwrap_or_else(|why| {
                    log.line(&why);
                    Answer::Unavailable
                }));
            }
            _ => None,
        };
        match (listed, &query) {
            (Some(false), Query::PrepareTls) => Ok(Answer::Unavailable),
            (Some(yes), _) => Ok(Answer::from_bool(yes)),
            (None, _) => Err(query),
        }
    }

    /// Can so many bytes be written, or the open message be dropped, without waiting?
    pub(crate) fn takes_at_once(&self, length: usize) -> bool {
        self.transfer.as_ref().is_none_or(|t| t.takes_at_once(length))
    }

    fn queue_program(&self, environment: &[(OsString, OsString)]) -> QueueProgram {
        let program = QueueProgram::new(&self.settings.sbin, environment);
        match &self.settings.queue_service {
            Some(socket) => program.service(socket),
            None => program,
        }
    }

    fn open(&mut self, trace: &Trace) -> Result<Answer, String> {
        let mut environment = self.facts.queue_environment.clone();
        if let Some(user) = &trace.user {
            use std::os::unix::ffi::OsStringExt;
            let user = OsString::from_vec(user.clone());
            environment.retain(|(name, _)| name != "TCPREMOTEINFO" && name != "AUTHINFO");
            environment.push(("TCPREMOTEINFO".into(), user.clone()));
            environment.push(("AUTHINFO".into(), user));
        }
        let mut transfer = self
            .queue_program(&environment)
            .open()
            .map_err(|outcome| format!("cannot start the queue program: {}", shown(&outcome)))?;
        let now = unix::clock::unix_seconds();
        let date = Moment::utc(now).rfc5322();
        transfer.write(&received::field(&self.facts.origin, trace, self.number, &date));
        let local = smtp::command::sanitized(&self.facts.origin.local);
        let additions = Additions {
            date: format!("Date: {date}\n").into_bytes(),
            message_id: format!(
                "Message-ID: <{now}.{}.{}.{}@{local}>\n",
                self.number,
                self.messages,
                transfer.qp()
            )
            .into_bytes(),
        };
        self.messages = self.messages.wrapping_add(1);
        self.transfer = Some(transfer);
        Ok(Answer::Opened(additions))
    }

    fn commit(&mut self, sender: &[u8], recipients: &[Vec<u8>]) -> Answer {
        let Some(transfer) = self.transfer.take() else {
            return Answer::Unavailable;
        };
        match transfer.finish(sender, recipients.iter().map(Vec::as_slice)) {
            Outcome::Queued { qp } => Answer::Queued { time: unix::clock::unix_seconds(), qp: qp.into() },
            Outcome::Permanent(text) => Answer::Refused(said(554, &text)),
            Outcome::Temporary(text) => Answer::Refused(said(451, &text)),
        }
    }

    /// Does this recipient of ours exist?
    fn recipient(&self, address: &[u8], lookups: &mut Lookups) -> Result<RecipientState, String> {
        if let Some(checked) = &self.settings.checked_domains
            && !checked.matches(address).map_err(|e| e.to_string())?
        {
            return Ok(RecipientState::Exists);
        }
        let (local, domain) = address::split(address);
        let system = domain.is_none_or(|d| self.settings.locals.contains(&d.to_ascii_lowercase()));
        if system {
            let exists =
                system_recipient(local).map_err(|e| format!("user {}: {e}", local.escape_ascii()))?;
            return Ok(if exists { RecipientState::Exists } else { RecipientState::Absent });
        }
        Ok(match lookups.ask(&self.settings, |client| client.user(&address.to_ascii_lowercase()))? {
            UserStatus::Found | UserStatus::Alias => RecipientState::Exists,
            UserStatus::Absent => RecipientState::Absent,
            UserStatus::Inactive => RecipientState::Inactive,
            UserStatus::OverQuota => RecipientState::OverQuota,
        })
    }

    fn login(&self, user: &[u8], password: &[u8], lookups: &mut Lookups) -> Result<Login, String> {
        let address = self.whole(user);
        let ip = &self.facts.origin.ip;
        match lookups.ask(&self.settings, |client| client.authenticate(&address, password, b"smtp", ip))? {
            Verdict::Granted(mailbox) if mailbox.flags & NO_SMTP != 0 => Ok(Login::Disabled),
            Verdict::Granted(mailbox) => Ok(Login::Granted { relay: mailbox.flags & NO_RELAY == 0 }),
            Verdict::Absent | Verdict::Wrong => Ok(Login::Wrong),
            Verdict::Disabled | Verdict::Expired | Verdict::PasswordExpired => Ok(Login::Disabled),
            // Nobody looked at the password, so this is no refusal.
            Verdict::Later => Err("too many failed logins lately".into()),
        }
    }

    /// Is `sender` this user's own address, directly or through an alias domain?
    fn owns(&self, user: &[u8], sender: &[u8], lookups: &mut Lookups) -> Result<bool, String> {
        let user = self.whole(user);
        let sender = sender.to_ascii_lowercase();
        match &self.settings.masquerade {
            Masquerade::Anybody => return Ok(true),
            Masquerade::Address(allowed) if *allowed == sender => return Ok(true),
            Masquerade::Address(_) | Masquerade::Nobody => {}
        }
        if user == sender {
            return Ok(true);
        }
        let mut real = |address: &[u8]| lookups.ask(&self.settings, |client| client.mailbox(address));
        let Some(theirs) = real(&sender)? else {
            return Ok(false);
        };
        if theirs.alias_only {
            return Ok(false);
        }
        Ok(real(&user)?.is_some_and(|own| own.address == theirs.address))
    }

    /// A login name as an address.
    fn whole(&self, user: &[u8]) -> Vec<u8> {
        let whole = match address::split(user).1 {
            Some(_) => user.to_vec(),
            None => [user, b"@", &self.settings.default_domain].concat(),
        };
        whole.to_ascii_lowercase()
    }
}

/// A user of this host, or something the alias user takes care of.
fn system_recipient(local: &[u8]) -> io::Result<bool> {
    let Ok(name) = std::str::from_utf8(local) else {
        return Ok(false);
    };
    let name = name.to_ascii_lowercase();
    if name.is_empty() || name.contains(['/', '\0']) {
        return Ok(false);
    }
    if unix::ids::user(&name)?.is_some() {
        return Ok(true);
    }
    let Some(alias) = unix::ids::user("alias")? else {
        return Ok(false);
    };
    let exact = alias.home.join(format!(".qmail-{}", name.replace('.', ":")));
    Ok(exact.try_exists()? || alias.home.join(".qmail-default").try_exists()?)
}

fn yes_or_no<E: std::fmt::Display>(answer: Result<bool, E>) -> Result<Answer, String> {
    answer.map(Answer::from_bool).map_err(|e| e.to_string())
}

/// The queue program's text as a reply of as many lines.
fn said(code: u16, text: &[u8]) -> Reply {
    Reply::lines(code, text.split(|&b| b == b'\n').map(<[u8]>::to_vec).collect())
}

fn shown(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Queued { .. } => String::new(),
        Outcome::Permanent(text) | Outcome::Temporary(text) => text.escape_ascii().to_string(),
    }
}
