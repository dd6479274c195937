//! mconnect, mconnect-io, tcpcat, who@, date@, finger@, http@: connect, ask, print the answer.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use program::{Exit, ExitCodeDoc, Invocation, Operands, Place, Program, Spec, chain};

use crate::crlf::{self, Remove, make_visible};
use crate::relay::{self, Convert, Direction, Until, plain};
use crate::tcpclient::connect::{How, Target, connect};

const EXITS: &[ExitCodeDoc] = &[
    ExitCodeDoc { code: 100, meaning: "wrong usage" },
    ExitCodeDoc { code: 111, meaning: "no connection, or it ended with an error" },
];

macro_rules! question {
    ($(#[$doc:meta])* $spec:ident, $program:ident, $main:ident, $name:literal, $summary:literal, $operands:expr, $text:literal) => {
        $(#[$doc])*
        pub static $spec: Spec = Spec {
            name: $name,
            summary: $summary,
            section: 1,
            place: Place::Bin,
            operands: $operands,
            exits: EXITS,
            description: $text,
            ..Spec::EMPTY
        };
        /// The program.
        pub const $program: Program = Program { spec: &$spec, main: $main };
    };
}

question!(
    /// The table of mconnect.
    MCONNECT, MCONNECT_PROGRAM, mconnect, "mconnect", "talk to an SMTP server by hand",
    Operands { synopsis: "[host [port]]", min: 0, max: Some(2) },
    "Connects to port (default 25) of host (default 0, this host), sends its input with a carriage return before each newline and \
prints what comes, until the server closes the connection."
);
question!(
    /// The table of mconnect-io.
    MCONNECT_IO, MCONNECT_IO_PROGRAM, mconnect_io, "mconnect-io", "the part of mconnect that talks",
    Operands { synopsis: "", min: 0, max: Some(0) },
    "Run by tcpclient(1): sends its input to descriptor 7, with a carriage return before each newline, and prints what comes on \
descriptor 6, to its end."
);
question!(
    /// The table of tcpcat.
    TCPCAT, TCPCAT_PROGRAM, tcpcat, "tcpcat", "print what a server sends",
    Operands { synopsis: "[host [port]]", min: 0, max: Some(2) },
    "Connects to port (default 17) of host (default 0, this host) and prints what comes."
);
question!(
    /// The table of who@.
    WHO, WHO_PROGRAM, who, "who@", "ask a host who is logged in",
    Operands { synopsis: "[host]", min: 0, max: Some(1) },
    "Prints what port 11 (systat, RFC 866) of host (default 0, this host) sends; control characters are made visible."
);
question!(
    /// The table of date@.
    DATE, DATE_PROGRAM, date, "date@", "ask a host for its date",
    Operands { synopsis: "[host]", min: 0, max: Some(1) },
    "Prints what port 13 (daytime, RFC 867) of host (default 0, this host) sends; control characters are made visible."
);
question!(
    /// The table of finger@.
    FINGER, FINGER_PROGRAM, finger, "finger@", "ask a host about a user",
    Operands { synopsis: "[host [user]]", min: 0, max: Some(2) },
    "Asks port 79 (finger, RFC 1288) of host (default 0, this host) about user (default: all); control characters are made visible."
);
question!(
    /// The table of http@.
    HTTP, HTTP_PROGRAM, http, "http@", "print a page of a web server",
    Operands { synopsis: "[host [page [port]]]", min: 0, max: Some(3) },
    "Asks port (default 80) of host (default 0, this host) for /page by HTTP/1.0 without TLS and prints the body of the answer, \
without the carriage return before a newline."
);

fn mconnect(invocation: &Invocation) -> Exit {
    run(invocation, |words| {
        let socket = dial(invocation, words, &word(words, 1).unwrap_or_else(|| "25".into()))?;
        let out = socket.try_clone().map_err(|e| e.to_string())?;
        talk(socket, out)
    })
}

fn mconnect_io(invocation: &Invocation) -> Exit {
    run(invocation, |_| {
        let taken = |number| {
            unix::fd::inherited(number)
                .ok_or_else(|| format!("descriptor {number} is not open: run it by tcpclient"))
        };
        let input = taken(6)?;
        talk(input, taken(7)?)
    })
}

fn tcpcat(invocation: &Invocation) -> Exit {
    run(invocation, |words| {
        let socket = dial(invocation, words, &word(words, 1).unwrap_or_else(|| "17".into()))?;
        print(socket, plain())
    })
}

fn who(invocation: &Invocation) -> Exit {
    run(invocation, |words| print(dial(invocation, words, "11")?, visible()))
}

fn date(invocation: &Invocation) -> Exit {
    run(invocation, |words| print(dial(invocation, words, "13")?, visible()))
}

fn finger(invocation: &Invocation) -> Exit {
    run(invocation, |words| {
        let socket = dial(invocation, words, "79")?;
        ask(&socket, &format!("{}\n", word(words, 1).unwrap_or_default()))?;
        print(socket, visible())
    })
}

fn http(invocation: &Invocation) -> Exit {
    run(invocation, |words| {
        let host = word(words, 0).unwrap_or_else(|| "0".into());
        let port = word(words, 2).unwrap_or_else(|| "80".into());
        let socket = dial(invocation, words, &port)?;
        let page = word(words, 1).unwrap_or_default();
        ask(&socket, &format!("GET /{page} HTTP/1.0\nHost: {host}:{port}\n\n"))?;
        let (mut remove, mut body, mut text) = (Remove::default(), Body::default(), Vec::new());
        let convert = move |bytes: Option<&[u8]>, out: &mut Vec<u8>| {
            text.clear();
            match bytes {
                Some(bytes) => remove.convert(bytes, &mut text),
                None => remove.finish(&mut text),
            }
            body.convert(&text, out);
        };
        print(socket, Box::new(convert))
    })
}

fn run(invocation: &Invocation, body: impl FnOnce(&[String]) -> Result<(), String>) -> Exit {
    let operands = match invocation.parse_all() {
        Ok(parsed) => parsed.operands,
        Err(exit) => return exit,
    };
    let words: Vec<String> = operands.iter().map(|o| o.to_string_lossy().into_owned()).collect();
    match body(&words) {
        Ok(()) => Exit::OK,
        Err(e) => {
            invocation.complain("fatal", e);
            Exit::TEMPORARY
        }
    }
}

fn word(words: &[String], index: usize) -> Option<String> {
    words.get(index).cloned()
}

/// Connects to this port of the host in the first operand.
fn dial(invocation: &Invocation, words: &[String], port: &str) -> Result<OwnedFd, String> {
    let host = word(words, 0).unwrap_or_else(|| "0".into());
    let target = if host.starts_with('/') {
        Target::Unix(host.into())
    } else {
        Target::Tcp { host, port: port.to_owned() }
    };
    connect(&target, &How::default(), |address, e| {
        invocation.complain("warning", format_args!("unable to connect to {address}: {}", chain::phrase(e)));
    })
}

/// Sends a request, its newlines with CR.
fn ask(socket: &OwnedFd, request: &str) -> Result<(), String> {
    use std::io::Write;
    let mut bytes = Vec::new();
    crlf::add(request.as_bytes(), &mut bytes);
    unix::fd::Raw(socket.as_fd()).write_all(&bytes).map_err(|e| format!("unable to send: {e}"))
}

/// Prints what comes.
fn print(socket: OwnedFd, convert: Convert<'_>) -> Result<(), String> {
    let stdout = io::stdout().as_fd().try_clone_to_owned().map_err(|e| e.to_string())?;
    relay(vec![Direction::new(socket, stdout, convert)], Until::All)
}

/// Sends the input with CRs, prints what comes.
fn talk(input: OwnedFd, output: OwnedFd) -> Result<(), String> {
    let standard = || {
        Ok::<_, io::Error>((
            io::stdin().as_fd().try_clone_to_owned()?,
            io::stdout().as_fd().try_clone_to_owned()?,
        ))
    };
    let (stdin, stdout) = standard().map_err(|e| e.to_string())?;
    let adding: Convert<'_> = Box::new(|bytes, out| crlf::add(bytes.unwrap_or_default(), out));
    relay(vec![Direction::new(stdin, output, adding), Direction::new(input, stdout, plain())], Until::One(1))
}

fn relay(directions: Vec<Direction<'_>>, until: Until) -> Result<(), String> {
    relay::run(directions, until, None).map_err(|e| format!("unable to copy: {}", chain::phrase(&e)))
}

/// Lines of text for a terminal.
fn visible() -> Convert<'static> {
    let (mut remove, mut text) = (Remove::default(), Vec::new());
    Box::new(move |bytes, out| {
        text.clear();
        match bytes {
            Some(bytes) => remove.convert(bytes, &mut text),
            None => remove.finish(&mut text),
        }
        make_visible(&text, out);
    })
}

/// What follows the first empty line.
#[derive(Debug)]
struct Body {
    begun: bool,
    at_line_start: bool,
}

impl Default for Body {
    fn default() -> Self {
        Self { begun: false, at_line_start: true }
    }
}

impl Body {
    fn convert(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for (at, &byte) in bytes.iter().enumerate() {
            if self.begun {
                out.extend_from_slice(&bytes[at..]);
                return;
            }
            self.begun = self.at_line_start && byte == b'\n';
            self.at_line_start = byte == b'\n';
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_body_follows_the_first_empty_line(text in "[a\n]{0,20}", cut in 0usize..20) {
            let (head, tail) = text.as_bytes().split_at(cut.min(text.len()));
            let (mut body, mut out) = (Body::default(), Vec::new());
            body.convert(head, &mut out);
            body.convert(tail, &mut out);
            let want = match text.strip_prefix('\n') {
                Some(rest) => rest,
                None => text.split_once("\n\n").map_or("", |(_, rest)| rest),
            };
            prop_assert_eq!(out, want.as_bytes());
        }
    }
}
