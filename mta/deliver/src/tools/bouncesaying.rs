//! bouncesaying: bounce the message with a text, perhaps if a program says so.

use program::{Exit, Invocation, Operands, Parsed, Program, Spec};

use super::Condition;
use crate::message_file::Message;

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
    super::run(invocation, bouncesaying)
}

fn bouncesaying(invocation: &Invocation, parsed: &Parsed, message: &Message) -> Exit {
    let (text, program) = (&parsed.operands[0], &parsed.operands[1..]);
    let condition =
        if program.is_empty() { Condition::Holds } else { super::condition(invocation, program, message) };
    match condition {
        Condition::Holds => {
            crate::say(&text.to_string_lossy());
            Exit::PERMANENT
        }
        Condition::Temporary => Exit::TEMPORARY,
        Condition::Fails | Condition::Permanent => Exit::OK,
    }
}
