//! qmail-start: the process tree of one queue.
//!
//! | process | runs as | descriptors |
//! |---|---|---|
//! | qmail-send (this process) | qmails:qmail | 0 log, 1/2 to/from lspawn, 3/4 to/from rspawn, 5/6 to/from clean, 7/8 to/from todo-proc |
//! | todo-proc | qmails:qmail | 0/1 from/to send, 2/3 to/from its clean |
//! | qmail-clean, twice | qmailq:qmail | 0 commands, 1 answers |
//! | qmail-lspawn | root:qmail | 0 commands, 1 reports |
//! | qmail-rspawn | qmailr:qmail | 0 commands, 1 reports |
//! | logger | qmaill:nofiles | 0 the log of qmail-send |
//!
//! Every process has only its own pipe ends, so when qmail-send ends all others see EOF and end.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use program::{
    Environment, Exit, ExitCodeDoc, Invocation, Layout, Loader, Operands, OptionSpec, Place, Program, Spec,
    Variable,
};
use unix::child::Launch;
use unix::ids::{Role, RoleError, Roles};
use unix::{Gid, Uid};

static SPEC: Spec = Spec {
    name: "qmail-start",
    summary: "start the mail delivery processes and become qmail-send",
    section: 8,
    place: Place::Sbin,
    options: &[OptionSpec::flag('s', "todo-proc is woken by the fifo lock/trigger (it always is)")],
    operands: Operands { synopsis: "[defaultdelivery [logger [arg ...]]]", min: 0, max: None },
    variables: &[
        crate::QUEUEDIR,
        Variable {
            name: "USE_SETGROUPS",
            help: "1, or user names with colons between them: these processes keep the supplementary groups of their user (none)",
        },
    ],
    exits: &[
        ExitCodeDoc { code: 100, meaning: "wrong usage" },
        ExitCodeDoc { code: 111, meaning: "a system user is missing, a program cannot be started" },
    ],
    description: "qmail-start starts qmail-lspawn, qmail-rspawn, todo-proc and two qmail-clean, each with its own user and \
        pipes, then becomes qmail-send. When qmail-send ends, so do all others.\n\n\
        defaultdelivery is what qmail-local does for users without a dot-qmail file; it is ./Mailbox when not given. \
        With a logger, that program runs as qmaill and reads the log of qmail-send; without one the log goes to \
        standard output.\n\n\
        Started by an ordinary user, all processes run as that user.",
    ..Spec::EMPTY
};

/// The program.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

/// What qmail-start was told.
#[derive(Debug)]
struct Settings {
    default_delivery: OsString,
    logger: Vec<OsString>,
    queue: Option<OsString>,
    keep_groups: Option<OsString>,
    environment: Environment,
    layout: Layout,
}

fn main(invocation: &Invocation) -> Exit {
    match load(invocation) {
        Ok(settings) => {
            let Err(error) = run(&settings);
            invocation.complain("fatal", error);
            Exit::TEMPORARY
        }
        Err(exit) => exit,
    }
}

fn load(invocation: &Invocation) -> Result<Settings, Exit> {
    let parsed = invocation.parse()?;
    let mut loader = Loader::new(&invocation.environment);
    let source = parsed.operand_source(0);
    let mut operands = parsed.operands.into_iter();
    let default_delivery = operands.next().unwrap_or_else(|| "./Mailbox".into());
    let logger: Vec<OsString> = operands.collect();
    loader.show("defaultdelivery", default_delivery.display(), source);
    let given = |name: &str| invocation.environment.get(name).filter(|v| !v.is_empty()).map(OsStr::to_owned);
    let settings = Settings {
        default_delivery,
        logger,
        queue: given("QUEUEDIR"),
        keep_groups: given("USE_SETGROUPS"),
        environment: invocation.environment.clone(),
        layout: invocation.layout.clone(),
    };
    loader.path("queue", crate::variable("QUEUEDIR"), crate::DEFAULT_QUEUE);
    invocation.finish(loader, settings, Exit::TEMPORARY)
}

/// Why the tree is not there.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Role(#[from] RoleError),
    #[error("cannot make pipes: {0}")]
    Pipes(io::Error),
    #[error("cannot look up the groups of {0}: {1}")]
    Groups(&'static str, io::Error),
    #[error("cannot start {0}: {1}")]
    Start(String, io::Error),
}

/// One direction of a conversation.
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipe {
    fn new() -> Result<Self, Error> {
        let (read, write) = unix::fd::pipe().map_err(Error::Pipes)?;
        Ok(Self { read, write })
    }
}

/// Both directions between qmail-send (or todo-proc) and one child.
struct Talk {
    to: Pipe,
    from: Pipe,
}

impl Talk {
    fn new() -> Result<Self, Error> {
        Ok(Self { to: Pipe::new()?, from: Pipe::new()? })
    }

    /// The child's side: 0 and 1.
    fn child_side(&self) -> [(BorrowedFd<'_>, i32); 2] {
        [(self.to.read.as_fd(), 0), (self.from.write.as_fd(), 1)]
    }

    /// The parent's side: `first` to write, the next number to read.
    fn parent_side(&self, first: i32) -> [(BorrowedFd<'_>, i32); 2] {
        [(self.to.write.as_fd(), first), (self.from.read.as_fd(), first + 1)]
    }
}

/// Starts everything; returns only when it failed. Children that were started see EOF then.
fn run(settings: &Settings) -> Result<std::convert::Infallible, Error> {
    unix::host::umask(0o077);
    let roles = Roles::for_this_process();
    let role = |user, group| roles.role(user, group);
    let (qmails, qmailq, qmailr) =
        (role("qmails", "qmail")?, role("qmailq", "qmail")?, role("qmailr", "qmail")?);
    let root = if roles.is_single_user() { qmails } else { Role { uid: Uid::from_raw(0), gid: qmails.gid } };
    let tree = Tree { settings };

    let (lspawn, rspawn, clean) = (Talk::new()?, Talk::new()?, Talk::new()?);
    let (todo, todo_clean) = (Talk::new()?, Talk::new()?);
    let log = if settings.logger.is_empty() { None } else { Some(Pipe::new()?) };

    if let Some(log) = &log {
        let qmaill = role("qmaill", "nofiles")?;
        let launch = Launch::new(&settings.logger[0]).args(&settings.logger[1..]);
        let name = settings.logger[0].display().to_string();
        tree.start(&name, launch, "qmaill", qmaill, &[(log.read.as_fd(), 0)])?;
    }
    let default_delivery: &[&OsStr] = &[&settings.default_delivery];
    tree.program("qmail-lspawn", default_delivery, "root", root, &lspawn.child_side())?;
    tree.program("qmail-rspawn", &[], "qmailr", qmailr, &rspawn.child_side())?;
    tree.program("qmail-clean", &[OsStr::new("qmail-send")], "qmailq", qmailq, &clean.child_side())?;
    tree.program("qmail-clean", &[OsStr::new("todo-proc")], "qmailq", qmailq, &todo_clean.child_side())?;
    let todo_fds = [todo.child_side(), todo_clean.parent_side(2)].concat();
    tree.program("todo-proc", &[], "qmails", qmails, &todo_fds)?;

    let stdout = io::stdout();
    let log_fd = log.as_ref().map_or(stdout.as_fd(), |l| l.write.as_fd());
    let mut fds = vec![(log_fd, 0)];
    for (talk, first) in [(&lspawn, 1), (&rspawn, 3), (&clean, 5), (&todo, 7)] {
        fds.extend(talk.parent_side(first));
    }
    let launch = tree.prepared("qmail-send", tree.launch("qmail-send", &[]), "qmails", qmails, &fds)?;
    // The descriptors are in place before exec, and 2 is one of them: keep the way to complain.
    let complaints = io::stderr().as_fd().try_clone_to_owned().map_err(Error::Pipes)?;
    let error = launch.replace();
    nix::unistd::dup2_stderr(&complaints).map_err(|e| Error::Pipes(e.into()))?;
    Err(Error::Start("qmail-send".to_owned(), error))
}

struct Tree<'a> {
    settings: &'a Settings,
}

impl Tree<'_> {
    /// A program of ours; the queue's name is there for ps.
    fn launch(&self, name: &str, args: &[&OsStr]) -> Launch {
        Launch::new(self.settings.layout.sbin(name)).args(args).args(self.settings.queue.as_ref())
    }

    fn program(
        &self,
        name: &str,
        args: &[&OsStr],
        user: &'static str,
        role: Role,
        fds: &[(BorrowedFd<'_>, i32)],
    ) -> Result<(), Error> {
        self.start(name, self.launch(name, args), user, role, fds)
    }

    fn start(
        &self,
        name: &str,
        launch: Launch,
        user: &'static str,
        role: Role,
        fds: &[(BorrowedFd<'_>, i32)],
    ) -> Result<(), Error> {
        let started = self.prepared(name, launch, user, role, fds)?.start();
        started.map(drop).map_err(|e| Error::Start(name.to_owned(), e))
    }

    fn prepared(
        &self,
        name: &str,
        launch: Launch,
        user: &'static str,
        role: Role,
        fds: &[(BorrowedFd<'_>, i32)],
    ) -> Result<Launch, Error> {
        let mut launch = launch.env_exactly(self.settings.environment.to_vec()).directory("/").identity(
            role.uid,
            role.gid,
            self.groups(user, role.gid)?,
        );
        for (fd, number) in fds {
            launch = launch.descriptor(*fd, *number).map_err(|e| Error::Start(name.to_owned(), e))?;
        }
        Ok(launch)
    }

    /// Supplementary groups: none, unless USE_SETGROUPS names this user.
    fn groups(&self, user: &'static str, primary: Gid) -> Result<Vec<Gid>, Error> {
        const ALL: &[&str] = &["qmails", "qmailr", "qmailq", "qmaill"];
        let keeps = self.settings.keep_groups.as_ref().is_some_and(|value| match value.to_str() {
            Some("1") => ALL.contains(&user),
            Some(list) => list.split(':').any(|name| name == user),
            None => false,
        });
        if !keeps {
            return Ok(Vec::new());
        }
        unix::ids::groups_of(user, primary).map_err(|e| Error::Groups(user, e))
    }
}
