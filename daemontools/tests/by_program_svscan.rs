//! svscan, with real supervises, services and loggers.

mod kit;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};

use kit::{Kit, Running, alive, signal, text, trapping, wait_for, wait_until};
use nix::sys::signal::Signal;

/// svscan on `sv`, which stops everything at its end.
fn command(kit: &Kit) -> Command {
    let mut command = kit.ours("svscan");
    command.arg("sv").env("TERMINATE_SESSION", "").env("DISABLE_RUN", "");
    command
}

fn scan(kit: &Kit) -> Running {
    fs::create_dir_all(kit.path("sv")).unwrap();
    let err = fs::File::create(kit.path("svscan.err")).unwrap();
    Running::start(command(kit).env("VERBOSE", "").stderr(err))
}

/// A logger that keeps everything below `logs/NAME`.
fn logger(kit: &Kit, name: &str) -> String {
    format!("exec {} {}", kit.path("bin/multilog").display(), kit.path("logs").join(name).display())
}

fn log_text(kit: &Kit, name: &str) -> String {
    text(kit.path("logs").join(name).join("current"))
}

#[test]
fn a_service_renamed_into_place_runs_with_its_logger() {
    let kit = Kit::new();
    let mut svscan = scan(&kit);
    fs::create_dir(kit.path("logs")).unwrap();
    kit.service("sv/.new", "echo \"$MAIN_SV $SCANDIR\"; exec sleep 1000", Some(&logger(&kit, "a")));
    fs::rename(kit.path("sv/.new"), kit.path("sv/a")).unwrap();
    kit.wait_up("sv/a");
    kit.wait_up("sv/a/log");
    let want = format!("a {}\n", kit.path("sv").canonicalize().unwrap().display());
    wait_until("the line", || log_text(&kit, "a") == want);
    svscan.signal(Signal::SIGTERM);
    assert_eq!(svscan.wait(), Some(0));
    assert_eq!(kit.code("svok", &["sv/a"]), 100);
    assert_eq!(kit.code("svok", &["sv/a/log"]), 100);
}

#[test]
fn every_last_line_is_kept_when_all_is_stopped() {
    const SERVICES: usize = 100;
    let kit = Kit::new();
    fs::create_dir(kit.path("logs")).unwrap();
    for n in 0..SERVICES {
        let run = "trap 'echo last words; kill $!; exit 0' TERM; echo up; sleep 1000 & wait; wait";
        kit.service(&format!("sv/s{n}"), run, Some(&logger(&kit, &format!("s{n}"))));
    }
    let mut svscan = scan(&kit);
    for n in 0..SERVICES {
        wait_until("a first line", || log_text(&kit, &format!("s{n}")).starts_with("up\n"));
    }
    svscan.signal(Signal::SIGTERM);
    assert_eq!(svscan.wait(), Some(0));
    for n in 0..SERVICES {
        assert_eq!(log_text(&kit, &format!("s{n}")), "up\nlast words\n", "service {n}");
        let mode = fs::metadata(kit.path(format!("logs/s{n}/current"))).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o744, "complete and on the disk");
    }
}

#[test]
fn killed_supervises_are_replaced_and_the_pipe_is_kept() {
    let kit = Kit::new();
    fs::create_dir(kit.path("logs")).unwrap();
    // Numbered lines; a broken pipe would end it.
    let run = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done";
    kit.service("sv/a", run, Some(&logger(&kit, "a")));
    let mut svscan = scan(&kit);
    let service = kit.wait_up("sv/a");
    let spid = |s: &str| kit.stat(s)["spid"].as_i64().map(|p| i32::try_from(p).unwrap());
    for victim in ["sv/a", "sv/a/log", "sv/a", "sv/a/log"] {
        let old = wait_for("supervise", || spid(victim));
        signal(old, Signal::SIGKILL);
        wait_until("another supervise", || spid(victim).is_some_and(|p| p != old));
    }
    assert_eq!(kit.wait_up("sv/a"), service, "the same service all the time");
    let old = kit.wait_up("sv/a/log");
    signal(old, Signal::SIGKILL);
    wait_until("another logger", || kit.pid("sv/a/log").is_some_and(|p| p != old));
    svscan.signal(Signal::SIGTERM);
    assert_eq!(svscan.wait(), Some(0));
    assert!(!alive(service));
    // No number is missing, whoever was killed.
    let mut names: Vec<_> = fs::read_dir(kit.path("logs/a")).unwrap().map(|e| e.unwrap().path()).collect();
    names.retain(|p| !p.ends_with("lock") && !p.ends_with("state"));
    names.sort();
    let all: String = names.iter().map(text).collect();
    let mut next = 1;
    for line in all.lines() {
        if line == next.to_string() {
            next += 1;
        }
    }
    assert!(next > 10);
    let last = all.lines().last().unwrap().parse::<u32>().unwrap();
    assert_eq!(next, last + 1, "lines up to {last} are there in order");
}

#[test]
fn directories_are_complete_when_run_can_be_executed() {
    let kit = Kit::new();
    let _svscan = scan(&kit);
    fs::create_dir(kit.path("sv/a")).unwrap();
    fs::write(kit.path("sv/a/run"), "#!/bin/sh\nexec sleep 1000\n").unwrap();
    // A second service shows that the first one has been looked at.
    kit.service("sv/.b", "exec sleep 1000", None);
    fs::rename(kit.path("sv/.b"), kit.path("sv/b")).unwrap();
    kit.wait_up("sv/b");
    assert!(!kit.path("sv/a/supervise").exists(), "not started and failed");
    fs::set_permissions(kit.path("sv/a/run"), PermissionsExt::from_mode(0o755)).unwrap();
    kit.wait_up("sv/a");
}

#[test]
fn one_svscan_for_a_directory() {
    let kit = Kit::new();
    let first = scan(&kit);
    wait_until("the first", || text(kit.path("sv/.svscan.pid")).ends_with(&format!("\n{}\n", first.pid())));
    let bytes = fs::read(kit.path("sv/.svscan.pid")).unwrap();
    assert_eq!(bytes[..4], first.pid().to_ne_bytes());
    let second = command(&kit).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(second.status.code(), Some(111));
    let message = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(message.contains(&format!("already running, pid {}", first.pid())), "{message}");
    // What a killed one has left is no hindrance.
    let mut first = first;
    first.kill();
    let mut third = scan(&kit);
    wait_until("the third", || text(kit.path("sv/.svscan.pid")).ends_with(&format!("\n{}\n", third.pid())));
    assert!(third.is_running());
    third.signal(Signal::SIGTERM);
    assert_eq!(third.wait(), Some(0));
    assert!(!kit.path("sv/.svscan.pid").exists(), "the file goes with an orderly end");
}

#[test]
fn usage() {
    let kit = Kit::new();
    assert_eq!(kit.code("svscan", &["-z"]), 100);
    assert_eq!(kit.code("svscan", &["-n", "x"]), 100);
    assert_eq!(kit.code("svscan", &["a", "b"]), 100);
    assert_eq!(kit.code("svscan", &["nosuch"]), 111);
}

#[test]
fn readiness_is_announced_when_all_supervises_are_started() {
    let kit = Kit::new();
    kit.service("sv/a", "env > env.new; mv env.new env.out; exec sleep 1000", None);
    let path = kit.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let mut svscan = Running::start(command(&kit).env("NOTIFY_SOCKET", &path));
    let mut buf = [0; 100];
    let receive = |buf: &mut [u8; 100]| {
        let n = socket.recv(buf).unwrap();
        String::from_utf8(buf[..n].to_vec()).unwrap()
    };
    assert_eq!(receive(&mut buf), "READY=1\n");
    let env = wait_for("the environment", || Some(text(kit.path("sv/a/env.out"))).filter(|t| !t.is_empty()));
    assert!(!env.contains("NOTIFY_SOCKET"), "the services are not to announce themselves");
    svscan.signal(Signal::SIGTERM);
    assert_eq!(receive(&mut buf), "STOPPING=1\n");
    assert_eq!(svscan.wait(), Some(0));
}

#[test]
fn quit_leaves_everything_running() {
    let kit = Kit::new();
    kit.service("sv/a", "exec sleep 1000", None);
    let mut svscan = scan(&kit);
    let pid = kit.wait_up("sv/a");
    svscan.signal(Signal::SIGQUIT);
    assert_eq!(svscan.wait(), Some(0));
    assert!(alive(pid));
    assert_eq!(kit.code("svok", &["sv/a"]), 0);
    assert_eq!(kit.code("svc", &["-dx", "-W", "sv/a"]), 0);
}

#[test]
fn a_killed_svscan_leaves_no_twins_and_the_next_one_stops_all() {
    let kit = Kit::new();
    fs::create_dir(kit.path("logs")).unwrap();
    kit.service("sv/a", &trapping("trap 'echo last words; exit 0' TERM; echo up"), Some(&logger(&kit, "a")));
    let mut first = scan(&kit);
    wait_until("the first line", || log_text(&kit, "a") == "up\n");
    let (service, log) = (kit.wait_up("sv/a"), kit.wait_up("sv/a/log"));
    first.kill();
    let mut second = scan(&kit);
    wait_until("the other to be noticed", || {
        text(kit.path("svscan.err")).contains("a/log: supervise is running already")
    });
    assert_eq!((kit.wait_up("sv/a"), kit.wait_up("sv/a/log")), (service, log));
    second.signal(Signal::SIGTERM);
    assert_eq!(second.wait(), Some(0));
    assert!(!alive(service) && !alive(log));
    assert_eq!(log_text(&kit, "a"), "up\nlast words\n");
}

#[test]
fn its_own_log() {
    let kit = Kit::new();
    fs::create_dir(kit.path("logs")).unwrap();
    kit.service("sv/.svscan", "exit 1", Some(&logger(&kit, "svscan")));
    kit.service("sv/a", "echo from a; exec sleep 1000", None);
    let mut svscan = Running::start(command(&kit).env("VERBOSE", "").env("SCANLOG", ""));
    wait_until("the line of a service without a logger", || log_text(&kit, "svscan").contains("from a\n"));
    svscan.signal(Signal::SIGTERM);
    assert_eq!(svscan.wait(), Some(0));
    let log = log_text(&kit, "svscan");
    assert!(log.contains("svscan: info: supervise") && log.contains("exited 0"), "{log}");
    assert_eq!(kit.code("svok", &["sv/.svscan/log"]), 100);
}

#[test]
fn svars_are_for_supervise_also_that_of_the_logger() {
    let kit = Kit::new();
    let dir = kit.service(
        "sv/a",
        "env > env.new; mv env.new env.out; exec sleep 1000",
        Some("env > env.new; mv env.new env.out; exec cat"),
    );
    for dir in [dir.join(".svars"), dir.join("log/.svars")] {
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("FROM_SVARS"), "yes\n").unwrap();
    }
    let _svscan = scan(&kit);
    for dir in [dir.clone(), dir.join("log")] {
        let look = |dir: &Path| Some(text(dir.join("env.out"))).filter(|t| !t.is_empty());
        assert!(wait_for("the environment", || look(&dir)).contains("FROM_SVARS=yes\n"));
    }
}

#[test]
fn down_files_are_obeyed_at_a_scan() {
    let kit = Kit::new();
    let dir = kit.service("sv/a", "exec sleep 1000", None);
    let svscan = scan(&kit);
    kit.wait_up("sv/a");
    fs::write(dir.join("down"), "").unwrap();
    svscan.signal(Signal::SIGHUP);
    kit.wait_state("sv/a", "down");
    fs::remove_file(dir.join("down")).unwrap();
    svscan.signal(Signal::SIGHUP);
    kit.wait_up("sv/a");
}

#[test]
fn a_removed_service_is_forgotten_when_it_is_stopped() {
    let kit = Kit::new();
    kit.service("sv/a", "exec sleep 1000", None);
    let svscan = scan(&kit);
    let pid = kit.wait_up("sv/a");
    fs::rename(kit.path("sv/a"), kit.path("sv/.a")).unwrap();
    assert_eq!(kit.code("svc", &["-dx", "-W", "sv/.a"]), 0);
    assert!(!alive(pid));
    // It does not come back, and its name may be used again.
    kit.service("sv/.new", "exec sleep 1000", None);
    fs::rename(kit.path("sv/.new"), kit.path("sv/a")).unwrap();
    kit.wait_up("sv/a");
    assert_eq!(kit.code("svok", &["sv/.a"]), 100);
    drop(svscan);
}

#[test]
fn the_logger_of_a_removed_service_keeps_its_last_line() {
    let kit = Kit::new();
    fs::create_dir(kit.path("logs")).unwrap();
    let run = trapping("trap 'echo last words; exit 0' TERM; echo up");
    kit.service("sv/a", &run, Some(&logger(&kit, "a")));
    let _svscan = scan(&kit);
    wait_until("the first line", || log_text(&kit, "a") == "up\n");
    let log = kit.wait_up("sv/a/log");
    fs::rename(kit.path("sv/a"), kit.path("sv/.a")).unwrap();
    assert_eq!(kit.code("svc", &["-dx", "-W", "sv/.a"]), 0);
    wait_until("the logger to end", || !alive(log) && kit.code("svok", &["sv/.a/log"]) == 100);
    assert_eq!(log_text(&kit, "a"), "up\nlast words\n");
    // Enabled again, it starts again, with a logger.
    fs::rename(kit.path("sv/.a"), kit.path("sv/a")).unwrap();
    wait_until("another line", || log_text(&kit, "a") == "up\nlast words\nup\n");
}

#[test]
fn debians_supervise_is_found_by_path_when_ours_is_not_there() {
    // A copy of the executable alone has no supervise beside it.
    let kit = Kit::new();
    fs::create_dir(kit.path("alone")).unwrap();
    // By another process: a file that this one has open for writing could not be executed.
    let copy = std::process::Command::new("cp")
        .args([Path::new(env!("CARGO_BIN_EXE_daemontools")), &kit.path("alone/svscan")])
        .status();
    assert!(copy.unwrap().success());
    kit.service("sv/a", "exec sleep 1000", None);
    let mut command = std::process::Command::new(kit.path("alone/svscan"));
    command.arg(kit.path("sv")).env("PATH", "/usr/bin:/bin").stderr(Stdio::null());
    let mut svscan = Running::start(&mut command);
    kit.wait_up("sv/a");
    assert_eq!(fs::metadata(kit.path("sv/a/supervise/status")).unwrap().len(), 18, "that is Debian's");
    assert_eq!(kit.code("svc", &["-dx", "sv/a"]), 0);
    svscan.kill();
}
