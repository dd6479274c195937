//! recordio and fixcrio: between a program and whoever started it.
//!
//! The program keeps the process id and its exit code; what copies is a child of it. So a server that counts
//! or signals its children deals with the program itself.

use std::cell::Cell;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

use program::{Exit, ExitCodeDoc, Invocation, Operands, Place, Program, Spec, chain};

use crate::crlf::AddMissing;
use crate::relay::{self, Convert, Direction, Until};

const EXITS: &[ExitCodeDoc] = &[
    ExitCodeDoc { code: 100, meaning: "wrong usage" },
    ExitCodeDoc { code: 111, meaning: "the program cannot be run; otherwise its own codes" },
];

/// The table of recordio.
pub static RECORDIO: Spec = Spec {
    name: "recordio",
    summary: "run a program and log what goes in and out",
    section: 1,
    place: Place::Bin,
    operands: Operands { synopsis: "program [arg ...]", min: 1, max: None },
    exits: EXITS,
    description: "\
Runs program and writes to stderr what comes on its descriptor 0 and what it writes to descriptor 1, a line for each line: the process id of \
program, < for its input or > for its output, the data, and at the end a blank, or + when the data went on without a newline. \
[EOF] is the end. Data are logged before they are passed on, and nothing is changed or hidden in them: passwords too are logged.",
    ..Spec::EMPTY
};

/// The table of fixcrio.
pub static FIXCRIO: Spec = Spec {
    name: "fixcrio",
    summary: "run a program and complete line ends that lack a carriage return",
    section: 1,
    place: Place::Bin,
    operands: Operands { synopsis: "program [arg ...]", min: 1, max: None },
    exits: EXITS,
    description: "\
Runs program and inserts a carriage return before each newline that has none, in its input and in its output.

Never use it in front of an SMTP server: a line end that the sender's own server did not take for one becomes one, so that others can \
smuggle messages into a connection.",
    ..Spec::EMPTY
};

/// recordio.
pub const RECORDIO_PROGRAM: Program = Program { spec: &RECORDIO, main: recordio };
/// fixcrio.
pub const FIXCRIO_PROGRAM: Program = Program { spec: &FIXCRIO, main: fixcrio };

fn recordio(invocation: &Invocation) -> Exit {
    let pid = std::process::id();
    run(invocation, || [recording(pid, '<'), recording(pid, '>')])
}

fn fixcrio(invocation: &Invocation) -> Exit {
    run(invocation, || [completing(), completing()])
}

fn completing() -> Convert<'static> {
    let mut add = AddMissing::default();
    Box::new(move |bytes, out| add.convert(bytes.unwrap_or_default(), out))
}

fn recording(pid: u32, direction: char) -> Convert<'static> {
    let prefix = format!("{pid} {direction} ");
    Box::new(move |bytes, out| {
        let mut lines = Vec::new();
        log(prefix.as_bytes(), bytes, &mut lines);
        // A log that is gone must not end the connection.
        let _ = io::stderr().write_all(&lines);
        out.extend_from_slice(bytes.unwrap_or_default());
    })
}

/// The lines of the log for one packet; `None` is the end.
fn log(prefix: &[u8], packet: Option<&[u8]>, out: &mut Vec<u8>) {
    let Some(packet) = packet else {
        out.extend_from_slice(prefix);
        out.extend_from_slice(b"[EOF]\n");
        return;
    };
    for line in packet.split_inclusive(|&b| b == b'\n') {
        out.extend_from_slice(prefix);
        match line.strip_suffix(b"\n") {
            Some(whole) => {
                out.extend_from_slice(whole);
                out.extend_from_slice(b" \n");
            }
            None => {
                out.extend_from_slice(line);
                out.extend_from_slice(b"+\n");
            }
        }
    }
}

fn run(invocation: &Invocation, converts: impl FnOnce() -> [Convert<'static>; 2]) -> Exit {
    let argv = match invocation.parse_all() {
        Ok(parsed) => parsed.operands,
        Err(exit) => return exit,
    };
    match start(invocation, &argv, converts) {
        Ok(exit) => exit,
        Err(e) => {
            invocation.complain("fatal", format_args!("unable to start copying: {}", chain::phrase(&e)));
            Exit::TEMPORARY
        }
    }
}

/// Leaves a copy behind that relays, and becomes the program; returns only on failure.
fn start(
    invocation: &Invocation,
    argv: &[OsString],
    converts: impl FnOnce() -> [Convert<'static>; 2],
) -> io::Result<Exit> {
    let (program_in, to_program) = unix::fd::pipe()?;
    let (from_program, program_out) = unix::fd::pipe()?;
    let input = unix::fd::duplicate_above(io::stdin().as_fd(), 3)?;
    let output = unix::fd::duplicate_above(io::stdout().as_fd(), 3)?;
    // The copy must not keep the program's ends of the pipes, this process must.
    let theirs = Cell::new(Some((program_in, program_out)));
    unix::child::run_beside(|| {
        drop(theirs.take());
        copy(invocation, [(input, to_program), (from_program, output)], converts())
    })?;
    let Some((program_in, program_out)) = theirs.take() else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let environment = &invocation.environment;
    let error = chain::replace_with(argv, environment, environment.get("PATH"), |launch| {
        launch.descriptor(program_in.as_fd(), 0)?.descriptor(program_out.as_fd(), 1)
    });
    Ok(chain::cannot_run(invocation, argv, &error))
}

fn copy(invocation: &Invocation, ends: [(OwnedFd, OwnedFd); 2], converts: [Convert<'static>; 2]) -> u8 {
    let directions = ends.into_iter().zip(converts);
    let directions = directions.map(|((from, to), convert)| Direction::new(from, to, convert)).collect();
    match relay::run(directions, Until::All, None) {
        Ok(()) => 0,
        Err(e) => {
            invocation.complain("fatal", format_args!("unable to copy: {}", chain::phrase(&e)));
            111
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn logged(packet: Option<&[u8]>) -> String {
        let mut out = Vec::new();
        log(b"7 < ", packet, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_of_the_log() {
        assert_eq!(logged(Some(b"a\n\nb")), "7 < a \n7 <  \n7 < b+\n");
        assert_eq!(logged(None), "7 < [EOF]\n");
    }

    proptest! {
        #[test]
        fn the_log_has_all_the_data(text in "[a\r\n+ ]{0,40}") {
            let lines = logged(Some(text.as_bytes()));
            let data = lines.strip_suffix('\n').unwrap_or_default().split('\n').filter(|l| !l.is_empty());
            let back: String = data
                .map(|line| line.strip_prefix("7 < ").unwrap())
                .map(|l| l.strip_suffix('+').map_or_else(|| format!("{}\n", &l[..l.len() - 1]), str::to_owned))
                .collect();
            prop_assert_eq!(back, text);
        }
    }
}
