//! supervise, with real services, driven by our svc and svstat and by Debian's.

mod kit;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};

use kit::{Kit, Running, alive, script, signal, text, wait_for, wait_until};
use nix::sys::signal::Signal;

const SLEEP: &str = "exec sleep 1000";

fn debian_stat(kit: &Kit, service: &str) -> String {
    String::from_utf8(
        kit.debians("svstat").arg(service).stdout(std::process::Stdio::piped()).output().unwrap().stdout,
    )
    .unwrap()
}

#[test]
fn debians_svc_and_svstat_drive_our_supervise() {
    let kit = Kit::new();
    let dir = kit.service("a", SLEEP, None);
    let mut supervise = kit.supervise("a");
    let pid = kit.wait_up("a");
    assert!(debian_stat(&kit, "a").starts_with(&format!("a: up (pid {pid}) ")));
    assert!(kit.debians("svok").arg("a").status().unwrap().success());
    for (letter, wanted) in [("-p", "paused"), ("-c", "up")] {
        kit.debians("svc").args([letter, "a"]).status().unwrap();
        kit.wait_state("a", wanted);
        assert_eq!(debian_stat(&kit, "a").contains(", paused"), wanted == "paused");
    }
    kit.debians("svc").args(["-d", "a"]).status().unwrap();
    kit.wait_state("a", "down");
    assert!(debian_stat(&kit, "a").starts_with("a: down "), "{}", debian_stat(&kit, "a"));
    assert_eq!(fs::read(dir.join("supervise/status")).unwrap()[12..18], *b"\0\0\0\0\0d");
    kit.debians("svc").args(["-o", "a"]).status().unwrap();
    let pid = kit.wait_up("a");
    kit.debians("svc").args(["-k", "a"]).status().unwrap();
    kit.wait_state("a", "down");
    assert!(!alive(pid));
    kit.debians("svc").args(["-u", "a"]).status().unwrap();
    kit.wait_up("a");
    kit.debians("svc").args(["-dx", "a"]).status().unwrap();
    assert_eq!(supervise.wait(), Some(0));
    assert_eq!(debian_stat(&kit, "a"), "a: supervise not running\n");
}

#[test]
fn our_svc_and_svstat_drive_debians_supervise() {
    let kit = Kit::new();
    kit.service("a", SLEEP, None);
    let mut supervise = Running::start(kit.debians("supervise").arg("a"));
    let pid = kit.wait_up("a");
    let ours = String::from_utf8(kit.run("svstat", &["-o", "a"]).stdout).unwrap();
    let strip = |s: &str| s.split(" seconds").next().unwrap().rsplit_once(' ').unwrap().0.to_owned();
    assert_eq!(strip(&ours), strip(&debian_stat(&kit, "a")));
    assert!(ours.contains(&format!("up (pid {pid})")));
    assert_eq!(kit.code("svc", &["-d", "-W", "a"]), 0);
    assert!(!alive(pid));
    assert_eq!(kit.code("svstat", &["a"]), 1);
    assert_eq!(kit.code("svc", &["-uw", "a"]), 0);
    assert_eq!(kit.code("svc", &["-dx", "-W", "a"]), 0);
    assert_eq!(supervise.wait(), Some(0));
    assert_eq!(kit.code("svok", &["a"]), 100);
}

#[test]
fn the_state_directory() {
    let kit = Kit::new();
    let dir = kit.service("a", SLEEP, None);
    let _supervise = kit.supervise("a");
    kit.wait_up("a");
    let state = dir.join("supervise");
    let mode = |name: &str| fs::metadata(state.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(""), 0o700);
    for fifo in ["control", "ok", "up", "dn"] {
        assert!(fs::metadata(state.join(fifo)).unwrap().file_type().is_fifo());
        assert_eq!(mode(fifo), 0o600);
    }
    assert_eq!((mode("lock"), mode("status")), (0o600, 0o644));
    // A second one is told so.
    let second = kit.run("supervise", &["a"]);
    assert_eq!(second.status.code(), Some(100));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another supervise is running here"));
}

#[test]
fn usage_and_broken_directories() {
    let kit = Kit::new();
    assert_eq!(kit.code("supervise", &[]), 100);
    assert_eq!(kit.code("supervise", &["a", "b", "c"]), 100);
    assert_eq!(kit.code("supervise", &["./a"]), 100);
    assert_eq!(kit.code("supervise", &["/a"]), 100);
    assert_eq!(kit.code("supervise", &["nosuch"]), 111);
    fs::create_dir(kit.path("empty")).unwrap();
    assert_eq!(kit.code("supervise", &["empty"]), 111);
    let dir = kit.service("file", SLEEP, None);
    fs::create_dir(dir.join("supervise")).unwrap();
    fs::write(dir.join("supervise/control"), "").unwrap();
    let out = kit.run("supervise", &["file"]);
    assert_eq!(out.status.code(), Some(111));
    assert!(String::from_utf8_lossy(&out.stderr).contains("not a fifo"));
}

#[test]
fn commands_are_obeyed_right_after_a_start() {
    // The original sleeps for a second after each start and hears nothing.
    let kit = Kit::new();
    kit.service("a", SLEEP, None);
    let _supervise = kit.supervise("a");
    kit.wait_up("a");
    let up = kit.stat("a");
    kit.code("svc", &["-d", "a"]);
    kit.wait_state("a", "down");
    let down = fs::read(kit.path("a/supervise/status")).unwrap();
    let since = tai::Label::unpack(down[..12].try_into().unwrap()).to_unix().unwrap().as_secs_f64();
    let began = up["since"].as_f64().unwrap();
    assert!(since - began < 1.99, "down {since}, up since second {began}");
}

#[test]
fn kill_makes_no_twin() {
    let kit = Kit::new();
    let dir = kit.service("a", "echo $$ >> pids; exec sleep 1000", None);
    let mut supervise = kit.supervise("a");
    let pid = kit.wait_up("a");
    for _ in 0..20 {
        supervise.kill();
        assert!(alive(pid), "the service goes on");
        supervise = kit.supervise("a");
        assert_eq!(kit.wait_up("a"), pid, "the new one has taken charge");
    }
    assert_eq!(text(dir.join("pids")).lines().count(), 1, "never started twice");
    // It is controlled as before, and its death is noticed.
    assert_eq!(kit.code("svc", &["-p", "a"]), 0);
    kit.wait_state("a", "paused");
    assert_eq!(kit.code("svc", &["-c", "a"]), 0);
    signal(pid, Signal::SIGKILL);
    let next = wait_for("a restart", || kit.pid("a").filter(|&p| p != pid));
    assert_eq!(kit.code("svc", &["-dx", "-W", "a"]), 0);
    assert!(!alive(next));
}

#[test]
fn kill_at_any_moment_makes_no_twin() {
    // Killed while it starts the service: before, between or after fork and exec.
    let kit = Kit::new();
    let dir = kit.service("a", "echo $$ >> pids; exec sleep 1000", None);
    for n in 0..25u64 {
        let mut supervise = kit.supervise("a");
        let start = std::time::Instant::now();
        while start.elapsed().as_micros() < u128::from(n * 200) {
            std::hint::spin_loop();
        }
        supervise.kill();
        let _last = wait_for("the lock to be free", || {
            let mut next = kit.supervise("a");
            wait_until("it to run or to give up", || !next.is_running() || kit.pid("a").is_some());
            next.is_running().then_some(next)
        });
        let pid = kit.wait_up("a");
        wait_until("run to have run", || text(dir.join("pids")).lines().any(|l| l == pid.to_string()));
        let living = text(dir.join("pids")).lines().filter(|l| alive(l.parse().unwrap())).count();
        assert_eq!(living, 1, "round {n}");
    }
}

#[test]
fn quit_leaves_the_service_and_term_does_not() {
    let kit = Kit::new();
    kit.service("a", SLEEP, None);
    let mut supervise = kit.supervise("a");
    let pid = kit.wait_up("a");
    supervise.signal(Signal::SIGHUP);
    supervise.signal(Signal::SIGQUIT);
    assert_eq!(supervise.wait(), Some(0));
    assert!(alive(pid));
    let mut supervise = kit.supervise("a");
    assert_eq!(kit.wait_up("a"), pid);
    supervise.signal(Signal::SIGTERM);
    assert_eq!(supervise.wait(), Some(0));
    assert!(!alive(pid));
}

#[test]
fn another_process_with_the_recorded_number_is_not_taken_for_the_service() {
    let kit = Kit::new();
    let dir = kit.service("a", SLEEP, None);
    let mut supervise = kit.supervise("a");
    let pid = kit.wait_up("a");
    supervise.kill();
    signal(pid, Signal::SIGKILL);
    wait_until("the service to be gone", || !alive(pid));
    // The record now names a process that lives but was started at another time.
    let record = dir.join("supervise/service");
    let me = std::process::id();
    let forged = text(&record).replace(&format!("\n{pid} ("), &format!("\n{me} ("));
    assert!(forged.contains(&format!("\n{me} (")));
    fs::write(&record, forged).unwrap();
    let _supervise = kit.supervise("a");
    assert_ne!(kit.wait_up("a"), i32::try_from(me).unwrap());
}

#[test]
fn run_gets_its_arguments_and_the_reason() {
    let kit = Kit::new();
    let dir = kit.service("na me \u{e9}", "echo \"$# $1 $2\" >> log; exec sleep 1000", None);
    let _supervise = kit.supervise("na me \u{e9}");
    let line = |n: usize| wait_for("a line", || text(dir.join("log")).lines().nth(n).map(str::to_owned));
    assert_eq!(line(0), "2 na me \u{e9} auto startup");
    let service = "na me \u{e9}";
    kit.wait_up(service);
    assert_eq!(kit.code("svc", &["-r", "-w", service]), 0);
    assert_eq!(line(1), "2 na me \u{e9} manual restart");
    signal(kit.wait_up(service), Signal::SIGKILL);
    assert_eq!(line(2), "2 na me \u{e9} abnormal startup");
    kit.code("svc", &["-d", "-W", service]);
    kit.code("svc", &["-u", service]);
    assert_eq!(line(3), "2 na me \u{e9} manual startup");
}

#[test]
fn down_file_once_and_the_letters_that_make_one() {
    let kit = Kit::new();
    let dir = kit.service("a", SLEEP, None);
    fs::write(dir.join("down"), "").unwrap();
    let _supervise = kit.supervise("a");
    kit.wait_state("a", "down");
    assert_eq!(kit.code("svstat", &["a"]), 1);
    assert!(debian_stat(&kit, "a").starts_with("a: down "));
    fs::remove_file(dir.join("down")).unwrap();
    kit.code("svc", &["-Q", "a"]);
    let pid = kit.wait_up("a");
    assert!(dir.join("down").exists());
    signal(pid, Signal::SIGKILL);
    kit.wait_state("a", "down");
    assert_eq!(kit.stat("a")["want"], "once");
    fs::remove_file(dir.join("down")).unwrap();
    kit.code("svc", &["-D", "a"]);
    wait_until("a down file", || dir.join("down").exists());
}

#[test]
fn a_run_that_cannot_be_run_is_tried_again() {
    let kit = Kit::new();
    let dir = kit.service("a", SLEEP, None);
    fs::set_permissions(dir.join("run"), PermissionsExt::from_mode(0o644)).unwrap();
    let _supervise =
        Running::start(kit.ours("supervise").arg("a").stderr(fs::File::create(kit.path("err")).unwrap()));
    wait_until("a complaint", || text(kit.path("err")).contains("unable to start run"));
    assert_eq!(kit.stat("a")["want"], "up");
    assert_eq!(kit.code("svstat", &["a"]), 4);
    fs::remove_file(dir.join("run")).unwrap();
    script(&dir.join("run"), SLEEP);
    kit.wait_up("a");
    // A bad interpreter, and a command meanwhile.
    fs::write(dir.join("run"), "#!/nonexistent/interpreter\n").unwrap();
    kit.code("svc", &["-r", "a"]);
    kit.wait_state("a", "down");
    assert_eq!(kit.code("svc", &["-dx", "-W", "a"]), 0);
}

#[test]
fn shutdown_and_alert_scripts_get_exactly_their_arguments() {
    let kit = Kit::new();
    let dir = kit.service("a", SLEEP, None);
    for name in ["shutdown", "alert"] {
        script(&dir.join(name), &format!("echo \"{name} $# $*\" >> scripts"));
    }
    let mut supervise = kit.supervise("a");
    let first = kit.wait_up("a");
    signal(first, Signal::SIGKILL);
    let second = wait_for("a restart", || kit.pid("a").filter(|&p| p != first));
    // Only then has it read its script, which is about to be another.
    wait_until("the program itself", || text(format!("/proc/{second}/cmdline")).starts_with("sleep"));
    script(&dir.join("run"), "exit 7");
    kit.code("svc", &["-d", "-W", "a"]);
    kit.code("svc", &["-u", "a"]);
    wait_until("an alert about code 7", || text(dir.join("scripts")).contains(" 7 exited"));
    script(&dir.join("run"), SLEEP);
    let third = kit.wait_up("a");
    supervise.signal(Signal::SIGTERM);
    assert_eq!(supervise.wait(), Some(0));
    let lines = text(dir.join("scripts"));
    assert_eq!(lines.lines().next().unwrap(), format!("alert 4 a {first} 9 stopped/signalled"));
    assert_eq!(lines.lines().nth(1).unwrap(), format!("shutdown 2 a {second}"));
    assert_eq!(lines.lines().last().unwrap(), format!("shutdown 2 a {third}"), "TERM runs it like d");
}

#[test]
fn hanging_scripts_hold_nothing_up() {
    let kit = Kit::new();
    let dir = kit.service("a", SLEEP, None);
    for name in ["alert", "shutdown"] {
        script(&dir.join(name), &format!("echo $$ > {name}.pid; exec sleep 1000"));
        fs::write(dir.join(format!("timeout-{name}")), "1\n").unwrap();
    }
    let _supervise = kit.supervise("a");
    let first = kit.wait_up("a");
    signal(first, Signal::SIGKILL);
    kit.wait_state("a", "down");
    // The alert runs; x and d are obeyed all the same, and the alert is killed after its second.
    kit.code("svc", &["-d", "a"]);
    wait_until("d to be noted", || kit.stat("a")["want"] == "down");
    kit.code("svc", &["-u", "a"]);
    let second = kit.wait_up("a");
    kit.code("svc", &["-d", "a"]);
    wait_until("the shutdown script", || !text(dir.join("shutdown.pid")).is_empty());
    kit.code("svc", &["-p", "a"]);
    wait_until("a command to be obeyed meanwhile", || kit.stat("a")["paused"] == true);
    kit.wait_state("a", "down");
    assert!(!alive(second));
    for name in ["alert", "shutdown"] {
        assert!(!alive(text(dir.join(format!("{name}.pid"))).trim().parse().unwrap()), "{name} was killed");
    }
}

#[test]
fn kill_follows_term_after_the_time_given() {
    let kit = Kit::new();
    let dir = kit.service("a", "trap '' TERM; echo > ready; while :; do sleep 1000; done", None);
    fs::write(dir.join("timeout-kill"), "200\n").unwrap();
    let _supervise = Running::start(kit.ours("supervise").arg("a").env("SETPGID", "1"));
    wait_until("the trap", || dir.join("ready").exists());
    let pid = kit.wait_up("a");
    kit.code("svc", &["-dG", "a"]);
    kit.wait_state("a", "down");
    assert!(!alive(pid));
}

#[test]
fn a_group_of_its_own_gets_group_signals() {
    let kit = Kit::new();
    let dir = kit.service("a", "sleep 1000 & echo $! > child; wait", None);
    let _supervise = Running::start(kit.ours("supervise").arg("a").env("SETPGID", "1"));
    let child: i32 = wait_for("the child", || text(dir.join("child")).trim().parse().ok());
    assert_eq!(kit.code("svc", &["-dG", "-W", "a"]), 0);
    wait_until("the child to be gone too", || !alive(child));
}

#[test]
fn a_full_control_fifo_is_read_to_the_end() {
    let kit = Kit::new();
    let dir = kit.service("a", SLEEP, None);
    let supervise = kit.supervise("a");
    kit.wait_up("a");
    supervise.signal(Signal::SIGSTOP);
    let mut control = fs::OpenOptions::new().write(true).open(dir.join("supervise/control")).unwrap();
    control.write_all(&[b'z'; 65535]).unwrap();
    control.write_all(b"d").unwrap();
    supervise.signal(Signal::SIGCONT);
    kit.wait_state("a", "down");
}

#[test]
fn a_removed_state_directory_is_made_again() {
    let kit = Kit::new();
    let dir = kit.service("a", SLEEP, None);
    let _supervise = kit.supervise("a");
    let pid = kit.wait_up("a");
    fs::remove_dir_all(dir.join("supervise")).unwrap();
    assert_eq!(kit.code("svok", &["a"]), 100);
    signal(pid, Signal::SIGKILL);
    wait_until("it to be back", || kit.code("svok", &["a"]) == 0);
    assert_ne!(kit.wait_up("a"), pid);
    assert_eq!(kit.code("svc", &["-dx", "-W", "a"]), 0);
}

#[test]
fn the_state_directory_may_be_a_link_to_nothing_yet() {
    let kit = Kit::new();
    let dir = kit.service("a", SLEEP, None);
    symlink("../elsewhere", dir.join("supervise")).unwrap();
    let _supervise = kit.supervise("a");
    kit.wait_up("a");
    assert!(kit.path("elsewhere/status").exists());
}

#[test]
fn variables_add_to_the_environment_or_replace_it() {
    let kit = Kit::new();
    let dir = kit.service("a", "env > env.new; mv env.new env.out; exec sleep 1000", None);
    fs::create_dir(dir.join("variables")).unwrap();
    fs::write(dir.join("variables/COLOUR"), "green\n").unwrap();
    fs::write(dir.join("variables/PATH"), "/bin:/usr/bin\n").unwrap();
    let _supervise = Running::start(kit.ours("supervise").arg("a").env("OUTER", "1"));
    let env = wait_for("the environment", || Some(text(dir.join("env.out"))).filter(|t| !t.is_empty()));
    assert!(env.contains("COLOUR=green\n") && env.contains("OUTER=1\n"), "{env}");
    // Read again at every start.
    fs::set_permissions(dir.join("variables"), PermissionsExt::from_mode(0o700)).unwrap();
    fs::remove_file(dir.join("env.out")).unwrap();
    kit.code("svc", &["-r", "-w", "a"]);
    let env = wait_for("the environment", || Some(text(dir.join("env.out"))).filter(|t| !t.is_empty()));
    assert!(env.contains("COLOUR=green\n") && !env.contains("OUTER="), "{env}");
}

#[test]
fn nothing_leaks_into_the_service() {
    let kit = Kit::new();
    let run = "grep SigBlk /proc/self/status > mask.new; mv mask.new mask; exec > fds; exec ls /proc/self/fd";
    let dir = kit.service("a", run, None);
    let _supervise = kit.supervise("a");
    let fds = wait_for("the descriptors", || Some(text(dir.join("fds"))).filter(|t| !t.is_empty()));
    assert_eq!(text(dir.join("mask")).split_whitespace().nth(1), Some("0000000000000000"));
    // The last one is that of ls itself, which has the directory open.
    assert_eq!(fds, "0\n1\n2\n3\n");
}

#[test]
fn many_restarts_leak_no_descriptor() {
    let kit = Kit::new();
    kit.service("a", SLEEP, None);
    let supervise = kit.supervise("a");
    kit.wait_up("a");
    let fds = || fs::read_dir(format!("/proc/{}/fd", supervise.pid())).unwrap().count();
    let before = fds();
    for _ in 0..5 {
        assert_eq!(kit.code("svc", &["-d", "-W", "a"]), 0);
        assert_eq!(kit.code("svc", &["-o", "-w", "a"]), 0);
    }
    assert_eq!(fds(), before);
}
