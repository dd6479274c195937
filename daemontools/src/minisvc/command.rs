//! Doing what was asked for.

use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use program::{Exit, Invocation};

use super::create::{self, SvscanLog};
use super::switch::{self, Outcome};
use super::variables::{self, Change, Variables};
use super::{FAILED, Requirement, Settings, Surroundings, Task, host, refresh};

/// Where `--save-variables` keeps them, in the service directory.
const SAVED: &str = ".variables.saved";

pub(super) fn run(invocation: &Invocation, settings: &Settings) -> Exit {
    let around = &settings.around;
    let done = match &settings.task {
        Task::SvscanLog => svscan_log(invocation, settings),
        Task::Disable(service) => {
            switched(switch::disable(service, &around.places), service, "has not ended yet")
        }
        Task::Enable(service) => switched(
            switch::enable(service, &around.places),
            service,
            "is not supervised yet: does svscan run?",
        ),
        Task::Refresh(service) => {
            refresh::run(invocation, around, service.as_deref(), settings.parsed.flag("force"))
        }
        Task::AutoRefresh(on, service) => refresh::switch(service, *on),
        Task::AtHostStart(on) => host::switch(&invocation.environment, *on),
        Task::Change(service, changes) => change(around, service, changes),
        Task::Print(service) => print(around, service.as_deref(), settings.parsed.flag("json")),
        Task::Export(service, file) => read(service).and_then(|all| {
            let text = variables::to_text(&all);
            unix::durable::replace(file, &text, 0o600, None).map_err(|e| at(file, &e))
        }),
        Task::Import(service, file) => import(around, service, file),
        Task::Save(service) => each(around, service.as_deref(), |service| {
            let text = variables::to_text(&read(service)?);
            let file = service.join(SAVED);
            unix::durable::replace(&file, &text, 0o600, None).map_err(|e| at(&file, &e))
        }),
        Task::Restore(service) => {
            let one = service.is_some();
            each(around, service.as_deref(), |service| {
                let file = service.join(SAVED);
                // Of all services some may not have been saved.
                if one || file.exists() { import(around, service, &file) } else { Ok(()) }
            })
        }
    };
    match done {
        Ok(()) => Exit::OK,
        Err(why) => {
            invocation.complain("fatal", why);
            FAILED
        }
    }
}

pub(super) fn at(path: &Path, e: &io::Error) -> String {
    format!("{}: {e}", path.as_os_str().as_bytes().escape_ascii())
}

fn svscan_log(invocation: &Invocation, settings: &Settings) -> Result<(), String> {
    let (around, parsed) = (&settings.around, &settings.parsed);
    let log_user = create::log_user(&mut |what| invocation.complain("warning", what));
    let program = [invocation.spec.name.as_bytes().to_vec()];
    let arguments = invocation.arguments.iter().map(|arg| arg.as_bytes().to_vec());
    let svscan_log = SvscanLog {
        scan_directory: around.scan_directory.clone(),
        log_directory: around.log_directory.clone(),
        init_command: parsed.value("initcmd").map(|command| command.as_bytes().to_vec()),
        scan_interval: settings.scan_interval,
        path: around.path.clone(),
        unshare: parsed.flag("unshare"),
        resolvconf: parsed.flag("resolvconf"),
        down: parsed.flag("down"),
        sysconfdir: around.sysconfdir.clone(),
        global: around.global.clone(),
        log_user,
        options: program.into_iter().chain(arguments).collect(),
    };
    let place = around.log_directory.join("svscan");
    svscan_log.create().map_err(|e| at(&around.scan_directory, &e))?;
    create::log_place(&place, log_user).map_err(|e| at(&place, &e))
}

fn switched(done: io::Result<Outcome>, service: &Path, still: &str) -> Result<(), String> {
    match done {
        Ok(Outcome::Done) => Ok(()),
        Ok(Outcome::StillWaiting) => Err(format!("{}: renamed, but it {still}", service.display())),
        Err(e) => Err(at(service, &e)),
    }
}

fn directory(service: &Path) -> PathBuf {
    service.join("variables")
}

fn read(service: &Path) -> Result<Variables, String> {
    let dir = directory(service);
    variables::read(&dir).map_err(|e| at(&dir, &e))
}

fn change(
    around: &Surroundings,
    service: &Path,
    changes: &[(Requirement, Vec<u8>, Change)],
) -> Result<(), String> {
    // A misspelled name must not make a directory.
    fs::metadata(service).map_err(|e| at(service, &e))?;
    if changes.iter().any(|(requirement, ..)| *requirement == Requirement::Present) {
        let mut there = read(service)?;
        for (requirement, name, change) in changes {
            if *requirement == Requirement::Present && !there.contains_key(name) {
                let place = directory(service);
                return Err(format!("{}: there is no variable {}", place.display(), name.escape_ascii()));
            }
            match change {
                Change::Set(value) => there.insert(name.clone(), value.clone()),
                Change::Remove => there.remove(name),
            };
        }
    }
    let changes: Vec<_> = changes.iter().map(|(_, name, change)| (name.clone(), change.clone())).collect();
    let dir = directory(service);
    variables::change(&dir, &around.global, &changes).map_err(|e| at(&dir, &e))
}

fn import(around: &Surroundings, service: &Path, file: &Path) -> Result<(), String> {
    let text = fs::read(file).map_err(|e| at(file, &e))?;
    let all = variables::from_text(&text)
        .map_err(|line| format!("{}:{line}: expected name=value", file.display()))?;
    let changes: Vec<_> =
        all.into_iter().map(|(name, value)| (Requirement::None, name, Change::Set(value))).collect();
    change(around, service, &changes)
}

/// One service, or all that have variables, `.svscan` among them.
fn each(
    around: &Surroundings,
    service: Option<&Path>,
    mut what: impl FnMut(&Path) -> Result<(), String>,
) -> Result<(), String> {
    match service {
        Some(service) => what(service),
        None => with_variables(around)?.iter().try_for_each(|service| what(service)),
    }
}

/// The services that have variables, by name, disabled ones among them.
pub(super) fn with_variables(around: &Surroundings) -> Result<Vec<PathBuf>, String> {
    let dir = &around.scan_directory;
    let entries = fs::read_dir(dir).map_err(|e| at(dir, &e))?;
    let mut all: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    all.retain(|path| directory(path).is_dir());
    all.sort();
    Ok(all)
}

fn print(around: &Surroundings, service: Option<&Path>, as_json: bool) -> Result<(), String> {
    let mut text = Vec::new();
    each(around, service, |one| {
        let variables = read(one)?;
        let name = one.file_name().unwrap_or_default();
        if as_json {
            let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let values: serde_json::Map<_, _> = variables
                .iter()
                .map(|(name, value)| (lossy(name), value.as_deref().map(lossy).into()))
                .collect();
            let object = serde_json::json!({ "service": name.to_string_lossy(), "variables": values });
            text.extend(format!("{object}\n").bytes());
            return Ok(());
        }
        if service.is_none() {
            text.extend([b"[", name.as_bytes(), b"]\n"].concat());
        }
        text.extend(variables::to_text(&variables));
        Ok(())
    })?;
    io::stdout().write_all(&text).map_err(|e| format!("unable to write: {e}"))
}
