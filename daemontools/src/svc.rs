//! svc: commands for services.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use program::{Exit, ExitCodeDoc, Invocation, Operands, OptionSpec, Parsed, Place, Program, Spec};
use tai::Label;
use unix::clock::Deadline;
use unix::wait::Interest;

use crate::state_path::{DISABLE_RUN, Places, SUPERVISEDIR};
use crate::{chain, client, fifo};

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
        OptionSpec::flag('w', "wait until each service is up, and ready if it says when it is"),
        OptionSpec::flag('W', "wait until each service is down; with -x, until supervise is gone"),
        OptionSpec::value('T', "seconds", "give up waiting after this long, for all of them together"),
    ],
    operands: Operands { synopsis: "service ...", min: 1, max: None },
    variables: &[DISABLE_RUN, SUPERVISEDIR],
    exits: &[
        ExitCodeDoc { code: 0, meaning: "all commands were sent, and all waits came true" },
        ExitCodeDoc { code: 1, meaning: "a service directory or its control cannot be used" },
        ExitCodeDoc { code: 2, meaning: "supervise is not running in a service directory" },
        ExitCodeDoc { code: 3, meaning: "a wait took too long" },
        ExitCodeDoc { code: 100, meaning: "wrong usage" },
    ],
    description: "\
Sends the commands, in the order of the options, to the supervise(8) of each service directory. The first \
service that fails gives the exit code; the others are tried all the same. With -w or -W all are waited for \
at the same time.",
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
    places: Places,
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
    let places = Places::new(&invocation.environment);
    Ok((Settings { places, commands, goal, restart, patience }, parsed))
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
        let state = settings.places.of_client(service);
        let before = client::record(&state).ok().map(|r| r.since);
        match send(service, &state, &settings.commands) {
            Ok(true) => {
                let newer_than = before.filter(|_| settings.restart && settings.goal == Some(Goal::Up));
                sent.push(Awaited { service, state, newer_than });
            }
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
        note(wait_for_all(sent, goal, deadline));
    }
    exit
}

/// `Ok(false)`: supervise is not running.
fn send(service: &Path, state: &Path, commands: &[u8]) -> io::Result<bool> {
    std::fs::metadata(service)?;
    match fifo::writer(&state.join("control"))? {
        // One write of less than PIPE_BUF: commands of two clients never mix.
        Some(mut control) => control.write_all(commands).map(|()| true),
        None => Ok(false),
    }
}

/// A service that is waited for.
struct Awaited<'a> {
    service: &'a Path,
    state: PathBuf,
    /// Its state must have begun after this.
    newer_than: Option<Label>,
}

/// Waits for all of them at the same time; the first that fails, in the order in which that was found
/// out, gives the code.
fn wait_for_all(mut awaited: Vec<Awaited<'_>>, goal: Goal, deadline: Option<Deadline>) -> Exit {
    let alone = awaited.len() == 1;
    if let [only] = awaited.as_slice() {
        say(&waiting_for(only.service, goal));
    }
    let watch = watch(&awaited);
    let mut exit = Exit::OK;
    loop {
        let late = deadline.is_some_and(Deadline::passed);
        awaited.retain(|a| {
            let (code, outcome) = match reached(&a.state, goal, a.newer_than) {
                Ok(true) => (Exit::OK, "ok".to_owned()),
                Ok(false) if !late => return true,
                Ok(false) => (TIMED_OUT, "timed out".to_owned()),
                Err(e) => (FAILED, format!("failed: {}", chain::phrase(&e))),
            };
            let begin = if alone { String::new() } else { waiting_for(a.service, goal) };
            say(&format!("{begin}{outcome}\n"));
            if exit == Exit::OK {
                exit = code;
            }
            false
        });
        if awaited.is_empty() {
            return exit;
        }
        let look = Deadline::after(LOOK_AGAIN);
        let until = deadline.map_or(look, |d| d.min(look));
        match &watch {
            Some(watch) if matches!(unix::wait::one(watch.as_fd(), Interest::Read, until), Ok(true)) => {
                let _ = watch.read_events();
            }
            Some(_) => {}
            None => unix::wait::pause(until.left()),
        }
    }
}

fn waiting_for(service: &Path, goal: Goal) -> String {
    let word = match goal {
        Goal::Up => "up",
        Goal::Down => "down",
        Goal::Gone => "gone",
    };
    format!("waiting for {} to be {word} ... ", service.display())
}

/// For a person; nobody to read it is no reason to fail.
fn say(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Hears of changes at once; without it, looking again and again will do.
fn watch(awaited: &[Awaited<'_>]) -> Option<Inotify> {
    let watch = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok()?;
    let changes = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CLOSE;
    for a in awaited {
        let _ = watch.add_watch(&a.state, changes);
    }
    Some(watch)
}

fn reached(state: &Path, goal: Goal, newer_than: Option<Label>) -> io::Result<bool> {
    let running = client::is_running(state)?;
    if goal == Goal::Gone {
        return Ok(!running);
    }
    if !running {
        return Err(io::Error::other("supervise not running"));
    }
    let now = client::record(state)?;
    Ok(match goal {
        Goal::Up => now.is_ready() && newer_than.is_none_or(|before| now.since > before),
        Goal::Down | Goal::Gone => now.pid.is_none(),
    })
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
