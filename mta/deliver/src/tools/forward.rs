//! forward: send the message on.

use std::os::unix::ffi::OsStrExt;

use program::{Exit, Invocation, Operands, Program, Spec};

static SPEC: Spec = Spec {
    name: "forward",
    summary: "send the message on to other addresses",
    section: 1,
    operands: Operands { synopsis: "address ...", min: 1, max: None },
    variables: &[super::NEWSENDER, super::DTLINE],
    exits: super::EXITS,
    description: "forward is a program for dot-qmail files: \"|forward address ...\".",
    ..Spec::EMPTY
};

/// The program.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

fn main(invocation: &Invocation) -> Exit {
    let parsed = match invocation.parse() {
        Ok(parsed) => parsed,
        Err(exit) => return exit,
    };
    let recipients: Vec<_> = parsed.operands.iter().map(|o| o.as_bytes().to_vec()).collect();
    match super::message(invocation) {
        Ok(message) => super::send_on(invocation, &message, &recipients, Exit::OK),
        Err(exit) => exit,
    }
}
