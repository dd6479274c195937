//! queue-fix: creates a queue directory, or mends one.
//!
//! - this file: the program, and what it says;
//! - [`skeleton`]: directories and lock files with their owners and modes;
//! - [`messages`]: message files under the names that their inode numbers demand.
//!
//! It can be stopped and started again at any point; a second run in a row finds nothing to do.

mod messages;
mod skeleton;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use mta_queue::layout::{Owner, Queue, SPLIT_MAX, Shape, exists};
use program::{
    Exit, ExitCodeDoc, Invocation, Loader, Operands, OptionSpec, Place as Where, Program, Source, Spec,
};
use unix::ids::{Role, RoleError, Roles};
use unix::lock::Lock;

use crate::place::{BIGTODO, CONFSPLIT};

static SPEC: Spec = Spec {
    name: "queue-fix",
    summary: "create or mend a queue directory",
    section: 8,
    place: Where::Sbin,
    options: &[
        OptionSpec::flag(
            'N',
            "change nothing; say what is wrong and exit with the number of faults (100 at most)",
        ),
        OptionSpec::flag('m', "qmailq owns everything that otherwise qmails owns"),
        OptionSpec::value('s', "split", "number of subdirectories, 1 to 151 (as found; 151 for a new queue)"),
        OptionSpec::value(
            'b',
            "0|1",
            "1: todo and intd are split, 0: they are not (as found; 1 for a new queue)",
        ),
    ],
    operands: Operands { synopsis: "queuedir", min: 1, max: Some(1) },
    variables: &[CONFSPLIT, BIGTODO],
    exits: &[
        ExitCodeDoc { code: 0, meaning: "the queue is in order now" },
        ExitCodeDoc { code: 100, meaning: "wrong usage" },
        ExitCodeDoc { code: 111, meaning: "trouble, or a sender is running on the queue" },
    ],
    description: "Creates what is missing with the right owners and modes and mends what is wrong, one line \
        of output for each change. A message whose name is not the inode number of its file, as after a \
        restore from backup, is renamed with all its parts; parts that lie in the wrong subdirectory are \
        moved, so that this also changes the number of subdirectories; parts of no message are removed.\n\n\
        Stop the sender and everything that puts messages into the queue first. Started by an ordinary \
        user it makes a queue that belongs to that user.",
    ..Spec::EMPTY
};

/// The program.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

#[derive(Debug, Clone)]
struct Settings {
    directory: PathBuf,
    dry: bool,
    merged: bool,
    split: Option<u32>,
    bigtodo: Option<bool>,
}

fn main(invocation: &Invocation) -> Exit {
    let parsed = match invocation.parse() {
        Ok(parsed) => parsed,
        Err(exit) => return exit,
    };
    let mut loader = Loader::new(&invocation.environment);
    let mut number = |name: &str, option: &'static str, variable, range: std::ops::RangeInclusive<u64>| {
        let from = Source {
            option: parsed.value(option).map(|v| (option, v)),
            variable: Some(variable),
            control: None,
        };
        let given =
            from.option.is_some() || invocation.environment.bytes(variable).is_some_and(|v| !v.is_empty());
        let value = loader.number(name, from, *range.end(), range);
        given.then_some(u32::try_from(value).unwrap_or(SPLIT_MAX))
    };
    let split = number("split", "s", "CONFSPLIT", 1..=u64::from(SPLIT_MAX));
    let bigtodo = number("bigtodo", "b", "BIGTODO", 0..=1).map(|n| n > 0);
    let settings = Settings {
        directory: PathBuf::from(&parsed.operands[0]),
        dry: parsed.flag("N"),
        merged: parsed.flag("m"),
        split,
        bigtodo,
    };
    let settings = match invocation.finish(loader, settings, Exit::PERMANENT) {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    match run(&settings) {
        Ok(faults) if settings.dry => Exit(u8::try_from(faults.min(100)).unwrap_or(100)),
        Ok(_) => Exit::OK,
        Err(e) => {
            invocation.complain("fatal", e);
            Exit::TEMPORARY
        }
    }
}

/// Why a queue could not be mended.
#[derive(Debug, thiserror::Error)]
enum FixError {
    #[error("{what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{}: a sender is running on this queue: stop it first", .0.display())]
    Running(PathBuf),
    #[error(transparent)]
    Role(#[from] RoleError),
    #[error("cannot print: {0}")]
    Print(io::Error),
}

fn at<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> FixError + 'a {
    move |source| FixError::Io { what, path: path.to_owned(), source }
}

/// Who owns what.
#[derive(Debug, Clone, Copy)]
struct Owners {
    qmailq: Role,
    qmails: Role,
    qmailr: Role,
}

impl Owners {
    fn resolve(merged: bool) -> Result<Self, RoleError> {
        let roles = Roles::for_this_process();
        let role = |owner: Owner| roles.role(owner.user(), "qmail");
        let qmailq = role(Owner::Qmailq)?;
        let qmails = if merged { qmailq } else { role(Owner::Qmails)? };
        Ok(Self { qmailq, qmails, qmailr: role(Owner::Qmailr)? })
    }

    fn of(&self, owner: Owner) -> Role {
        match owner {
            Owner::Qmailq => self.qmailq,
            Owner::Qmails => self.qmails,
            Owner::Qmailr => self.qmailr,
        }
    }
}

/// What is done, or would be.
struct Fixer {
    queue: Queue,
    owners: Owners,
    dry: bool,
    faults: u32,
}

impl Fixer {
    /// Says what is wrong and mends it, unless nothing shall be changed.
    fn fix(
        &mut self,
        what: &'static str,
        path: &Path,
        mend: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), FixError> {
        self.faults += 1;
        let verb = if self.dry { "would " } else { "" };
        writeln!(io::stdout(), "{verb}{what} {}", path.display()).map_err(FixError::Print)?;
        if self.dry { Ok(()) } else { mend().map_err(at(what, path)) }
    }
}

fn run(settings: &Settings) -> Result<u32, FixError> {
    let directory = &settings.directory;
    let shape = shape(settings).map_err(at("look at", directory))?;
    let owners = Owners::resolve(settings.merged)?;
    let queue = Queue::new(directory, shape);
    let mutex = queue.send_mutex();
    let lock = if exists(&mutex).map_err(at("look at", &mutex))? {
        let lock = Lock::try_exclusive(&mutex, 0o600).map_err(at("lock", &mutex))?;
        Some(lock.ok_or_else(|| FixError::Running(directory.clone()))?)
    } else {
        None
    };
    unix::host::umask(0o022);
    let mut fixer = Fixer { queue, owners, dry: settings.dry, faults: 0 };
    fixer.skeleton()?;
    if exists(&directory.join("mess")).map_err(at("look at", directory))? {
        fixer.messages()?;
        fixer.surplus()?;
    }
    if fixer.faults > 0 && !fixer.dry {
        fixer.force_out()?;
    }
    drop(lock);
    Ok(fixer.faults)
}

/// As given; else as found; else the defaults.
fn shape(settings: &Settings) -> io::Result<Shape> {
    let is_new = !exists(&settings.directory.join("mess/0"))?;
    let found = Shape::of(&settings.directory, None, None)?;
    Ok(Shape {
        split: settings.split.unwrap_or(if is_new { SPLIT_MAX } else { found.split }),
        bigtodo: settings.bigtodo.unwrap_or(is_new || found.bigtodo),
    })
}
