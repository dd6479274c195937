//! condredirect: send the message on if a program says so.

use std::os::unix::ffi::OsStrExt;

use program::{Exit, Invocation, Operands, OptionSpec, Parsed, Program, Spec};

use super::Condition;
use crate::message_file::Message;

static SPEC: Spec = Spec {
    name: "condredirect",
    summary: "send the message on if a program says so",
    section: 1,
    options: &[OptionSpec::flag('r', "send it on if the program says no")],
    operands: Operands { synopsis: "address program [arg ...]", min: 2, max: None },
    variables: &[super::NEWSENDER, super::DTLINE],
    exits: super::EXITS,
    description: "condredirect runs the program on the message. If it exits with 0, the message is sent on to address and no further \
        line of the dot-qmail file is looked at; 100 and 111 are passed on; anything else means no. With -r, 0 means no \
        and anything else yes.",
    ..Spec::EMPTY
};

/// The program.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

fn main(invocation: &Invocation) -> Exit {
    super::run(invocation, condredirect)
}

fn condredirect(invocation: &Invocation, parsed: &Parsed, message: &Message) -> Exit {
    let wanted = if parsed.flag("r") { Condition::Fails } else { Condition::Holds };
    match super::condition(invocation, &parsed.operands[1..], message) {
        Condition::Permanent => Exit::PERMANENT,
        Condition::Temporary => Exit::TEMPORARY,
        condition if condition == wanted => {
            let recipients = [parsed.operands[0].as_bytes().to_vec()];
            super::send_on(invocation, message, &recipients, Exit(99))
        }
        Condition::Holds | Condition::Fails => Exit::OK,
    }
}
