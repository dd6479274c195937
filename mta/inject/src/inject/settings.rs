//! What qmail-inject is told: options, variables, control files.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use message::Moment;
use program::{
    Control, Environment, Exit, ExitCodeDoc, Invocation, Loader, Operands, OptionSpec, Place, Source, Spec,
    Variable,
};

use super::job::{Hosts, Identity, Job, RecipientsFrom};

/// The table.
pub static SPEC: Spec = Spec {
    name: "qmail-inject",
    summary: "complete a message and queue it",
    section: 8,
    place: Place::Bin,
    options: &[
        OptionSpec::flag('a', "recipients from the arguments only"),
        OptionSpec::flag('h', "recipients from the header only"),
        OptionSpec::flag('H', "recipients from both"),
        OptionSpec::flag(
            'A',
            "recipients from the arguments if there are any, else from the header (the default)",
        ),
        OptionSpec::flag('n', "print the completed message instead of queueing it"),
        OptionSpec::flag('N', "queue it (the default)"),
        OptionSpec::flag('s', "do not take the envelope sender from a Return-Path field"),
        OptionSpec::value('f', "sender", "envelope sender"),
    ],
    operands: Operands { synopsis: "[recipient ...]", min: 0, max: None },
    variables: &[
        Variable {
            name: "QMAILINJECT",
            help: "letters: c From as \"address (name)\"; s as -s; f drop From; i drop Message-ID; r a sender for each recipient; m a sender for each message; n as -n",
        },
        Variable {
            name: "QMAILSUSER",
            help: "user of the envelope sender; then QMAILUSER, MAILUSER, USER, LOGNAME (anonymous)",
        },
        Variable {
            name: "QMAILSHOST",
            help: "host of the envelope sender; then QMAILHOST, MAILHOST (defaulthost)",
        },
        Variable {
            name: "QMAILUSER",
            help: "user in a new From field; then MAILUSER, USER, LOGNAME (anonymous)",
        },
        Variable { name: "QMAILHOST", help: "host in a new From field; then MAILHOST (defaulthost)" },
        Variable { name: "QMAILNAME", help: "name in a new From field; then MAILNAME, NAME (none)" },
        Variable {
            name: "QMAILMFTFILE",
            help: "file of mailing lists the sender reads, one address a line: mail to one of them gets a Mail-Followup-To",
        },
        Variable { name: "QMAILDEFAULTHOST", help: "instead of the control file defaulthost" },
        Variable { name: "QMAILDEFAULTDOMAIN", help: "instead of the control file defaultdomain" },
        Variable { name: "QMAILPLUSDOMAIN", help: "instead of the control file plusdomain" },
        Variable { name: "QMAILIDHOST", help: "instead of the control file idhost" },
        Variable { name: "DATABYTES", help: "instead of the control file databytes" },
        Variable { name: "QMAILQUEUE", help: "program that queues (PREFIX/sbin/qmail-queue)" },
        Variable { name: "SKIP_LOCAL_ENVIRONMENT", help: "when set, $HOME/.defaultqueue is not read" },
    ],
    controls: &[
        Control { name: "defaulthost", help: "host for addresses without one (me)" },
        Control { name: "defaultdomain", help: "domain for hosts without a dot (me)" },
        Control { name: "plusdomain", help: "domain for hosts that end in + (me)" },
        Control { name: "idhost", help: "host in Message-ID fields (me)" },
        Control { name: "databytes", help: "most bytes of a message, 0 for any number (0)" },
        Control { name: "maxrecipients", help: "most recipients of a message, 0 for any number (0)" },
        Control {
            name: "defaultqueue",
            help: "directory of variables for commands that nobody told which queue to use",
        },
    ],
    exits: &[
        ExitCodeDoc { code: 0, meaning: "the message is in the queue" },
        ExitCodeDoc { code: 100, meaning: "wrong usage or addresses, too large, refused" },
        ExitCodeDoc { code: 111, meaning: "not now" },
    ],
    description: "qmail-inject reads a message, adds Date, Message-ID, From and a Cc where they are missing, completes the hosts of \
        addresses, takes Bcc, Return-Path and Content-Length out, and hands the message to the queue. All other bytes \
        stay as they are.\n\n\
        Recipients come from the arguments or from To, Cc, Bcc and Apparently-To; in a message with Resent fields from \
        Resent-To, Resent-Cc and Resent-Bcc instead.",
    ..Spec::EMPTY
};

/// One injection.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Print instead of queueing.
    pub print: bool,
    /// How to rewrite.
    pub job: Job,
    /// Most bytes; `None`: any number.
    pub max_bytes: Option<u64>,
    /// Most recipients; `None`: any number.
    pub max_recipients: Option<u64>,
    /// Where the queue program is.
    pub sbin: PathBuf,
    /// The queue program's environment.
    pub environment: Vec<(OsString, OsString)>,
}

pub(super) fn load(invocation: &Invocation) -> Result<Settings, Exit> {
    let parsed = invocation.parse()?;
    let warn = |e: &dyn std::fmt::Display| invocation.complain("warning", e);
    let environment = crate::default_queue::complete(&invocation.environment, warn).map_err(|e| {
        invocation.complain("fatal", e);
        Exit::TEMPORARY
    })?;
    let mut loader = Loader::new(&environment);
    let letters = environment.bytes("QMAILINJECT").unwrap_or_default().to_vec();
    let letter = |l: u8| letters.contains(&l);
    let mut from = RecipientsFrom::ArgumentsElseHeader;
    let mut print = letter(b'n');
    for (name, _) in parsed.in_order() {
        match name {
            "a" => from = RecipientsFrom::Arguments,
            "h" => from = RecipientsFrom::Header,
            "H" => from = RecipientsFrom::Both,
            "A" => from = RecipientsFrom::ArgumentsElseHeader,
            "n" => print = true,
            "N" => print = false,
            _ => {}
        }
    }
    let hosts = Hosts {
        default_host: host(&mut loader, "defaulthost", "QMAILDEFAULTHOST"),
        default_domain: host(&mut loader, "defaultdomain", "QMAILDEFAULTDOMAIN"),
        plus_domain: host(&mut loader, "plusdomain", "QMAILPLUSDOMAIN"),
    };
    let id_host = host(&mut loader, "idhost", "QMAILIDHOST");
    let limit = |loader: &mut Loader<'_>, name, variable| {
        let source = Source { control: Some(name), variable, ..Source::default() };
        Some(loader.number(name, source, 0, 0..=u64::MAX)).filter(|&n| n > 0)
    };
    let own_lists = match environment.get("QMAILMFTFILE").filter(|f| !f.is_empty()) {
        None => Vec::new(),
        Some(file) => match std::fs::read(file) {
            Ok(bytes) => control::entries(&bytes).map(<[u8]>::to_vec).collect(),
            Err(e) => {
                loader.problem(format!("variable QMAILMFTFILE: {}: {e}", file.display()));
                Vec::new()
            }
        },
    };
    let seconds = unix::clock::unix_seconds();
    let settings = Settings {
        print,
        max_bytes: limit(&mut loader, "databytes", Some("DATABYTES")),
        max_recipients: limit(&mut loader, "maxrecipients", None),
        job: Job {
            recipients_from: from,
            arguments: parsed.operands.iter().map(|o| o.as_bytes().to_vec()).collect(),
            sender: parsed.value("f").map(|s| s.as_bytes().to_vec()),
            ignore_return_path: parsed.flag("s") || letter(b's'),
            drop_from: letter(b'f'),
            drop_message_id: letter(b'i'),
            name_as_comment: letter(b'c'),
            verp_recipient: letter(b'r'),
            verp_message: letter(b'm'),
            sender_identity: identity(&environment, true),
            from_identity: identity(&environment, false),
            hosts,
            own_lists,
            id_host,
            now: Moment::local(seconds, unix::clock::local_offset(seconds)),
            seconds,
            pid: std::process::id(),
        },
        sbin: invocation.layout.sbin(""),
        environment: environment.to_vec(),
    };
    invocation.finish(loader, settings, Exit::TEMPORARY)
}

fn host(loader: &mut Loader<'_>, name: &str, variable: &str) -> Vec<u8> {
    let given = Source { variable: Some(variable), control: Some(name), ..Source::default() };
    let me = Source { control: Some("me"), ..Source::default() };
    loader.bytes(name, given).or_else(|| loader.bytes(name, me)).unwrap_or_else(|| name.as_bytes().to_vec())
}

fn identity(environment: &Environment, envelope: bool) -> Identity {
    let first = |names: &[&str]| {
        let found = names.iter().find_map(|n| environment.bytes(n).filter(|v| !v.is_empty()));
        found.map(<[u8]>::to_vec)
    };
    let skip = usize::from(!envelope);
    let users = ["QMAILSUSER", "QMAILUSER", "MAILUSER", "USER", "LOGNAME"];
    let hosts = ["QMAILSHOST", "QMAILHOST", "MAILHOST"];
    Identity {
        user: first(&users[skip..]).unwrap_or_else(|| b"anonymous".to_vec()),
        host: first(&hosts[skip..]),
        name: first(&["QMAILNAME", "MAILNAME", "NAME"]),
    }
}
