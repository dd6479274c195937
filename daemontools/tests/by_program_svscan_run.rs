//! svscan where /run/svscan holds the state: in a mount table of its own, so that the host's is left alone.

mod kit;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use kit::{Kit, Running, alive, text, wait_for, wait_until};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// An svscan that is process 1 behind `unshare`.
struct Inside {
    outer: Running,
    svscan: i32,
}

impl Inside {
    /// `program` prepares the mounts, as root, and becomes svscan.
    fn start(kit: &Kit, more: &[&str], program: &str) -> Self {
        let mut command = Command::new("/usr/bin/unshare");
        command.args(["--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]).args(more);
        command.args(["/bin/sh", "-ec", program]).current_dir(kit.path("")).env_clear();
        command.env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(fs::File::create(kit.path("err")).unwrap());
        let outer = Running::start(&mut command);
        let svscan = wait_for("svscan", || {
            let children = text(format!("/proc/{0}/task/{0}/children", outer.pid()));
            let pid: i32 = children.trim().parse().ok()?;
            fs::read(format!("/proc/{pid}/cmdline"))
                .ok()
                .filter(|line| line.starts_with(b"svscan") || line.ends_with(b"sv\0"))?;
            PathBuf::from(format!("/proc/{pid}/root/run/svscan/.svscan.pid")).exists().then_some(pid)
        });
        Self { outer, svscan }
    }

    /// A path in its mount table.
    fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root/{path}", self.svscan))
    }

    /// The pid in a status record, there.
    fn pid_of(&self, state: &str) -> Option<u32> {
        let record = fs::read(self.path(state).join("status")).ok()?;
        daemontools::status::Record::decode(&record).ok()?.pid
    }

    fn end(mut self) -> Option<i32> {
        nix::sys::signal::kill(Pid::from_raw(self.svscan), Signal::SIGTERM).unwrap();
        self.outer.wait()
    }
}

#[test]
fn anybody_on_a_read_only_root() {
    assert!(nix::unistd::geteuid().is_root(), "this test needs root");
    let kit = Kit::new();
    fs::set_permissions(kit.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    // Where he can run them.
    fs::create_dir(kit.path("open")).unwrap();
    for (from, to) in [
        (env!("CARGO_BIN_EXE_daemontools"), "svscan"),
        (env!("CARGO_BIN_EXE_daemontools"), "multilog"),
        (env!("CARGO_BIN_EXE_supervise"), "supervise"),
    ] {
        assert!(Command::new("cp").arg(from).arg(kit.path("open").join(to)).status().unwrap().success());
    }
    let log = format!("exec {} /run/logs/a", kit.path("open/multilog").display());
    kit.service("sv/a", "id -u; trap 'echo last words; kill $!; exit 0' TERM; sleep 1000 & wait", Some(&log));
    let program =
        "mount -t tmpfs tmpfs /run; mkdir /run/svscan /run/logs; chown 12345:12345 /run/svscan /run/logs
         mount --bind sv sv; mount -o remount,bind,ro sv; mount -o remount,bind,ro /
         exec setpriv --reuid 12345 --regid 12345 --clear-groups open/svscan sv";
    let inside = Inside::start(&kit, &[], program);
    wait_until("the service", || text(inside.path("run/logs/a/current")).starts_with("12345\n"));
    let log = fs::File::open(inside.path("run/logs/a/current")).unwrap();
    assert_eq!(fs::read(inside.path("run/svscan/.svscan.pid")).unwrap(), b"\x01\0\0\0\n1\n");
    for state in ["run/svscan/a/supervise", "run/svscan/a/log/supervise"] {
        wait_until("the status", || inside.pid_of(state).is_some());
    }
    assert_eq!(inside.end(), Some(0), "{}", text(kit.path("err")));
    assert_eq!(std::io::read_to_string(log).unwrap(), "12345\nlast words\n");
    let mut left: Vec<_> = fs::read_dir(kit.path("sv/a")).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["log", "run"], "nothing is written there");
}

#[test]
fn state_follows_a_service_that_is_disabled() {
    let kit = Kit::new();
    kit.service("sv/a", "exec sleep 1000", Some("exec cat"));
    let program = "mount -t tmpfs tmpfs /run; mkdir /run/svscan; exec bin/svscan -v sv";
    let inside = Inside::start(&kit, &["--user", "--map-root-user"], program);
    let up = || wait_for("the service", || inside.pid_of("run/svscan/a/supervise"));
    // A second one that would share the state says how it need not.
    let second = Command::new("/usr/bin/nsenter")
        .args(["--user", "--preserve-credentials", "--mount", "--target", &inside.svscan.to_string()])
        .arg(kit.path("bin/svscan"))
        .arg(kit.path("sv"))
        .output();
    let second = second.unwrap();
    assert_eq!(second.status.code(), Some(111));
    assert!(
        String::from_utf8_lossy(&second.stderr)
            .contains("already running, pid 1, with its state in /run/svscan: set DISABLE_RUN")
    );
    let first = up();
    fs::rename(kit.path("sv/a"), kit.path("sv/.a")).unwrap();
    wait_until("the state to follow", || inside.pid_of("run/svscan/.a/supervise") == Some(first));
    fs::write(inside.path("run/svscan/.a/supervise/control"), "dx").unwrap();
    wait_until("the end of it and of its logger", || {
        let running = text(format!("/proc/{0}/task/{0}/children", inside.svscan));
        running.trim().is_empty()
    });
    fs::rename(kit.path("sv/.a"), kit.path("sv/a")).unwrap();
    assert_ne!(up(), first);
    assert!(!inside.path("run/svscan/.a").exists());
    assert_eq!(inside.end(), Some(0));
}

#[test]
fn a_run_directory_of_somebody_else_is_passed_over() {
    assert!(nix::unistd::geteuid().is_root(), "this test needs root");
    let kit = Kit::new();
    fs::set_permissions(kit.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    fs::create_dir(kit.path("open")).unwrap();
    for (from, to) in
        [(env!("CARGO_BIN_EXE_daemontools"), "svscan"), (env!("CARGO_BIN_EXE_supervise"), "supervise")]
    {
        assert!(Command::new("cp").arg(from).arg(kit.path("open").join(to)).status().unwrap().success());
    }
    let dir = kit.service("sv/a", "exec sleep 1000", None);
    for path in [kit.path("sv"), dir.clone()] {
        std::os::unix::fs::chown(path, Some(12345), Some(12345)).unwrap();
    }
    let mut command = Command::new("/usr/bin/unshare");
    let program = "mount -t tmpfs tmpfs /run; mkdir /run/svscan; TERMINATE_SESSION=1
         export TERMINATE_SESSION; exec setpriv --reuid 12345 --regid 12345 --clear-groups open/svscan sv";
    command.args(["--mount", "/bin/sh", "-ec", program]).current_dir(kit.path("")).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(fs::File::create(kit.path("err")).unwrap());
    let mut svscan = Running::start(&mut command);
    wait_until("the service", || kit.pid("sv/a").is_some());
    let service = kit.wait_up("sv/a");
    assert!(kit.path("sv/.svscan.pid").exists());
    svscan.signal(Signal::SIGTERM);
    assert_eq!(svscan.wait(), Some(0), "{}", text(kit.path("err")));
    assert!(!alive(service));
}
