//! Where supervise keeps its state: below /run, or where SUPERVISEDIR says; and clients that find it.

mod kit;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Output, Stdio};

use kit::{Kit, Running, alive, text, wait_for, wait_until};

const SLEEP: &str = "exec sleep 1000";

/// A mount namespace with a /run of its own.
struct Namespace<'a> {
    kit: &'a Kit,
    holder: Running,
}

impl<'a> Namespace<'a> {
    /// `setup` is run in it, in the directory of the test.
    fn new(kit: &'a Kit, setup: &str) -> Self {
        let script = format!(
            "set -e; mount -t tmpfs run /run; mkdir /run/svscan; {setup}; : > inside; exec sleep 1000"
        );
        let mut command = kit.command("/usr/bin/unshare".into());
        command.args(["--mount", "--propagation", "private", "/bin/sh", "-c", &script]);
        let holder = Running::start(&mut command);
        wait_until("the namespace (root is needed)", || kit.path("inside").exists());
        Self { kit, holder }
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let pid = self.holder.pid().to_string();
        let mut command = self.kit.command("/usr/bin/nsenter".into());
        command.args(["-t", &pid, "-m", "/bin/sh", "-c", "cd \"$0\" && exec \"$@\""]);
        command.arg(self.kit.path("")).arg(self.kit.path("bin").join(program)).args(args);
        command.env_remove("DISABLE_RUN");
        command
    }

    fn run(&self, program: &str, args: &[&str]) -> Output {
        self.command(program, args).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap()
    }

    fn code(&self, program: &str, args: &[&str]) -> i32 {
        self.run(program, args).status.code().unwrap()
    }

    fn stat(&self, service: &str) -> serde_json::Value {
        serde_json::from_slice(&self.run("svstat", &["-j", service]).stdout).unwrap()
    }

    fn wait_up(&self, service: &str) -> i32 {
        wait_for(service, || self.stat(service)["pid"].as_i64().and_then(|p| i32::try_from(p).ok()))
    }

    /// A path inside, seen from here.
    fn path(&self, path: &str) -> std::path::PathBuf {
        format!("/proc/{}/root{path}", self.holder.pid()).into()
    }
}

#[test]
fn state_is_kept_below_run_and_clients_find_it() {
    let kit = Kit::new();
    let dir = kit.service("a", "echo \"$1 $PWD\" > told; exec sleep 1000", Some(SLEEP));
    fs::set_permissions(&dir, PermissionsExt::from_mode(0o751)).unwrap();
    std::os::unix::fs::chown(&dir, Some(12), Some(34)).unwrap();
    // What is left from before, all names.
    for state in ["supervise", "log/supervise"] {
        fs::create_dir(dir.join(state)).unwrap();
        for name in ["lock", "control", "ok", "status", "up", "dn"] {
            fs::write(dir.join(state).join(name), "").unwrap();
        }
    }
    let ns = Namespace::new(&kit, ":");
    let _supervise = Running::start(&mut ns.command("supervise", &["a"]));
    let pid = ns.wait_up("a");
    assert!(!dir.join("supervise").exists() && !dir.join("log/supervise").exists());
    wait_until("run", || text(dir.join("told")).ends_with('\n'));
    assert_eq!(text(dir.join("told")), format!("/run/svscan/a {}\n", dir.canonicalize().unwrap().display()));
    let place = fs::metadata(ns.path("/run/svscan/a")).unwrap();
    assert_eq!((place.mode() & 0o7777, place.uid(), place.gid()), (0o751, 12, 34));
    assert!(ns.path("/run/svscan/a/supervise/status").exists());
    // By any name.
    let absolute = dir.to_str().unwrap().to_owned();
    for name in ["a", "a/", "./a", &absolute, "a/.", "a/log/.."] {
        assert_eq!(ns.code("svok", &[name]), 0, "{name}");
        assert_eq!(ns.stat(name)["pid"], pid, "{name}");
    }
    let out = Command::new("/usr/bin/nsenter")
        .args(["-t", &ns.holder.pid().to_string(), "-m", "/bin/sh", "-c", "cd \"$0\" && exec \"$1\" ."])
        .arg(&dir)
        .arg(kit.path("bin/svok"))
        .env_clear()
        .status()
        .unwrap();
    assert!(out.success());
    // Its logger, started as svscan does it.
    let mut logger = Command::new("/usr/bin/nsenter");
    logger.args([
        "-t",
        &ns.holder.pid().to_string(),
        "-m",
        "/bin/sh",
        "-c",
        "cd \"$0\" && exec \"$1\" log a",
    ]);
    logger
        .arg(&dir)
        .arg(kit.path("bin/supervise"))
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("SV_PWD", "a");
    let _logger = Running::start(&mut logger);
    let log_pid = ns.wait_up("a/log");
    assert_eq!(ns.stat("a")["log"]["pid"], log_pid);
    assert!(ns.path("/run/svscan/a/log/supervise/status").exists());
    assert_eq!(ns.code("svc", &["-dx", "-W", "a/log", "a"]), 0);
    assert!(!alive(pid) && !alive(log_pid));
}

#[test]
fn a_read_only_service_and_one_that_waits_for_it() {
    let kit = Kit::new();
    kit.service("ro", SLEEP, None);
    let dir = kit.service("b", SLEEP, None);
    fs::write(dir.join("wait"), "0\nro\n").unwrap();
    let ns = Namespace::new(&kit, "mount --bind ro ro; mount -o remount,ro,bind ro");
    let _waiting = Running::start(&mut ns.command("supervise", &["b"]));
    wait_until("it to wait", || ns.stat("b")["state"] == "wait");
    let _supervise = Running::start(&mut ns.command("supervise", &["ro"]));
    ns.wait_up("ro");
    ns.wait_up("b");
    // The whole place is removed under it.
    fs::remove_dir_all(ns.path("/run/svscan/ro")).unwrap();
    wait_until("it to be made again", || ns.code("svok", &["ro"]) == 0);
    assert_eq!(ns.code("svc", &["-dx", "-W", "ro", "b"]), 0);
}

#[test]
fn a_supervise_that_kept_state_in_the_directory_is_noticed_and_its_service_taken_over() {
    let kit = Kit::new();
    let dir = kit.service("a", SLEEP, None);
    let ns = Namespace::new(&kit, ":");
    let mut old = Running::start(ns.command("supervise", &["a"]).env("DISABLE_RUN", "1"));
    let pid = ns.wait_up("a");
    assert!(dir.join("supervise/status").exists());
    let second = ns.run("supervise", &["a"]);
    assert_eq!(second.status.code(), Some(100), "{}", String::from_utf8_lossy(&second.stderr));
    old.kill();
    let _new = Running::start(&mut ns.command("supervise", &["a"]));
    wait_until("the new place", || ns.path("/run/svscan/a/supervise/ok").exists());
    assert_eq!(ns.wait_up("a"), pid);
    assert!(!dir.join("supervise").exists());
    assert_eq!(ns.code("svc", &["-dx", "-W", "a"]), 0);
    assert!(!alive(pid));
}

#[test]
fn supervisedir_names_the_directory_or_the_place_of_all() {
    let kit = Kit::new();
    let dir = kit.service("a", SLEEP, None);
    let all = kit.path("all");
    fs::create_dir(&all).unwrap();
    for (value, state) in [
        ("state".to_owned(), dir.join("state")),
        (all.to_str().unwrap().to_owned(), {
            let dir = dir.canonicalize().unwrap();
            all.join(dir.to_str().unwrap().trim_start_matches('/').replace('/', ":"))
        }),
    ] {
        let with = |program: &str, args: &[&str]| {
            let mut command = kit.ours(program);
            command.args(args).env("SUPERVISEDIR", &value);
            command
        };
        let mut supervise = Running::start(&mut with("supervise", &["a"]));
        wait_until("svok", || with("svok", &["a"]).status().unwrap().code() == Some(0));
        assert!(state.join("status").exists(), "{}", state.display());
        assert!(!dir.join("supervise").exists());
        wait_until("svstat", || with("svstat", &["a"]).status().unwrap().code() == Some(0));
        assert_eq!(with("svc", &["-dx", "-W", "a"]).status().unwrap().code(), Some(0));
        assert_eq!(supervise.wait(), Some(0));
    }
}
