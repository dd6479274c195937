//! supervise: keeps one service running, takes commands, publishes its state.
//!
//! ```text
//! signalfd, control FIFO, pidfd, timer ──► driver ──Event──► machine
//!                                            ▲                 │
//!        run, scripts, signals, status  ◄────┴────Action───────┘
//! ```

mod driver;
pub mod machine;
pub mod state_dir;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use program::{Exit, ExitCodeDoc, Invocation, Loader, Operands, Place, Program, Spec, Variable};
use unix::Signal;

/// The table of supervise.
pub static SPEC: Spec = Spec {
    name: "supervise",
    summary: "start a service, keep it running, and control it",
    section: 8,
    place: Place::Sbin,
    operands: Operands { synopsis: "dir [parent]", min: 1, max: Some(2) },
    variables: &[
        Variable { name: "VERBOSE", help: "If set, every start, signal and end is reported." },
        Variable { name: "SILENT", help: "If set, warnings are not printed." },
        Variable { name: "SETPGID", help: "If set, the service leads a process group of its own." },
        Variable {
            name: "SHUTDOWN_SIGNAL",
            help: "Name or number of the signal that stops the service (default TERM).",
        },
    ],
    exits: &[
        ExitCodeDoc { code: 0, meaning: "told to exit" },
        ExitCodeDoc { code: 100, meaning: "wrong usage, or another supervise runs in this directory" },
        ExitCodeDoc { code: 111, meaning: "the service directory cannot be used" },
    ],
    description: "\
supervise changes to the service directory dir and runs ./run there, again each time it ends, but no \
more than once a second. With a file named down in the directory it waits for a command first. \
parent names the service that a logger belongs to and only changes messages.

Commands are single bytes written to supervise/control, usually by svc(1); they are obeyed at once at \
any time: u up, d down, o once, r restart, x exit when the service is down, p pause, c continue, h a i \
t k q 1 2 b w send HUP ALRM INT TERM KILL QUIT USR1 USR2 ABRT WINCH, P C K send STOP CONT KILL to the \
process group, G makes the next byte act on the process group, D down and Q once with a down file.

To stop the service, ./shutdown (if it is there) is run with dir and the process id, then the stop \
signal and CONT are sent if the service is still there. After an unexpected end ./alert is run with dir, \
process id, code, and how (exited, stopped/signalled, or unknown). ./init is run once before the first start, again \
after a minute if it fails. Files timeout-shutdown (seconds, default 300) and timeout-alert (seconds, \
default 5) limit the scripts; timeout-kill (milliseconds, default never) is how long after the stop \
signals KILL follows.

A directory named variables adds to the environment of run, as envdir(8) does; when others may not \
search it, run gets nothing but these variables.

TERM and INT are obeyed as the commands d and x together. QUIT ends supervise and leaves the service \
running; a new supervise then takes charge of it again, also after supervise was killed.",
    ..Spec::EMPTY
};

/// supervise.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

/// Everything supervise is told at its start.
#[derive(Debug, Clone)]
pub struct Settings<'a> {
    /// The service directory as named by the caller.
    pub dir: OsString,
    /// What messages begin with.
    pub label: String,
    /// Report every step?
    pub verbose: bool,
    /// No warnings?
    pub silent: bool,
    /// A process group for the service?
    pub process_group: bool,
    /// What stops the service.
    pub stop_signal: Signal,
    /// The environment for the service.
    pub environment: &'a program::Environment,
}

fn main(invocation: &Invocation) -> Exit {
    let settings = match load(invocation) {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    driver::run(&settings)
}

fn load(invocation: &Invocation) -> Result<Settings<'_>, Exit> {
    let parsed = invocation.parse()?;
    let env = &invocation.environment;
    let mut loader = Loader::new(env);
    let dir = parsed.operands[0].clone();
    if matches!(dir.as_bytes().first(), None | Some(b'/' | b'.')) {
        loader.problem(format!(
            "{}: the service directory must be named from where supervise is started, without / or . in front",
            dir.as_bytes().escape_ascii()
        ));
    }
    let name = dir.to_string_lossy();
    let label = match parsed.operands.get(1) {
        Some(parent) => format!("{}/{name}", parent.to_string_lossy()),
        None => name.into_owned(),
    };
    loader.show("dir", &label, "operand");
    let mut flag = |name: &str, variable: &str| {
        let set = env.is_set(variable);
        loader.show(name, set, if set { format!("variable {variable}") } else { "default".into() });
        set
    };
    let verbose = flag("verbose", "VERBOSE");
    let silent = flag("silent", "SILENT");
    let process_group = flag("process_group", "SETPGID");
    let stop_signal = stop_signal(env.bytes("SHUTDOWN_SIGNAL"));
    if stop_signal.is_none() && !silent {
        invocation.complain("warning", "variable SHUTDOWN_SIGNAL: no such signal: using TERM");
    }
    let stop_signal = stop_signal.unwrap_or(Signal::SIGTERM);
    loader.show("stop_signal", stop_signal, "variable SHUTDOWN_SIGNAL");
    let settings = Settings { dir, label, verbose, silent, process_group, stop_signal, environment: env };
    invocation.finish(loader, settings, Exit::PERMANENT)
}

/// A number, or a name with or without `SIG`; unset is TERM, `None` is nonsense.
fn stop_signal(value: Option<&[u8]>) -> Option<Signal> {
    let Some(value) = value.filter(|v| !v.is_empty()) else { return Some(Signal::SIGTERM) };
    let text = std::str::from_utf8(value).ok()?;
    if let Ok(number) = text.parse::<i32>() {
        return Signal::try_from(number).ok();
    }
    let upper = text.to_uppercase();
    format!("SIG{}", upper.trim_start_matches("SIG")).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_signals_by_name_and_number() {
        assert_eq!(stop_signal(None), Some(Signal::SIGTERM));
        assert_eq!(stop_signal(Some(b"")), Some(Signal::SIGTERM));
        assert_eq!(stop_signal(Some(b"2")), Some(Signal::SIGINT));
        assert_eq!(stop_signal(Some(b"quit")), Some(Signal::SIGQUIT));
        assert_eq!(stop_signal(Some(b"SIGQUIT")), Some(Signal::SIGQUIT));
        assert_eq!(stop_signal(Some(b"999")), None);
        assert_eq!(stop_signal(Some(b"x\xff")), None);
    }
}
