//! fghack: waits for a program that insists on going to the background.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::AsFd;

use program::{Exit, ExitCodeDoc, Invocation, Operands, Place, Program, Spec};
use unix::buffered::Patient;
use unix::child::{Ending, Launch};

use crate::chain;

/// The table of fghack.
pub static SPEC: Spec = Spec {
    name: "fghack",
    summary: "keep a program in the foreground that goes to the background",
    section: 8,
    place: Place::Sbin,
    operands: Operands { synopsis: "program [arg ...]", min: 1, max: None },
    exits: &[
        ExitCodeDoc { code: 100, meaning: "wrong usage" },
        ExitCodeDoc { code: 111, meaning: "the program cannot be run, or was killed by a signal" },
    ],
    description: "\
Runs the program with many descriptors that lead to a pipe, and waits until all of them are closed: until the \
program and everything it left in the background has ended. Then it ends with the code of the program. Signals \
do not reach what is in the background: prefer a program that stays in front.",
    ..Spec::EMPTY
};

/// fghack.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

/// How many descriptors lead to the pipe: programs close a few when they go to the background.
const COUNT: usize = 30;

fn main(invocation: &Invocation) -> Exit {
    let argv = match invocation.parse_all() {
        Ok(parsed) => parsed.operands,
        Err(exit) => return exit,
    };
    match run(&argv) {
        Ok(Ending::Exited(code)) => Exit(u8::try_from(code).unwrap_or(u8::MAX)),
        Ok(Ending::Killed(signal)) => {
            let name = argv[0].display();
            invocation.complain("fatal", format_args!("{name} was killed by signal {signal}"));
            Exit::TEMPORARY
        }
        Err(e) => chain::cannot_run(invocation, &argv, &e),
    }
}

fn run(argv: &[OsString]) -> io::Result<Ending> {
    let (read, write) = unix::fd::pipe()?;
    let mut launch = Launch::new(&argv[0]).args(&argv[1..]);
    // What the program was to inherit keeps its number.
    // Below those that the copies of it get meanwhile.
    let free: Vec<_> = (3..64).filter(|&n| !unix::fd::is_open(n)).take(COUNT).collect();
    for number in free {
        launch = launch.descriptor(write.as_fd(), number)?;
    }
    let child = launch.start()?;
    drop(write);
    let mut input = Patient::new(read.as_fd());
    while input.read(&mut [0; 4096])? > 0 {}
    unix::child::wait_for(child)
}
