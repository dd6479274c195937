//! addcr and delcr: line ends of the network and of Unix.

use program::{Exit, ExitCodeDoc, Invocation, Operands, Place, Program, Spec};
use std::io::Write;
use unix::buffered::{Failure, Input, Output, filter_to_end};

use crate::crlf;

const EXITS: &[ExitCodeDoc] = &[
    ExitCodeDoc { code: 100, meaning: "wrong usage" },
    ExitCodeDoc { code: 111, meaning: "the input cannot be read or the output not be written" },
];

/// The table of addcr.
pub static ADDCR: Spec = Spec {
    name: "addcr",
    summary: "put a carriage return before each newline",
    section: 1,
    place: Place::Bin,
    operands: Operands { synopsis: "", min: 0, max: Some(0) },
    exits: EXITS,
    description: "Copies its input to its output and inserts a carriage return before each newline, also where there is one.",
    ..Spec::EMPTY
};

/// The table of delcr.
pub static DELCR: Spec = Spec {
    name: "delcr",
    summary: "remove a carriage return before each newline",
    section: 1,
    place: Place::Bin,
    operands: Operands { synopsis: "", min: 0, max: Some(0) },
    exits: EXITS,
    description: "Copies its input to its output without the carriage return before a newline; others stay.",
    ..Spec::EMPTY
};

/// addcr.
pub const ADDCR_PROGRAM: Program = Program { spec: &ADDCR, main: addcr };
/// delcr.
pub const DELCR_PROGRAM: Program = Program { spec: &DELCR, main: delcr };

fn addcr(invocation: &Invocation) -> Exit {
    run(invocation, |bytes, out| crlf::add(bytes.unwrap_or_default(), out))
}

fn delcr(invocation: &Invocation) -> Exit {
    let mut remove = crlf::Remove::default();
    run(invocation, |bytes, out| match bytes {
        Some(bytes) => remove.convert(bytes, out),
        None => remove.finish(out),
    })
}

fn run(invocation: &Invocation, convert: impl FnMut(Option<&[u8]>, &mut Vec<u8>)) -> Exit {
    match invocation.parse_all().map(|_| copy(convert)) {
        Err(exit) => exit,
        Ok(Ok(())) => Exit::OK,
        Ok(Err(e)) => {
            invocation.complain("fatal", e);
            Exit::TEMPORARY
        }
    }
}

fn copy(mut convert: impl FnMut(Option<&[u8]>, &mut Vec<u8>)) -> Result<(), Failure> {
    let mut converted = Vec::new();
    filter_to_end(Input::stdin(), Output::stdout(), |bytes, out| {
        converted.clear();
        convert(bytes, &mut converted);
        out.write_all(&converted)
    })
}
