//! minisvc: sets up a scan directory, enables and disables services, keeps their variables.

mod command;
mod create;
mod host;
mod refresh;
mod switch;
pub mod variables;
pub mod words;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use program::{
    Control, Exit, ExitCodeDoc, Invocation, Loader, Operands, OptionSpec, Parsed, Place, Program, Source,
    Spec, Variable,
};

use crate::state_path::{DISABLE_RUN, Places, SUPERVISEDIR};
use variables::Change;

/// The table of minisvc.
pub static SPEC: Spec = Spec {
    name: "minisvc",
    summary: "set up a scan directory and its services",
    section: 8,
    place: Place::Sbin,
    options: &[
        OptionSpec::long_value("servicedir", "dir", "the scan directory (default: control file servicedir.conf, else /service)"),
        OptionSpec::long_flag("svscanlog", "make .svscan in the scan directory: variables, run, shutdown, log/run"),
        OptionSpec::long_value("initcmd", "command", "with --svscanlog: what svscan runs first (default .svscan/run)"),
        OptionSpec::long_value("scanint", "seconds", "with --svscanlog: how often the directory is read in any case (default 300)"),
        OptionSpec::long_flag("resolvconf", "with --svscanlog: a service that keeps SYSCONFDIR/resolv.conf mounted over /etc/resolv.conf"),
        OptionSpec::long_flag("unshare", "with --svscanlog: mounts made by services are not seen outside"),
        OptionSpec::long_flag("down", "with --svscanlog: services are made with a file down"),
        OptionSpec::long_value("logdir", "dir", "with --svscanlog: where logs are (default /var/log/svc)"),
        OptionSpec::long_value("rmsvc", "service", "disable: put a dot in front of its name and stop it"),
        OptionSpec::long_value("ensvc", "service", "enable: take the dot away, which starts it"),
        OptionSpec::long_value("refreshsvc", "service|all", "make it again as it was made"),
        OptionSpec::long_flag("force", "with --refreshsvc: also what is not to be refreshed"),
        OptionSpec::long_value("autorefresh", "0|1 service", "0: --refreshsvc is to leave it alone; 1: it is not"),
        OptionSpec::long_flag("enable-service", "let the init of this host start svscan"),
        OptionSpec::long_flag("disable-service", "do not let it"),
        OptionSpec::long_value("service", "service", "whose variables the options below are about (.svscan is one)"),
        OptionSpec::long_value("set-variable", "name=value", "set a variable"),
        OptionSpec::long_value("modify-variable", "name=value", "set a variable that is there"),
        OptionSpec::long_value("unset-variable", "name", "have a variable removed from the environment"),
        OptionSpec::long_value("remove-variable", "name", "forget a variable"),
        OptionSpec::long_flag("print-variables", "print them, one name=value a line"),
        OptionSpec::long_flag("dumpconfig", "print those of all services"),
        OptionSpec::long_flag("json", "print as JSON"),
        OptionSpec::long_value("export-variables", "file", "write them to a file"),
        OptionSpec::long_value("import-variables", "file", "set those in a file"),
        OptionSpec::long_flag("save-variables", "keep them beside, in .variables.saved"),
        OptionSpec::long_flag("restore-variables", "set what is kept there"),
        OptionSpec::long_flag("save-all-variables", "as --save-variables, for all services"),
        OptionSpec::long_flag("restore-all-variables", "as --restore-variables, for all services"),
    ],
    operands: Operands { synopsis: "", min: 0, max: Some(0) },
    variables: &[
        Variable::new("SYSCONFDIR", "Configuration of the system (default /etc/indimail)."),
        Variable::new("CONTROLDIR", "Control files; global_vars in it holds variables for all services."),
        DISABLE_RUN,
        SUPERVISEDIR,
    ],
    controls: &[Control::new("servicedir.conf", "The scan directory (default /service).")],
    exits: &[
        ExitCodeDoc { code: 0, meaning: "done" },
        ExitCodeDoc { code: 1, meaning: "refused, not found, or cannot be done" },
        ExitCodeDoc { code: 100, meaning: "wrong usage" },
    ],
    description: "\
A service is named by its path or, without a slash, by its name in the scan directory. One thing is done at a time; \
options that change variables may be given together and are obeyed in order.

Directories of variables are for their owner only (mode 0500), read those in CONTROLDIR/global_vars first (.envdir), \
and keep the command line that made them (.options), which --refreshsvc obeys.

--rmsvc waits up to 5 seconds for the service and its logger to end, --ensvc as long for its supervise to start.",
    ..Spec::EMPTY
};

/// minisvc.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

const FAILED: Exit = Exit(1);
const SERVICES: &str = "/service";
const LOGS: &str = "/var/log/svc";

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Task {
    SvscanLog,
    Disable(PathBuf),
    Enable(PathBuf),
    /// `None`: all.
    Refresh(Option<PathBuf>),
    AutoRefresh(bool, PathBuf),
    AtHostStart(bool),
    Change(PathBuf, Vec<(Requirement, Vec<u8>, Change)>),
    Print(Option<PathBuf>),
    Export(PathBuf, PathBuf),
    Import(PathBuf, PathBuf),
    Save(Option<PathBuf>),
    Restore(Option<PathBuf>),
}

/// Must a variable be there to be changed?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Requirement {
    None,
    Present,
}

/// Where everything is.
#[derive(Debug, Clone)]
struct Surroundings {
    scan_directory: PathBuf,
    sysconfdir: PathBuf,
    global: PathBuf,
    log_directory: PathBuf,
    path: String,
    places: Places,
}

struct Settings {
    task: Task,
    around: Surroundings,
    parsed: Parsed,
    scan_interval: u64,
}

fn load(invocation: &Invocation) -> Result<Settings, Exit> {
    let parsed = invocation.parse()?;
    let env = &invocation.environment;
    let mut loader = Loader::new(env);
    let option = |name| Source { option: parsed.value(name).map(|v| (name, v)), ..Source::default() };
    let from = Source { control: Some("servicedir.conf"), ..option("servicedir") };
    let scan_directory = loader.path("servicedir", from, SERVICES);
    let log_directory = loader.path("logdir", option("logdir"), LOGS);
    let scan_interval = loader.number("scanint", option("scanint"), 300, 1..=86_400);
    let from = Source { variable: Some("SYSCONFDIR"), ..Source::default() };
    let sysconfdir = loader.path("sysconfdir", from, control::DEFAULT_SYSCONFDIR);
    let global = loader.control().path().join("global_vars");
    loader.show("global_vars", global.display(), "default");
    let directory = |path: PathBuf| path.display().to_string().trim_end_matches('/').to_owned();
    let (bin, sbin) = (directory(invocation.layout.bin("")), directory(invocation.layout.sbin("")));
    let path = format!("{bin}:/bin:/usr/bin:/usr/local/bin:{sbin}:/sbin:/usr/sbin");
    let places = Places::new(env);
    let around = Surroundings { scan_directory, sysconfdir, global, log_directory, path, places };
    let task = match task(&parsed, &around.scan_directory) {
        Ok(task) => task,
        Err(why) => {
            loader.problem(why);
            Task::Print(None)
        }
    };
    // Who only asks for the settings need not say what to do.
    let asks = parsed.in_order().next().is_none();
    if asks {
        loader.show("task", "none", "default");
    }
    let settings = Settings { task, around, parsed, scan_interval };
    invocation.finish(loader, settings, Exit::PERMANENT)
}

/// The path of a service that was named by path or name.
fn service(given: &OsStr, scan_directory: &Path) -> Result<PathBuf, String> {
    let named = || given.as_bytes().escape_ascii();
    let path = Path::new(given);
    if path.as_os_str().is_empty() || path.components().any(|c| c == Component::ParentDir) {
        return Err(format!("{}: expected a service, without ..", named()));
    }
    Ok(if given.as_bytes().contains(&b'/') { path.to_owned() } else { scan_directory.join(path) })
}

fn task(parsed: &Parsed, scan_directory: &Path) -> Result<Task, String> {
    let path = |name: &str| parsed.value(name).map(|value| service(value, scan_directory)).transpose();
    let of_service =
        || path("service")?.ok_or_else(|| "option --service is missing: whose variables?".to_owned());
    let file = |name: &str| parsed.value(name).map(PathBuf::from);
    let mut tasks = Vec::new();
    if parsed.flag("svscanlog") {
        tasks.push(Task::SvscanLog);
    }
    tasks.extend(path("rmsvc")?.map(Task::Disable));
    tasks.extend(path("ensvc")?.map(Task::Enable));
    match parsed.value("refreshsvc") {
        Some(all) if all == "all" => tasks.push(Task::Refresh(None)),
        _ => tasks.extend(path("refreshsvc")?.map(|service| Task::Refresh(Some(service)))),
    }
    if let Some(value) = parsed.value("autorefresh") {
        let expected = || "option --autorefresh: expected \"0 service\" or \"1 service\"".to_owned();
        let (switch, named) = value.as_bytes().split_at_checked(2).ok_or_else(expected)?;
        let on = match switch {
            b"0 " => false,
            b"1 " => true,
            _ => return Err(expected()),
        };
        tasks.push(Task::AutoRefresh(on, service(OsStr::from_bytes(named.trim_ascii()), scan_directory)?));
    }
    for (name, on) in [("enable-service", true), ("disable-service", false)] {
        if parsed.flag(name) {
            tasks.push(Task::AtHostStart(on));
        }
    }
    let changes = changes(parsed)?;
    if !changes.is_empty() {
        tasks.push(Task::Change(of_service()?, changes));
    }
    if parsed.flag("print-variables") {
        tasks.push(Task::Print(Some(of_service()?)));
    }
    if parsed.flag("dumpconfig") {
        tasks.push(Task::Print(None));
    }
    if let Some(file) = file("export-variables") {
        tasks.push(Task::Export(of_service()?, file));
    }
    if let Some(file) = file("import-variables") {
        tasks.push(Task::Import(of_service()?, file));
    }
    if parsed.flag("save-variables") {
        tasks.push(Task::Save(Some(of_service()?)));
    }
    if parsed.flag("restore-variables") {
        tasks.push(Task::Restore(Some(of_service()?)));
    }
    for (name, task) in
        [("save-all-variables", Task::Save(None)), ("restore-all-variables", Task::Restore(None))]
    {
        if parsed.flag(name) {
            tasks.push(task);
        }
    }
    match tasks.len() {
        1 => Ok(tasks.remove(0)),
        0 if parsed.in_order().next().is_none() => Ok(Task::Print(None)),
        0 => Err("nothing to do: see minisvc --help".to_owned()),
        _ => Err("one thing at a time".to_owned()),
    }
}

fn changes(parsed: &Parsed) -> Result<Vec<(Requirement, Vec<u8>, Change)>, String> {
    let mut changes = Vec::new();
    for (option, value) in parsed.in_order() {
        let value = value.map(OsStr::as_bytes).unwrap_or_default();
        let assignment = || {
            let equals = value.iter().position(|&b| b == b'=');
            let equals = equals.ok_or_else(|| format!("option --{option}: expected name=value"))?;
            Ok::<_, String>((value[..equals].to_vec(), Change::Set(Some(value[equals + 1..].to_vec()))))
        };
        let (requirement, (name, change)) = match option {
            "set-variable" => (Requirement::None, assignment()?),
            "modify-variable" => (Requirement::Present, assignment()?),
            "unset-variable" => (Requirement::None, (value.to_vec(), Change::Set(None))),
            "remove-variable" => (Requirement::Present, (value.to_vec(), Change::Remove)),
            _ => continue,
        };
        if !variables::is_name(&name) {
            return Err(format!("option --{option}: {}: no name of a variable", name.escape_ascii()));
        }
        changes.push((requirement, name, change));
    }
    Ok(changes)
}

fn main(invocation: &Invocation) -> Exit {
    match load(invocation) {
        Ok(settings) if settings.parsed.in_order().next().is_none() => {
            invocation.complain("fatal", "nothing to do: see minisvc --help");
            Exit::PERMANENT
        }
        Ok(settings) => command::run(invocation, &settings),
        Err(exit) => exit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str]) -> Result<Task, String> {
        let args: Vec<_> = args.iter().map(Into::into).collect();
        task(&Parsed::read(&SPEC, &args).unwrap(), Path::new("/s"))
    }

    #[test]
    fn one_task_a_time() {
        assert_eq!(read(&["--rmsvc", "a"]), Ok(Task::Disable("/s/a".into())));
        assert_eq!(read(&["--ensvc=/x/a"]), Ok(Task::Enable("/x/a".into())));
        assert_eq!(read(&["--refreshsvc=all"]), Ok(Task::Refresh(None)));
        assert_eq!(read(&["--autorefresh=0 a"]), Ok(Task::AutoRefresh(false, "/s/a".into())));
        let set = |name: &str, value: &str| (Requirement::None, name.into(), Change::Set(Some(value.into())));
        let all = ["--service=a", "--set-variable=A=1=2", "--set-variable", "B=", "--unset-variable=C"];
        let unset = (Requirement::None, b"C".to_vec(), Change::Set(None));
        assert_eq!(read(&all), Ok(Task::Change("/s/a".into(), vec![set("A", "1=2"), set("B", ""), unset])));
        for wrong in [
            &["--rmsvc=a", "--ensvc=a"][..],
            &["--rmsvc=../a"],
            &["--rmsvc="],
            &["--set-variable=A=1"],
            &["--service=a", "--set-variable=A"],
            &["--service=a", "--set-variable=.A=1"],
            &["--autorefresh=2 a"],
            &["--force"],
        ] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }
}
