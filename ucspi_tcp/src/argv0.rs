//! argv0: run a program under another name.

use program::{Exit, ExitCodeDoc, Invocation, Operands, Place, Program, Spec, chain};

/// The table of argv0.
pub static SPEC: Spec = Spec {
    name: "argv0",
    summary: "run a program under another name",
    section: 1,
    place: Place::Bin,
    operands: Operands { synopsis: "program name [arg ...]", min: 2, max: None },
    exits: &[
        ExitCodeDoc { code: 100, meaning: "wrong usage" },
        ExitCodeDoc { code: 111, meaning: "the program cannot be run" },
    ],
    description: "Runs program with name as its argument number 0, as a login shell is run with a name that starts with -.",
    ..Spec::EMPTY
};

/// argv0.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

fn main(invocation: &Invocation) -> Exit {
    let argv = match invocation.parse_all() {
        Ok(parsed) => parsed.operands,
        Err(exit) => return exit,
    };
    let named: Vec<_> = std::iter::once(&argv[0]).chain(&argv[2..]).cloned().collect();
    let environment = &invocation.environment;
    let error =
        chain::replace_with(&named, environment, environment.get("PATH"), |launch| Ok(launch.arg0(&argv[1])));
    chain::cannot_run(invocation, &argv, &error)
}
