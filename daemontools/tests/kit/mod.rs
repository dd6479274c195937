//! What the program tests share: the executables under their names, service directories, waiting.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Our programs under their names, and a directory to work in.
pub(crate) struct Kit {
    dir: tempfile::TempDir,
}

impl Kit {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        fs::create_dir(&bin).unwrap();
        for (program, executable) in programs() {
            symlink(executable, bin.join(program)).unwrap();
        }
        symlink(env!("CARGO_BIN_EXE_supervise"), bin.join("supervise")).unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(below)
    }

    /// One of our programs, started in the working directory.
    pub(crate) fn ours(&self, name: &str) -> Command {
        self.command(self.path("bin").join(name))
    }

    /// The same of Debian's daemontools.
    pub(crate) fn debians(&self, name: &str) -> Command {
        let path = Path::new("/usr/bin").join(name);
        assert!(path.exists(), "the package daemontools must be installed");
        self.command(path)
    }

    /// Any program, started in the working directory.
    pub(crate) fn command(&self, program: PathBuf) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.dir.path()).env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
        // The /run of this machine is not the test's.
        command.env("DISABLE_RUN", "1");
        // Whatever a test leaves running must not hold the output of the test program open.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// A service directory with this `run`; a logger with `log_run`.
    pub(crate) fn service(&self, name: &str, run: &str, log_run: Option<&str>) -> PathBuf {
        let dir = self.path(name);
        fs::create_dir_all(&dir).unwrap();
        script(&dir.join("run"), run);
        if let Some(run) = log_run {
            fs::create_dir_all(dir.join("log")).unwrap();
            script(&dir.join("log/run"), run);
        }
        dir
    }

    pub(crate) fn supervise(&self, name: &str) -> Running {
        Running::start(self.ours("supervise").arg(name))
    }

    /// Runs one of our programs to its end.
    pub(crate) fn run(&self, name: &str, args: &[&str]) -> Output {
        self.ours(name).args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap()
    }

    pub(crate) fn code(&self, name: &str, args: &[&str]) -> i32 {
        self.run(name, args).status.code().unwrap()
    }

    /// What our svstat says about a service, as JSON.
    pub(crate) fn stat(&self, service: &str) -> serde_json::Value {
        serde_json::from_slice(&self.run("svstat", &["--json", service]).stdout).unwrap()
    }

    pub(crate) fn pid(&self, service: &str) -> Option<i32> {
        self.stat(service)["pid"].as_i64().map(|p| i32::try_from(p).unwrap())
    }

    pub(crate) fn wait_up(&self, service: &str) -> i32 {
        wait_for(&format!("{service} to be up"), || self.pid(service))
    }

    pub(crate) fn wait_state(&self, service: &str, state: &str) {
        wait_until(&format!("{service} to be {state}"), || self.stat(service)["state"] == state);
    }
}

/// The programs of the executables that carry several, and which one it is.
pub(crate) fn programs() -> Vec<(String, &'static str)> {
    let of = |executable: &'static str| {
        let list = Command::new(executable).arg("--list-programs").output().unwrap();
        let list = String::from_utf8(list.stdout).unwrap();
        let names: Vec<_> = list.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect();
        names.into_iter().map(move |name| (name, executable))
    };
    of(env!("CARGO_BIN_EXE_daemontools")).chain(of(env!("CARGO_BIN_EXE_chain-tools"))).collect()
}

/// Ends everything that still runs in the directory of the test: it is the test's own.
impl Drop for Kit {
    fn drop(&mut self) {
        let Ok(dir) = self.dir.path().canonicalize() else { return };
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = process.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
            if fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&dir)) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}

/// Script lines around traps: the shell idles without starting a program, because dash drops a
/// signal that reaches it while it is in vfork.
#[allow(dead_code, reason = "not every test program traps signals")]
pub(crate) fn trapping(traps: &str) -> String {
    format!("[ -p idle ] || mkfifo idle\nexec 3<>idle\n{traps}\nwhile :; do read -r x <&3; done")
}

/// A script with `#!/bin/sh` in front.
pub(crate) fn script(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&beside, PermissionsExt::from_mode(0o755)).unwrap();
    fs::rename(&beside, path).unwrap();
}

pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    wait_for(what, || holds().then_some(()));
}

pub(crate) fn alive(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None).is_ok() && !is_zombie(pid)
}

fn is_zombie(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}

pub(crate) fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// The file's text, empty while it does not exist.
pub(crate) fn text(path: impl AsRef<Path>) -> String {
    fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
}

/// A process of ours in the background: TERM at the end of the test, KILL if that does not help.
pub(crate) struct Running {
    child: Child,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self { child: command.spawn().unwrap() }
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    pub(crate) fn signal(&self, s: Signal) {
        signal(self.pid(), s);
    }

    /// Kills it and leaves what it started.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Its exit code; `None` when a signal ended it.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        wait_for("a program to end", || self.child.try_wait().unwrap()).code()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_running() {
            return;
        }
        self.signal(Signal::SIGTERM);
        let start = Instant::now();
        while self.is_running() {
            if start.elapsed() > Duration::from_secs(10) {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
