//! qmail-newu: compiles users/assign.

use std::path::PathBuf;

use program::{Exit, ExitCodeDoc, Invocation, Loader, Operands, Place, Program, Spec, Variable};

static SPEC: Spec = Spec {
    name: "qmail-newu",
    summary: "compile users/assign into users/cdb",
    section: 8,
    place: Place::Sbin,
    operands: Operands { synopsis: "[directory]", min: 0, max: Some(1) },
    variables: &[Variable { name: "ASSIGNDIR", help: "the directory (/etc/indimail/users)" }],
    exits: &[
        ExitCodeDoc { code: 0, meaning: "done" },
        ExitCodeDoc { code: 100, meaning: "wrong usage" },
        ExitCodeDoc {
            code: 111,
            meaning: "a wrong line, a missing final dot, trouble with files; the old cdb is still there",
        },
    ],
    description: "qmail-newu reads assign and writes cdb in the directory, at once and durably: qmail-lspawn sees the old \
        assignments or the new ones.",
    ..Spec::EMPTY
};

/// The program.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

fn main(invocation: &Invocation) -> Exit {
    let directory = match load(invocation) {
        Ok(directory) => directory,
        Err(exit) => return exit,
    };
    match assign::rebuild(&directory, None) {
        Ok(()) => Exit::OK,
        Err(e) => {
            invocation.complain("fatal", e);
            Exit::TEMPORARY
        }
    }
}

fn load(invocation: &Invocation) -> Result<PathBuf, Exit> {
    let parsed = invocation.parse()?;
    let mut loader = Loader::new(&invocation.environment);
    let directory = match parsed.operands.first() {
        Some(given) => PathBuf::from(given),
        None => loader.path("directory", crate::variable("ASSIGNDIR"), "/etc/indimail/users"),
    };
    invocation.finish(loader, directory, Exit::TEMPORARY)
}
