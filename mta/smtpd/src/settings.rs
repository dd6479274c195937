//! Settings: everything the environment and the control files say, read once.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use message::Moment;
use program::{Environment, Layout, Loader, Source};
use rustls::ServerConfig;
use smtp::data::BareLf;
use smtp::server::{AuthPolicy, Policy};

use crate::facts::either;
use crate::lists::{AddressList, DomainList};

/// What holds for every session of a service.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) policy: Arc<Policy>,
    /// The first line of the greeting ends with the date, which is that of the connection.
    pub(crate) dated: bool,
    pub(crate) timeout: Duration,
    pub(crate) certificate: PathBuf,
    pub(crate) implicit_tls: bool,
    pub(crate) sbin: PathBuf,
    pub(crate) rcpthosts: DomainList,
    pub(crate) badmailfrom: AddressList,
    pub(crate) badrcptto: AddressList,
    pub(crate) checked_domains: Option<AddressList>,
    pub(crate) locals: HashSet<Vec<u8>>,
    pub(crate) inlookup: PathBuf,
    /// Where the queue service listens; `None`: messages go to the queue program.
    pub(crate) queue_service: Option<PathBuf>,
    pub(crate) lookup_patience: Duration,
    pub(crate) default_domain: Vec<u8>,
    pub(crate) masquerade: Masquerade,
    /// Certificate and key, read when the first client wants them.
    pub(crate) tls: OnceLock<Arc<ServerConfig>>,
}

impl Settings {
    /// What TLS is spoken with. Once it has been read, the files may change without effect.
    ///
    /// # Errors
    /// The certificate's file cannot be used.
    pub(crate) fn tls(&self) -> io::Result<Arc<ServerConfig>> {
        if let Some(config) = self.tls.get() {
            return Ok(config.clone());
        }
        let config = crate::tls::server(&self.certificate)?;
        Ok(self.tls.get_or_init(|| config).clone())
    }
}

/// Senders that a logged-in user may use besides her own address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Masquerade {
    Nobody,
    Address(Vec<u8>),
    Anybody,
}

/// Reads the settings. What is wrong with them is kept in the loader.
pub(crate) fn load<'e>(env: &'e Environment, layout: &Layout) -> (Loader<'e>, Settings) {
    let mut loader = Loader::new(env);
    let l = &mut loader;
    let me = line(l, "me");
    if me.is_none() && line(l, "smtpgreeting").is_none() {
        l.problem(format!("{}: missing: put this host's name there", l.control().file("me").display()));
    }
    let me = me.unwrap_or_default();
    let port = either(env, "TCP6LOCALPORT", "TCPLOCALPORT").unwrap_or_default().to_vec();
    let submission = match env.bytes("SUBMISSION") {
        Some(value) => value != b"0",
        None => port == b"587" || port == b"465",
    };
    let said = l.source(&["SUBMISSION"], &[]);
    let port_said = l.source(&["TCP6LOCALPORT", "TCPLOCALPORT"], &[]);
    l.show("submission", submission, if env.is_set("SUBMISSION") { said } else { port_said });
    let certificate = l
        .path("certdir", Source { variable: Some("CERTDIR"), ..Source::default() }, "/etc/indimail/certs")
        .join(env.get("SERVERCERT").filter(|v| !v.is_empty()).unwrap_or(OsStr::new("servercert.pem")));
    let settings = Settings {
        policy: Arc::new(policy(l, &me, submission, &certificate)),
        dated: !env.is_set("DISABLE_EXTRA_GREET"),
        timeout: seconds(l, "timeout", None, "timeoutsmtpd", 1200, 1..=86_400),
        implicit_tls: env.is_set("SMTPS"),
        certificate,
        sbin: layout.prefix().join("sbin"),
        rcpthosts: rcpthosts(l, submission),
        badmailfrom: address_list(l, "badmailfrom", Some("badmailpatterns")).unwrap_or_default(),
        badrcptto: address_list(l, "badrcptto", Some("badrcptpatterns")).unwrap_or_default(),
        checked_domains: address_list(l, "chkrcptdomains", None),
        locals: list(l, "locals").unwrap_or_default().into_iter().map(|d| d.to_ascii_lowercase()).collect(),
        inlookup: l.path(
            "inlookup",
            Source { variable: Some("INLOOKUP_SOCKET"), ..Source::default() },
            lookup::mail::DEFAULT_SOCKET,
        ),
        queue_service: queue_service(l),
        lookup_patience: seconds(l, "lookup patience", None, "timeoutread", 4, 1..=600),
        default_domain: l
            .bytes(
                "default domain",
                Source { variable: Some("DEFAULT_DOMAIN"), control: Some("defaultdomain"), option: None },
            )
            .unwrap_or(me),
        masquerade: match env.bytes("MASQUERADE") {
            None => Masquerade::Nobody,
            Some(b"") => Masquerade::Anybody,
            Some(address) => Masquerade::Address(address.to_ascii_lowercase()),
        },
        tls: OnceLock::new(),
    };
    (loader, settings)
}

/// The queue service's socket. Where variables choose a queue, only the one that they name with it.
fn queue_service(l: &mut Loader<'_>) -> Option<PathBuf> {
    let env = l.environment();
    let chosen = ["QUEUEDIR", "QUEUE_BASE", "QUEUE_START", "QUEUE_COUNT"].iter().any(|n| env.is_set(n));
    if env.bytes("QUEUE_SOCKET").map_or(chosen, <[u8]>::is_empty) {
        l.show(
            "queue service",
            "none",
            if chosen { "variables that choose a queue" } else { "variable QUEUE_SOCKET" },
        );
        return None;
    }
    let from = Source { variable: Some("QUEUE_SOCKET"), ..Source::default() };
    Some(l.path("queue service", from, mta_queue::client::DEFAULT_SOCKET))
}

fn policy(l: &mut Loader<'_>, me: &[u8], submission: bool, certificate: &std::path::Path) -> Policy {
    let env = l.environment();
    let set = |name| env.is_set(name);
    let count = |l: &mut Loader<'_>, name, variable, control, default| {
        let from = Source { variable, control, option: None };
        l.number(name, from, default, 0..=u64::from(u32::MAX))
    };
    let databytes = count(l, "databytes", Some("DATABYTES"), Some("databytes"), 0);
    let recipients = count(l, "maxrecipients", Some("MAXRECIPIENTS"), Some("maxrecipients"), 0);
    let tarpit_from = count(l, "tarpitcount", Some("TARPITCOUNT"), Some("tarpitcount"), 0);
    let tarpit_pause = seconds(l, "tarpitdelay", Some("TARPITDELAY"), "tarpitdelay", 5, 0..=3600);
    let bad_recipients = count(l, "invalid recipients", Some("MAX_RCPT_ERRCOUNT"), None, 0);
    let auth_failures = count(l, "failed logins", Some("MAX_AUTH_ERRCOUNT"), None, 3);
    let hops = count(l, "maxhops", None, Some("maxhops"), 100);
    let line_length = count(l, "maxcmdlen", None, Some("maxcmdlen"), 0);
    let penalty = Source { variable: Some("PENALTY"), ..Source::default() };
    let limit = |n: u64| (n > 0).then(|| usize::try_from(n).unwrap_or(usize::MAX));
    let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    Policy {
        greeting: greeting(l, me),
        local_ip_host: line(l, "localiphost").unwrap_or_else(|| me.to_vec()),
        size_limit: (databytes > 0).then_some(databytes),
        max_recipients: limit(recipients),
        too_many_is_permanent: set("TOO_MANY_RCPT_PERM"),
        max_hops: limit(hops).unwrap_or(100),
        max_line: limit(line_length).unwrap_or(usize::MAX).min(smtp::command::MAX_LINE),
        max_invalid_recipients: (bad_recipients > 0).then(|| small(bad_recipients)),
        max_auth_failures: small(auth_failures).max(1),
        penalty: Duration::from_secs(l.number("penalty", penalty, 5, 0..=3600)),
        tarpit: limit(tarpit_from).map(|from| (from, tarpit_pause)),
        starttls: set("STARTTLS") && certificate.exists(),
        force_tls: set("FORCE_TLS"),
        auth: AuthPolicy {
            available: true,
            plain: !set("DISABLE_AUTH_PLAIN"),
            login: !set("DISABLE_AUTH_LOGIN"),
            only_under_tls: set("SECURE_AUTH") || !set("ALLOW_PLAINTEXT_AUTH"),
        },
        require_auth: submission || set("REQUIREAUTH"),
        auth_all: set("AUTH_ALL"),
        check_recipient: set("CHECKRECIPIENT"),
        over_quota_is_permanent: set("OVERQUOTA_PERM"),
        bare_lf: if set("ALLOW_BARELF") { BareLf::LineEnd } else { BareLf::Refuse },
        allow_no_helo: set("ALLOW_NOHELO"),
        vrfy: !set("DISABLE_VRFY"),
        help: !set("DISABLE_HELP"),
        smtputf8: set("SMTPUTF8"),
        submission,
    }
}

/// What follows the greeting's first line, before the date.
const ADVERTISEMENT: &str = concat!(" (NO UCE) ESMTP IndiMail ", env!("CARGO_PKG_VERSION"), " ");

/// The same policy, as a connection at `now` (seconds since 1970) finds it.
pub(crate) fn dated(policy: &Policy, now: u64) -> Policy {
    let mut policy = policy.clone();
    if let Some(first) = policy.greeting.first_mut() {
        let mark = ADVERTISEMENT.as_bytes();
        if let Some(at) = first.windows(mark.len()).rposition(|w| w == mark) {
            first.truncate(at + mark.len());
            first.extend_from_slice(Moment::utc(now).rfc5322().as_bytes());
        }
    }
    policy
}

fn greeting(l: &mut Loader<'_>, me: &[u8]) -> Vec<Vec<u8>> {
    let mut lines = list(l, "smtpgreeting").filter(|g| !g.is_empty()).unwrap_or_else(|| vec![me.to_vec()]);
    if !l.environment().is_set("DISABLE_EXTRA_GREET") {
        let extra = format!("{ADVERTISEMENT}{}", Moment::utc(unix::clock::unix_seconds()).rfc5322());
        lines[0].extend_from_slice(extra.as_bytes());
    }
    lines
}

fn line(l: &mut Loader<'_>, name: &str) -> Option<Vec<u8>> {
    l.bytes(name, Source { control: Some(name), ..Source::default() })
}

fn list(l: &mut Loader<'_>, name: &str) -> Option<Vec<Vec<u8>>> {
    let answer = l.control().list(name);
    let list = l.take(answer);
    if let Some(list) = &list {
        let file = l.control().file(name);
        l.show(name, format!("{} entries", list.len()), file.display());
    }
    list
}

/// The domains we take mail for. A file that is not there is a mistake or half an installation, and
/// must neither relay nor refuse anybody's mail for good; an empty one is a decision. Who may send to
/// any host does not need it.
fn rcpthosts(l: &mut Loader<'_>, submission: bool) -> DomainList {
    let more = l.control().file("morercpthosts.cdb");
    let lines = list(l, "rcpthosts");
    // One that cannot be looked at is no reason to go on either; the first recipient will tell.
    let absent = lines.is_none() && !more.try_exists().unwrap_or(true);
    if absent && !submission && !l.environment().is_set("RELAYCLIENT") {
        let file = l.control().file("rcpthosts");
        l.problem(format!(
            "{}: missing: list the domains to take mail for, or make it empty",
            file.display()
        ));
    }
    DomainList::new(lines.unwrap_or_default(), more)
}

/// A list counts as there when any of its forms is.
fn address_list(l: &mut Loader<'_>, name: &str, companion: Option<&str>) -> Option<AddressList> {
    let cdb = l.control().file(&format!("{name}.cdb"));
    let lines = list(l, name);
    let patterns = companion.and_then(|c| list(l, c));
    (lines.is_some() || patterns.is_some() || cdb.exists())
        .then(|| AddressList::new(&lines.unwrap_or_default(), patterns.as_deref(), cdb))
}

fn seconds(
    l: &mut Loader<'_>,
    name: &str,
    variable: Option<&str>,
    control: &str,
    default: u64,
    range: std::ops::RangeInclusive<u64>,
) -> Duration {
    Duration::from_secs(l.number(
        name,
        Source { variable, control: Some(control), option: None },
        default,
        range,
    ))
}
