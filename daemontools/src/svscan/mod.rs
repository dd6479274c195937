//! svscan: one supervise for every service in a directory, and the pipes to their loggers.

mod driver;
pub mod hooks;
mod launcher;
mod limits;
pub mod machine;
mod own_log;
pub mod pid_file;
mod relocated;
mod scan;
mod voice;

use std::path::PathBuf;
use std::time::Duration;

use program::{
    Environment, Exit, ExitCodeDoc, Invocation, Loader, Operands, OptionSpec, Place, Program, Source, Spec,
    Variable,
};

use hooks::InitCommand;
use machine::Limits;
use nix::unistd::{AccessFlags, access};

use crate::state_path::{DISABLE_RUN, Places, SUPERVISEDIR};

/// The table of svscan.
pub static SPEC: Spec = Spec {
    name: "svscan",
    summary: "start and watch all services of a directory",
    section: 8,
    place: Place::Sbin,
    options: &[
        OptionSpec::flag('v', "report every start and end"),
        OptionSpec::flag('s', "print no warnings"),
        OptionSpec::value('n', "count", "at most this many services (default 1000)"),
    ],
    operands: Operands { synopsis: "[scandir]", min: 0, max: Some(1) },
    variables: &[
        Variable { name: "VERBOSE", help: "If set, as -v; supervise reads it too." },
        Variable { name: "SILENT", help: "If set, as -s; supervise reads it too." },
        Variable::new("AUTOSCAN", "If set, the directory is read again every SCANINTERVAL seconds, whatever happens."),
        Variable::new("SCANINTERVAL", "Seconds (default 60)."),
        Variable::new("SCANNOW", "If set, the directory is read again when a child ends; as process 1 it is in any case."),
        Variable::new(
            "SCANLOG",
            "If set, .svscan/log is started as a logger for what svscan and the services without a logger print.",
        ),
        DISABLE_RUN,
        SUPERVISEDIR,
        Variable::new("SETSID", "If set, svscan leads a session of its own."),
        Variable::new("INITCMD", "If empty, .svscan/run is run once at the start; else this command, by /bin/sh."),
        Variable::new("WAIT_INITCMD", "If set, the first scan waits for the end of INITCMD."),
        Variable::new(
            "TERMINATE_SESSION",
            "If set, all services are stopped when svscan is; as process 1 they are in any case. Else they go on.",
        ),
        Variable::new(
            "KILLWAIT",
            "Seconds from the TERM of the services to their KILL, and for .svscan/shutdown (default 90).",
        ),
        Variable::new(
            "KILLWAIT2",
            "Seconds a logger may take to read to the end when its service is gone, before it gets TERM (default 10; 0: as long as it takes).",
        ),
        Variable { name: "NOTIFY_SOCKET", help: "Where to say that the first scan is done (set by systemd)." },
    ],
    exits: &[
        ExitCodeDoc { code: 0, meaning: "stopped in order, unless .svscan/exitcode holds another number" },
        ExitCodeDoc { code: 100, meaning: "wrong usage" },
        ExitCodeDoc { code: 111, meaning: "the directory cannot be used, or another svscan runs on it" },
    ],
    description: "\
svscan starts supervise(8) for each directory in scandir (default: the current directory) whose name does not start with a dot \
and that has an executable run, and another one for its subdirectory log, if it has one, with a pipe from the output of \
the service to the input of the logger. The pipe is kept as long as svscan runs. A supervise that ends is started \
again, at most once a second.

A new directory is noticed at once. To add a service, build it under a name that starts with a dot and rename it. A file \
named down that appears in a service directory stops the service at the next scan, one that \
disappears starts it.

TERM, INT, PWR and RTMIN+3 end svscan. First .svscan/shutdown is run, if it can be executed. With TERMINATE_SESSION, or as process 1, \
everything is then stopped in order: first the services, then, when a service is gone and its logger has read \
everything, the logger; the number in .svscan/exitcode, if a service has written one, becomes the exit code. Without, \
the services go on, and only svscan and .svscan/log end. QUIT ends svscan and nothing else. \
HUP reads the directory again. USR1 and USR2 switch reports and warnings on and off.

svscan takes in the orphans of its services, as the first process of a system does; with -v it reports their end. \
It raises its own limit of open files as far as -n services need it, not that of the services.

A lock on .svscan.pid, in /run/svscan (or /var/run/svscan) if there is such a directory, it can be written and DISABLE_RUN is not set, else in scandir, keeps a second svscan away. Where the file cannot be \
written, the lock is on scandir.

For each service, supervise gets PPID, SCANDIR, PWD, and MAIN_SV (or SV_PWD for a logger) in its environment, and the \
variables in the directory .svars of the service or logger.",
    ..Spec::EMPTY
};

/// svscan.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

/// Everything svscan is told at its start.
#[derive(Debug)]
pub struct Settings {
    /// The scan directory.
    pub dir: PathBuf,
    /// Report every step?
    pub verbose: bool,
    /// No warnings?
    pub silent: bool,
    /// Limits of number and time.
    pub limits: Limits,
    /// Read the directory again after this long in any case.
    pub interval: Option<Duration>,
    /// Read the directory again when a child ends?
    pub scan_on_child: bool,
    /// Where the state of services is, and the pid file.
    pub places: Places,
    /// Is this the first process of a system or container?
    pub first_process: bool,
    /// Lead a session?
    pub new_session: bool,
    /// What to run first.
    pub init: Option<InitCommand>,
    /// Wait for it?
    pub wait_for_init: bool,
    /// Stop the services when told to stop?
    pub stop_services: bool,
    /// Log through `.svscan/log`?
    pub own_log: bool,
    /// Where to say that it is ready.
    pub notify_socket: Option<PathBuf>,
    /// The environment for supervise.
    pub environment: Environment,
}

fn main(invocation: &Invocation) -> Exit {
    match load(invocation) {
        Ok(settings) => driver::run(&settings),
        Err(exit) => exit,
    }
}

fn load(invocation: &Invocation) -> Result<Settings, Exit> {
    let parsed = invocation.parse()?;
    let env = &invocation.environment;
    let mut loader = Loader::new(env);
    let dir = parsed.operands.first().map_or_else(|| PathBuf::from("."), PathBuf::from);
    loader.show("dir", dir.display(), if parsed.operands.is_empty() { "default" } else { "operand" });
    let mut switch = |name: &str, option: &str, variable: &str| {
        let (by_option, by_variable) = (parsed.flag(option), env.is_set(variable));
        let source = match (by_option, by_variable) {
            (true, _) => format!("option -{option}"),
            (_, true) => format!("variable {variable}"),
            _ => "default".to_owned(),
        };
        loader.show(name, by_option || by_variable, source);
        by_option || by_variable
    };
    let verbose = switch("verbose", "v", "VERBOSE");
    let silent = switch("silent", "s", "SILENT");
    let own_log = switch("own_log", "", "SCANLOG");
    let auto = switch("autoscan", "", "AUTOSCAN");
    let scan_on_child = switch("scan_on_child", "", "SCANNOW");
    let new_session = switch("new_session", "", "SETSID");
    let wait_for_init = switch("wait_for_init", "", "WAIT_INITCMD");
    let stop_services = switch("stop_services", "", "TERMINATE_SESSION");
    let first_process = std::process::id() == 1;
    loader.show("first_process", first_process, "process id");
    let option = |letter| Source { option: parsed.value(letter).map(|v| (letter, v)), ..Source::default() };
    let variable = |name| Source { variable: Some(name), ..Source::default() };
    let slots = loader.number("slots", option("n"), 1000, 1..=1_000_000);
    let mut seconds =
        |name: &str, from, default| Duration::from_secs(loader.number(name, from, default, 0..=86_400));
    let interval = seconds("scaninterval", variable("SCANINTERVAL"), 60);
    let interval = if interval.is_zero() { Duration::from_secs(60) } else { interval };
    let limits = Limits {
        slots: usize::try_from(slots).unwrap_or(usize::MAX),
        kill_services: seconds("killwait", variable("KILLWAIT"), 90),
        stop_loggers: seconds("killwait2", variable("KILLWAIT2"), 10),
    };
    let mut environment = env.clone();
    // supervise reads these two from its environment.
    for (on, name) in [(verbose, "VERBOSE"), (silent, "SILENT")] {
        if on && !env.is_set(name) {
            environment.set(name, "1");
        }
    }
    // The services are not the ones to report readiness.
    environment.remove("NOTIFY_SOCKET");
    let notify_socket = env.get("NOTIFY_SOCKET").filter(|s| !s.is_empty()).map(PathBuf::from);
    let init = env.get("INITCMD").map(InitCommand::from_variable);
    let mut places = Places::new(&environment);
    // That of somebody else's svscan is not for us, nor for our supervises.
    if places.run().is_some_and(|run| access(run, AccessFlags::W_OK).is_err()) {
        environment.set("DISABLE_RUN", "1");
        places = Places::new(&environment);
    }
    let run = places.run().map_or_else(|| "none".to_owned(), |run| run.display().to_string());
    let source = loader.source(&["DISABLE_RUN", "SUPERVISEDIR"], &[]);
    loader.show("run_directory", run, source);
    let settings = Settings {
        dir,
        verbose,
        silent,
        limits,
        interval: auto.then_some(interval),
        scan_on_child: scan_on_child || first_process,
        places,
        first_process,
        new_session,
        init,
        wait_for_init,
        stop_services: stop_services || first_process,
        own_log,
        notify_socket,
        environment,
    };
    invocation.finish(loader, settings, Exit::PERMANENT)
}
