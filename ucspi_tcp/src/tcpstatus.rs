//! tcpstatus: ask a running tcpserver about its connections.

use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use program::{Exit, ExitCodeDoc, Invocation, Operands, OptionSpec, Place, Program, Spec};
use unix::clock::Deadline;

use crate::tcpserver::status::Snapshot;

/// How long the server may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer: a million connections.
const MAX_ANSWER: u64 = 100 << 20;

/// The table of tcpstatus.
pub static SPEC: Spec = Spec {
    name: "tcpstatus",
    summary: "ask a running tcpserver about its connections",
    section: 1,
    place: Place::Bin,
    options: &[OptionSpec::long_flag("json", "print one JSON object")],
    operands: Operands { synopsis: "socket", min: 1, max: Some(1) },
    exits: &[
        ExitCodeDoc { code: 0, meaning: "printed" },
        ExitCodeDoc { code: 100, meaning: "wrong usage" },
        ExitCodeDoc {
            code: 111,
            meaning: "no answer: nobody listens at the socket, or it is not for this user",
        },
    ],
    description: "\
Prints what tcpserver(1), started with --status socket, tells about itself: a line that begins with tcpserver (its process id, the limit of -c, \
connections now, connections that wait for a PROXY header, and since its start how many were accepted, and of these denied by a rule, sent away by a limit \
of the client, dropped because of an error), a line for each connection with the process id, the client's address and the age in seconds, and a line: end.",
    ..Spec::EMPTY
};

/// tcpstatus.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

fn main(invocation: &Invocation) -> Exit {
    let parsed = match invocation.parse_all() {
        Ok(parsed) => parsed,
        Err(exit) => return exit,
    };
    let socket = Path::new(&parsed.operands[0]);
    let shown = match ask(socket) {
        Ok(snapshot) if parsed.flag("json") => snapshot.json(),
        Ok(snapshot) => snapshot.encode(),
        Err(e) => {
            invocation.complain("fatal", format_args!("unable to ask {}: {e}", socket.display()));
            return Exit::TEMPORARY;
        }
    };
    match io::stdout().write_all(shown.as_bytes()) {
        Ok(()) => Exit::OK,
        Err(_) => Exit::TEMPORARY,
    }
}

fn ask(socket: &Path) -> io::Result<Snapshot> {
    let stream = unix::socket::connect(socket, Deadline::after(PATIENCE))?;
    unix::fd::set_nonblocking(&stream, false)?;
    let mut stream = std::os::unix::net::UnixStream::from(stream);
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    (&mut stream).take(MAX_ANSWER).read_to_string(&mut text)?;
    Snapshot::decode(&text).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, "the answer is not complete, or not tcpserver's")
    })
}
