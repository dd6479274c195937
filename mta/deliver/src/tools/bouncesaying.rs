//! bouncesaying: bounce the message with a text, perhaps if a program says so.

use program::{Exit, Invocation, Operands, Program, Spec};

use super::Condition;

static SPEC: Spec = Spec {
    name: "bouncesaying",
    summary: "bounce the message with a text",
    section: 1,
    operands: Operands { synopsis: "text [program [arg ...]]", min: 1, max: None },
    exits: super::EXITS,
    description: "bouncesaying prints the text and bounces the message. With a program it does so only if the program exits with \
        0; 111 is passed on.",
    ..Spec::EMPTY
};

/// The program.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

fn main(invocation: &Invocation) -> Exit {
    let parsed = match invocation.parse() {
        Ok(parsed) => parsed,
        Err(exit) => return exit,
    };
    let (text, program) = (&parsed.operands[0], &parsed.operands[1..]);
    if !program.is_empty() {
        let message = match super::message(invocation) {
            Ok(message) => message,
            Err(exit) => return exit,
        };
        match super::condition(invocation, program, &message) {
            Condition::Holds => {}
            Condition::Temporary => return Exit::TEMPORARY,
            Condition::Fails | Condition::Permanent => return Exit::OK,
        }
    }
    crate::say(&text.to_string_lossy());
    Exit::PERMANENT
}
