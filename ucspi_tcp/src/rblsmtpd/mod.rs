//! rblsmtpd: refuse mail from clients that are in lists of the DNS.
//!
//! ```text
//! RBLSMTPD, or the lists in turn ──► verdict ──► unlisted: become the program
//!                                       └──► refused: a conversation that takes no mail
//! ```
//!
//! [`verdict`] and [`session`] are pure.

pub mod session;
pub mod settings;
pub mod verdict;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use dns::{Records, System, Unavailable};
use program::{Exit, ExitCodeDoc, Invocation, Operands, OptionSpec, Place, Program, Spec, Variable, chain};
use unix::Errno;
use unix::clock::Deadline;
use unix::fd::Raw;
use unix::wait::{self, Interest};

use session::{Session, Words};
use settings::Settings;
use verdict::Verdict;

/// The longest a client that is told something in a single reply is waited for.
const LAST_WORD: Duration = Duration::from_secs(10);

/// The table of rblsmtpd.
pub static SPEC: Spec = Spec {
    name: "rblsmtpd",
    summary: "refuse mail from clients that are in lists of the DNS",
    section: 1,
    place: Place::Bin,
    options: &[
        OptionSpec::value('r', "zone[:text]", "refuse clients that have a text in zone, with that text; with text: that have an address there, with this text"),
        OptionSpec::value('a', "zone", "let clients in that have an address in zone, without asking the lists that follow"),
        OptionSpec::flag('b', "refuse with 553, so that mail bounces"),
        OptionSpec::flag('B', "refuse with 451, so that it is tried again (the default)"),
        OptionSpec::flag('c', "for the -r that follow: refuse with 451 when the list cannot be asked"),
        OptionSpec::flag('C', "for the -r that follow: a list that cannot be asked has nobody (the default)"),
        OptionSpec::value('t', "seconds", "how long a client that is refused may talk; 0: one reply, then close (default 60)"),
        OptionSpec::value('w', "seconds", "let each client wait so long, from its connection on, before anything is said (default 0)"),
        OptionSpec::flag('W', "with -w: refuse clients that talk before that, with 554"),
    ],
    operands: Operands { synopsis: "program [arg ...]", min: 1, max: None },
    variables: &[
        Variable { name: "RBLSMTPD", help: "When set, no list is asked. Empty: the client is let in. Starting with -: it is refused with 553 and the rest of the text. Other text: it is refused with 451 and the text." },
        Variable { name: "TCPREMOTEIP", help: "The client's address, set by tcpserver(1). Without it no list can be asked." },
        Variable { name: "RBLGREETING", help: "Our name in greeting and replies (default rblsmtpd.local)." },
        Variable { name: "RBLEHLO", help: "When set, EHLO is answered with capabilities." },
        Variable { name: "DNSCACHEIP", help: "Name servers to ask instead of those in /etc/resolv.conf: addresses, with a port if it is not 53." },
    ],
    exits: &[
        ExitCodeDoc { code: 0, meaning: "the client was refused" },
        ExitCodeDoc { code: 100, meaning: "wrong usage" },
        ExitCodeDoc { code: 111, meaning: "the program cannot be run; otherwise its own codes" },
    ],
    description: "\
Run by tcpserver(1) in front of an SMTP server, the program. Asks the lists of the options in their order until one knows the client, then \
lets it in, which is to become the program, or talks to it itself: it takes HELO, MAIL, RSET and NOOP and refuses recipients and everything else.

A list is asked for the client's IPv4 address with its bytes turned around, or for the digits of its IPv6 address turned around, below zone. \
%IP% in a text becomes the address. Texts are cut to 200 bytes, and what is not printable becomes ?. An address counts only if \
it is in 127.0.0.0/8 but not in 127.255.255.0/24, in which lists say that they do not answer whoever asks.

Each connection asks anew; let the name server that is asked keep answers, and respect what the lists say about use. \
Refusals, senders and recipients are written to stderr.",
    ..Spec::EMPTY
};

/// rblsmtpd.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

fn main(invocation: &Invocation) -> Exit {
    match settings::load(invocation) {
        Ok(settings) => run(invocation, &settings),
        Err(exit) => exit,
    }
}

fn run(invocation: &Invocation, settings: &Settings) -> Exit {
    let since = Deadline::after(settings.delay);
    let verdict = match &settings.given {
        Some(value) => verdict::given(value, &settings.shown_ip),
        None => {
            let system = System::of(&settings.servers);
            let records = Resolver(system.as_ref());
            verdict::of(&settings.lists, settings.forever, settings.ip, &records, |why| {
                invocation.complain("warning", format_args!("unable to ask a list: {why}"));
            })
        }
    };
    let log = Log { invocation, ip: &settings.shown_ip };
    if verdict != Verdict::Welcome && !settings.delay.is_zero() && talks_early(settings, since) {
        let text = "554 5.7.1 you talk before you are greeted";
        log.line(text);
        // The client may be gone already; there is nobody else to tell.
        let _ = send(format!("{text}\r\n").as_bytes(), Deadline::after(LAST_WORD));
        return Exit::OK;
    }
    match verdict {
        Verdict::Unlisted | Verdict::Welcome => {
            chain::become_program(invocation, &settings.command, &settings.environment)
        }
        Verdict::Refused { forever, text } => {
            let refusal = format!("{} {text}", if forever { 553 } else { 451 });
            log.line(&refusal);
            // A client that is gone or too slow has been refused all the same.
            let _ = refuse(settings, &log, refusal);
            Exit::OK
        }
    }
}

/// Waits for the end of the delay; did the client say something before, which it may not?
fn talks_early(settings: &Settings, until: Deadline) -> bool {
    let stdin = io::stdin();
    if !settings.early_refused {
        while !until.passed() {
            wait::pause(until.left());
        }
        return false;
    }
    // What cannot be waited for is a matter for the program, and so is a client that went away.
    wait::one(stdin.as_fd(), Interest::Read, until).unwrap_or(false)
        && stdin.as_fd().try_clone_to_owned().is_ok_and(|s| TcpStream::from(s).peek(&mut [0]).ok() != Some(0))
}

fn refuse(settings: &Settings, log: &Log<'_>, refusal: String) -> io::Result<()> {
    if settings.patience.is_zero() {
        return send(format!("{refusal}\r\n").as_bytes(), Deadline::after(LAST_WORD));
    }
    let deadline = Deadline::after(settings.patience);
    let words = Words { name: settings.name.clone(), refusal, extended: settings.extended };
    let mut session = Session::new(words);
    send(session.greeting().as_bytes(), deadline)?;
    let stdin = io::stdin();
    let mut buffer = [0; 1024];
    while wait::one(stdin.as_fd(), Interest::Read, deadline)? {
        let count = Raw(stdin.as_fd()).read(&mut buffer)?;
        if count == 0 {
            break;
        }
        let outcome = session.feed(&buffer[..count]);
        outcome.log.iter().for_each(|line| log.line(line));
        send(&outcome.replies, deadline)?;
        if outcome.over {
            break;
        }
    }
    Ok(())
}

/// Writes to descriptor 1 until the deadline.
fn send(mut bytes: &[u8], deadline: Deadline) -> io::Result<()> {
    let stdout = io::stdout();
    while !bytes.is_empty() {
        if !wait::one(stdout.as_fd(), Interest::Write, deadline)? {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match write_now(stdout.as_fd(), bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// A socket is not waited for longer than it takes; other descriptors get what a pipe takes at once.
fn write_now(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    match unix::socket::send_now(fd, bytes) {
        Err(e) if e.raw_os_error() == Some(Errno::ENOTSOCK as i32) => {
            Raw(fd).write(&bytes[..bytes.len().min(4096)])
        }
        other => other,
    }
}

struct Log<'a> {
    invocation: &'a Invocation,
    ip: &'a str,
}

impl Log<'_> {
    fn line(&self, text: &str) {
        let ip = crate::tcpserver::peers::safe(self.ip);
        let line = format!("{}: {ip} pid {}: {text}\n", self.invocation.spec.name, std::process::id());
        // A log that is gone must not stop the refusal.
        let _ = io::stderr().write_all(line.as_bytes());
    }
}

/// A resolver that could not be made answers nothing.
struct Resolver<'a>(Result<&'a System, &'a Unavailable>);

impl Records for Resolver<'_> {
    fn texts(&self, name: &str) -> Result<Option<Vec<Vec<u8>>>, Unavailable> {
        self.0.map_err(Clone::clone)?.texts(name)
    }

    fn ipv4(&self, name: &str) -> Result<Option<Vec<std::net::Ipv4Addr>>, Unavailable> {
        self.0.map_err(Clone::clone)?.ipv4(name)
    }
}
