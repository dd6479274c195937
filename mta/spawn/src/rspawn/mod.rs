//! qmail-rspawn: one qmail-remote for each remote delivery.
//!
//! It runs as qmailr from the start. Its children print recipient and message reports, see
//! [`grammar`].

pub mod grammar;

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use program::{Environment, Exit, ExitCodeDoc, Invocation, Loader, Operands, Place, Program, Spec, Variable};
use unix::Uid;
use unix::child::{Ending, Launch};

use crate::pool::{self, Child, Ended, Next, Spawner};
use crate::request::{Answer, Delivery, defer, fail};
use crate::service;

/// Output of qmail-remote that is looked at, in bytes.
const OUTPUT_MAX: usize = 64 * 1024;
/// Bytes of the table of hosts that timed out.
const TCPTO_SIZE: usize = 2048;

static SPEC: Spec = Spec {
    name: "qmail-rspawn",
    summary: "deliver to remote recipients",
    section: 8,
    place: Place::Sbin,
    operands: Operands { synopsis: "[queue]", min: 0, max: Some(1) },
    variables: &[
        crate::QUEUEDIR,
        Variable { name: "QMAILREMOTE", help: "program that delivers (PREFIX/sbin/qmail-remote)" },
    ],
    exits: &[
        ExitCodeDoc { code: 0, meaning: "no more requests, all deliveries done" },
        ExitCodeDoc { code: 100, meaning: "wrong usage" },
        ExitCodeDoc {
            code: 111,
            meaning: "the queue or the system users are not there, requests that make no sense",
        },
    ],
    description: "qmail-rspawn is started by qmail-start as qmailr and reads delivery requests of qmail-send from descriptor 0. \
        For each it runs \"qmail-remote domain sender extra-header size recipient\" with the message on descriptor 0; at most \
        500 at a time. It writes one report for each to descriptor 1. At its start it forgets which hosts timed out.\n\n\
        The queue operand is not looked at; it tells processes apart in ps.",
    ..Spec::EMPTY
};

/// The program.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

/// What qmail-rspawn was told.
#[derive(Debug)]
struct Settings {
    queue: PathBuf,
    remote: PathBuf,
    environment: Environment,
}

fn main(invocation: &Invocation) -> Exit {
    service::main(invocation, load, run)
}

fn load(invocation: &Invocation) -> Result<Settings, Exit> {
    invocation.parse()?;
    let mut loader = Loader::new(&invocation.environment);
    let mut environment = invocation.environment.clone();
    environment.remove("QMAILLOCAL");
    let ours = invocation.layout.sbin("qmail-remote").display().to_string();
    let settings = Settings {
        queue: loader.path("queue", crate::variable("QUEUEDIR"), crate::DEFAULT_QUEUE),
        remote: loader.path("remote", crate::variable("QMAILREMOTE"), &ours),
        environment,
    };
    invocation.finish(loader, settings, Exit::TEMPORARY)
}

fn run(settings: Settings) -> Result<(), service::Error> {
    service::enter(&settings.queue)?;
    let trouble = |name: &str| {
        let path = settings.queue.join(name);
        move |source| service::Error::Queue { path, source }
    };
    // This process has given up root, so the queue itself says who owns it: qmailq, or, where one
    // user plays every role, that user.
    let owner = std::fs::metadata(".").map_err(trouble("mess"))?.uid();
    forget_timeouts(Path::new("../lock/tcpto")).map_err(trouble("lock/tcpto"))?;
    service::serve(&mut Rspawn { settings }, Uid::from_raw(owner))
}

/// A new start is a new chance for every host. A queue without the table is as good as an empty one.
fn forget_timeouts(table: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).open(table) {
        Ok(mut file) => file.write_all(&[0; TCPTO_SIZE]),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

#[derive(Debug)]
struct Rspawn {
    settings: Settings,
}

impl Spawner for Rspawn {
    type Stage = ();
    type Waiting = Infallible;

    fn begin(&mut self, _: u16, delivery: &Delivery) -> Next<Self> {
        match self.start(delivery) {
            Ok(child) => Next::Run(child),
            Err(e) => Next::Done(could_not_start(&self.settings.remote, &e)),
        }
    }

    fn ended(&mut self, _: u16, _: &Delivery, ended: Ended<()>) -> Next<Self> {
        Next::Done(report(ended.ending, &ended.output, ended.truncated))
    }

    fn go_on(&mut self, _: u16, _: &Delivery, waiting: Infallible) -> Next<Self> {
        match waiting {}
    }
}

impl Rspawn {
    fn start(&self, delivery: &Delivery) -> io::Result<Child<()>> {
        let (output, write) = pool::output_pipe()?;
        let mut environment = self.settings.environment.clone();
        for (name, value) in crate::exported::variables(&delivery.exported, &self.settings.environment) {
            environment.set(name, OsString::from_vec(value));
        }
        environment.set("MESSID", OsString::from_vec(delivery.message.clone()));
        environment.set("QQEH", OsString::from_vec(delivery.extra_header.clone()));
        let size = delivery.size.to_string().into_bytes();
        let recipient = delivery.recipient();
        let fields = [&delivery.domain, &delivery.sender, &delivery.extra_header, &size, &recipient];
        let pid = Launch::new(&self.settings.remote)
            .arg0("qmail-remote")
            .args(fields.iter().map(|f| OsString::from_vec(f.to_vec())))
            .env_exactly(environment.to_vec())
            .descriptor(delivery.file.as_fd(), 0)?
            .descriptor(write.as_fd(), 1)?
            .start()?;
        Ok(Child { pid, output, keep: OUTPUT_MAX, stage: () })
    }
}

/// A program that is missing or cannot be run is a fault of this installation: the mail waits until
/// it is mended. Only what the message itself causes, arguments beyond the limit, is for good.
fn could_not_start(program: &Path, error: &io::Error) -> Answer {
    let text = |code| format!("cannot run qmail-remote: {}: {error} ({code})\n", program.display());
    match error.raw_os_error() {
        Some(libc::E2BIG) => fail(text("#5.3.0")),
        _ => defer(text("#4.3.0")),
    }
}

/// The report for a qmail-remote that ended like this and printed `output`.
fn report(ending: Ending, output: &[u8], truncated: bool) -> Answer {
    match ending {
        Ending::Killed(signal) => defer(format!("qmail-remote was killed by signal {signal} (#4.3.0)\n")),
        Ending::Exited(0) => grammar::read(output, truncated),
        Ending::Exited(111) => defer("qmail-remote cannot work now (#4.3.0)\n"),
        Ending::Exited(code) => fail(format!("qmail-remote ended with exit code {code} (#5.3.0)\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_qmail_remote() {
        let letter = |e| char::from(report(e, b"r\0Kok\0", false).0.letter());
        assert_eq!(letter(Ending::Exited(0)), 'K');
        assert_eq!(letter(Ending::Exited(111)), 'Z');
        assert_eq!(letter(Ending::Exited(100)), 'D');
        assert_eq!(letter(Ending::Exited(1)), 'D');
        assert_eq!(letter(Ending::Killed(9)), 'Z');
        assert_eq!(report(Ending::Exited(0), b"", false).0.letter(), b'Z');
    }

    #[test]
    fn errors_of_a_start_are_told_apart() {
        let letter = |n: i32| could_not_start(Path::new("/x"), &io::Error::from_raw_os_error(n)).0.letter();
        for n in [libc::ENOENT, libc::EACCES, libc::ENOEXEC, libc::ENOTDIR, libc::EAGAIN, libc::ENOMEM] {
            assert_eq!(letter(n), b'Z', "{n}");
        }
        assert_eq!(letter(libc::E2BIG), b'D');
    }

    #[test]
    fn timeouts_are_forgotten_and_may_be_missing() {
        let dir = tempfile::tempdir().unwrap();
        let table = dir.path().join("tcpto");
        forget_timeouts(&table).unwrap();
        std::fs::write(&table, [7; TCPTO_SIZE]).unwrap();
        forget_timeouts(&table).unwrap();
        assert_eq!(std::fs::read(&table).unwrap(), [0; TCPTO_SIZE]);
    }
}
