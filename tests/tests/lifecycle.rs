//! Starting, stopping and starting again; nothing is left, nothing of the machine changes.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use e2e::instance::{Instance, mailbox, processes_of, start_in, svctool};
use e2e::kit::{PATIENCE, Running, root, run, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Names, modes, owners, sizes and times of everything in the machine's /etc.
fn fingerprint_of_etc() -> String {
    run(Command::new("find").args(["/etc", "-xdev", "-printf", "%p %m %u %g %s %T@\n"])).stdout
}

fn nothing_runs_in(dir: &Path) {
    assert_eq!(processes_of(dir), Vec::<String>::new());
}

#[test]
fn a_clean_stop_leaves_nothing_and_a_second_run_reuses_all() {
    let before = fingerprint_of_etc();
    let mut instance = Instance::start();
    instance.send_and_wait("first@client.test");
    let first = instance.report.clone();
    assert!(!processes_of(instance.dir()).is_empty());
    instance.stop();
    nothing_runs_in(instance.dir());
    instance.restart();
    assert_eq!(instance.account(0).password, first.accounts[0].password);
    assert_eq!(instance.report.ports, first.ports);
    instance.send_and_wait("second@client.test");
    assert!(mailbox(&instance.account(0).maildir).iter().any(|m| m.contains("<first@client.test>")));
    let dir = instance.dir().to_path_buf();
    run(Command::new(svctool()).args(["try", "--clean", "--dir"]).arg(&dir)).ok();
    assert!(!dir.exists());
    nothing_runs_in(&dir);
    assert_eq!(fingerprint_of_etc(), before);
}

#[test]
fn in_the_foreground_it_shows_its_steps_and_ends_on_a_signal() {
    let dir = root();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut command = Command::new(svctool());
        command.args(["try", "--dir"]).arg(dir.path().join("try")).stdout(Stdio::piped());
        let mut running = Running::start(&mut command);
        let out = running.child().stdout.take().expect("piped");
        let mut seen = String::new();
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            seen.push_str(&line);
            seen.push('\n');
            // The live view has begun.
            if line.starts_with("queue:") {
                running.signal(signal);
            }
        }
        for step in ["ok    message", "ok    getent", "ok    login", "nothing is left running"] {
            assert!(seen.contains(step), "{step}: {seen}");
        }
        assert!(running.wait_within(PATIENCE).success(), "{seen}");
        nothing_runs_in(dir.path());
    }
}

/// As in most containers: uid 0, but without CAP_SYS_ADMIN.
#[test]
fn root_without_the_right_to_mount_goes_on_as_an_ordinary_user() {
    let dir = root();
    let place = dir.path().join("try");
    let bounded = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"]).arg(svctool()).arg("try");
        run(command.args(arguments).arg("--dir").arg(&place))
    };
    for round in ["new", "again"] {
        let output = bounded(&["--detach", "--json"]).ok();
        let report: e2e::instance::Report = serde_json::from_str(&output.stdout).expect("a report");
        assert!(report.left_out.iter().any(|l| l.contains("CAP_SYS_ADMIN")), "{round}: {report:?}");
        let entered = run(Command::new(&report.enter[0]).args(&report.enter[1..]).args(["id", "-u"])).ok();
        assert_eq!(entered.stdout.trim(), "65534", "{round}");
        let status = bounded(&["--status"]).ok();
        assert!(status.stdout.contains("running"), "{round}: {status:?}");
        bounded(&["--stop"]).ok();
        nothing_runs_in(&place);
    }
    bounded(&["--clean"]).ok();
    assert!(!place.exists());
}

#[test]
fn root_that_cannot_change_its_user_says_so() {
    let dir = root();
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-setuid", "--inh-caps", "-setuid"]).arg(svctool());
    let output = run(command.args(["try", "--detach", "--dir"]).arg(dir.path().join("try")));
    assert!(output.code != 0 && output.stderr.contains("CAP_SETUID"), "{output:?}");
    nothing_runs_in(dir.path());
}

#[test]
fn a_killed_keeper_leaves_nothing_that_stop_does_not_find() {
    let mut instance = Instance::start();
    let keeper = std::fs::read_to_string(instance.dir().join("keeper")).expect("pid of the keeper");
    let pid: i32 = keeper.split(' ').next().and_then(|p| p.parse().ok()).expect("a number");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("kill the keeper");
    until(PATIENCE, "keeper gone", || !Path::new(&format!("/proc/{pid}/exe")).exists());
    instance.stop();
    nothing_runs_in(instance.dir());
    instance.restart();
    instance.stop();
    nothing_runs_in(instance.dir());
}

#[test]
fn a_running_instance_is_reported_again_and_not_started_twice() {
    let instance = Instance::start();
    let again = start_in(instance.dir(), &[], None);
    assert_eq!(again.enter, instance.report.enter);
    let refused = run(Command::new(svctool()).args(["try", "--dir"]).arg(instance.dir()));
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("already running"), "{}", refused.stderr);
    let status = run(Command::new(svctool()).args(["try", "--status", "--dir"]).arg(instance.dir())).ok();
    assert!(status.stdout.contains("nssd: up"), "{}", status.stdout);
}

#[test]
fn directories_closed_to_others_serve_as_well() {
    let dir = root();
    e2e::kit::set_mode(dir.path(), 0o700);
    let report = start_in(&dir.path().join("try"), &[], None);
    let stop = run(Command::new(svctool()).args(["try", "--stop", "--dir"]).arg(&report.dir));
    assert_eq!(stop.code, 0, "{}", stop.stderr);
    nothing_runs_in(dir.path());
}
