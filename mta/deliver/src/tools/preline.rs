//! preline: put the lines of the delivery before the message and feed a program with it.

use std::io::Write;
use std::os::fd::AsFd;

use program::{Exit, Invocation, Operands, OptionSpec, Parsed, Program, Spec, Variable};
use unix::child::{Ending, Launch, wait_for};
use unix::fd::Raw;

use crate::message_file::Message;

static SPEC: Spec = Spec {
    name: "preline",
    summary: "feed the message to a program, with the lines of the delivery before it",
    section: 1,
    options: &[
        OptionSpec::flag('f', "leave the \"From \" line out"),
        OptionSpec::flag('r', "leave the Return-Path line out"),
        OptionSpec::flag('d', "leave the Delivered-To line out"),
    ],
    operands: Operands { synopsis: "program [arg ...]", min: 1, max: None },
    variables: &[
        Variable { name: "UFLINE", help: "the \"From \" line; must be set" },
        Variable { name: "RPLINE", help: "the Return-Path line; must be set" },
        Variable { name: "DTLINE", help: "the Delivered-To line; must be set" },
    ],
    exits: super::EXITS,
    description: "preline is for programs that expect such lines, \"|preline procmail\" for instance. It ends with the exit code of \
        the program.",
    ..Spec::EMPTY
};

/// The program.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

fn main(invocation: &Invocation) -> Exit {
    super::run(invocation, preline)
}

fn preline(invocation: &Invocation, parsed: &Parsed, message: &Message) -> Exit {
    let mut heading = Vec::new();
    for (flag, name) in [("f", "UFLINE"), ("r", "RPLINE"), ("d", "DTLINE")] {
        match invocation.environment.bytes(name) {
            Some(_) if parsed.flag(flag) => {}
            Some(line) => heading.extend_from_slice(line),
            None => {
                invocation.complain("fatal", format_args!("{name} is not set; run it from a dot-qmail file"));
                return Exit::PERMANENT;
            }
        }
    }
    let fed = || -> std::io::Result<Ending> {
        let (read, write) = unix::fd::pipe()?;
        let pid = Launch::new(&parsed.operands[0])
            .args(&parsed.operands[1..])
            .env_exactly(invocation.environment.to_vec())
            .descriptor(read.as_fd(), 0)?
            .start()?;
        drop(read);
        let mut out = Raw(write.as_fd());
        // A program that has read enough is not an error: its exit code is the answer.
        let written = out.write_all(&heading).and_then(|()| message.copy_to(&mut out));
        drop(write);
        let ending = wait_for(pid)?;
        match written {
            Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e),
            _ => Ok(ending),
        }
    };
    match fed() {
        Ok(Ending::Exited(code)) => Exit(u8::try_from(code).unwrap_or(111)),
        Ok(Ending::Killed(_)) => Exit::TEMPORARY,
        Err(e) => {
            invocation.complain("fatal", format_args!("{}: {e}", parsed.operands[0].display()));
            Exit::TEMPORARY
        }
    }
}
