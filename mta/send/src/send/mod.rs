//! qmail-send: starts deliveries, records their results, bounces what failed for good.
//!
//! ```text
//! todo-proc ─ D id ─► scheduler (pure) ─ actions ─► driver ─► files, spawners, bounces, qmail-clean
//!                        ▲                            │
//!                        └──── opened, settled, ... ──┘
//! ```
//!
//! - [`schedule`]: when to try again; [`scheduler`]: what to do next; both pure.
//! - [`verp`]: senders that name their recipient; pure.
//! - `bounce`: whether and what to bounce; pure. `finish`: doing so, and removing the message;
//!   `injector`: the way of a bounce into the queue, beside the loop.
//! - `files`: the durable steps. `spawner`: one of the two spawners. `driver`: the loop, which
//!   `actions` and `peers` carry out.
//! - `sweep`: reading the queue at start, collecting garbage later.

mod actions;
mod bounce;
mod driver;
mod files;
mod finish;
mod injector;
mod peers;
pub mod schedule;
pub mod scheduler;
mod settings;
mod spawner;
mod sweep;
pub mod verp;

use std::io;

use program::{
    Control, Exit, ExitCodeDoc, Invocation, Loader, Operands, Place as Where, Program, Spec, Variable,
};

use crate::place::{BIGTODO, CONFSPLIT, CONTROLDIR, QUEUEDIR, USE_FDATASYNC, USE_FSYNC, USE_SYNCDIR};
use driver::Driver;
use settings::Settings;

static SPEC: Spec = Spec {
    name: "qmail-send",
    summary: "deliver the messages of a queue",
    section: 8,
    place: Where::Sbin,
    operands: Operands { synopsis: "[queue]", min: 0, max: Some(1) },
    variables: &[
        QUEUEDIR,
        CONFSPLIT,
        BIGTODO,
        Variable { name: "QIDENT", help: "suffix of delivery numbers in the log (none)" },
        Variable { name: "BOUNCEQUEUE", help: "QMAILQUEUE for bounces" },
        Variable {
            name: "LOGLOCK",
            help: "not empty: lock control/defaultdelivery while writing log lines; INT toggles",
        },
        Variable { name: "OSSIFIED", help: "age in seconds at which unsorted files are garbage (129600)" },
        Variable {
            name: "NOTIFY_SOCKET",
            help: "service manager to tell when started, reloading and stopping",
        },
        USE_FSYNC,
        USE_FDATASYNC,
        USE_SYNCDIR,
        CONTROLDIR,
    ],
    controls: &[
        Control { name: "queuelifetime", help: "seconds before a deferral becomes a failure (604800)" },
        Control {
            name: "bouncelifetime",
            help: "the same for bounces (604800), never more than queuelifetime",
        },
        Control { name: "concurrencylocal", help: "local deliveries at once (10), 0 holds them; H" },
        Control { name: "concurrencyremote", help: "remote deliveries at once (20); H" },
        Control { name: "concurrencyl.QUEUE", help: "as concurrencylocal, for the queue of this name; H" },
        Control { name: "concurrencyr.QUEUE", help: "as concurrencyremote, for the queue of this name; H" },
        Control { name: "holdlocal", help: "not 0: start no local deliveries (0); H" },
        Control { name: "holdremote", help: "not 0: start no remote deliveries (0); H" },
        Control { name: "virtualdomains", help: "whose prefixes bounces leave out; H" },
        Control { name: "bouncefrom", help: "local part of the From address of bounces (MAILER-DAEMON)" },
        Control { name: "bouncehost", help: "host of that address (me)" },
        Control {
            name: "doublebounceto",
            help: "local part of where bounces of bounces go (postmaster); empty discards them",
        },
        Control { name: "doublebouncehost", help: "host of that address (me)" },
        Control {
            name: "bouncemaxbytes",
            help: "bytes of the message that a bounce quotes (50000), 0 for all",
        },
        Control { name: "bouncemessage", help: "introduction of bounces" },
        Control { name: "doublebouncemessage", help: "introduction of double bounces" },
        Control { name: "bouncesubject", help: "subject of bounces (failure notice)" },
        Control { name: "doublebouncesubject", help: "subject of double bounces (failure notice)" },
        Control { name: "me", help: "name of this host" },
        Control { name: "conf-fsync", help: "as USE_FSYNC; H" },
        Control { name: "conf-fdatasync", help: "as USE_FDATASYNC; H" },
        Control { name: "conf-syncdir", help: "as USE_SYNCDIR; H" },
    ],
    exits: &[
        ExitCodeDoc { code: 0, meaning: "told to end, or a helper is gone; everything is written down" },
        ExitCodeDoc { code: 111, meaning: "cannot start" },
    ],
    description: "Started by qmail-start with descriptors 0 log, 1 and 2 to and from qmail-lspawn, 3 and 4 to \
        and from qmail-rspawn, 5 and 6 to and from qmail-clean, 7 and 8 to and from todo-proc.\n\n\
        Signals: TERM waits for running deliveries and ends; HUP reads the control files marked H again, \
        here and in todo-proc; ALRM tries everything that waits now; INT toggles LOGLOCK.\n\n\
        A message that cannot be delivered is tried at growing intervals until queuelifetime; what fails \
        for good is reported to its sender when all recipients are done with.\n\n\
        Accepted mail is never lost. A recipient gets a second copy only when qmail-send, its spawner or the delivering \
        program is killed, or the machine stops, after the copy was made and before qmail-send has marked the recipient \
        as done. To end it without that, use TERM. A success in the log has been marked.",
    ..Spec::EMPTY
};

/// The program.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

fn main(invocation: &Invocation) -> Exit {
    if let Err(exit) = invocation.parse() {
        return exit;
    }
    let mut loader = Loader::new(&invocation.environment);
    let settings = Settings::load(&mut loader);
    let name = settings.place.short_name();
    // Started by qmail-start, descriptor 0 is the log and 2 a pipe from a spawner.
    let tell = |problem: &str| driver::emergency(&name, problem);
    let settings = match invocation.finish_telling(loader, settings, Exit::TEMPORARY, tell) {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    match start(settings, invocation) {
        Ok(exit) => exit,
        Err(e) => {
            tell(&e.to_string());
            Exit::TEMPORARY
        }
    }
}

fn start(settings: Settings, invocation: &Invocation) -> io::Result<Exit> {
    let signals = driver::listen()?;
    unix::host::umask(0o077);
    let queue = settings.place.enter().map_err(|e| {
        io::Error::new(e.kind(), format!("cannot enter {}: {e}", settings.place.directory().display()))
    })?;
    let mutex = queue.send_mutex();
    let lock = unix::lock::Lock::try_exclusive(&mutex, 0o600)
        .map_err(|e| io::Error::new(e.kind(), format!("cannot lock {}: {e}", mutex.display())))?
        .ok_or_else(|| io::Error::other("another qmail-send runs on this queue"))?;
    let exit = Driver::start(settings, invocation, queue, signals)?.run()?;
    drop(lock);
    Ok(exit)
}
