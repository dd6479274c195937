//! svalert: tells somebody that a service was started, was stopped or has died.

use std::fmt::Write as _;
use std::io;
use std::net::{ToSocketAddrs, UdpSocket};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use program::{Exit, ExitCodeDoc, Invocation, Loader, Operands, Place, Program, Source, Spec, Variable};
use unix::clock::CalendarTime;

/// The table of svalert.
pub static SPEC: Spec = Spec {
    name: "svalert",
    summary: "report the start or end of a service",
    section: 8,
    place: Place::Libexec,
    operands: Operands { synopsis: "service event | service pid | service pid code how", min: 2, max: Some(4) },
    variables: &[
        Variable::new("USE_SYSLOG", "If set and not empty, the report goes to syslog (facility daemon, tag svalert)."),
        Variable::new("PROBE_SERVER", "Else it goes to this host, as a datagram (default probe-server; if there is no such host, nowhere)."),
        Variable::new("SV_ALERT_PORT", "Port there (default 3001)."),
        Variable::new("SYSCONFDIR", "Where svalerts.filter is (default /etc/indimail)."),
    ],
    exits: &[
        ExitCodeDoc { code: 0, meaning: "reported, filtered, or nobody to report to" },
        ExitCodeDoc { code: 100, meaning: "wrong usage" },
        ExitCodeDoc { code: 111, meaning: "the report cannot be sent" },
    ],
    description: "\
Scripts of a service call it with their own arguments: run (service and event, like \"abnormal startup\"), shutdown (service and process id), \
alert (service, process id, code, how). The events are auto-startup, manual-startup, manual-restart, one-time-startup, \
abnormal-startup, system-failure, normal-shutdown and abnormal-shutdown. Events that stand in \
svalerts.filter, one on a line, are not reported.

The datagram is one line: svalert, host, working directory, service, event, two words on how (exited or \
stopped/signalled and the code; PID and the process id; or two dashes), seconds since 1970.",
    ..Spec::EMPTY
};

/// svalert.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

const FILTER: &str = "svalerts.filter";
const LOG_SOCKET: &str = "/dev/log";
/// Facility daemon, severities warning and informational.
const WARNING: u8 = 3 * 8 + 4;
const INFORMATIONAL: u8 = 3 * 8 + 6;

/// What happened to a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    service: String,
    event: String,
    how: String,
    code: String,
}

impl Report {
    /// From the arguments that supervise gives to its scripts; `None` when they are something else.
    #[must_use]
    pub fn from_arguments(arguments: &[&str]) -> Option<Self> {
        let report = |service: &str, event: &str, how: &str, code: &str| {
            Some(Self { service: word(service), event: word(event), how: word(how), code: word(code) })
        };
        match *arguments {
            [service, event] if event.split_ascii_whitespace().count() == 2 => {
                report(service, &event.split_ascii_whitespace().collect::<Vec<_>>().join("-"), "-", "-")
            }
            [service, pid] => report(service, "normal-shutdown", "PID", pid),
            [service, first, second] => report(service, &format!("{first}-{second}"), "-", "-"),
            [service, _, code, how] => report(service, "abnormal-shutdown", how, code),
            _ => None,
        }
    }

    /// Is this event in the text of a filter?
    #[must_use]
    pub fn is_filtered_by(&self, filter: &str) -> bool {
        filter.lines().any(|line| line.trim() == self.event)
    }

    fn is_trouble(&self) -> bool {
        matches!(self.event.as_str(), "abnormal-startup" | "system-failure" | "abnormal-shutdown")
    }

    /// The datagram for a probe server; `now` in seconds since 1970.
    #[must_use]
    pub fn datagram(&self, host: &str, directory: &Path, now: u64) -> String {
        let Self { service, event, how, code } = self;
        format!("svalert {} {} {service} {event} {how} {code} {now}", word(host), path_word(directory))
    }

    /// The message for syslog.
    #[must_use]
    pub fn syslog(&self, directory: &Path, now: Option<CalendarTime>) -> String {
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let mut out = format!("<{}>", if self.is_trouble() { WARNING } else { INFORMATIONAL });
        let month = |time: &CalendarTime| MONTHS.get(usize::try_from(time.month - 1).ok()?).copied();
        if let Some((time, month)) = now.and_then(|time| Some((time, month(&time)?))) {
            let _ =
                write!(out, "{month} {:2} {:02}:{:02}:{:02} ", time.day, time.hour, time.minute, time.second);
        }
        let Self { service, event, how, code } = self;
        let _ = write!(out, "svalert: {} {service} {event} {how} {code}", path_word(directory));
        out
    }
}

/// The text as one word: what would end it, or the line, becomes an underscore.
fn word(text: &str) -> String {
    if text.is_empty() {
        return "-".to_owned();
    }
    text.chars().map(|c| if c.is_whitespace() || c.is_control() { '_' } else { c }).collect()
}

fn path_word(path: &Path) -> String {
    word(&path.to_string_lossy())
}

#[derive(Debug)]
struct Settings {
    report: Report,
    syslog: bool,
    server: String,
    port: u16,
    filter: PathBuf,
}

fn load(invocation: &Invocation) -> Result<Settings, Exit> {
    let parsed = invocation.parse()?;
    let env = &invocation.environment;
    let mut loader = Loader::new(env);
    let arguments: Vec<_> = parsed.operands.iter().map(|o| o.to_string_lossy()).collect();
    let arguments: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
    let report = Report::from_arguments(&arguments);
    if report.is_none() {
        loader.problem("expected the arguments of a run, alert or shutdown script");
    }
    let syslog = env.bytes("USE_SYSLOG").is_some_and(|v| !v.is_empty());
    let source = loader.source(&["USE_SYSLOG"], &[]);
    loader.show("syslog", syslog, source);
    let variable = |name| Source { variable: Some(name), ..Source::default() };
    let server = loader.bytes("server", variable("PROBE_SERVER"));
    let server =
        server.map_or_else(|| "probe-server".to_owned(), |v| String::from_utf8_lossy(&v).into_owned());
    let port = loader.number("port", variable("SV_ALERT_PORT"), 3001, 1..=65535);
    let port = u16::try_from(port).unwrap_or(3001);
    let filter = loader.path("sysconfdir", variable("SYSCONFDIR"), control::DEFAULT_SYSCONFDIR).join(FILTER);
    let report = report.unwrap_or_else(|| Report {
        service: String::new(),
        event: String::new(),
        how: String::new(),
        code: String::new(),
    });
    invocation.finish(loader, Settings { report, syslog, server, port, filter }, Exit::PERMANENT)
}

fn main(invocation: &Invocation) -> Exit {
    let settings = match load(invocation) {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    match std::fs::read(&settings.filter) {
        Ok(filter) if settings.report.is_filtered_by(&String::from_utf8_lossy(&filter)) => return Exit::OK,
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            // Better one report too many.
            let path = settings.filter.as_os_str().as_bytes().escape_ascii();
            invocation.complain("warning", format_args!("{path}: {e}: nothing is filtered"));
        }
        _ => {}
    }
    let directory = std::env::current_dir().unwrap_or_default();
    let now = unix::clock::unix_seconds();
    let (to, sent) = if settings.syslog {
        let message =
            settings.report.syslog(&directory, unix::clock::calendar_time(now.cast_signed(), false));
        (LOG_SOCKET.to_owned(), to_syslog(&message))
    } else {
        let message = settings.report.datagram(&unix::host::name(), &directory, now);
        (settings.server.clone(), to_server(&settings.server, settings.port, &message))
    };
    match sent {
        Ok(()) => Exit::OK,
        Err(e) => {
            invocation.complain("fatal", format_args!("unable to report to {to}: {e}"));
            Exit::TEMPORARY
        }
    }
}

fn to_syslog(message: &str) -> io::Result<()> {
    UnixDatagram::unbound()?.send_to(message.as_bytes(), LOG_SOCKET).map(|_| ())
}

/// A host that is not known is one that nobody has set up: nothing is sent.
fn to_server(server: &str, port: u16, message: &str) -> io::Result<()> {
    let Ok(mut addresses) = (server, port).to_socket_addrs() else { return Ok(()) };
    let Some(address) = addresses.next() else { return Ok(()) };
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    UdpSocket::bind(any)?.send_to(message.as_bytes(), address).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sent(arguments: &[&str]) -> Option<String> {
        Some(Report::from_arguments(arguments)?.datagram("h", Path::new("/s/a"), 1000))
    }

    #[test]
    fn arguments_of_the_scripts() {
        for (arguments, want) in [
            (&["a", "abnormal startup"][..], Some("a abnormal-startup - -")),
            (&["a", "one-time startup"], Some("a one-time-startup - -")),
            (&["a", "system", "failure"], Some("a system-failure - -")),
            (&["a", "77"], Some("a normal-shutdown PID 77")),
            (&["a", "77", "3", "exited"], Some("a abnormal-shutdown exited 3")),
            (&["a", "77", "9", "stopped/signalled"], Some("a abnormal-shutdown stopped/signalled 9")),
            (&["a b", "7\u{1}7"], Some("a_b normal-shutdown PID 7_7")),
            (&["a"], None),
        ] {
            let want = want.map(|w| format!("svalert h /s/a {w} 1000"));
            assert_eq!(sent(arguments), want, "{arguments:?}");
        }
    }

    #[test]
    fn syslog_lines_have_a_priority() {
        let time = CalendarTime { year: 2026, month: 3, day: 5, hour: 7, minute: 8, second: 9, offset: 0 };
        let line = |arguments: &[&str]| {
            Report::from_arguments(arguments).unwrap().syslog(Path::new("/s"), Some(time))
        };
        assert_eq!(line(&["a", "auto startup"]), "<30>Mar  5 07:08:09 svalert: /s a auto-startup - -");
        assert_eq!(
            line(&["a", "7", "3", "exited"]),
            "<28>Mar  5 07:08:09 svalert: /s a abnormal-shutdown exited 3"
        );
        assert!(line(&["a", "system failure"]).starts_with("<28>"));
        assert!(line(&["a", "7"]).starts_with("<30>"));
    }

    #[test]
    fn filters_match_whole_words() {
        let report = Report::from_arguments(&["a", "auto startup"]).unwrap();
        assert!(report.is_filtered_by("manual-startup\n auto-startup \n"));
        assert!(!report.is_filtered_by("auto\nauto-startup-x\nstartup\n"));
        assert!(!report.is_filtered_by(""));
    }

    proptest! {
        #[test]
        fn a_datagram_is_always_eight_words(arguments in proptest::collection::vec(any::<String>(), 2..5)) {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let sent = sent(&arguments).unwrap();
            prop_assert_eq!(sent.split_whitespace().count(), 8, "{}", sent);
        }
    }
}
