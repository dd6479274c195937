//! svok and svup: is there a supervise here, is the service up?

use std::io;
use std::path::Path;

use program::{Exit, ExitCodeDoc, Invocation, Operands, Place, Program, Spec};

use crate::status::Record;
use crate::{chain, fifo};

const DIR: Operands = Operands { synopsis: "dir", min: 1, max: Some(1) };

/// The table of svok.
pub static SVOK: Spec = Spec {
    name: "svok",
    summary: "is supervise running?",
    section: 8,
    place: Place::Bin,
    operands: DIR,
    exits: &[
        ExitCodeDoc { code: 0, meaning: "supervise is running in dir" },
        ExitCodeDoc { code: 100, meaning: "it is not, or wrong usage" },
        ExitCodeDoc { code: 111, meaning: "cannot tell" },
    ],
    description: "Checks, without printing anything, whether supervise(8) is running in the service directory dir.",
    ..Spec::EMPTY
};

/// The table of svup.
pub static SVUP: Spec = Spec {
    name: "svup",
    summary: "is the service up?",
    section: 8,
    place: Place::Bin,
    operands: DIR,
    exits: &[
        ExitCodeDoc { code: 0, meaning: "the service in dir is up" },
        ExitCodeDoc { code: 100, meaning: "it is not, or wrong usage" },
        ExitCodeDoc { code: 111, meaning: "cannot tell" },
    ],
    description: "Checks, without printing anything, whether the service in the directory dir is up.",
    ..Spec::EMPTY
};

/// svok.
pub const PROGRAM: Program = Program { spec: &SVOK, main };
/// svup.
pub const SVUP_PROGRAM: Program = Program { spec: &SVUP, main: svup };

/// Is a supervise running in this service directory?
///
/// # Errors
/// It cannot be told (no permission, say).
pub fn is_supervised(dir: &Path) -> io::Result<bool> {
    Ok(fifo::writer(&dir.join("supervise/ok"))?.is_some())
}

/// The status record of the service in `dir`.
///
/// # Errors
/// It cannot be read, or is no record (`InvalidData`).
pub fn status(dir: &Path) -> io::Result<Record> {
    let path = dir.join("supervise/status");
    let decode = |bytes: Vec<u8>| Record::decode(&bytes);
    // A writer that is not atomic may be in between; once more is enough.
    decode(std::fs::read(&path)?)
        .or_else(|e| std::fs::read(&path).map_err(|_| e).and_then(decode))
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

fn main(invocation: &Invocation) -> Exit {
    answer(invocation, is_supervised)
}

fn svup(invocation: &Invocation) -> Exit {
    answer(invocation, |dir| Ok(is_supervised(dir)? && status(dir)?.pid.is_some()))
}

fn answer(invocation: &Invocation, ask: impl Fn(&Path) -> io::Result<bool>) -> Exit {
    let parsed = match invocation.parse_all() {
        Ok(parsed) => parsed,
        Err(exit) => return exit,
    };
    let dir = Path::new(&parsed.operands[0]);
    match ask(dir) {
        Ok(true) => Exit::OK,
        Ok(false) => Exit::PERMANENT,
        Err(e) => {
            invocation.complain(
                "fatal",
                format_args!("unable to look at {}: {}", dir.display(), chain::phrase(&e)),
            );
            Exit::TEMPORARY
        }
    }
}
