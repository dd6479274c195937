//! What the service is told, and its table.

use std::path::PathBuf;
use std::time::Duration;

use program::{ExitCodeDoc, Invocation, Loader, Operands, OptionSpec, Place, Source, Spec, Variable};

/// The table of qmail-queued.
pub static SPEC: Spec = Spec {
    name: "qmail-queued",
    summary: "put messages into the queue, for programs that ask over a socket",
    section: 8,
    place: Place::Sbin,
    options: &[
        OptionSpec::value('c', "N", "connections at the same time (default 500); more of them wait"),
        OptionSpec::value('t', "SECONDS", "how long a client may be silent before its message is dropped (default 60)"),
        OptionSpec::flag('v', "log every message"),
    ],
    operands: Operands { synopsis: "", min: 0, max: Some(0) },
    variables: &[
        Variable::new("QUEUE_SOCKET", "the socket to listen on (default /run/indimail/queue.sock)"),
        Variable::new("QUEUEDIR", "the queue directory"),
        Variable::new("QUEUE_BASE", "where the queues are, without QUEUEDIR (default /var/indimail/queue)"),
        Variable::new("QUEUE_START", "number of the first queue below QUEUE_BASE (default 1)"),
        Variable::new("QUEUE_COUNT", "how many queues there are (default: those that exist)"),
        Variable::new("CONFSPLIT", "number of subdirectories of the queue (as found on the disk)"),
        Variable::new("BIGTODO", "1 when todo and intd are split, 0 when not (as found on the disk)"),
        Variable::new("CONTROLDIR", "directory of control files (/etc/indimail/control)"),
        Variable::new("SYSCONFDIR", "base of a relative CONTROLDIR (/etc/indimail)"),
        Variable::new("USE_FSYNC", "0: do not force files to the disk"),
        Variable::new("USE_FDATASYNC", "1: force out contents only"),
        Variable::new("USE_SYNCDIR", "0: do not force directories to the disk"),
        Variable::new("USE_SYNCFS", "0: force out each message by itself, not all that wait together"),
        Variable::new("NOTIFY_SOCKET", "where systemd waits for readiness"),
    ],
    controls: &[
        program::Control::new("queue_base", "where the queues are, without QUEUEDIR and QUEUE_BASE"),
        program::Control::new("extraqueue", "further recipients of every message"),
        program::Control::new("quarantine", "recipients of every message instead of its own"),
        program::Control::new("originipfield", "1: X-Originating-IP for those who have logged in"),
    ],
    exits: &[
        ExitCodeDoc { code: 0, meaning: "stopped by SIGTERM or SIGINT" },
        ExitCodeDoc { code: 100, meaning: "wrong usage" },
        ExitCodeDoc { code: 111, meaning: "cannot start: a setting is wrong, the queue cannot be used, or another service listens" },
    ],
    description: "\
qmail-queued takes messages from programs on this host, qmail-smtpd first of all, and puts them into the queue \
as qmail-queue does: same files, same order, same promise. It saves them the start of a program, and \
messages that arrive at the same time share their waits for the disk.

It speaks QMQP, with an optional netstring of variables (=NAME=value, NUL) before the request: \
TCPREMOTEIP, TCPREMOTEINFO, RELAYCLIENT, HIDE_HOST, HOSTNAME, ORIGINIPFIELD, EXTRAQUEUE, QUARANTINE, QQEH and \
FASTQUEUE, with the meaning that they have for qmail-queue. The socket is for group qmail (mode 0660).

Whoever finds nobody on the socket starts qmail-queue instead; so the service may be stopped at any time.

Started by root it listens, then becomes qmailq. With several queues below QUEUE_BASE, messages go to each in turn. \
SIGTERM finishes the messages that are complete and stops.",
    ..Spec::EMPTY
};

/// What the service is told; which queue is found out by what it shares with qmail-queue.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The socket to listen on.
    pub socket: PathBuf,
    /// Connections at the same time.
    pub connections: usize,
    /// How long a client may be silent.
    pub patience: Duration,
    /// Force out all that wait together?
    pub together: bool,
    /// Log every message?
    pub verbose: bool,
}

impl Settings {
    /// Reads options and variables.
    ///
    /// # Errors
    /// The exit code, after what is wrong was said.
    pub fn load(invocation: &Invocation) -> Result<Self, program::Exit> {
        let parsed = invocation.parse()?;
        let mut loader = Loader::new(&invocation.environment);
        let option = |letter| Source {
            option: parsed.value(letter).map(|value| (letter, value)),
            ..Source::default()
        };
        let connections = loader.number("connections", option("c"), 500, 1..=10_000);
        let patience = loader.number("patience", option("t"), 60, 1..=86_400);
        let socket = Source { variable: Some("QUEUE_SOCKET"), ..Source::default() };
        let settings = Self {
            socket: loader.path("socket", socket, "/run/indimail/queue.sock"),
            connections: usize::try_from(connections).unwrap_or(500),
            patience: Duration::from_secs(patience),
            together: loader.environment().bytes("USE_SYNCFS") != Some(b"0"),
            verbose: parsed.flag("v"),
        };
        loader.show(
            "together",
            settings.together,
            if settings.together { "default" } else { "variable USE_SYNCFS" },
        );
        invocation.finish(loader, settings, program::Exit::TEMPORARY)
    }
}
