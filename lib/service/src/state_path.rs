//! Where the state directory of a service is.
//!
//! | | state directory of the service `name` | of its logger |
//! |---|---|---|
//! | `/run/svscan` exists, no DISABLE_RUN | `/run/svscan/name/supervise` | `/run/svscan/name/log/supervise` |
//! | otherwise | `supervise` in its directory | the same |
//! | SUPERVISEDIR=`word` | `word` in the place of `supervise` | the same |
//! | SUPERVISEDIR=`/base` | `/base/the:service:directory` | the same |
//!
//! Clients are given service directories and look in the directory first, then below `/run`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use program::{Environment, Variable};

use crate::fifo;

/// The directories of the run-time file system that may hold state, the first that exists is used.
pub const RUN_DIRECTORIES: [&str; 2] = ["/run/svscan", "/var/run/svscan"];

/// DISABLE_RUN, for the tables of programs.
pub const DISABLE_RUN: Variable = Variable::new(
    "DISABLE_RUN",
    "If set, state is kept in the service directory also when there is a directory /run/svscan.",
);
/// SUPERVISEDIR, for the tables of programs.
pub const SUPERVISEDIR: Variable = Variable::new(
    "SUPERVISEDIR",
    "Name of the state directory in the service directory (default supervise). An absolute path names a \
     directory that holds those of all services, each under the path of its service directory with colons \
     for slashes.",
);

const DEFAULT_NAME: &str = "supervise";
const LOG: &str = "log";

/// The rules in force: what the variables say and what exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    name: OsString,
    run: Option<PathBuf>,
}

/// Where one supervise keeps its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The state directory; relative to the service directory when it is there.
    pub state: PathBuf,
    /// The directory below `/run` that stands for the service directory, when there is one.
    pub relocated: Option<PathBuf>,
}

impl Places {
    /// The rules for a process with this environment.
    #[must_use]
    pub fn new(environment: &Environment) -> Self {
        let run = || RUN_DIRECTORIES.iter().map(PathBuf::from).find(|d| d.is_dir());
        let run = if environment.is_set("DISABLE_RUN") { None } else { run() };
        let name = environment.get("SUPERVISEDIR").filter(|n| !n.is_empty());
        Self::with(name.unwrap_or(OsStr::new(DEFAULT_NAME)), run)
    }

    /// The rules with this SUPERVISEDIR and this directory of the run-time file system.
    #[must_use]
    pub fn with(name: impl Into<OsString>, run: Option<PathBuf>) -> Self {
        let name = name.into();
        // A base that is named outright is chosen on purpose; /run is only the default.
        let run = run.filter(|_| !name.as_bytes().starts_with(b"/"));
        Self { name, run }
    }

    /// The directory of the run-time file system that is in use: state, and the pid file of svscan.
    #[must_use]
    pub fn run(&self) -> Option<&Path> {
        self.run.as_deref()
    }

    /// Where supervise keeps the state of `dir`, which it was started for in `started_in`; a logger is
    /// called `log` and belongs to `parent` (SV_PWD), else to the directory it was started in.
    /// `service` is the service directory as getcwd(3) has it.
    #[must_use]
    pub fn of_supervise(
        &self,
        dir: &OsStr,
        started_in: &Path,
        parent: Option<&OsStr>,
        service: &Path,
    ) -> Place {
        if self.is_absolute() {
            return Place { state: self.below_base(service), relocated: None };
        }
        let Some(run) = &self.run else {
            return Place { state: PathBuf::from(&self.name), relocated: None };
        };
        let relocated = if dir == LOG {
            let parent = parent.filter(|p| is_name(p)).or(started_in.file_name());
            run.join(parent.unwrap_or_default()).join(LOG)
        } else {
            run.join(dir)
        };
        Place { state: relocated.join(&self.name), relocated: Some(relocated) }
    }

    /// Where a client finds the state of the service directory `dir`: the place where a supervise
    /// runs; where none does, the first that exists, else the one in the service directory.
    #[must_use]
    pub fn of_client(&self, dir: &Path) -> PathBuf {
        if self.is_absolute() {
            return match dir.canonicalize() {
                Ok(service) => self.below_base(&service),
                Err(_) => self.below_base(dir),
            };
        }
        let here = dir.join(&self.name);
        let Some(there) = self.relocated(dir) else { return here };
        if is_read(&here) {
            return here;
        }
        if is_read(&there) || (!here.exists() && there.exists()) { there } else { here }
    }

    /// The place of `dir` below `/run`.
    fn relocated(&self, dir: &Path) -> Option<PathBuf> {
        let run = self.run.as_deref()?;
        let name = |path: &Path| match path.components().next_back()? {
            Component::Normal(name) => Some(name.to_owned()),
            _ => None,
        };
        let last = name(dir);
        let (main, log) = match last {
            Some(last) if last != LOG => (last, false),
            _ => {
                // `.`, `..`, `log`: who that is only the system knows.
                let whole = match (&last, dir.parent().and_then(name)) {
                    (Some(_), Some(parent)) => Path::new(&parent).join(LOG),
                    _ => dir.canonicalize().ok()?,
                };
                let last = name(&whole)?;
                match whole.parent().and_then(name) {
                    Some(parent) if last == LOG => (parent, true),
                    _ => (last, false),
                }
            }
        };
        let service = run.join(main);
        Some(if log { service.join(LOG) } else { service }.join(&self.name))
    }

    fn is_absolute(&self) -> bool {
        self.name.as_bytes().starts_with(b"/")
    }

    fn below_base(&self, service: &Path) -> PathBuf {
        let path = service.as_os_str().as_bytes();
        let path = path.strip_prefix(b"/").unwrap_or(path);
        let entry = path.iter().map(|&b| if b == b'/' { b':' } else { b }).collect();
        Path::new(&self.name).join(OsString::from_vec(entry))
    }
}

fn is_name(name: &OsStr) -> bool {
    !name.is_empty() && !name.as_bytes().contains(&b'/')
}

/// Does a supervise run on this state directory? Cannot tell counts as yes: the client's own attempt
/// will say why.
fn is_read(state: &Path) -> bool {
    !matches!(fifo::writer(&state.join("ok")), Ok(None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of_supervise(places: &Places, dir: &str, cwd: &str, parent: Option<&str>) -> Place {
        places.of_supervise(OsStr::new(dir), Path::new(cwd), parent.map(OsStr::new), Path::new("/s/a"))
    }

    #[test]
    fn in_the_service_directory_unless_there_is_run() {
        let places = Places::with("supervise", None);
        let place = of_supervise(&places, "a", "/s", None);
        assert_eq!(place, Place { state: "supervise".into(), relocated: None });
        let places = Places::with("supervise", Some("/run/svscan".into()));
        let place = of_supervise(&places, "a", "/s", None);
        let relocated = PathBuf::from("/run/svscan/a");
        assert_eq!(place, Place { state: relocated.join("supervise"), relocated: Some(relocated) });
    }

    #[test]
    fn a_logger_belongs_to_its_parent() {
        let places = Places::with("supervise", Some("/run/svscan".into()));
        let state = |cwd, parent| of_supervise(&places, "log", cwd, parent).state;
        assert_eq!(state("/s/a", None), Path::new("/run/svscan/a/log/supervise"));
        assert_eq!(state("/s/x", Some("b")), Path::new("/run/svscan/b/log/supervise"));
        assert_eq!(state("/s/x", Some("../b")), Path::new("/run/svscan/x/log/supervise"), "not a name");
    }

    #[test]
    fn supervisedir() {
        let run = Some("/run/svscan".into());
        let places = Places::with("state", run.clone());
        assert_eq!(of_supervise(&places, "a", "/s", None).state, Path::new("/run/svscan/a/state"));
        let places = Places::with("/var/state", run);
        assert_eq!(of_supervise(&places, "a", "/s", None).state, Path::new("/var/state/s:a"));
        assert_eq!(of_supervise(&places, "a", "/s", None).relocated, None);
        assert_eq!(places.of_client(Path::new("/usr")), Path::new("/var/state/usr"));
    }

    #[test]
    fn names_that_clients_are_given() {
        let places = Places::with("supervise", Some("/r".into()));
        let dir = tempfile::tempdir().unwrap();
        let service = dir.path().join("a");
        std::fs::create_dir_all(service.join("log")).unwrap();
        let name = |dir: &Path| places.relocated(dir).unwrap();
        assert_eq!(name(&service), Path::new("/r/a/supervise"));
        assert_eq!(name(Path::new("a/")), Path::new("/r/a/supervise"));
        assert_eq!(name(Path::new("x/a/log")), Path::new("/r/a/log/supervise"));
        assert_eq!(name(&service.join(".")), Path::new("/r/a/supervise"));
        assert_eq!(name(&service.join("log/.")), Path::new("/r/a/log/supervise"));
        assert_eq!(name(&service.join("log/..")), Path::new("/r/a/supervise"));
        assert_eq!(places.relocated(Path::new("/")), None);
    }

    #[test]
    fn clients_look_where_a_supervise_runs() {
        let dir = tempfile::tempdir().unwrap();
        let (service, run) = (dir.path().join("a"), dir.path().join("run"));
        std::fs::create_dir(&service).unwrap();
        let places = Places::with("supervise", Some(run.clone()));
        let (here, there) = (service.join("supervise"), run.join("a/supervise"));
        assert_eq!(places.of_client(&service), here, "nowhere: where it would be by default");
        std::fs::create_dir_all(&there).unwrap();
        assert_eq!(places.of_client(&service), there);
        std::fs::create_dir(&here).unwrap();
        assert_eq!(places.of_client(&service), here);
        fifo::make(&there.join("ok")).unwrap();
        let _reader = fifo::reader(&there.join("ok")).unwrap();
        assert_eq!(places.of_client(&service), there, "what is left in the directory is stale");
        fifo::make(&here.join("ok")).unwrap();
        assert_eq!(places.of_client(&service), there);
        let _other = fifo::reader(&here.join("ok")).unwrap();
        assert_eq!(places.of_client(&service), here, "both run: the directory itself was asked for");
    }

    proptest! {
        #[test]
        fn no_name_leads_out_of_the_base(service in "(/[^/\0.][^/\0]{0,7}){1,5}") {
            let places = Places::with("/base", None);
            let state = places.of_supervise(OsStr::new("x"), Path::new("/"), None, Path::new(&service)).state;
            prop_assert_eq!(state.parent(), Some(Path::new("/base")));
        }
    }
}
