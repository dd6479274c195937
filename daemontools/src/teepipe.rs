//! teepipe: copies its input to a program and to its output.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::AsFd;

use program::{Exit, ExitCodeDoc, Invocation, Operands, Place, Program, Spec};
use unix::buffered::{Input, Output, Patient};
use unix::child::{Ending, Launch};

use crate::chain;

/// The table of teepipe.
pub static SPEC: Spec = Spec {
    name: "teepipe",
    summary: "copy input to a program and to the output",
    section: 8,
    place: Place::Bin,
    operands: Operands { synopsis: "program [arg ...]", min: 1, max: None },
    exits: &[
        ExitCodeDoc { code: 100, meaning: "wrong usage" },
        ExitCodeDoc {
            code: 111,
            meaning: "reading or writing failed, or the program cannot be run or was killed",
        },
    ],
    description: "\
Copies its standard input to the standard input of the program, and then to its standard output. The standard output of the program is teepipe's \
standard error. Whoever of the two stops reading gets no more, and the other goes on. The exit code is that of the program.",
    ..Spec::EMPTY
};

/// teepipe.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

/// Bytes of one read.
const SIZE: usize = 4096;

fn main(invocation: &Invocation) -> Exit {
    let argv = match invocation.parse_all() {
        Ok(parsed) => parsed.operands,
        Err(exit) => return exit,
    };
    let (read, write) = match unix::fd::pipe() {
        Ok(pipe) => pipe,
        Err(e) => return failed(invocation, &e),
    };
    let child = match start(&argv, read) {
        Ok(child) => child,
        Err(e) => return chain::cannot_run(invocation, &argv, &e),
    };
    let copied = copy(Output::new(Patient::new(write.as_fd())), Output::stdout());
    drop(write);
    match (unix::child::wait_for(child), copied) {
        (Ok(Ending::Exited(code)), Ok(())) => Exit(u8::try_from(code).unwrap_or(u8::MAX)),
        (Ok(Ending::Killed(signal)), Ok(())) => {
            invocation.complain("fatal", format_args!("{} was killed by signal {signal}", argv[0].display()));
            Exit::TEMPORARY
        }
        (Err(e), _) | (_, Err(e)) => failed(invocation, &e),
    }
}

fn failed(invocation: &Invocation, e: &io::Error) -> Exit {
    invocation.complain("fatal", format_args!("unable to copy the input: {e}"));
    Exit::TEMPORARY
}

fn start(argv: &[OsString], input: std::os::fd::OwnedFd) -> io::Result<unix::Pid> {
    let stderr = io::stderr();
    let launch = Launch::new(&argv[0]).args(&argv[1..]);
    launch.descriptor(input.as_fd(), 0)?.descriptor(stderr.as_fd(), 1)?.start()
}

/// To both, for as long as one of them reads.
fn copy<A: Write, B: Write>(mut program: Output<A>, mut own: Output<B>) -> io::Result<()> {
    let mut input = Input::with_capacity(SIZE, Patient::stdin());
    while !(program.has_failed() && own.has_failed()) {
        let bytes = input.fill(&mut [])?;
        if bytes.is_empty() {
            break;
        }
        put(&mut program, bytes)?;
        put(&mut own, bytes)?;
        let count = bytes.len();
        input.consume(count);
    }
    Ok(())
}

/// Writes at once; a reader that is gone only ends this branch.
fn put<W: Write>(output: &mut Output<W>, bytes: &[u8]) -> io::Result<()> {
    match output.write_all(bytes).and_then(|()| output.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
