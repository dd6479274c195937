//! svok and svup: is there a supervise here, is the service up?

use std::io;
use std::path::{Path, PathBuf};

use program::{Exit, ExitCodeDoc, Invocation, Operands, OptionSpec, Place, Program, Spec};

use crate::state_path::{DISABLE_RUN, Places, SUPERVISEDIR};
use crate::{chain, client};

const DIR: Operands = Operands { synopsis: "dir", min: 1, max: Some(1) };

/// The table of svok.
pub static SVOK: Spec = Spec {
    name: "svok",
    summary: "is supervise running?",
    section: 8,
    place: Place::Bin,
    operands: DIR,
    variables: &[DISABLE_RUN, SUPERVISEDIR],
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
    options: &[
        OptionSpec::flag('l', "ask about its logger"),
        OptionSpec::flag('L', "ask about the service itself, the default"),
    ],
    operands: DIR,
    variables: &[DISABLE_RUN, SUPERVISEDIR],
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
    client::is_running(&dir.join("supervise"))
}

fn main(invocation: &Invocation) -> Exit {
    answer(invocation, client::is_running)
}

fn svup(invocation: &Invocation) -> Exit {
    answer(invocation, |state| Ok(client::is_running(state)? && client::record(state)?.pid.is_some()))
}

fn answer(invocation: &Invocation, ask: impl Fn(&Path) -> io::Result<bool>) -> Exit {
    let parsed = match invocation.parse_all() {
        Ok(parsed) => parsed,
        Err(exit) => return exit,
    };
    let mut dir = PathBuf::from(&parsed.operands[0]);
    // The last of -l and -L counts.
    if parsed.in_order().map(|(option, _)| option).last() == Some("l") {
        dir.push("log");
    }
    match ask(&Places::new(&invocation.environment).of_client(&dir)) {
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
