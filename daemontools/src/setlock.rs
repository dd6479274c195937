//! setlock and pgrphack: run a program under a lock, or in a session of its own.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use program::{Exit, ExitCodeDoc, Invocation, Operands, OptionSpec, Parsed, Place, Program, Spec};

use crate::chain;

/// The table of setlock.
pub static SETLOCK: Spec = Spec {
    name: "setlock",
    summary: "run a program with a file locked",
    section: 8,
    place: Place::Bin,
    options: &[
        OptionSpec::flag('n', "do not wait for the lock"),
        OptionSpec::flag('N', "wait for the lock (the default)"),
        OptionSpec::flag('x', "without the lock, end silently with 0"),
        OptionSpec::flag('X', "without the lock, complain and end with 111 (the default)"),
    ],
    operands: Operands { synopsis: "file program [arg ...]", min: 2, max: None },
    exits: &[
        ExitCodeDoc { code: 0, meaning: "no lock, and -x was given" },
        ExitCodeDoc { code: 100, meaning: "wrong usage" },
        ExitCodeDoc { code: 111, meaning: "no lock, or the program cannot be run" },
    ],
    description: "Opens file, creating it if necessary, locks it, and runs the program, which holds the lock until it ends.",
    ..Spec::EMPTY
};

/// The table of pgrphack.
pub static PGRPHACK: Spec = Spec {
    name: "pgrphack",
    summary: "run a program in a session of its own",
    section: 8,
    place: Place::Sbin,
    operands: Operands { synopsis: "program [arg ...]", min: 1, max: None },
    exits: &[
        ExitCodeDoc { code: 100, meaning: "wrong usage" },
        ExitCodeDoc { code: 111, meaning: "the program cannot be run" },
    ],
    description: "Runs the program as the leader of a new session and process group.",
    ..Spec::EMPTY
};

/// setlock.
pub const PROGRAM: Program = Program { spec: &SETLOCK, main };
/// pgrphack.
pub const PGRPHACK_PROGRAM: Program = Program { spec: &PGRPHACK, main: pgrphack };

fn main(invocation: &Invocation) -> Exit {
    let parsed = match invocation.parse_all() {
        Ok(parsed) => parsed,
        Err(exit) => return exit,
    };
    let last = |on: &str, off: &str| {
        parsed.in_order().filter(|(o, _)| *o == on || *o == off).last().is_some_and(|(o, _)| o == on)
    };
    match lock(&parsed, last("n", "N")) {
        Ok(held) => {
            let exit = chain::become_program(invocation, &parsed.operands[1..], &invocation.environment);
            drop(held);
            exit
        }
        Err(_) if last("x", "X") => Exit::OK,
        Err(why) => {
            invocation.complain("fatal", why);
            Exit::TEMPORARY
        }
    }
}

fn lock(parsed: &Parsed, at_once: bool) -> Result<Flock<File>, String> {
    let path = Path::new(&parsed.operands[0]);
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(|e| format!("unable to open {}: {}", path.display(), chain::phrase(&e)))?;
    let how = if at_once { FlockArg::LockExclusiveNonblock } else { FlockArg::LockExclusive };
    let held = loop {
        match Flock::lock(file, how) {
            Ok(held) => break held,
            Err((again, Errno::EINTR)) => file = again,
            Err((_, e)) => {
                return Err(format!("unable to lock {}: {}", path.display(), chain::phrase(&e.into())));
            }
        }
    };
    unix::fd::set_cloexec(held.as_fd(), false).map_err(|e| format!("unable to pass the lock on: {e}"))?;
    Ok(held)
}

fn pgrphack(invocation: &Invocation) -> Exit {
    match invocation.parse_all() {
        Ok(parsed) => {
            // A process group leader cannot have a new session; then it stays in its own.
            let _ = nix::unistd::setsid();
            chain::become_program(invocation, &parsed.operands, &invocation.environment)
        }
        Err(exit) => exit,
    }
}
