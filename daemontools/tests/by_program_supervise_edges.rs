//! supervise at its edges: odd services, odd names, a state directory that goes away.

mod kit;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, symlink};

use kit::{Kit, Running, alive, script, signal, text, trapping, wait_for, wait_until};
use nix::sys::signal::Signal;

const SLEEP: &str = "exec sleep 1000";

#[test]
fn a_service_that_ignores_term_lives_on_until_killed() {
    let kit = Kit::new();
    let dir = kit.service("a", &trapping("trap ': > termed' TERM; : > ready"), None);
    let _supervise = kit.supervise("a");
    wait_until("the trap", || dir.join("ready").exists());
    let pid = kit.wait_up("a");
    kit.code("svc", &["-d", "a"]);
    wait_until("TERM", || dir.join("termed").exists());
    assert_eq!(kit.code("svstat", &["a"]), 5, "up, want down");
    assert!(alive(pid));
    assert_eq!(kit.code("svc", &["-k", "-W", "a"]), 0);
    assert!(!alive(pid));
}

#[test]
fn a_stopped_service_hears_the_stop_and_a_paused_one_the_restart() {
    let kit = Kit::new();
    kit.service("a", SLEEP, None);
    let _supervise = kit.supervise("a");
    let pid = kit.wait_up("a");
    // By somebody else: supervise knows nothing of it.
    signal(pid, Signal::SIGSTOP);
    assert_eq!(kit.code("svc", &["-d", "-W", "a"]), 0);
    assert_eq!(kit.code("svc", &["-p", "a"]), 0);
    let record = || fs::read(kit.path("a/supervise/status")).unwrap();
    kit.code("svc", &["-u", "-w", "a"]);
    kit.code("svc", &["-p", "a"]);
    wait_until("the byte", || record()[16] == 1);
    kit.code("svc", &["-r", "-w", "a"]);
    assert_eq!(record()[16], 0);
    kit.code("svc", &["-d", "-W", "a"]);
    kit.code("svc", &["-p", "a"]);
    // The next command shows that p was read.
    kit.code("svc", &["-o", "-w", "a"]);
    assert_eq!(record()[16], 0, "what was down could not be paused");
}

#[test]
fn services_that_end_at_once_close_everything_or_leave_their_session() {
    let kit = Kit::new();
    let quick = kit.service("quick", "echo >> starts", None);
    fs::write(quick.join("backoff"), "20 20 1").unwrap();
    kit.service("closed", "exec 0<&- 1>&- 2>&-; exec sleep 1000", None);
    kit.service("session", "exec setsid sleep 1000", None);
    let forked = kit.service("forked", "sleep 1000 & echo $! > child; echo >> starts; exit 0", None);
    let mut supervises = ["quick", "closed", "session", "forked"].map(|name| kit.supervise(name));
    wait_until("many starts", || text(quick.join("starts")).lines().count() > 20);
    for name in ["closed", "session"] {
        let pid = kit.wait_up(name);
        assert_eq!(kit.code("svc", &["-dx", "-W", name]), 0);
        assert!(!alive(pid), "{name}");
    }
    // Without the sticky bit a process in the background is nobody's.
    wait_until("a restart", || text(forked.join("starts")).lines().count() > 1);
    for name in ["quick", "forked"] {
        assert_eq!(kit.code("svc", &["-dx", "-W", name]), 0);
    }
    assert!(supervises.iter_mut().all(|s| s.wait() == Some(0)));
}

#[test]
fn a_child_that_was_stopped_or_continued_is_only_reported() {
    let kit = Kit::new();
    kit.service("a", SLEEP, None);
    let err = fs::File::create(kit.path("err")).unwrap();
    let _supervise = Running::start(kit.ours("supervise").arg("a").env("VERBOSE", "1").stderr(err));
    let pid = kit.wait_up("a");
    for (s, word) in [(Signal::SIGSTOP, "stopped by signal 19"), (Signal::SIGCONT, "continued by signal")] {
        signal(pid, s);
        wait_until(word, || text(kit.path("err")).contains(&format!("a: supervise: info: pid {pid} {word}")));
        assert_eq!((kit.stat("a")["state"].as_str(), kit.pid("a")), (Some("up"), Some(pid)));
    }
}

#[test]
fn descriptors_that_supervise_was_started_with_are_not_for_the_service() {
    let kit = Kit::new();
    let dir = kit.service("a", "exec > fds; exec ls /proc/self/fd", None);
    let mut shell = kit.command("/bin/sh".into());
    let _supervise = Running::start(shell.args(["-c", "exec 7</dev/null 9>/dev/null; exec bin/supervise a"]));
    let fds = wait_for("the descriptors", || Some(text(dir.join("fds"))).filter(|t| !t.is_empty()));
    assert!(!fds.lines().any(|l| l == "7" || l == "9"), "{fds}");
}

#[test]
fn run_may_go_and_come_back() {
    let kit = Kit::new();
    let dir = kit.service("a", SLEEP, None);
    let _supervise = kit.supervise("a");
    let first = kit.wait_up("a");
    fs::rename(dir.join("run"), dir.join("run.away")).unwrap();
    signal(first, Signal::SIGKILL);
    kit.wait_state("a", "down");
    assert_eq!(kit.stat("a")["want"], "up");
    fs::rename(dir.join("run.away"), dir.join("run")).unwrap();
    assert_ne!(kit.wait_up("a"), first);
}

#[test]
fn names_with_blanks_of_255_bytes_and_of_many_alphabets() {
    let kit = Kit::new();
    for name in ["with blank  two", &"n".repeat(255), "\u{65e5}\u{672c} \u{20ac}", "-dash", "per%cent\ttab"] {
        let dir = kit.service(name, "echo \"$1\" > told; exec sleep 1000", None);
        let mut supervise = Running::start(kit.ours("supervise").arg("--").arg(name));
        let stat = || kit.run("svstat", &["--", name]);
        wait_until(name, || stat().status.code() == Some(0));
        wait_until("run", || text(dir.join("told")) == format!("{name}\n"));
        assert!(String::from_utf8_lossy(&stat().stdout).starts_with(&format!("{name}: up ")));
        assert_eq!(kit.code("svc", &["-dx", "-W", "--", name]), 0);
        assert_eq!(supervise.wait(), Some(0));
    }
}

#[test]
fn of_many_that_start_at_once_one_stays() {
    let kit = Kit::new();
    let dir = kit.service("a", "echo $$ >> pids; exec sleep 1000", None);
    for _ in 0..5 {
        let mut all: Vec<_> = (0..8).map(|_| kit.supervise("a")).collect();
        wait_until("one to be left", || all.iter_mut().map(Running::is_running).filter(|&r| r).count() == 1);
        let codes: Vec<_> = all.iter_mut().filter_map(|s| (!s.is_running()).then(|| s.wait())).collect();
        assert_eq!(codes, [Some(100); 7]);
        kit.wait_up("a");
        assert_eq!(kit.code("svc", &["-dx", "-W", "a"]), 0);
    }
    wait_until("five starts", || text(dir.join("pids")).lines().count() == 5);
}

#[test]
fn somebody_else_may_read_the_control_fifo() {
    let kit = Kit::new();
    let dir = kit.service("a", SLEEP, None);
    let supervise = kit.supervise("a");
    let pid = kit.wait_up("a");
    supervise.signal(Signal::SIGSTOP);
    let mut control = fs::OpenOptions::new();
    let mut thief =
        control.read(true).custom_flags(libc::O_NONBLOCK).open(dir.join("supervise/control")).unwrap();
    kit.code("svc", &["-d", "a"]);
    let mut stolen = [0; 9];
    assert_eq!(thief.read(&mut stolen).unwrap(), 1);
    supervise.signal(Signal::SIGCONT);
    // Lost is lost, but the next one is heard.
    assert_eq!(kit.code("svc", &["-p", "a"]), 0);
    kit.wait_state("a", "paused");
    assert!(alive(pid));
    drop(thief);
    assert_eq!(kit.code("svc", &["-dx", "-W", "a"]), 0);
}

#[test]
fn a_state_directory_that_goes_away_is_made_again_without_being_asked() {
    let kit = Kit::new();
    let dir = kit.service("a", SLEEP, None);
    let supervise = kit.supervise("a");
    let pid = kit.wait_up("a");
    let state = dir.join("supervise");
    let back = |what: &str| {
        wait_until(what, || kit.code("svok", &["a"]) == 0 && kit.pid("a") == Some(pid));
    };
    fs::remove_dir_all(&state).unwrap();
    back("removed");
    fs::rename(&state, dir.join("moved")).unwrap();
    signal(supervise.pid(), Signal::SIGHUP);
    back("renamed");
    fs::remove_file(state.join("control")).unwrap();
    back("without control");
    wait_until("control", || state.join("control").exists());
    fs::remove_file(state.join("ok")).unwrap();
    back("without ok");
    // It is the only one still, and a successor takes over from it.
    assert_eq!(kit.code("supervise", &["a"]), 100);
    let mut supervise = supervise;
    supervise.kill();
    let _next = kit.supervise("a");
    assert_eq!(kit.wait_up("a"), pid);
}

#[test]
fn a_full_disk_is_a_warning_and_the_service_runs() {
    let kit = Kit::new();
    let dir = kit.service("a", "echo $$ > pid; exec sleep 1000", None);
    fs::create_dir(dir.join("supervise")).unwrap();
    symlink("/dev/full", dir.join("supervise/status")).unwrap();
    let err = fs::File::create(kit.path("err")).unwrap();
    let mut supervise = Running::start(kit.ours("supervise").arg("a").stderr(err));
    let pid: i32 = wait_for("the service", || text(dir.join("pid")).trim().parse().ok());
    wait_until("a warning", || {
        text(kit.path("err")).contains("unable to write supervise/status: No space left")
    });
    assert_eq!(kit.code("svok", &["a"]), 0);
    assert_eq!(kit.code("svc", &["-dx", "a"]), 0);
    assert_eq!(supervise.wait(), Some(0));
    assert!(!alive(pid));
}

#[test]
fn a_directory_that_cannot_be_written_to_is_said_at_once() {
    let kit = Kit::new();
    kit.service("a", SLEEP, None);
    // Copied by a child, so that no writer of it is open here when it is started.
    let copy = kit.path("supervise");
    let program = fs::canonicalize(kit.path("bin/supervise")).unwrap();
    assert!(kit.command("/bin/cp".into()).arg(program).arg(&copy).status().unwrap().success());
    for path in [kit.path(""), copy.clone()] {
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
    }
    let mut command = kit.command("/usr/bin/setpriv".into());
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(copy).arg("a");
    let out = command.stderr(std::process::Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(111), "{said}");
    assert!(said.starts_with("a: supervise: fatal: unable to set up supervise"), "{said}");
}

#[test]
fn restarts_are_a_second_apart_and_commands_are_not() {
    let kit = Kit::new();
    let run = "read up rest < /proc/uptime; echo $up >> starts; exit 0";
    let dir = kit.service("a", run, None);
    let _supervise = kit.supervise("a");
    wait_until("four starts", || text(dir.join("starts")).lines().count() >= 4);
    let times: Vec<f64> = text(dir.join("starts")).lines().map(|l| l.parse().unwrap()).collect();
    assert!(times.windows(2).all(|w| w[1] - w[0] > 0.97), "{times:?}");
}

#[test]
fn ten_thousand_restarts_leave_nothing_behind() {
    let kit = Kit::new();
    let dir = kit.service("a", "", None);
    // A run that costs little; the shell would take a minute.
    fs::remove_file(dir.join("run")).unwrap();
    symlink("/bin/true", dir.join("run")).unwrap();
    fs::write(dir.join("backoff"), "0 0 1\n").unwrap();
    let supervise = kit.supervise("a");
    let restarts = || kit.stat("a")["restarts"].as_u64().unwrap_or(0);
    let fds = || fs::read_dir(format!("/proc/{}/fd", supervise.pid())).unwrap().count();
    let memory = || {
        let rollup = text(format!("/proc/{}/smaps_rollup", supervise.pid()));
        let line = rollup.lines().find(|l| l.starts_with("Private_Dirty:")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let slow = |n: u64| {
        let start = std::time::Instant::now();
        while restarts() < n {
            assert!(start.elapsed().as_secs() < 300, "{} restarts", restarts());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    // Measured while it is down: a child that has not become its program yet shares the memory.
    let rest = || assert_eq!(kit.code("svc", &["-d", "-W", "a"]), 0);
    slow(500);
    rest();
    let (fds_before, memory_before) = (fds(), memory());
    kit.code("svc", &["-u", "a"]);
    slow(10_500);
    rest();
    assert!(fds() <= fds_before, "{} descriptors, {fds_before} before", fds());
    assert!(memory() <= memory_before + 64, "{} KiB, {memory_before} before", memory());
    assert_eq!(fs::metadata(dir.join("supervise/death_tally")).unwrap().len(), 1400);
}

#[test]
fn scripts_of_the_logger_and_messages_name_the_parent() {
    let kit = Kit::new();
    kit.service("a", SLEEP, Some("exit 1"));
    script(&kit.path("a/log/run"), "exit 1");
    let mut command = kit.ours("supervise");
    command.current_dir(kit.path("a")).args(["log", "a.25"]).env("VERBOSE", "1");
    let _supervise = Running::start(command.stderr(fs::File::create(kit.path("err")).unwrap()));
    wait_until("a message", || text(kit.path("err")).contains("a.25/log: supervise: info: pid "));
    let mut control = fs::OpenOptions::new().write(true).open(kit.path("a/log/supervise/control")).unwrap();
    control.write_all(b"dx").unwrap();
}
