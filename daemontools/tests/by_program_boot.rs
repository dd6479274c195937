//! svscanboot, readproctitle, fghack, waitfor, inotify, svalert.

mod kit;

use std::fs;
use std::io::Write;
use std::net::UdpSocket;
use std::process::{Command, Stdio};

use kit::{Kit, Running, alive, script, text, wait_for, wait_until};
use nix::sys::signal::Signal;

fn command_line(pid: i32) -> Vec<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = line.split(|&b| b == 0).map(|w| String::from_utf8_lossy(w).into_owned());
    words.filter(|w| !w.is_empty()).collect()
}

fn children(pid: i32) -> Vec<i32> {
    let all = text(format!("/proc/{pid}/task/{pid}/children"));
    all.split_ascii_whitespace().map(|p| p.parse().unwrap()).collect()
}

fn boot(kit: &Kit, variables: &[(&str, &str)], dirs: &[&str]) -> Command {
    for dir in dirs {
        let at = kit.path(dir).join(".svscan/variables");
        fs::create_dir_all(&at).unwrap();
        fs::write(at.join("TERMINATE_SESSION"), "1\n").unwrap();
        fs::write(at.join("DISABLE_RUN"), "1\n").unwrap();
        for (name, value) in variables {
            fs::write(at.join(name), format!("{value}\n")).unwrap();
        }
    }
    let mut command = kit.ours("svscanboot");
    command.args(dirs);
    command
}

#[test]
fn messages_of_svscan_are_in_the_list_of_processes() {
    let kit = Kit::new();
    kit.service("sv/a", "env > env.new; mv env.new env; exec sleep 1000", None);
    std::os::unix::fs::symlink("loop", kit.path("sv/loop")).unwrap();
    let mut svscan = Running::start(&mut boot(&kit, &[("FROM_VARIABLES", "yes")], &["sv"]));
    kit.wait_up("sv/a");
    let here = kit.path("sv").canonicalize().unwrap();
    let here = here.to_str().unwrap();
    assert_eq!(command_line(svscan.pid()), ["svscan", here]);
    let title = wait_for("readproctitle", || {
        let all = children(svscan.pid());
        all.into_iter().map(command_line).find(|l| l.first().is_some_and(|w| w == "readproctitle"))
    });
    assert_eq!(title[1..3], [here, "errors:"]);
    assert_eq!(title[3].len(), 400);
    wait_until("the message", || {
        let all: Vec<_> = children(svscan.pid()).into_iter().map(command_line).collect();
        let line = all.iter().find(|l| l[0] == "readproctitle").unwrap();
        assert!(line[3].starts_with("..."));
        line[3].contains("...svscan: warning: unable to look at loop: ")
    });
    let env = wait_for("the environment", || Some(text(kit.path("sv/a/env"))).filter(|t| !t.is_empty()));
    assert!(env.contains("FROM_VARIABLES=yes\n") && env.contains(":/bin:/usr/local/bin:"), "{env}");
    svscan.signal(Signal::SIGTERM);
    assert_eq!(svscan.wait(), Some(0));
}

#[test]
fn output_goes_to_the_journal_or_to_the_log() {
    let kit = Kit::new();
    fs::create_dir(kit.path("sv")).unwrap();
    std::os::unix::fs::symlink("loop", kit.path("sv/loop")).unwrap();
    let err = || fs::File::create(kit.path("err")).unwrap();
    let mut svscan = Running::start(boot(&kit, &[], &["sv"]).env("JOURNAL_STREAM", "1:2").stderr(err()));
    wait_until("the message", || text(kit.path("err")).contains("svscan: warning: unable to look at loop"));
    assert!(children(svscan.pid()).is_empty(), "no readproctitle");
    svscan.signal(Signal::SIGTERM);
    assert_eq!(svscan.wait(), Some(0));
    let log = format!("exec {} {}", kit.path("bin/multilog").display(), kit.path("logs").display());
    kit.service("sv/.svscan", "exit 1", Some(&log));
    let mut svscan = Running::start(boot(&kit, &[("SCANLOG", "")], &["sv"]).stderr(err()));
    wait_until("the message", || text(kit.path("logs/current")).contains("unable to look at loop"));
    assert_eq!(text(kit.path("err")), "");
    svscan.signal(Signal::SIGTERM);
    assert_eq!(svscan.wait(), Some(0));
}

#[test]
fn what_an_earlier_run_has_left_is_stopped() {
    let kit = Kit::new();
    kit.service("sv/a", "exec sleep 1000", Some("exec cat"));
    let mut first = Running::start(&mut boot(&kit, &[], &["sv"]));
    let before = [kit.wait_up("sv/a"), kit.wait_up("sv/a/log")];
    first.kill();
    let mut second = Running::start(&mut boot(&kit, &[], &["sv"]));
    let ended = || !before.into_iter().any(alive);
    wait_until("others to take their place", || {
        ended() && kit.pid("sv/a").is_some() && kit.pid("sv/a/log").is_some()
    });
    second.signal(Signal::SIGTERM);
    assert_eq!(second.wait(), Some(0));
}

#[test]
fn several_scan_directories_and_mounts_of_their_own() {
    let kit = Kit::new();
    for dir in ["sv1", "sv2"] {
        kit.service(
            &format!("{dir}/a"),
            "readlink /proc/self/ns/mnt > ns.new; mv ns.new ns; exec sleep 1000",
            None,
        );
    }
    let mut command = Command::new("/usr/bin/unshare");
    let boot = boot(&kit, &[("UNSHARE", "1")], &["sv1", "sv2"]);
    // In a user namespace anybody may make one of mounts.
    command.args(["--user", "--map-root-user"]).arg(kit.path("bin/svscanboot")).args(boot.get_args());
    command.current_dir(kit.path("")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut both = Running::start(&mut command);
    let namespace = |dir: &str| {
        wait_for("the service", || Some(text(kit.path(dir).join("a/ns"))).filter(|t| !t.is_empty()))
    };
    let outside = fs::read_link("/proc/self/ns/mnt").unwrap().display().to_string();
    let inside = [namespace("sv1"), namespace("sv2")];
    assert!(inside.iter().all(|ns| ns.trim() != outside) && inside[0] != inside[1], "{inside:?} {outside}");
    both.signal(Signal::SIGTERM);
    assert_eq!(both.wait(), Some(0));
    assert_eq!((kit.pid("sv1/a"), kit.pid("sv2/a")), (None, None));
    assert_eq!(kit.code("svscanboot", &["nosuch"]), 111);
}

#[test]
fn readproctitle_keeps_the_end() {
    let kit = Kit::new();
    assert_eq!(kit.code("readproctitle", &["a", "...."]), 100);
    assert_eq!(kit.code("readproctitle", &[]), 100);
    let dots = ".".repeat(20);
    let mut child = kit
        .ours("readproctitle")
        .args(["label", "-x-x-x-x-x-x-x-x-x-x"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    wait_until("dots", || command_line(pid).get(2) == Some(&dots));
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"a long message that ends with \0this").unwrap();
    wait_until("the end", || command_line(pid).get(2).is_some_and(|t| t == "...at ends with this"));
    drop(input);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn fghack_waits_for_the_background() {
    let kit = Kit::new();
    let run = |program: &str| kit.code("fghack", &["/bin/sh", "-c", program]);
    assert_eq!(run("(sleep 0.3; echo end > end) & exit 7"), 7);
    assert_eq!(text(kit.path("end")), "end\n", "not before the background has ended");
    // A few descriptors may be closed.
    assert_eq!(run("(exec 3>&- 4>&- 5>&- 6>&-; sleep 0.3; echo more >> end) & exit 0"), 0);
    assert_eq!(text(kit.path("end")), "end\nmore\n");
    assert_eq!(run("kill -9 $$"), 111);
    assert_eq!(run("ls /proc/self/fd | wc -l > count"), 0);
    assert!(text(kit.path("count")).trim().parse::<usize>().unwrap() >= 30);
    assert_eq!(kit.code("fghack", &["/nonexistent"]), 111);
    assert_eq!(kit.code("fghack", &[]), 100);
}

#[test]
fn waitfor_any_process() {
    let kit = Kit::new();
    assert_eq!(kit.code("waitfor", &[]), 100);
    assert_eq!(kit.code("waitfor", &["x"]), 100);
    assert_eq!(kit.code("waitfor", &["0"]), 100);
    assert_eq!(kit.code("waitfor", &["2147483647"]), 111);
    // The process is nobody's child that could wait for it.
    let out =
        kit.command("/bin/sh".into()).args(["-c", "sleep 0.3 & echo $!"]).stdout(Stdio::piped()).output();
    let pid = String::from_utf8(out.unwrap().stdout).unwrap();
    let out = kit.run("waitfor", &["-v", pid.trim()]);
    assert_eq!(out.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&out.stderr).ends_with("has ended\n"));
    assert!(!alive(pid.trim().parse().unwrap()));
}

#[test]
fn inotify_reports_what_happens() {
    let kit = Kit::new();
    fs::create_dir(kit.path("d")).unwrap();
    let out = || fs::File::create(kit.path("out")).unwrap();
    let err = fs::File::create(kit.path("err")).unwrap();
    let mut child =
        kit.ours("inotify").arg("d").stdin(Stdio::piped()).stdout(out()).stderr(err).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"ping").unwrap();
    wait_until("the copy of the input, after which it watches", || text(kit.path("err")) == "ping");
    fs::write(kit.path("d/a"), "x").unwrap();
    fs::create_dir(kit.path("d/b")).unwrap();
    fs::rename(kit.path("d/a"), kit.path("d/c")).unwrap();
    fs::remove_file(kit.path("d/c")).unwrap();
    let lines = wait_for("all lines", || Some(text(kit.path("out"))).filter(|t| t.contains("deleted")));
    let number = lines.split(['[', ']']).nth(1).unwrap();
    let want = format!(
        "file d/a created\nfile d/a opened\nfile d/a closed\ndir d/b created\nfile d/a oldname renamed[{number}]\n\
         file d/c newname renamed[{number}]\nfile d/c deleted\n"
    );
    assert_eq!(lines, want);
    drop(input);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    // Without input it runs until it is told to end.
    let mut child = Running::start(kit.ours("inotify").args(["-n", "-d", "1000", "d"]).stdout(out()));
    wait_until("a line", || {
        fs::write(kit.path("d/x"), "").unwrap();
        text(kit.path("out")).contains("file d/x ")
    });
    child.signal(Signal::SIGTERM);
    assert_eq!(child.wait(), Some(1));
    assert_eq!(kit.code("inotify", &["-n", "nosuch"]), 111);
    assert_eq!(kit.code("inotify", &["-d", "x", "d"]), 100);
}

#[test]
fn svalert_sends_a_datagram() {
    let kit = Kit::new();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port().to_string();
    fs::write(kit.path("svalerts.filter"), "auto-startup\n").unwrap();
    let alert = |arguments: &[&str]| {
        let mut command = kit.ours("svalert");
        command.args(arguments).env("PROBE_SERVER", "127.0.0.1").env("SV_ALERT_PORT", &port);
        command.env("SYSCONFDIR", kit.path("")).status().unwrap().code()
    };
    assert_eq!(alert(&["a", "auto startup"]), Some(0), "that one is filtered");
    assert_eq!(alert(&["a", "77", "3", "exited"]), Some(0));
    let mut buffer = [0; 500];
    let count = socket.recv(&mut buffer).unwrap();
    let sent = String::from_utf8(buffer[..count].to_vec()).unwrap();
    let words: Vec<_> = sent.split(' ').collect();
    let here = kit.path("").canonicalize().unwrap();
    assert_eq!(words[0], "svalert");
    assert_eq!(
        words[2..7],
        [here.to_str().unwrap().trim_end_matches('/'), "a", "abnormal-shutdown", "exited", "3"]
    );
    assert!(words[7].parse::<u64>().unwrap() > 1_700_000_000);
    let mut nowhere = kit.ours("svalert");
    nowhere.args(["a", "7"]).env("PROBE_SERVER", "no-such-host.invalid");
    assert_eq!(nowhere.status().unwrap().code(), Some(0), "nobody to tell");
    assert_eq!(kit.code("svalert", &["a"]), 100);
}

#[test]
fn svalert_by_syslog() {
    let kit = Kit::new();
    let log = std::os::unix::net::UnixDatagram::bind(kit.path("log")).unwrap();
    // A /dev of its own, with this socket as its log.
    let program = format!(
        "mount -t tmpfs none /dev && : > /dev/null && : > /dev/log && \
         mount --bind {} /dev/log && exec {} a 'system failure'",
        kit.path("log").display(),
        kit.path("bin/svalert").display()
    );
    script(&kit.path("inside"), &program);
    let status = Command::new("/usr/bin/unshare")
        .args(["--user", "--map-root-user", "--mount", "./inside"])
        .current_dir(kit.path(""))
        .env("USE_SYSLOG", "1")
        .status();
    assert_eq!(status.unwrap().code(), Some(0));
    let mut buffer = [0; 500];
    let count = log.recv(&mut buffer).unwrap();
    let sent = String::from_utf8_lossy(&buffer[..count]).into_owned();
    assert!(sent.starts_with("<28>") && sent.ends_with(" a system-failure - -"), "{sent}");
}
