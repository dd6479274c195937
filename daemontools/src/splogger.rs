//! splogger: lines to syslog.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use program::{Exit, ExitCodeDoc, Invocation, Operands, Place, Program, Spec};
use unix::buffered::Input;

/// The table of splogger.
pub static SPEC: Spec = Spec {
    name: "splogger",
    summary: "send lines to syslog",
    section: 8,
    place: Place::Bin,
    operands: Operands { synopsis: "[tag [facility]]", min: 0, max: Some(2) },
    exits: &[
        ExitCodeDoc { code: 0, meaning: "end of input" },
        ExitCodeDoc { code: 100, meaning: "wrong usage" },
        ExitCodeDoc { code: 111, meaning: "the input cannot be read" },
    ],
    description: "\
Sends each line of its input to syslog, with seconds since 1970 in front. A line that begins with alert: has the priority alert, one with \
warning: or warn: the priority warning, all others info. tag stands in front of each message (default: splogger); \
facility is a number (default 2, mail). Bytes that cannot be printed become ?, empty lines are dropped, and lines of more than 800 \
bytes are folded: the parts after the first have a + behind the time.",
    ..Spec::EMPTY
};

/// splogger.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

/// Bytes of one message.
const FOLD: usize = 800;
/// Where the syslog daemon of this host listens.
const LOG_SOCKET: &str = "/dev/log";
/// The facility for mail.
const MAIL: u8 = 2;
/// The largest facility of syslog.
const MAX_FACILITY: u8 = 23;

/// The severity that the beginning of a line stands for.
fn severity(line: &[u8]) -> u8 {
    const ALERT: u8 = 1;
    const WARNING: u8 = 4;
    const INFORMATIONAL: u8 = 6;
    if line.starts_with(b"alert:") {
        ALERT
    } else if line.starts_with(b"warning:") || line.starts_with(b"warn:") {
        WARNING
    } else {
        INFORMATIONAL
    }
}

/// The messages for one line without its newline, seen at `now`.
pub fn messages(line: &[u8], tag: &str, facility: u8, now: Duration) -> impl Iterator<Item = String> {
    let priority = facility * 8 + severity(line);
    line.chunks(FOLD).enumerate().map(move |(part, bytes)| {
        let text: String =
            bytes.iter().map(|&b| if (32..=126).contains(&b) { char::from(b) } else { '?' }).collect();
        let mark = if part == 0 { ' ' } else { '+' };
        format!("<{priority}>{tag}: {}.{:06}{mark}{text}", now.as_secs(), now.subsec_micros())
    })
}

fn main(invocation: &Invocation) -> Exit {
    let operands = match invocation.parse_all() {
        Ok(parsed) => parsed.operands,
        Err(exit) => return exit,
    };
    let tag = operands
        .first()
        .map_or("splogger".into(), |tag| tag.to_string_lossy().replace(|c: char| c.is_control(), "?"));
    let facility = match operands.get(1).map(|f| f.to_str().and_then(|f| f.parse().ok())) {
        None => MAIL,
        Some(Some(number)) if number <= MAX_FACILITY => number,
        Some(_) => {
            invocation
                .complain("fatal", format_args!("facility: expected a number from 0 to {MAX_FACILITY}"));
            return Exit::PERMANENT;
        }
    };
    let mut log = Log::default();
    let (mut input, mut line) = (Input::stdin(), Vec::new());
    loop {
        line.clear();
        match input.line(&mut [], &mut line) {
            Ok(false) => return Exit::OK,
            Ok(true) => {}
            Err(e) => {
                invocation.complain("fatal", format_args!("unable to read input: {e}"));
                return Exit::TEMPORARY;
            }
        }
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        for message in messages(line, &tag, facility, unix::clock::since_epoch()) {
            match log.send(&message) {
                Err(e) if !log.complained => {
                    log.complained = true;
                    invocation.complain(
                        "warning",
                        format_args!("unable to write to {LOG_SOCKET}: {e}: messages are dropped"),
                    );
                }
                Err(_) => {}
                Ok(()) => log.complained = false,
            }
        }
    }
}

/// The way to the daemon, which may be restarted.
#[derive(Debug, Default)]
struct Log {
    socket: Option<UnixDatagram>,
    complained: bool,
}

impl Log {
    fn send(&mut self, message: &str) -> io::Result<()> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => UnixDatagram::unbound()?,
        };
        // By name each time: a daemon that comes back has a new socket there.
        let sent = socket.send_to(message.as_bytes(), LOG_SOCKET).map(|_| ());
        self.socket = Some(socket);
        sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(line: &[u8]) -> Vec<String> {
        messages(line, "qmail", MAIL, Duration::new(5, 6000)).collect()
    }

    #[test]
    fn lines_have_a_time_and_a_priority() {
        assert_eq!(all(b"new msg 5"), ["<22>qmail: 5.000006 new msg 5"]);
        assert_eq!(all(b"alert: x\x01\xff"), ["<17>qmail: 5.000006 alert: x??"]);
        assert_eq!(all(b"warning: x"), ["<20>qmail: 5.000006 warning: x"]);
        assert_eq!(all(b"warn: x"), ["<20>qmail: 5.000006 warn: x"]);
        assert!(all(b"").is_empty());
    }

    #[test]
    fn long_lines_are_folded() {
        let line = [b"alert:".as_slice(), &[b'x'; 1000]].concat();
        let parts = all(&line);
        assert_eq!(parts.len(), 2);
        assert!(parts[0].starts_with("<17>qmail: 5.000006 alert:x"));
        assert_eq!(parts[1], format!("<17>qmail: 5.000006+{}", "x".repeat(206)));
    }
}
