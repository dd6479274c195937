//! qmail-lspawn: whose mail is it, and a qmail-local that runs as that user.
//!
//! | step | done by |
//! |---|---|
//! | 1. `users/cdb` | here, see [`assign::Assignments`] |
//! | 2. nothing assigned: qmail-getpw (or QMAILGETPW) | a child, as qmailp |
//! | 3. qmail-lworker, unless there is a QMAILLOCAL, see `workers` | a child that stays, as the recipient, for good |
//! | 4. what it hands back: qmail-local (or QMAILLOCAL) | a child, as the recipient, for good; never as root |
//! | 4. vdelivermail (or QMAILLOCAL), for an account with a user of its own, see `owner` | the same |

mod lookups;
mod owner;
mod report;
mod workers;

use std::ffi::OsString;
use std::io::{self, Seek};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use assign::{Assignments, Entry};
use lookup::mail::handed;
use mta_queue::spawn_protocol::Verdict;
use mta_queue::worker_protocol::{Request as WorkerRequest, Role as Part};
use program::{
    Control, Environment, Exit, ExitCodeDoc, Invocation, Layout, Loader, Operands, Place, Program, Source,
    Spec, Variable,
};
use unix::child::{Ending, Launch};
use unix::clock::Deadline;
use unix::ids::{Role, Roles};
use unix::wait::Interest;
use unix::{Errno, Gid, Pid, Uid};

pub use report::{Code, report};

use lookups::Lookups;
use owner::{Known, Owners};
use workers::{Told, Workers};

use crate::pool::{self, Child, Ended, Next, Spawner};
use crate::request::{Answer, Delivery};
use crate::service;

/// Report text that is kept of a local delivery, in bytes.
const TEXT_MAX: usize = 3000;
/// Longest answer of qmail-getpw.
const GETPW_MAX: usize = 16 * 1024;

static SPEC: Spec = Spec {
    name: "qmail-lspawn",
    summary: "deliver to local recipients, each as its own user",
    section: 8,
    place: Place::Sbin,
    operands: Operands { synopsis: "defaultdelivery [queue]", min: 1, max: Some(2) },
    variables: &[
        crate::QUEUEDIR,
        Variable {
            name: "ASSIGNDIR",
            help: "directory of the compiled assignments, cdb (/etc/indimail/users)",
        },
        Variable {
            name: "QMAILGETPW",
            help: "program that finds users that are not assigned (PREFIX/sbin/qmail-getpw)",
        },
        Variable {
            name: "QMAILLOCAL",
            help: "program that delivers, as the recipient, each message (qmail-lworker, and PREFIX/sbin/qmail-local for what that does not do)",
        },
    ],
    controls: &[
        Control::new(
            "timeoutread",
            "seconds for each question to inlookup; default 4. Other deliveries go on meanwhile",
        ),
        Control::new(
            "timeoutlocal",
            "seconds that qmail-lworker may be at a delivery before it is killed; default 600",
        ),
    ],
    exits: &[
        ExitCodeDoc { code: 0, meaning: "no more requests, all deliveries done" },
        ExitCodeDoc { code: 100, meaning: "wrong usage" },
        ExitCodeDoc {
            code: 111,
            meaning: "the queue or the system users are not there, requests that make no sense",
        },
    ],
    description: "qmail-lspawn is started by qmail-start and reads delivery requests of qmail-send from descriptor 0. For each \
        it looks the recipient's local part up and has it delivered by a process that has changed to that user for good; at \
        most 500 at a time. That is qmail-lworker, which stays for a minute to take the next message for that user, or, \
        where a delivery needs a program, qmail-local. It writes one report for each to descriptor 1. What it cannot find out, a name service that does not answer for \
        instance, is a deferral.\n\n\
        The queue operand is not looked at; it tells processes apart in ps.",
    ..Spec::EMPTY
};

/// The program.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

/// What qmail-lspawn was told.
#[derive(Debug)]
pub struct Settings {
    default_delivery: OsString,
    queue: PathBuf,
    assignments: PathBuf,
    getpw: PathBuf,
    local: Option<PathBuf>,
    layout: Layout,
    inlookup: PathBuf,
    lookup_patience: Duration,
    delivery_patience: Duration,
    environment: Environment,
}

fn main(invocation: &Invocation) -> Exit {
    service::main(invocation, load, run)
}

fn load(invocation: &Invocation) -> Result<Settings, Exit> {
    let parsed = invocation.parse()?;
    let mut loader = Loader::new(&invocation.environment);
    let default_delivery = parsed.operands[0].clone();
    loader.show("defaultdelivery", default_delivery.display(), parsed.operand_source(0));
    let mut environment = invocation.environment.clone();
    environment.remove("QMAILREMOTE");
    environment.remove(handed::VARIABLE);
    let ours = |name: &str| invocation.layout.sbin(name).display().to_string();
    let settings = Settings {
        default_delivery,
        queue: loader.path("queue", crate::variable("QUEUEDIR"), crate::DEFAULT_QUEUE),
        assignments: loader.path("assignments", crate::variable("ASSIGNDIR"), "/etc/indimail/users"),
        getpw: loader.path("getpw", crate::variable("QMAILGETPW"), &ours("qmail-getpw")),
        local: loader
            .bytes("local", crate::variable("QMAILLOCAL"))
            .map(|path| PathBuf::from(OsString::from_vec(path))),
        layout: invocation.layout.clone(),
        inlookup: loader.path("inlookup", crate::variable("INLOOKUP_SOCKET"), lookup::mail::DEFAULT_SOCKET),
        lookup_patience: Duration::from_secs(loader.number(
            "lookup patience",
            Source { control: Some("timeoutread"), ..Source::default() },
            4,
            1..=600,
        )),
        delivery_patience: Duration::from_secs(loader.number(
            "delivery patience",
            Source { control: Some("timeoutlocal"), ..Source::default() },
            600,
            1..=86_400,
        )),
        environment,
    };
    invocation.finish(loader, settings, Exit::TEMPORARY)
}

fn run(settings: Settings) -> Result<(), service::Error> {
    let roles = Roles::for_this_process();
    let owner = roles.role("qmailq", "qmail")?.uid;
    let finder = roles.role("qmailp", "nofiles")?;
    service::enter(&settings.queue)?;
    let extensions = settings.environment.is_set("QMAIL_EXT");
    let lookups = Lookups::new(settings.inlookup.clone(), settings.lookup_patience);
    let owners = Owners::new(lookups, extensions);
    let worker = settings.layout.libexec("qmail-lworker");
    let workers = Workers::new(worker, settings.environment.clone(), settings.delivery_patience);
    let mut spawner = Lspawn { settings, finder, owners, workers };
    let result = service::serve(&mut spawner, owner);
    spawner.workers.finish();
    result
}

/// The spawner.
#[derive(Debug)]
struct Lspawn {
    settings: Settings,
    finder: Role,
    owners: Owners,
    workers: Workers,
}

/// What a delivery waits for.
#[derive(Debug)]
struct Waiting {
    /// Whose mail it is by the assignments.
    entry: Entry,
    /// What is known beside that, once inlookup has been asked: then a worker is at it.
    known: Option<Known>,
}

/// What a child of a local delivery does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Finding,
    Delivering,
}

impl Spawner for Lspawn {
    type Stage = Stage;
    type Waiting = Waiting;

    fn begin(&mut self, number: u16, delivery: &Delivery) -> Next<Self> {
        if delivery.local.is_empty() {
            return Next::Done((Verdict::Success, b"the local part is empty; mail dropped\n".to_vec()));
        }
        match Assignments::open(&self.settings.assignments)
            .and_then(|a| a.map_or(Ok(None), |a| a.find(&delivery.local)))
        {
            Ok(Some(entry)) => self.deliver(number, delivery, entry),
            Ok(None) => self.find(delivery),
            Err(e) => Next::Done(Code::CDB.answer_because(e)),
        }
    }

    fn ended(&mut self, number: u16, delivery: &Delivery, ended: Ended<Stage>) -> Next<Self> {
        match ended.stage {
            Stage::Delivering => Next::Done(report(ended.ending, &ended.output)),
            Stage::Finding => match ended.ending {
                Ending::Exited(0) => match Entry::decode(&ended.output).filter(|_| !ended.truncated) {
                    Some(entry) => self.deliver(number, delivery, entry),
                    None => {
                        Next::Done(Code::SYSTEM.answer_because("the answer of qmail-getpw makes no sense"))
                    }
                },
                // Whatever went wrong while looking, it is no reason to bounce.
                other => Next::Done(report::while_finding(other)),
            },
        }
    }

    fn watched(&self) -> Vec<(BorrowedFd<'_>, Interest)> {
        self.owners.watched().into_iter().chain(self.workers.watched()).collect()
    }

    fn deadline(&self) -> Option<Deadline> {
        [self.owners.deadline(), self.workers.deadline()].into_iter().flatten().min()
    }

    fn look(&mut self) -> Vec<u16> {
        let mut all = self.owners.look();
        all.extend(self.workers.look());
        all
    }

    fn gone(&mut self, pid: Pid, ending: Ending) {
        self.workers.gone(pid, ending);
    }

    fn go_on(&mut self, number: u16, delivery: &Delivery, waiting: Waiting) -> Next<Self> {
        let Waiting { entry, known } = waiting;
        let Some(known) = known else {
            let known = self.owners.known(number, delivery, &entry);
            return self.start(number, delivery, entry, known);
        };
        match self.workers.take(number) {
            Some(Told::Ended(ending, text)) => Next::Done(report(ending, &text)),
            Some(Told::NeedsProgram) | None => match (&delivery.file).rewind() {
                Ok(()) => self.start_program(delivery, &entry, &known),
                Err(e) => Next::Done(Code::SYSTEM.answer_because(format!("the message: {e}"))),
            },
        }
    }
}

impl Lspawn {
    /// Starts qmail-getpw as a user that owns nothing.
    fn find(&self, delivery: &Delivery) -> Next<Self> {
        let local = OsString::from_vec(delivery.local.clone());
        let start = || -> Result<Child<Stage>, io::Error> {
            let (output, write) = pool::output_pipe()?;
            let null = std::fs::File::open("/dev/null")?;
            let pid = Launch::new(&self.settings.getpw)
                .args([&local])
                .env_exactly(self.settings.environment.to_vec())
                .descriptor(null.as_fd(), 0)?
                .descriptor(write.as_fd(), 1)?
                .identity(self.finder.uid, self.finder.gid, Vec::new())
                .start()?;
            Ok(Child { pid, output, keep: GETPW_MAX, stage: Stage::Finding })
        };
        match start() {
            Ok(child) => Next::Run(child),
            Err(e) => Next::Done(Code::EXEC_GETPW.answer_because(e)),
        }
    }

    /// Goes on with an assignment, after a question to inlookup where there is one.
    fn deliver(&mut self, number: u16, delivery: &Delivery, entry: Entry) -> Next<Self> {
        if self.owners.ask(number, delivery, &entry) {
            return Next::Wait(Waiting { entry, known: None });
        }
        self.start(number, delivery, entry, Known::default())
    }

    /// Gives the delivery to a worker, or starts a program for it.
    fn start(&mut self, number: u16, delivery: &Delivery, entry: Entry, known: Known) -> Next<Self> {
        if recipient(&entry, &known).0.is_root() {
            return Next::Done(Code::ROOT.answer());
        }
        if self.settings.local.is_none() && self.give(number, delivery, &entry, &known) {
            return Next::Wait(Waiting { entry, known: Some(known) });
        }
        self.start_program(delivery, &entry, &known)
    }

    /// Has a worker taken it?
    fn give(&mut self, number: u16, delivery: &Delivery, entry: &Entry, known: &Known) -> bool {
        let operands = self.operands(delivery, entry).map(OsString::into_vec).to_vec();
        let variables = self.variables(delivery, known).into_iter();
        let request = WorkerRequest {
            number,
            role: if known.own.is_some() { Part::Account } else { Part::Local },
            operands,
            variables: variables.map(|(n, v)| (n.into_bytes(), v.into_vec())).collect(),
        };
        self.workers.give(recipient(entry, known), &request, delivery.file.as_fd())
    }

    /// Starts qmail-local as the recipient, or vdelivermail as an account that is a user.
    fn start_program(&self, delivery: &Delivery, entry: &Entry, known: &Known) -> Next<Self> {
        let program = if known.own.is_some() { "vdelivermail" } else { "qmail-local" };
        let (uid, gid) = recipient(entry, known);
        let mut environment = self.settings.environment.clone();
        self.variables(delivery, known).into_iter().for_each(|(name, value)| environment.set(name, value));
        let path = self.settings.local.clone().unwrap_or_else(|| self.settings.layout.sbin(program));
        let launch = Launch::new(&path).arg0(program).identity(uid, gid, Vec::new());
        match self.start_local(delivery, entry, launch, &environment) {
            Ok(child) => Next::Run(child),
            Err(e) => Next::Done(could_not_start(&path, &e)),
        }
    }

    fn start_local(
        &self,
        delivery: &Delivery,
        entry: &Entry,
        launch: Launch,
        environment: &Environment,
    ) -> io::Result<Child<Stage>> {
        let (output, write) = pool::output_pipe()?;
        let pid = launch
            .args(["--"])
            .args(self.operands(delivery, entry))
            .env_exactly(environment.to_vec())
            .descriptor(delivery.file.as_fd(), 0)?
            .descriptor(write.as_fd(), 1)?
            .descriptor(write.as_fd(), 2)?
            .start()?;
        Ok(Child { pid, output, keep: TEXT_MAX, stage: Stage::Delivering })
    }

    /// What belongs to this delivery, beside the service's variables.
    fn variables(&self, delivery: &Delivery, known: &Known) -> Vec<(String, OsString)> {
        let exported = crate::exported::variables(&delivery.exported, &self.settings.environment);
        let names: Vec<&str> = exported.iter().map(|(name, _)| name.as_str()).collect();
        let mut all = vec![("EXPORTED_HEADERS".to_owned(), names.join(":").into())];
        let mut set =
            |name: &str, value: &[u8]| all.push((name.to_owned(), OsString::from_vec(value.to_vec())));
        exported.iter().for_each(|(name, value)| set(name, value));
        set("MESSID", &delivery.message);
        set("QQEH", &delivery.extra_header);
        if let Some(answer) = &known.answer {
            set(handed::VARIABLE, answer);
        }
        all
    }

    /// `user home local dash ext domain sender defaultdelivery extraheader`
    fn operands(&self, delivery: &Delivery, entry: &Entry) -> [OsString; 9] {
        let fields: [&[u8]; 9] = [
            &entry.user,
            &entry.home,
            &delivery.local,
            &entry.dash,
            &entry.ext,
            &delivery.domain,
            &delivery.sender,
            self.settings.default_delivery.as_bytes(),
            &delivery.extra_header,
        ];
        fields.map(|f| OsString::from_vec(f.to_vec()))
    }
}

/// Whose rights the delivery has.
fn recipient(entry: &Entry, known: &Known) -> (Uid, Gid) {
    known.own.unwrap_or((Uid::from_raw(entry.uid), Gid::from_raw(entry.gid)))
}

/// Before anything of qmail-local ran: the change of user or exec failed.
///
/// A program that is missing or cannot be run is a fault of this installation: the mail waits until
/// it is mended. Only what the message itself causes, arguments beyond the limit, is for good.
fn could_not_start(program: &Path, error: &io::Error) -> Answer {
    let code = match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM) => Code::USER,
        Some(Errno::E2BIG) => Code::EXEC_HARD,
        _ => Code::EXEC_SOFT,
    };
    code.answer_because(format!("{}: {error}", program.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_a_start_are_told_apart() {
        let letter = |n: i32| could_not_start(Path::new("/x"), &io::Error::from_raw_os_error(n)).0.letter();
        for n in [libc::EPERM, libc::EAGAIN, libc::ENOMEM] {
            assert_eq!(letter(n), b'Z', "{n}");
        }
        for n in [libc::ENOENT, libc::EACCES, libc::ENOEXEC, libc::ENOTDIR, libc::ELOOP] {
            assert_eq!(letter(n), b'Z', "{n}: the installation is at fault, not the mail");
        }
        assert_eq!(letter(libc::E2BIG), b'D');
    }
}
