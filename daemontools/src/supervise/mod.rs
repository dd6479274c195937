//! supervise: keeps one service running, takes commands, publishes its state.
//!
//! ```text
//! signalfd, control FIFO, pidfd, timer ──► driver ──Event──► machine
//!                                            ▲                 │
//!        run, scripts, signals, status  ◄────┴────Action───────┘
//! ```

pub mod dependency;
mod driver;
pub mod machine;
pub mod notice;
pub mod policy;
mod relocation;
pub mod state_dir;
pub mod tally;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use program::{Exit, ExitCodeDoc, Invocation, Loader, Operands, Place, Program, Spec, Variable};
use unix::Signal;

use crate::state_path::{DISABLE_RUN, Places, SUPERVISEDIR};

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
        DISABLE_RUN,
        SUPERVISEDIR,
        Variable {
            name: "SV_PWD",
            help: "Name of the service that a logger belongs to (default: the directory supervise is started in).",
        },
        Variable {
            name: "UPFIFO",
            help: "Name of the FIFO in the state directories of others that is open while they are up (default up).",
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
process id, code, and how (exited, stopped/signalled, or unknown). ./init is run once before the first \
start, again after a minute if it fails. Files timeout-shutdown (seconds, default 300) and timeout-alert \
(seconds, default 5) limit the scripts; timeout-kill (milliseconds, default never) is how long after the \
stop signals KILL follows.

The file wait names services that must be up before this one is started: seconds on the first line, one \
service on each of the next (beside this one, or an absolute path). The seconds are what a service that has \
only just come up is given. The file backoff (min max factor, default 1000 1000 1) says how many \
milliseconds lie between two starts at least: min, after each unexpected end times factor, up to max, until \
the service has run for max. With a file permafail, a run that exits 100 is not started again.

Up is also ready, unless the service says when it is: on the descriptor whose number is in the file \
notification-fd by a newline, or with a file notify-socket by READY=1 to the socket that NOTIFY_SOCKET \
names, which also takes STATUS=, STOPPING=1, WATCHDOG=1 and MAINPID=. With a file watchdog \
(milliseconds) a service that does not send WATCHDOG=1 so often gets ABRT, then KILL after timeout-kill \
(default 10000), and is started again.

When run has the sticky bit, orphans of the service are part of it: it is up until the last one has ended, \
and signals go to all of them. The file lock-fd names a descriptor on which the service inherits a lock; as \
long as anything holds it no other instance is started.

A directory named variables adds to the environment of run, as envdir(8) does; when others may not \
search it, run gets nothing but these variables.

The last deaths (number in max-death-tally, default 100) are kept for svstat(8).

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
    /// Where state is kept.
    pub places: Places,
    /// The service that a logger belongs to.
    pub parent: Option<OsString>,
    /// The FIFO of others that is open while they are up.
    pub up_fifo: OsString,
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
    loader.show("dir", &label, parsed.operand_source(0));
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
    let source = loader.source(&["SHUTDOWN_SIGNAL"], &[]);
    loader.show("stop_signal", stop_signal, source);
    let places = Places::new(env);
    let run = places.run().map_or("not used".into(), |run| run.display().to_string());
    let source = loader.source(&["DISABLE_RUN"], &[]);
    loader.show("run", run, source);
    let given = |name: &str| env.get(name).filter(|v| !v.is_empty()).map(ToOwned::to_owned);
    let parent = given("SV_PWD");
    let up_fifo = given("UPFIFO").unwrap_or_else(|| "up".into());
    let source = loader.source(&["UPFIFO"], &[]);
    loader.show("up_fifo", up_fifo.to_string_lossy(), source);
    let settings = Settings {
        dir,
        label,
        verbose,
        silent,
        process_group,
        stop_signal,
        places,
        parent,
        up_fifo,
        environment: env,
    };
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
