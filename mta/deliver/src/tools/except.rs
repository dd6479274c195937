//! except: turn the answer of a program around.

use program::{Exit, Invocation, Operands, Program, Spec};

use super::Condition;

static SPEC: Spec = Spec {
    name: "except",
    summary: "turn the answer of a program around",
    section: 1,
    operands: Operands { synopsis: "program [arg ...]", min: 1, max: None },
    exits: super::EXITS,
    description: "except runs the program on the message and exits with 100 if it exits with 0, with 111 if it exits with 111, else \
        with 0.",
    ..Spec::EMPTY
};

/// The program.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

fn main(invocation: &Invocation) -> Exit {
    let parsed = match invocation.parse() {
        Ok(parsed) => parsed,
        Err(exit) => return exit,
    };
    let message = match super::message(invocation) {
        Ok(message) => message,
        Err(exit) => return exit,
    };
    match super::condition(invocation, &parsed.operands, &message) {
        Condition::Holds => Exit::PERMANENT,
        Condition::Temporary => Exit::TEMPORARY,
        Condition::Fails | Condition::Permanent => Exit::OK,
    }
}
