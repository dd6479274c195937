//! From "this message is for you" to a mailbox, a program or another address.
//!
//! ```text
//! qmail-lspawn ─ exec ─► qmail-local ─ dotqmail::find, parse ─► Interpreter ─► steps
//!                           steps: mbox, maildir, shell, forward
//!                           |vdelivermail ─► inlookup ─► plan ─► maildir, shell, forward
//! ```
//!
//! - [`dotqmail`]: which dot-qmail file, what its lines say, in which order they act (no I/O but
//!   finding the file);
//! - [`mod@local`] is qmail-local;
//! - [`virtual_delivery`]: vdelivermail, delivery for accounts of virtual domains;
//! - [`worker`]: both, in a process that stays for the next message and starts no programs;
//! - [`getpw`], [`newu`], [`tools`]: the smaller programs;
//! - [`message_file`], [`shell`], [`forward`], [`mbox`]: the steps, each usable alone.
//!
//! Everything here runs as the recipient and ends with the exit codes of [`End`]. Invariants: what
//! cannot be told or done now is temporary; addresses never become part of a shell line; a step
//! that reports success has its bytes on the disk or in the queue.

#![forbid(unsafe_code)]

pub mod dotqmail;
pub mod forward;
pub mod getpw;
pub mod local;
pub mod mbox;
pub mod message_file;
pub mod newu;
pub mod shell;
pub mod tools;
pub mod virtual_delivery;
pub mod worker;

use std::sync::Arc;

use program::{Environment, Exit, Source};
use unix::durable::{Disk, Durability};
use unix::gather::Gather;

/// How a delivery or a step of it ended, with a line for the log and the bounce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It is done.
    Done,
    /// Never: exit code 100.
    Permanent(String),
    /// Not now: exit code 111.
    Temporary(String),
    /// It cannot be told here: a program is needed and this process starts none. Nothing has been delivered.
    NeedsProgram,
}

impl End {
    /// The exit code of qmail-local and its helpers.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Done => Exit::OK,
            Self::Permanent(_) => Exit::PERMANENT,
            Self::Temporary(_) | Self::NeedsProgram => Exit::TEMPORARY,
        }
    }

    /// The line to print, if there is one.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Done | Self::NeedsProgram => "",
            Self::Permanent(text) | Self::Temporary(text) => text,
        }
    }
}

/// Prints a line on standard output, which qmail-lspawn hands to qmail-send. A reader that is gone
/// must not change what became of the mail.
pub(crate) fn say(line: &str) {
    use std::io::Write;
    if !line.is_empty() {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }
}

/// Delivers the message on descriptor 0.
pub(crate) fn with_message(deliver: impl FnOnce(&message_file::Message) -> End) -> End {
    match message_file::Message::of_stdin() {
        Ok(message) => deliver(&message),
        Err(e) => End::Temporary(format!("cannot read the message: {e} (#4.3.0)")),
    }
}

/// A value that only a variable gives.
pub(crate) fn variable(name: &str) -> Source<'_> {
    Source { variable: Some(name), ..Source::default() }
}

/// What USE_FSYNC, USE_FDATASYNC and USE_SYNCDIR say; everything is forced out unless they say 0.
pub(crate) fn durability(environment: &Environment) -> Durability {
    let switch = |name: &str| environment.bytes(name).filter(|v| !v.is_empty()).map(|v| v != b"0");
    Durability::chosen(switch("USE_FSYNC"), switch("USE_FDATASYNC"), switch("USE_SYNCDIR"))
}

/// The process that delivers is a worker: it starts no programs, and its threads share their waits for the disk.
pub(crate) type Resident = Option<Arc<Gather>>;

/// The disk of a delivery.
pub(crate) fn disk(durability: Durability, resident: &Resident) -> Disk<'_> {
    let disk = Disk::new(durability);
    match resident {
        Some(gather) => disk.gathering(gather),
        None => disk,
    }
}

/// A moment now in the zone of this host.
pub(crate) fn now() -> message::Moment {
    let seconds = unix::clock::unix_seconds();
    message::Moment::local(seconds, unix::clock::local_offset(seconds))
}
