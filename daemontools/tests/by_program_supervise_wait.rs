//! supervise: services that wait for others, for what is left of themselves, or that give up.

mod kit;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use kit::{Kit, Running, alive, script, signal, text, wait_for, wait_until};
use nix::sys::signal::Signal;

const SLEEP: &str = "exec sleep 1000";

fn stderr_of(kit: &Kit, service: &str) -> Running {
    let file = fs::File::create(kit.path(format!("{service}.err"))).unwrap();
    Running::start(kit.ours("supervise").arg(service).stderr(file))
}

#[test]
fn a_service_is_started_when_those_it_waits_for_are_up() {
    let kit = Kit::new();
    for name in ["one", "two"] {
        fs::write(kit.service(name, SLEEP, None).join("down"), "").unwrap();
    }
    let dir = kit.service("a", SLEEP, None);
    fs::write(dir.join("wait"), "0\none\ntwo\n").unwrap();
    let _waiting = kit.supervise("a");
    kit.wait_state("a", "wait");
    let stat = kit.stat("a");
    assert_eq!(stat["wait_for"], serde_json::json!(["one", "two"]));
    assert_eq!(kit.code("svstat", &["a"]), 6);
    let status = fs::read(dir.join("supervise/status")).unwrap();
    assert_eq!(status[12..21], *b"\0\0\0\0\0u\xfe\xff\0", "down for everybody, waiting for those who ask");
    let _others = [kit.supervise("one"), kit.supervise("two")];
    for name in ["one", "two"] {
        wait_until("a supervise", || kit.code("svok", &[name]) == 0);
        assert_eq!(kit.stat("a")["state"], "wait");
        kit.code("svc", &["-u", name]);
        kit.wait_up(name);
    }
    kit.wait_up("a");
    // The start of one that has gone down waits again; d, x and TERM are obeyed meanwhile.
    assert_eq!(kit.code("svc", &["-d", "-W", "two"]), 0);
    signal(kit.pid("a").unwrap(), Signal::SIGKILL);
    kit.wait_state("a", "wait");
    kit.code("svc", &["-d", "a"]);
    kit.wait_state("a", "down");
    kit.code("svc", &["-o", "a"]);
    kit.wait_state("a", "wait");
    assert_eq!(kit.stat("a")["want"], "once");
    kit.code("svc", &["-u", "-w", "two"]);
    kit.wait_up("a");
}

#[test]
fn a_waiting_supervise_can_be_told_to_go() {
    let kit = Kit::new();
    fs::create_dir(kit.path("never")).unwrap();
    let dir = kit.service("a", SLEEP, None);
    fs::write(dir.join("wait"), "0\nnever\n").unwrap();
    for how in ["x", "term", "quit"] {
        let mut waiting = kit.supervise("a");
        kit.wait_state("a", "wait");
        match how {
            "x" => assert_eq!(kit.code("svc", &["-x", "-W", "a"]), 0),
            "term" => waiting.signal(Signal::SIGTERM),
            _ => waiting.signal(Signal::SIGQUIT),
        }
        assert_eq!(waiting.wait(), Some(0), "{how}");
    }
    // A name that does not exist is not waited for, nor is anything when the file is incomplete.
    for wait in ["0\nnosuch\n", "5\n", "5\n\n"] {
        fs::write(dir.join("wait"), wait).unwrap();
        let _supervise = kit.supervise("a");
        kit.wait_up("a");
        assert_eq!(kit.code("svc", &["-dx", "-W", "a"]), 0);
    }
}

#[test]
fn time_to_settle_is_for_those_who_have_just_come_up() {
    let kit = Kit::new();
    kit.service("other", SLEEP, None);
    let dir = kit.service("a", SLEEP, None);
    fs::write(dir.join("wait"), "100\nother\n").unwrap();
    let _other = kit.supervise("other");
    kit.wait_up("other");
    let _waiting = kit.supervise("a");
    let left = wait_for("a countdown", || kit.stat("a")["remaining"].as_u64());
    assert!((1..=100).contains(&left), "{left}");
    let line = String::from_utf8(kit.run("svstat", &["a"]).stdout).unwrap();
    assert!(line.starts_with("a: wait ") && line.contains(" remaining "), "{line}");
    kit.code("svc", &["-d", "a"]);
    kit.wait_state("a", "down");
    // Long up, by the wall clock: no time is given.
    let status = kit.path("other/supervise/status");
    let mut record = fs::read(&status).unwrap();
    record[4..8].fill(0);
    fs::write(&status, record).unwrap();
    kit.code("svc", &["-u", "a"]);
    kit.wait_up("a");
}

#[test]
fn an_absolute_path_a_fifo_of_anybody_and_a_supervise_of_debian_can_be_waited_for() {
    let kit = Kit::new();
    let other = kit.service("other", SLEEP, None);
    let dir = kit.service("a", SLEEP, None);
    fs::write(dir.join("wait"), format!("0\n{}\n", other.display())).unwrap();
    let _waiting = kit.supervise("a");
    kit.wait_state("a", "wait");
    let _debian = Running::start(kit.debians("supervise").arg("other"));
    kit.wait_up("a");
    // UPFIFO: whoever holds it open is up.
    fs::create_dir_all(kit.path("program/supervise")).unwrap();
    fs::write(kit.service("b", SLEEP, None).join("wait"), "0\nprogram\n").unwrap();
    let _b = Running::start(kit.ours("supervise").arg("b").env("UPFIFO", "mine"));
    kit.wait_state("b", "wait");
    nix::unistd::mkfifo(&kit.path("program/supervise/mine"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(kit.stat("b")["state"], "wait");
    let open =
        fs::OpenOptions::new().read(true).write(true).open(kit.path("program/supervise/mine")).unwrap();
    kit.wait_up("b");
    drop(open);
}

#[test]
fn services_that_wait_for_each_other_are_started_and_that_is_said() {
    let kit = Kit::new();
    for (name, other) in [("a", "b"), ("b", "c"), ("c", "a")] {
        fs::write(kit.service(name, SLEEP, None).join("wait"), format!("0\n{other}\n")).unwrap();
    }
    let _all = ["a", "b", "c"].map(|name| stderr_of(&kit, name));
    for name in ["a", "b", "c"] {
        kit.wait_up(name);
        kit.code("svc", &["-r", "-w", name]);
        let said = text(kit.path(format!("{name}.err")));
        assert_eq!(said.matches("waits for itself").count(), 1, "{said}");
    }
}

#[test]
fn what_is_left_of_a_service_is_waited_for() {
    let kit = Kit::new();
    // A process of the service stays behind with the lock.
    let run = "[ -e second ] && exec sleep 1000; : > second; sleep 1000 & echo $! > left; exit 1";
    let dir = kit.service("a", run, None);
    fs::write(dir.join("lock-fd"), "7\n").unwrap();
    let _supervise = stderr_of(&kit, "a");
    kit.wait_state("a", "wait");
    assert_eq!(kit.stat("a")["wait_for"], serde_json::json!(["service-lock"]));
    assert_eq!(kit.code("svstat", &["a"]), 6);
    wait_until("a word about it", || text(kit.path("a.err")).contains("holds service-lock"));
    signal(text(dir.join("left")).trim().parse().unwrap(), Signal::SIGKILL);
    let pid = kit.wait_up("a");
    assert!(fs::exists(format!("/proc/{pid}/fd/7")).unwrap(), "it has the lock");
}

#[test]
fn a_new_supervise_starts_no_twin_of_a_service_it_knows_nothing_about() {
    let kit = Kit::new();
    let dir = kit.service("a", "echo $$ >> pids; exec sleep 1000", None);
    fs::write(dir.join("lock-fd"), "9\n").unwrap();
    let mut first = kit.supervise("a");
    let pid = kit.wait_up("a");
    first.kill();
    fs::remove_file(dir.join("supervise/service")).unwrap();
    let _second = kit.supervise("a");
    kit.wait_state("a", "wait");
    assert_eq!(text(dir.join("pids")).lines().count(), 1);
    signal(pid, Signal::SIGKILL);
    assert_ne!(kit.wait_up("a"), pid);
}

#[test]
fn backoff_permafail_and_the_tally() {
    let kit = Kit::new();
    let dir = kit.service("a", "echo >> starts; [ -e give-up ] && exit 100; exit 7", None);
    fs::write(dir.join("backoff"), "10 100 2\n").unwrap();
    fs::write(dir.join("permafail"), "").unwrap();
    fs::write(dir.join("max-death-tally"), "5\n").unwrap();
    script(&dir.join("alert"), "echo $3 >> alerts");
    let _supervise = kit.supervise("a");
    // At one start in a second this would take half a minute.
    wait_until("30 starts", || text(dir.join("starts")).lines().count() >= 30);
    fs::write(dir.join("give-up"), "").unwrap();
    kit.wait_state("a", "failed");
    let stat = kit.stat("a");
    assert_eq!((&stat["last_exit"], &stat["want"]), (&100.into(), &"down".into()));
    assert!(stat["restarts"].as_u64().unwrap() >= 29, "{stat}");
    let line = String::from_utf8(kit.run("svstat", &["a"]).stdout).unwrap();
    assert!(line.contains(&format!(", failed, restarts {} ", stat["restarts"])), "{line}");
    wait_until("the alert", || text(dir.join("alerts")).lines().last() == Some("100"));
    let tally = String::from_utf8(kit.run("svstat", &["-t", "a"]).stdout).unwrap();
    let lines: Vec<_> = tally.lines().collect();
    assert_eq!(lines.len(), 5, "{tally}");
    assert!(lines[3].starts_with('@') && lines[3].ends_with(" a: exited 7"), "{tally}");
    assert!(lines[4].ends_with(" a: exited 100"), "{tally}");
    assert_eq!(fs::metadata(dir.join("supervise/death_tally")).unwrap().len(), 5 * 14);
    fs::remove_file(dir.join("give-up")).unwrap();
    script(&dir.join("run"), SLEEP);
    kit.code("svc", &["-u", "a"]);
    signal(kit.wait_up("a"), Signal::SIGKILL);
    wait_until("a signal in the tally", || {
        String::from_utf8(kit.run("svstat", &["-t", "a"]).stdout).unwrap().contains(" a: signal 9")
    });
}

#[test]
fn init_fails_and_is_tried_again_when_told_to() {
    let kit = Kit::new();
    let dir = kit.service("a", SLEEP, None);
    script(&dir.join("init"), "echo >> inits; [ -e well ]");
    let mut supervise = kit.supervise("a");
    wait_until("init", || text(dir.join("inits")).lines().count() == 1);
    assert_eq!(kit.pid("a"), None);
    fs::write(dir.join("well"), "").unwrap();
    // By itself it would after a minute.
    wait_until("init to have failed and to be run again", || {
        kit.code("svc", &["-u", "a"]);
        text(dir.join("inits")).lines().count() >= 2
    });
    let pid = kit.wait_up("a");
    let inits = text(dir.join("inits")).lines().count();
    signal(pid, Signal::SIGKILL);
    wait_until("a restart", || kit.pid("a").is_some_and(|p| p != pid));
    assert_eq!(text(dir.join("inits")).lines().count(), inits, "once is enough");
    supervise.signal(Signal::SIGTERM);
    assert_eq!(supervise.wait(), Some(0));
}

#[test]
fn scripts_that_are_missing_fail_are_killed_or_cannot_be_run() {
    let kit = Kit::new();
    let dir = kit.service("a", SLEEP, None);
    fs::write(dir.join("backoff"), "1 1 1\n").unwrap();
    let _supervise = stderr_of(&kit, "a");
    for what in ["exit 0", "exit 1", "kill -9 $$", "unrunnable", "missing"] {
        for name in ["alert", "shutdown"] {
            script(&dir.join(name), what);
            match what {
                "missing" => fs::remove_file(dir.join(name)).unwrap(),
                "unrunnable" => {
                    fs::set_permissions(dir.join(name), PermissionsExt::from_mode(0o644)).unwrap();
                }
                _ => {}
            }
        }
        let pid = kit.wait_up("a");
        signal(pid, Signal::SIGKILL);
        let next = wait_for(what, || kit.pid("a").filter(|&p| p != pid));
        assert_eq!(kit.code("svc", &["-d", "-W", "a"]), 0, "{what}");
        assert!(!alive(next));
        kit.code("svc", &["-u", "a"]);
    }
    assert!(text(kit.path("a.err")).contains("unable to run alert"), "{}", text(kit.path("a.err")));
}

#[test]
fn a_failing_fork_is_tried_again() {
    let kit = Kit::new();
    let dir = kit.service("a", "echo \"$2\" >> log; exec sleep 1000", None);
    // The second process that supervise wants to start is refused (the first is the first start).
    let mut command = kit.command("/usr/bin/strace".into());
    command.args(["-qq", "-o", "/dev/null", "-e", "inject=clone,clone3,fork,vfork:error=EAGAIN:when=2"]);
    command.arg(kit.path("bin/supervise")).arg("a").stderr(fs::File::create(kit.path("err")).unwrap());
    let _supervise = Running::start(command.stdout(Stdio::null()));
    signal(kit.wait_up("a"), Signal::SIGKILL);
    wait_until("a complaint", || text(kit.path("err")).contains("unable to start run"));
    assert_eq!(kit.pid("a"), None);
    kit.code("svc", &["-u", "a"]);
    kit.wait_up("a");
    wait_until("the reason", || text(dir.join("log")).lines().last() == Some("manual startup"));
    assert_eq!(kit.code("svc", &["-dx", "-W", "a"]), 0);
}
