//! svscanboot: what an init starts; it cleans up and becomes svscan.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use program::{
    Control, Environment, Exit, ExitCodeDoc, Invocation, Loader, Operands, Place, Program, Source, Spec,
    Variable,
};
use unix::child::{Ending, Launch};
use unix::signals::Signals;
use unix::wait::Interest;
use unix::{Pid, Signal};

use crate::state_path::Places;
use crate::{chain, envdir, fifo};

/// The table of svscanboot.
pub static SPEC: Spec = Spec {
    name: "svscanboot",
    summary: "start svscan when the system starts",
    section: 8,
    place: Place::Libexec,
    operands: Operands { synopsis: "[scandir ...]", min: 0, max: None },
    variables: &[
        Variable::new("JOURNAL_STREAM", "If this or NOTIFY_SOCKET is set, as systemd does, output and errors stay where they lead to."),
        Variable::new("NOTIFY_SOCKET", "See JOURNAL_STREAM."),
    ],
    controls: &[Control::new("servicedir.conf", "The scan directory, unless one is given (default /service).")],
    exits: &[
        ExitCodeDoc { code: 100, meaning: "wrong usage" },
        ExitCodeDoc { code: 111, meaning: "svscan cannot be started" },
    ],
    description: "\
Tells the supervises that an earlier run has left to stop their services and to exit, then becomes svscan(8) for \
scandir, with the variables in scandir/.svscan/variables as envdir(8) reads them. With a variable SCANLOG there, \
svscan logs through .svscan/log; without, its messages are kept by readproctitle(8) where ps(1) shows \
them. With a variable UNSHARE that is not empty, mounts made by services are not seen outside.

Standard input, output and error lead to /dev/null, the working directory is /, and PATH holds the directories of this \
installation and of the system. For several scan directories, one svscan each is started and waited for; signals \
are handed on; the second and later ones keep their state in the scan directory (DISABLE_RUN).",
    ..Spec::EMPTY
};

/// svscanboot.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

const SERVICES: &str = "/service";
const OWN: &str = ".svscan";
/// What readproctitle can keep.
const DOTS: usize = 400;

struct Settings {
    scan_directories: Vec<PathBuf>,
    keep_output: bool,
    environment: Environment,
}

fn load(invocation: &Invocation) -> Result<Settings, Exit> {
    let parsed = invocation.parse()?;
    let env = &invocation.environment;
    let mut loader = Loader::new(env);
    let scan_directories: Vec<PathBuf> = if parsed.operands.is_empty() {
        let from = Source { control: Some("servicedir.conf"), ..Source::default() };
        vec![loader.path("scandir", from, SERVICES)]
    } else {
        let given: Vec<_> = parsed.operands.iter().map(PathBuf::from).collect();
        given.iter().for_each(|dir| loader.show("scandir", dir.display(), parsed.operand_source(0)));
        given
    };
    let keep_output = env.is_set("JOURNAL_STREAM") || env.is_set("NOTIFY_SOCKET");
    let source = loader.source(&["JOURNAL_STREAM", "NOTIFY_SOCKET"], &[]);
    loader.show("keep_output", keep_output, source);
    let (bin, sbin) = (invocation.layout.bin(""), invocation.layout.sbin(""));
    let directory = |path: &Path| path.display().to_string().trim_end_matches('/').to_owned();
    let path = format!("{}:/bin:/usr/local/bin:{}:/sbin", directory(&bin), directory(&sbin));
    loader.show("path", &path, "this installation");
    let mut environment = env.clone();
    environment.set("PATH", path);
    invocation.finish(loader, Settings { scan_directories, keep_output, environment }, Exit::PERMANENT)
}

fn main(invocation: &Invocation) -> Exit {
    let settings = match load(invocation) {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    let done = match settings.scan_directories.as_slice() {
        [only] => become_svscan(invocation, &settings, only),
        several => run_several(invocation, &settings, several),
    };
    done.unwrap_or_else(|why| {
        invocation.complain("fatal", why);
        Exit::TEMPORARY
    })
}

/// Returns only on failure.
fn become_svscan(
    invocation: &Invocation,
    settings: &Settings,
    scan_directory: &Path,
) -> Result<Exit, String> {
    let in_words = |what: &str| {
        let what = what.to_owned();
        move |e: io::Error| format!("unable to {what}: {}", chain::phrase(&e))
    };
    // Before the working directory changes.
    let scan_directory =
        scan_directory.canonicalize().map_err(in_words(&format!("find {}", scan_directory.display())))?;
    let null =
        OpenOptions::new().read(true).write(true).open("/dev/null").map_err(in_words("open /dev/null"))?;
    std::env::set_current_dir("/").map_err(in_words("change to /"))?;
    let mut environment = settings.environment.clone();
    let variables = scan_directory.join(OWN).join("variables");
    if variables.is_dir() {
        let changes = envdir::read(&variables, envdir::OnUnreadable::Fail).map_err(|e| e.to_string())?;
        changes.apply(&mut environment);
    }
    for warning in stop_leftovers(&scan_directory, &Places::new(&environment)) {
        invocation.complain("warning", warning);
    }
    if environment.bytes("UNSHARE").is_some_and(|value| !value.is_empty()) {
        unix::process::own_mounts().map_err(in_words("make mounts private"))?;
    }
    let launch = |name: &str, installed: PathBuf| {
        Launch::new(chain::sibling(&installed)).arg0(name).env_exactly(environment.to_vec())
    };
    let on = |launch: Launch, fd: &dyn AsFd, number| {
        launch.descriptor(fd.as_fd(), number).map_err(in_words("duplicate a descriptor"))
    };
    let mut svscan = launch("svscan", invocation.layout.sbin("svscan")).args([&scan_directory]);
    svscan = on(svscan, &null, 0)?;
    if !settings.keep_output {
        if environment.is_set("SCANLOG") {
            svscan = on(on(svscan, &null, 1)?, &null, 2)?;
        } else {
            let (read, write) = unix::fd::pipe().map_err(in_words("make a pipe"))?;
            let dots = ".".repeat(DOTS);
            let reader = launch("readproctitle", invocation.layout.sbin("readproctitle")).args([
                scan_directory.as_os_str(),
                OsStr::new("errors:"),
                OsStr::new(&dots),
            ]);
            let reader = on(on(on(reader, &read, 0)?, &null, 1)?, &null, 2)?;
            reader.start().map_err(in_words("start readproctitle"))?;
            svscan = on(on(svscan, &write, 1)?, &write, 2)?;
        }
    }
    Err(in_words("run svscan")(svscan.replace()))
}

/// Tells what an earlier run has left in the directory to stop; what cannot be told is a warning.
fn stop_leftovers(scan_directory: &Path, places: &Places) -> Vec<String> {
    let mut warnings = Vec::new();
    let entries = match fs::read_dir(scan_directory) {
        Ok(entries) => entries,
        Err(e) => return vec![format!("unable to read {}: {e}", scan_directory.display())],
    };
    let names = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    let is_service = |path: &PathBuf| {
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        !hidden || path.ends_with(OWN)
    };
    let services: Vec<PathBuf> = names.filter(is_service).collect();
    // The services first: their loggers have to read what they say last.
    let loggers = services.iter().map(|dir| dir.join("log"));
    for dir in services.iter().cloned().chain(loggers) {
        let told = fifo::writer(&places.of_client(&dir).join("control")).and_then(|control| match control {
            Some(mut control) => control.write_all(b"dx"),
            None => Ok(()),
        });
        if let Err(e) = told {
            warnings.push(format!("unable to stop what is left in {}: {e}", dir.display()));
        }
    }
    warnings
}

/// One of us for each scan directory.
fn run_several(invocation: &Invocation, settings: &Settings, all: &[PathBuf]) -> Result<Exit, String> {
    use Signal::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
    let handed_on = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];
    let signals = Signals::listen(&[&[SIGCHLD], &handed_on[..]].concat())
        .map_err(|e| format!("unable to catch signals: {e}"))?;
    let mut running: Vec<(Pid, &Path)> = Vec::new();
    for (at, dir) in all.iter().enumerate() {
        let mut environment = settings.environment.clone();
        if at > 0 {
            environment.set("DISABLE_RUN", "1");
        }
        let path = chain::sibling(&invocation.layout.libexec("svscanboot"));
        let launch = Launch::new(path).arg0("svscanboot").args([dir]).env_exactly(environment.to_vec());
        match launch.start() {
            Ok(pid) => running.push((pid, dir)),
            Err(e) => invocation.complain("fatal", format_args!("{}: unable to start: {e}", dir.display())),
        }
    }
    let mut exit = if running.len() == all.len() { Exit::OK } else { Exit::TEMPORARY };
    while !running.is_empty() {
        unix::wait::ready(&[(signals.as_fd(), Interest::Read)], None)
            .map_err(|e| format!("unable to wait: {e}"))?;
        while let Some(signal) = signals.take() {
            if signal != SIGCHLD {
                for (pid, _) in &running {
                    // They are our unreaped children.
                    let _ = nix::sys::signal::kill(*pid, signal);
                }
            }
        }
        while let Ok(Some((ended, ending))) = unix::child::reap() {
            let Some(at) = running.iter().position(|(pid, _)| *pid == ended) else { continue };
            let (_, dir) = running.remove(at);
            if !ending.is_success() {
                invocation.complain("warning", format_args!("{}: svscan ended: {ending:?}", dir.display()));
            }
            let code = match ending {
                Ending::Exited(code) => Exit(u8::try_from(code).unwrap_or(u8::MAX)),
                Ending::Killed(_) => Exit::TEMPORARY,
            };
            if exit == Exit::OK {
                exit = code;
            }
        }
    }
    Ok(exit)
}
