//! svc: commands for services.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use program::{Exit, ExitCodeDoc, Invocation, Operands, OptionSpec, Parsed, Place, Program, Spec};
use tai::Label;
use unix::clock::Deadline;
use unix::wait::Interest;

use crate::svok::{is_supervised, status};
use crate::{chain, fifo};

/// The table of svc.
pub static SPEC: Spec = Spec {
    name: "svc",
    summary: "control services",
    section: 8,
    place: Place::Bin,
    options: &[
        OptionSpec::flag('u', "up: start it, and again whenever it ends"),
        OptionSpec::flag('d', "down: stop it and do not start it again"),
        OptionSpec::flag('o', "once: start it and do not start it again when it ends"),
        OptionSpec::flag('r', "restart: stop it and start it again"),
        OptionSpec::flag('x', "exit: supervise ends as soon as the service is down"),
        OptionSpec::flag('p', "pause: send STOP"),
        OptionSpec::flag('c', "continue: send CONT"),
        OptionSpec::flag('h', "send HUP"),
        OptionSpec::flag('a', "send ALRM"),
        OptionSpec::flag('i', "send INT"),
        OptionSpec::flag('t', "send TERM"),
        OptionSpec::flag('k', "send KILL"),
        OptionSpec::flag('q', "send QUIT"),
        OptionSpec::flag('b', "send ABRT"),
        OptionSpec::flag('1', "send USR1"),
        OptionSpec::flag('2', "send USR2"),
        OptionSpec::flag('U', "send USR1"),
        OptionSpec::flag('P', "send STOP to the process group"),
        OptionSpec::flag('C', "send CONT to the process group"),
        OptionSpec::flag('K', "send KILL to the process group"),
        OptionSpec::flag('D', "down, and create the file down"),
        OptionSpec::flag('Q', "once, and create the file down"),
        OptionSpec::flag('G', "signals of this command go to the process group"),
        OptionSpec::flag('w', "wait until each service is up"),
        OptionSpec::flag('W', "wait until each service is down; with -x, until supervise is gone"),
        OptionSpec::value('T', "seconds", "give up waiting after this long"),
    ],
    operands: Operands { synopsis: "service ...", min: 1, max: None },
    exits: &[
        ExitCodeDoc { code: 0, meaning: "all commands were sent, and all waits came true" },
        ExitCodeDoc { code: 1, meaning: "a service directory or its control cannot be used" },
        ExitCodeDoc { code: 2, meaning: "supervise is not running in a service directory" },
        ExitCodeDoc { code: 3, meaning: "a wait took too long" },
        ExitCodeDoc { code: 100, meaning: "wrong usage" },
    ],
    description: "\
Sends the commands, in the order of the options, to the supervise(8) of each service directory. The first \
service that fails gives the exit code; the others are tried all the same.",
    ..Spec::EMPTY
};

/// svc.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

const FAILED: Exit = Exit(1);
const NOT_RUNNING: Exit = Exit(2);
const TIMED_OUT: Exit = Exit(3);

/// How often a wait looks even though nothing was announced.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Up,
    Down,
    Gone,
}

#[derive(Debug)]
struct Settings {
    commands: Vec<u8>,
    goal: Option<Goal>,
    restart: bool,
    patience: Option<Duration>,
}

/// The bytes for supervise: options in order, each once, with `G` before each that sends a signal.
fn commands(parsed: &Parsed) -> Vec<u8> {
    let group = parsed.flag("G");
    let mut out = Vec::new();
    for (option, _) in parsed.in_order() {
        let byte = option.as_bytes()[0];
        if b"wWTG".contains(&byte) || out.contains(&byte) {
            continue;
        }
        if group && b"drphcaitkqb12UD".contains(&byte) {
            out.push(b'G');
        }
        out.push(byte);
    }
    out
}

fn load(invocation: &Invocation) -> Result<(Settings, Parsed), Exit> {
    let parsed = invocation.parse_all()?;
    let commands = commands(&parsed);
    let patience = match parsed.value("T") {
        None => None,
        Some(text) => match text.to_str().and_then(|t| t.parse().ok()) {
            Some(seconds) => Some(Duration::from_secs(seconds)),
            None => {
                invocation.complain("fatal", format_args!("option -T: {}: expected seconds", text.display()));
                return Err(Exit::PERMANENT);
            }
        },
    };
    let goal = match (parsed.flag("w"), parsed.flag("W")) {
        (true, _) => Some(Goal::Up),
        (_, true) if commands.contains(&b'x') => Some(Goal::Gone),
        (_, true) => Some(Goal::Down),
        _ => None,
    };
    let restart = commands.contains(&b'r');
    Ok((Settings { commands, goal, restart, patience }, parsed))
}

fn main(invocation: &Invocation) -> Exit {
    let (settings, parsed) = match load(invocation) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let deadline = settings.patience.map(Deadline::after);
    let mut exit = Exit::OK;
    let mut note = |code: Exit| {
        if exit == Exit::OK {
            exit = code;
        }
    };
    let mut sent = Vec::new();
    for service in parsed.operands.iter().map(Path::new) {
        let before = status(service).ok().map(|r| r.since);
        match send(service, &settings.commands) {
            Ok(true) => sent.push((service, before)),
            Ok(false) => {
                invocation.complain(
                    "warning",
                    format_args!("unable to control {}: supervise not running", service.display()),
                );
                note(NOT_RUNNING);
            }
            Err(e) => {
                let why = chain::phrase(&e);
                invocation
                    .complain("warning", format_args!("unable to control {}: {why}", service.display()));
                note(FAILED);
            }
        }
    }
    if let Some(goal) = settings.goal {
        for (service, before) in sent {
            let newer_than = before.filter(|_| settings.restart && goal == Goal::Up);
            note(wait(service, goal, newer_than, deadline));
        }
    }
    exit
}

/// `Ok(false)`: supervise is not running.
fn send(service: &Path, commands: &[u8]) -> io::Result<bool> {
    std::fs::metadata(service)?;
    match fifo::writer(&service.join("supervise/control"))? {
        // One write of less than PIPE_BUF: commands of two clients never mix.
        Some(mut control) => control.write_all(commands).map(|()| true),
        None => Ok(false),
    }
}

fn wait(service: &Path, goal: Goal, newer_than: Option<Label>, deadline: Option<Deadline>) -> Exit {
    let word = match goal {
        Goal::Up => "up",
        Goal::Down => "down",
        Goal::Gone => "gone",
    };
    let mut err = io::stderr();
    // What is said here is for a person; nobody to read it is no reason to fail.
    let _ = write!(err, "waiting for {} to be {word} ... ", service.display());
    let (exit, outcome) = match reached(service, goal, newer_than, deadline) {
        Ok(true) => (Exit::OK, "ok".to_owned()),
        Ok(false) => (TIMED_OUT, "timed out".to_owned()),
        Err(e) => (FAILED, format!("failed: {}", chain::phrase(&e))),
    };
    let _ = writeln!(err, "{outcome}");
    exit
}

fn reached(
    service: &Path,
    goal: Goal,
    newer_than: Option<Label>,
    deadline: Option<Deadline>,
) -> io::Result<bool> {
    let watch = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    let changes = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CLOSE;
    watch.add_watch(&service.join("supervise"), changes)?;
    loop {
        let running = is_supervised(service)?;
        let there = match goal {
            Goal::Gone => !running,
            Goal::Down => status(service)?.pid.is_none(),
            Goal::Up => {
                let now = status(service)?;
                now.pid.is_some() && newer_than.is_none_or(|before| now.since > before)
            }
        };
        if there {
            return Ok(true);
        }
        if goal != Goal::Gone && !running {
            return Err(io::Error::other("supervise not running"));
        }
        if deadline.is_some_and(Deadline::passed) {
            return Ok(false);
        }
        let look = Deadline::after(LOOK_AGAIN);
        let until = deadline.map_or(look, |d| d.min(look));
        if unix::wait::one(watch.as_fd(), Interest::Read, until)? {
            let _ = watch.read_events();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(args: &[&str]) -> String {
        let args: Vec<_> = args.iter().map(Into::into).collect();
        String::from_utf8(commands(&Parsed::read(&SPEC, &args).unwrap())).unwrap()
    }

    #[test]
    fn letters_in_order_once_and_only_those_for_supervise() {
        assert_eq!(bytes(&["-dx", "-d", "s"]), "dx");
        assert_eq!(bytes(&["-uwT", "5", "s"]), "u");
        assert_eq!(bytes(&["-W", "-T5", "s"]), "");
    }

    #[test]
    fn the_group_letter_stands_before_each_signal() {
        assert_eq!(bytes(&["-dG", "s"]), "Gd");
        assert_eq!(bytes(&["-Gtux", "s"]), "Gtux");
        assert_eq!(bytes(&["-pcG", "s"]), "GpGc");
    }
}
