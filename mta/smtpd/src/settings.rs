//! Settings: everything the environment and the control files say, read once.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use message::Moment;
use program::{Environment, Exit, Invocation, Loader, Source};
use smtp::data::BareLf;
use smtp::reply::Reply;
use smtp::server::{AuthPolicy, Gate, Peer, Policy, TlsFacts};

use crate::lists::{AddressList, DomainList};
use crate::received::Origin;

/// Everything one session needs to know.
#[derive(Debug)]
pub struct Settings {
    pub(crate) policy: Policy,
    pub(crate) peer: Peer,
    pub(crate) origin: Origin,
    pub(crate) timeout: Duration,
    pub(crate) certificate: PathBuf,
    pub(crate) implicit_tls: bool,
    pub(crate) sbin: PathBuf,
    pub(crate) queue_environment: Vec<(OsString, OsString)>,
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
}

/// Senders that a logged-in user may use besides her own address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Masquerade {
    Nobody,
    Address(Vec<u8>),
    Anybody,
}

/// Reads the settings.
pub(crate) fn load(invocation: &Invocation, hostname: Option<&OsStr>) -> Result<Settings, Exit> {
    let env = &invocation.environment;
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
    let origin = origin(env, hostname);
    let certificate = l
        .path("certdir", Source { variable: Some("CERTDIR"), ..Source::default() }, "/etc/indimail/certs")
        .join(env.get("SERVERCERT").filter(|v| !v.is_empty()).unwrap_or(OsStr::new("servercert.pem")));
    let settings = Settings {
        policy: policy(l, &me, submission, &certificate),
        peer: peer(env, &origin),
        timeout: seconds(l, "timeout", None, "timeoutsmtpd", 1200, 1..=86_400),
        implicit_tls: env.is_set("SMTPS"),
        certificate,
        sbin: invocation.layout.prefix().join("sbin"),
        queue_environment: queue_environment(env),
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
        origin,
    };
    invocation.finish(loader, settings, crate::FAILED)
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

fn greeting(l: &mut Loader<'_>, me: &[u8]) -> Vec<Vec<u8>> {
    let mut lines = list(l, "smtpgreeting").filter(|g| !g.is_empty()).unwrap_or_else(|| vec![me.to_vec()]);
    if !l.environment().is_set("DISABLE_EXTRA_GREET") {
        let date = Moment::utc(unix::clock::unix_seconds()).rfc5322();
        let extra = format!(" (NO UCE) ESMTP IndiMail {} {date}", env!("CARGO_PKG_VERSION"));
        lines[0].extend_from_slice(extra.as_bytes());
    }
    lines
}

fn peer(env: &Environment, origin: &Origin) -> Peer {
    let ip = |text: Option<&[u8]>| {
        let ip: IpAddr = std::str::from_utf8(text?).ok()?.parse().ok()?;
        Some(ip.to_canonical())
    };
    Peer {
        ip: ip(Some(&origin.ip)),
        local_ip: ip(either(env, "TCP6LOCALIP", "TCPLOCALIP")),
        relay: env.bytes("RELAYCLIENT").map(<[u8]>::to_vec),
        tls: origin.tls_provider.as_ref().map(|text| {
            let version = text.split(|&b| b == b',').next().unwrap_or_default();
            TlsFacts { version: smtp::command::sanitized(version), cipher: String::new() }
        }),
        gate: gate(env, origin),
    }
}

fn origin(env: &Environment, hostname: Option<&OsStr>) -> Origin {
    let given = |name| env.bytes(name).filter(|v| !v.is_empty()).map(<[u8]>::to_vec);
    let ip = either(env, "TCP6REMOTEIP", "TCPREMOTEIP").unwrap_or(b"unknown");
    let parsed: Option<IpAddr> = std::str::from_utf8(ip).ok().and_then(|t| t.parse().ok());
    Origin {
        host: given("TCPREMOTEHOST").unwrap_or_else(|| b"unknown".to_vec()),
        // One client has one name everywhere: v4-mapped addresses are shown as IPv4.
        ip: parsed.map_or_else(|| ip.to_vec(), |ip| ip.to_canonical().to_string().into_bytes()),
        info: given("TCPREMOTEINFO"),
        local: given("TCPLOCALHOST")
            .or_else(|| hostname.map(|h| h.as_encoded_bytes().to_vec()))
            .unwrap_or_else(|| unix::host::name().into_bytes()),
        hide: env.is_set("HIDE_HOST"),
        tls_provider: given("TLS_PROVIDER"),
    }
}

/// Clients that get no service; the first reason counts.
fn gate(env: &Environment, origin: &Origin) -> Option<Gate> {
    let text = |name| env.bytes(name).map(|v| String::from_utf8_lossy(v).into_owned());
    if let Some(value) = text("SHUTDOWN") {
        let code = value.get(..3).and_then(|c| c.parse::<u16>().ok()).filter(|c| (400..600).contains(c));
        let greeting = match code {
            Some(code) => Reply::plain(code, value[3..].trim_start()),
            None => Reply::new(421, "4.3.2", "sorry, this service is closed for now"),
        };
        let later = Reply::new(503, "5.3.2", "sorry, this service is closed for now");
        return Some(Gate { greeting, later, slow: false });
    }
    let refused = |text: &str| {
        let reply = Reply::new(553, "5.7.1", text);
        Some(Gate { greeting: reply.clone(), later: reply, slow: true })
    };
    if env.is_set("OPENRELAY") {
        return refused("sorry, no mail from open relays");
    }
    if env.is_set("TCPPARANOID") {
        let names =
            format!("{} {}", smtp::command::sanitized(&origin.host), smtp::command::sanitized(&origin.ip));
        return refused(&format!("sorry, your names and addresses do not match: {names}"));
    }
    match text("REQPTR") {
        Some(reason) if origin.host == b"unknown" => {
            refused(if reason.is_empty() { "sorry, your address has no name" } else { &reason })
        }
        _ => None,
    }
}

/// The queue program hears of the connection and of its own settings, and of nothing else.
fn queue_environment(env: &Environment) -> Vec<(OsString, OsString)> {
    const NAMES: [&str; 14] = [
        "PATH",
        "PROTO",
        "NULLQUEUE",
        "ERROR_FD",
        "CONTROLDIR",
        "SYSCONFDIR",
        "DOMAINDIR",
        "CERTDIR",
        "TMPDIR",
        "FILTERARGS",
        "SPAMFILTER",
        "SPAMEXITCODE",
        "RELAYCLIENT",
        "TLS_PROVIDER",
    ];
    const PREFIXES: [&str; 6] = ["TCP", "QMAIL", "QUEUE", "QHPSI", "DKIM", "INLOOKUP_"];
    let wanted = |name: &OsStr| {
        name.to_str().is_some_and(|n| NAMES.contains(&n) || PREFIXES.iter().any(|p| n.starts_with(p)))
    };
    env.iter().filter(|(n, _)| wanted(n)).map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
}

fn either<'a>(env: &'a Environment, first: &str, second: &str) -> Option<&'a [u8]> {
    [first, second].into_iter().find_map(|n| env.bytes(n).filter(|v| !v.is_empty()))
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
