//! envdir: variables from files. One file is one variable.

use std::path::Path;

pub use program::env_directory::{Changes, Error, OnUnreadable};
use program::{Environment, Exit, ExitCodeDoc, Invocation, Operands, OptionSpec, Place, Program, Spec};

use crate::chain;

/// The table of envdir.
pub static SPEC: Spec = Spec {
    name: "envdir",
    summary: "run a program with variables from a directory",
    section: 8,
    place: Place::Bin,
    options: &[
        OptionSpec::flag('c', "start from an empty environment"),
        OptionSpec::flag('i', "pass over files that cannot be read"),
        OptionSpec::flag('w', "when the directory cannot be read, warn and keep the environment as it is"),
        OptionSpec::flag('p', "look for the program in the new PATH"),
        OptionSpec::value('P', "prefix", "put prefix before the name of each variable"),
    ],
    operands: Operands { synopsis: "dir program [arg ...]", min: 2, max: None },
    exits: &[
        ExitCodeDoc { code: 100, meaning: "wrong usage" },
        ExitCodeDoc { code: 111, meaning: "dir cannot be read or the program cannot be run" },
    ],
    description: "\
Each file in dir whose name does not start with a dot is a variable. Its value is the first line of the \
file without blanks and tabs at the end; NUL bytes become newlines. An empty file removes the variable, \
a file with an empty line sets it to nothing.

Before that, lines of a file named .envfile are read: name=value sets, a name alone removes, # starts a comment. Then \
.envdir, a directory (or a link to one) or a file with one directory on each line, is read in the same way.

On any error nothing is changed and the program is not run.",
    ..Spec::EMPTY
};

/// envdir.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

/// Reads the changes that `dir` asks for; errors are in the words of the family.
///
/// # Errors
/// Something cannot be read, or a name holds `=`.
pub fn read(dir: &Path, on_unreadable: OnUnreadable) -> Result<Changes, Error> {
    program::env_directory::read_with(dir, on_unreadable, chain::phrase)
}

fn main(invocation: &Invocation) -> Exit {
    let parsed = match invocation.parse_all() {
        Ok(parsed) => parsed,
        Err(exit) => return exit,
    };
    if parsed.value("P").is_some_and(|p| p.as_encoded_bytes().contains(&b'=')) {
        invocation.complain("fatal", "option -P: a variable's name cannot hold =");
        return Exit::PERMANENT;
    }
    let dir = Path::new(&parsed.operands[0]);
    let argv = &parsed.operands[1..];
    let mut environment =
        if parsed.flag("c") { Environment::default() } else { invocation.environment.clone() };
    let on_unreadable = if parsed.flag("i") { OnUnreadable::Ignore } else { OnUnreadable::Fail };
    match read(dir, on_unreadable) {
        Ok(changes) => changes.apply_with_prefix(parsed.value("P").unwrap_or_default(), &mut environment),
        Err(e) if parsed.flag("w") => {
            invocation.complain("warning", e);
            environment = invocation.environment.clone();
        }
        Err(e) => {
            invocation.complain("fatal", e);
            return Exit::TEMPORARY;
        }
    }
    let searched = if parsed.flag("p") { &environment } else { &invocation.environment };
    let failure = chain::replace(argv, &environment, searched.get("PATH"));
    chain::cannot_run(invocation, argv, &failure)
}
