//! forward: send the message on.

use std::os::unix::ffi::OsStrExt;

use program::{Exit, Invocation, Operands, Parsed, Program, Spec};

use crate::message_file::Message;

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
    super::run(invocation, forward)
}

fn forward(invocation: &Invocation, parsed: &Parsed, message: &Message) -> Exit {
    let recipients: Vec<_> = parsed.operands.iter().map(|o| o.as_bytes().to_vec()).collect();
    super::send_on(invocation, message, &recipients, Exit::OK)
}
