//! except: turn the answer of a program around.

use program::{Exit, Invocation, Operands, Parsed, Program, Spec};

use super::Condition;
use crate::message_file::Message;

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
    super::run(invocation, except)
}

fn except(invocation: &Invocation, parsed: &Parsed, message: &Message) -> Exit {
    match super::condition(invocation, &parsed.operands, message) {
        Condition::Holds => Exit::PERMANENT,
        Condition::Temporary => Exit::TEMPORARY,
        Condition::Fails | Condition::Permanent => Exit::OK,
    }
}
