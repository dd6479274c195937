//! supervise: readiness by descriptor and by socket, the watchdog, services of several processes.

mod kit;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use kit::{Kit, Running, alive, script, signal, text, wait_for, wait_until};
use nix::sys::signal::Signal;

/// Sends datagrams to $NOTIFY_SOCKET: one for each line that arrives on the FIFO `say`.
const SPEAKER: &str = "\
import os, socket, sys
os.path.exists('say') or os.mkfifo('say')
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
say = os.fdopen(os.open('say', os.O_RDWR))
open('speaker.new', 'w').write(os.environ.get('WATCHDOG_USEC', 'none'))
os.rename('speaker.new', 'speaker')
for line in say:
    s.sendto(line.strip().replace(';', '\\n').encode(), os.environ['NOTIFY_SOCKET'])
";

fn speaker(kit: &Kit, name: &str) -> std::path::PathBuf {
    let dir = kit.service(name, "exec /usr/bin/python3 speaker.py", None);
    fs::write(dir.join("speaker.py"), SPEAKER).unwrap();
    fs::write(dir.join("notify-socket"), "").unwrap();
    dir
}

fn say(dir: &Path, line: &str) {
    wait_until("the speaker", || dir.join("speaker").exists());
    fs::write(dir.join("say"), format!("{line}\n")).unwrap();
}

#[test]
fn a_newline_on_the_descriptor_says_ready() {
    let kit = Kit::new();
    let dir = kit.service("a", "mkfifo go; read x < go; echo >&5; exec 5>&-; exec sleep 1000", None);
    fs::write(dir.join("notification-fd"), "5\n").unwrap();
    let dependent = kit.service("b", "exec sleep 1000", None);
    fs::write(dependent.join("wait"), "0\na\n").unwrap();
    let _supervises = [kit.supervise("a"), kit.supervise("b")];
    kit.wait_up("a");
    kit.wait_state("b", "wait");
    let stat = kit.stat("a");
    assert_eq!((&stat["ready"], &stat["ready_since"]), (&false.into(), &serde_json::Value::Null));
    let line = String::from_utf8(kit.run("svstat", &["a"]).stdout).unwrap();
    assert!(line.contains(", not ready pid "), "{line}");
    assert_eq!(kit.code("svc", &["-w", "-T", "0", "a"]), 3, "up is not enough");
    wait_until("the fifo", || dir.join("go").exists());
    assert_eq!(kit.stat("b")["state"], "wait", "nor is it for others");
    let up_is_open = || {
        let up = dir.join("supervise/up");
        nix::fcntl::open(
            &up,
            nix::fcntl::OFlag::O_WRONLY | nix::fcntl::OFlag::O_NONBLOCK,
            nix::sys::stat::Mode::empty(),
        )
        .is_ok()
    };
    assert!(!up_is_open());
    fs::write(dir.join("go"), "\n").unwrap();
    assert_eq!(kit.code("svc", &["-w", "a"]), 0);
    assert!(up_is_open());
    assert!(kit.stat("a")["ready_since"].as_u64().is_some());
    kit.wait_up("b");
    // The next instance starts without it.
    fs::remove_file(dir.join("go")).unwrap();
    kit.code("svc", &["-k", "a"]);
    wait_until("the next", || dir.join("go").exists() && kit.stat("a")["ready"] == false);
}

#[test]
fn the_socket_takes_all_that_a_service_has_to_say() {
    let kit = Kit::new();
    let dir = speaker(&kit, "a");
    let _supervise = kit.supervise("a");
    kit.wait_up("a");
    say(&dir, "STATUS=warming up 1=2");
    wait_until("the text", || kit.stat("a")["status"] == "warming up 1=2");
    assert_eq!(kit.stat("a")["ready"], false);
    say(&dir, "READY=1;STATUS=serving;UNKNOWN=1");
    assert_eq!(kit.code("svc", &["-w", "a"]), 0);
    wait_until("the text", || kit.stat("a")["status"] == "serving");
    say(&dir, "STOPPING=1");
    wait_until("the word", || kit.stat("a")["stopping"] == true);
    let line = String::from_utf8(kit.run("svstat", &["a"]).stdout).unwrap();
    assert!(line.contains(", stopping"), "{line}");
    assert_eq!(text(dir.join("speaker")), "none");
    // What it said is forgotten with it.
    fs::remove_file(dir.join("speaker")).unwrap();
    kit.code("svc", &["-r", "-W", "a"]);
    wait_until("the next", || dir.join("speaker").exists());
    let stat = kit.stat("a");
    assert_eq!((&stat["ready"], &stat["stopping"]), (&false.into(), &false.into()));
    assert_eq!(stat["status"], serde_json::Value::Null);
}

#[test]
fn a_service_of_another_user_and_its_children_are_heard_and_strangers_are_not() {
    let kit = Kit::new();
    fs::set_permissions(kit.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    // As another user, and from a child of the process that is the service.
    let child = "import os, socket; socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\
                 .sendto(b'READY=1', os.environ['NOTIFY_SOCKET']); import time; time.sleep(1000)";
    let run = format!(
        "/usr/bin/setpriv --reuid=65534 --regid=65534 --clear-groups /usr/bin/python3 -c \"{child}\"; :"
    );
    let dir = kit.service("a", &run, None);
    fs::write(dir.join("notify-socket"), "").unwrap();
    let dir_b = speaker(&kit, "b");
    let _supervises = [kit.supervise("a"), kit.supervise("b")];
    kit.wait_up("a");
    assert_eq!(kit.code("svc", &["-w", "a"]), 0);
    // Somebody else, who may send to the socket.
    wait_until("the speaker", || dir_b.join("speaker").exists());
    let socket = dir_b.join("supervise/notify");
    assert_eq!(fs::metadata(dir_b.join("supervise")).unwrap().permissions().mode() & 0o777, 0o711);
    let stranger = std::os::unix::net::UnixDatagram::unbound().unwrap();
    stranger.send_to(b"READY=1\nSTATUS=lies", &socket).unwrap();
    say(&dir_b, "STATUS=truth");
    wait_until("its own words", || kit.stat("b")["status"] == "truth");
    assert_eq!(kit.stat("b")["ready"], false);
}

#[test]
fn a_service_that_hangs_is_ended_and_started_again() {
    let kit = Kit::new();
    let dir = speaker(&kit, "a");
    fs::write(dir.join("watchdog"), "700\n").unwrap();
    script(&dir.join("alert"), "echo $3 $4 >> alerts");
    let file = fs::File::create(kit.path("err")).unwrap();
    let _supervise = Running::start(kit.ours("supervise").arg("a").stderr(file));
    let pid = kit.wait_up("a");
    say(&dir, "READY=1");
    assert_eq!(text(dir.join("speaker")), "700000");
    wait_until("the alert", || text(dir.join("alerts")).starts_with("6 stopped/signalled"));
    assert!(text(kit.path("err")).contains("watchdog"), "{}", text(kit.path("err")));
    wait_until("a restart", || kit.pid("a").is_some_and(|p| p != pid));
    assert_eq!(kit.stat("a")["last_signal"], 6);
}

#[test]
fn a_watchdog_needs_a_socket() {
    let kit = Kit::new();
    let dir = kit.service("a", "exec sleep 1000", None);
    fs::write(dir.join("watchdog"), "1\n").unwrap();
    let _supervise = kit.supervise("a");
    let pid = kit.wait_up("a");
    for (letter, state) in [("-p", "paused"), ("-c", "up"), ("-p", "paused"), ("-c", "up")] {
        kit.code("svc", &[letter, "a"]);
        kit.wait_state("a", state);
    }
    assert_eq!((kit.pid("a"), kit.stat("a")["restarts"].as_u64()), (Some(pid), Some(0)));
}

#[test]
fn the_main_process_may_be_named_by_the_service() {
    let kit = Kit::new();
    let run = "sleep 1000 & echo $! > main; exec /usr/bin/python3 speaker.py";
    let dir = kit.service("a", run, None);
    fs::write(dir.join("speaker.py"), SPEAKER).unwrap();
    fs::write(dir.join("notify-socket"), "").unwrap();
    let _supervise = Running::start(kit.ours("supervise").arg("a").env("SETPGID", "1"));
    let first = kit.wait_up("a");
    // One that is not of its group is refused.
    say(&dir, &format!("MAINPID={};STATUS=refused", std::process::id()));
    wait_until("the text", || kit.stat("a")["status"] == "refused");
    assert_eq!(kit.pid("a"), Some(first));
    let main: i32 = text(dir.join("main")).trim().parse().unwrap();
    say(&dir, &format!("MAINPID={main}"));
    wait_until("the other", || kit.pid("a") == Some(main));
    signal(first, Signal::SIGKILL);
    assert_eq!(kit.code("svc", &["-p", "a"]), 0);
    kit.wait_state("a", "paused");
    kit.code("svc", &["-c", "a"]);
    assert_eq!(kit.pid("a"), Some(main), "the end of the first is not the end of the service");
    signal(main, Signal::SIGKILL);
    wait_until("a restart", || kit.pid("a").is_some_and(|p| p != main));
}

fn sticky(dir: &Path) {
    fs::set_permissions(dir.join("run"), PermissionsExt::from_mode(0o1755)).unwrap();
}

#[test]
fn orphans_are_part_of_a_service_whose_run_is_sticky() {
    let kit = Kit::new();
    // It forks twice and ends; a second one leaves its session as well.
    let run = "(sleep 1000 & echo $! > one); (setsid sleep 1000 & echo $! > two); exit 3";
    let dir = kit.service("a", run, None);
    sticky(&dir);
    script(&dir.join("alert"), "echo \"$*\" >> alerts; sleep 1000 & echo $! >> left");
    let _supervise = kit.supervise("a");
    let number = |name: &str| -> Option<i32> { text(dir.join(name)).trim().parse().ok() };
    let one = wait_for("the first", || number("one"));
    let two = wait_for("the second", || number("two"));
    wait_until("a live member to be the service", || matches!(kit.pid("a"), Some(p) if p == one || p == two));
    let line = String::from_utf8(kit.run("svstat", &["a"]).stdout).unwrap();
    assert!(line.contains(" pid ") && !line.contains("?pid"), "{line}");
    signal(one, Signal::SIGKILL);
    wait_until("the last to be the service", || kit.pid("a") == Some(two));
    assert_eq!(kit.stat("a")["state"], "up");
    signal(two, Signal::SIGKILL);
    wait_until("an alert with the real pid", || {
        text(dir.join("alerts")) == format!("a {two} 9 stopped/signalled\n")
    });
    wait_until("a restart", || number("one").is_some_and(|p| p != one && alive(p)));
    let (one, two) = (number("one").unwrap(), wait_for("the second", || number("two").filter(|&p| p != two)));
    // d reaches all of them, wherever they are, and what a script has left is none of them.
    assert_eq!(kit.code("svc", &["-d", "-W", "a"]), 0);
    assert!(!alive(one) && !alive(two));
    assert!(alive(number("left").unwrap()));
}

#[test]
fn orphans_of_orphans_are_told_to_stop_when_they_arrive() {
    let kit = Kit::new();
    // A process that dies of TERM while its child, in a session of its own, lives on.
    let run = "exec sh -c '(setsid sleep 1000 & echo $! > inner; wait) & echo $! > outer; exit 0'";
    let dir = kit.service("a", run, None);
    sticky(&dir);
    let _supervise = kit.supervise("a");
    let number = |name: &str| -> Option<i32> { text(dir.join(name)).trim().parse().ok() };
    let inner = wait_for("the inner one", || number("inner"));
    let outer = wait_for("the outer one", || number("outer"));
    wait_until("the outer one to be the service", || kit.pid("a") == Some(outer));
    assert_eq!(kit.code("svc", &["-d", "-W", "a"]), 0);
    assert!(!alive(outer) && !alive(inner));
}

#[test]
fn all_are_waited_for_at_the_same_time() {
    let kit = Kit::new();
    for name in ["a", "b", "never"] {
        let dir = kit.service(name, "exec sleep 1000", None);
        fs::write(dir.join("down"), "").unwrap();
    }
    let _supervises = ["a", "b", "never"].map(|name| kit.supervise(name));
    for name in ["a", "b", "never"] {
        wait_until("a supervise", || kit.code("svok", &[name]) == 0);
    }
    let mut waiter = kit.ours("svc");
    waiter.args(["-w", "-T", "60", "never", "a", "b"]).stderr(std::process::Stdio::piped());
    let waiter = waiter.spawn().unwrap();
    // Up for a moment only: one who waits for the first one first would miss it.
    kit.code("svc", &["-u", "b"]);
    kit.wait_up("b");
    kit.code("svc", &["-u", "a"]);
    kit.wait_up("a");
    kit.code("svc", &["-u", "never"]);
    let out = waiter.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(0));
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!(said.lines().count(), 3, "{said}");
    assert!(said.lines().all(|l| l.ends_with(" to be up ... ok")), "{said}");
    // One deadline for all, and each is named.
    let out = kit.run("svc", &["-W", "-T", "0", "a", "b"]);
    assert_eq!(out.status.code(), Some(3));
    assert_eq!(String::from_utf8_lossy(&out.stderr).matches("timed out").count(), 2);
}
