//! logselect, qfilelog, splogger, teepipe, spipe and multipipe.

mod kit;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use kit::{Kit, Running, script, text, wait_until};
use unix::Signal;

fn label(seconds: u64) -> String {
    format!("@{:016x}00000000", (1u64 << 62) + 10 + seconds)
}

#[test]
fn logselect_prints_what_lies_between_two_times() {
    let kit = Kit::new();
    fs::create_dir(kit.path("log")).unwrap();
    let lines = |from: u64| (from..from + 10).map(|n| format!("{} line {n}\n", label(n))).collect::<String>();
    fs::write(kit.path(format!("log/{}.s", label(110))), lines(100) + "no label\n").unwrap();
    fs::write(kit.path(format!("log/{}.s", label(120))), lines(110)).unwrap();
    // One of them is compressed.
    let mut gzip = Command::new("/bin/sh");
    gzip.args(["-c", "f=$(ls @* | tail -1); gzip -n $f && mv $f.gz $f"]).current_dir(kit.path("log"));
    assert!(gzip.status().unwrap().success());
    fs::write(kit.path("log/current"), lines(120)).unwrap();
    let select = |args: &[&str]| {
        let out = kit.run("logselect", args);
        (out.status.code().unwrap(), String::from_utf8(out.stdout).unwrap())
    };
    let want: String = (105..123).map(|n| format!("{} line {n}\n", label(n))).collect();
    let want = want.replacen(&label(110), &format!("no label\n{}", label(110)), 1);
    assert_eq!(select(&["log", &label(105), &label(123)]), (0, want.clone()));
    // Files stand for their times.
    for (name, seconds) in [("start", 105), ("stop", 123)] {
        let file = fs::File::create(kit.path(name)).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).unwrap();
    }
    assert_eq!(select(&["log", "start", "stop"]), (0, want));
    for wrong in [
        &["log", "start"][..],
        &["./log", "start", "stop"],
        &["log", "missing", "stop"],
        &["nowhere", "start", "stop"],
    ] {
        assert_eq!(select(wrong).0, 111, "{wrong:?}");
    }
}

#[test]
fn qfilelog_follows_the_file_when_it_is_told() {
    let kit = Kit::new();
    let log = kit.path("log");
    let (read, write) = unix::fd::pipe().unwrap();
    let mut pipe = fs::File::from(write);
    let mut put = |bytes: &str| pipe.write_all(bytes.as_bytes()).unwrap();
    let mut child = Running::start(kit.ours("qfilelog").arg("log").stdin(Stdio::from(read)));
    put("one");
    wait_until("bytes without a newline", || text(&log) == "one");
    fs::rename(&log, kit.path("old")).unwrap();
    child.signal(Signal::SIGHUP);
    wait_until("a new file", || log.exists());
    put("two\n");
    wait_until("the new file to grow", || text(&log) == "two\n");
    assert_eq!(text(kit.path("old")), "one");
    child.signal(Signal::SIGTERM);
    assert_eq!(child.wait(), Some(0));
    // The end of the input ends it.
    assert!(kit.ours("qfilelog").arg("log").status().unwrap().success());
    assert_eq!(kit.code("qfilelog", &["/nonexistent/log"]), 111);
    assert_eq!(kit.code("qfilelog", &[]), 100);
}

#[test]
fn qfilelog_gives_up_only_when_told_to_end() {
    let kit = Kit::new();
    let mut command = kit.ours("qfilelog");
    command.arg("/dev/full").stdin(Stdio::piped()).stderr(fs::File::create(kit.path("err")).unwrap());
    let mut child = command.spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(b"x\n").unwrap();
    wait_until("the complaint", || text(kit.path("err")).contains("No space left"));
    kit::signal(i32::try_from(child.id()).unwrap(), Signal::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(111));
}

#[test]
fn splogger_sends_to_the_daemon_of_the_host() {
    assert!(nix::unistd::geteuid().is_root(), "this test needs a /dev of its own");
    let kit = Kit::new();
    let script = format!(
        "set -e; mount -t tmpfs none /dev; mknod -m 666 /dev/null c 1 3
        python3 -c 'import socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(\"/dev/log\"); open(\"ready\", \"w\")
for n in range(3): open(\"got\", \"ab\").write(s.recv(9000) + b\"\\n\")' &
        while ! [ -e ready ]; do sleep 0.01; done
        printf 'info\\n\\nalert: a\\nwarn: b' | {} qmail 3
        wait",
        kit.path("bin/splogger").display()
    );
    let mut command = kit.command("/usr/bin/unshare".into());
    assert!(command.args(["--mount", "/bin/sh", "-c", &script]).status().unwrap().success());
    let got = text(kit.path("got"));
    let want = [("<30>qmail: ", " info"), ("<25>qmail: ", " alert: a"), ("<28>qmail: ", " warn: b")];
    assert_eq!(got.lines().count(), 3);
    for (line, (head, tail)) in got.lines().zip(want) {
        assert!(line.starts_with(head) && line.ends_with(tail), "{line}");
    }
    assert_eq!(kit.code("splogger", &["qmail", "mail"]), 100);
}

#[test]
fn teepipe_copies_to_both() {
    let kit = Kit::new();
    let run = |program: &str, input: &str| {
        let mut command = kit.ours("teepipe");
        command
            .args(["/bin/sh", "-c", program])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_owned();
        let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()).is_ok());
        let out = child.wait_with_output().unwrap();
        assert!(writer.join().unwrap());
        (
            out.status.code().unwrap(),
            String::from_utf8(out.stdout).unwrap(),
            String::from_utf8(out.stderr).unwrap(),
        )
    };
    let long = "a line\n".repeat(50_000);
    let (code, own, programs) = run("tr a-z A-Z; exit 7", &long);
    assert!(code == 7 && own == long && programs == long.to_uppercase());
    // The program does not read: the other branch goes on.
    let (code, own, _) = run("exec <&-; exit 3", &long);
    assert!(code == 3 && own == long);
    assert_eq!(run("kill -9 $$", "").0, 111);
    assert_eq!(kit.code("teepipe", &["/nonexistent"]), 111);
    assert_eq!(kit.code("teepipe", &[]), 100);
}

/// Our programs first in PATH, so that supervise and svc are found.
fn with_path(kit: &Kit, name: &str) -> Command {
    let mut command = kit.ours(name);
    command.env("PATH", format!("{}:/usr/bin:/bin", kit.path("bin").display()));
    command
}

#[test]
fn spipe_connects_services_and_takes_them_down() {
    let kit = Kit::new();
    kit.service("first", "exec seq 1 3", None);
    kit.service("second", "sed -u 's/^/number /'; exec sleep 1000", None);
    kit.service("third", "exec cat > ../result", None);
    fs::write(kit.path("first/down"), "").unwrap();
    let mut pipe = Running::start(with_path(&kit, "spipe").args(["first", "second", "third"]));
    kit.wait_up("second");
    kit.wait_up("third");
    wait_until("the first supervise", || kit.code("svok", &["first"]) == 0);
    assert_eq!(kit.code("svc", &["-o", "first"]), 0);
    wait_until("all lines", || text(kit.path("result")) == "number 1\nnumber 2\nnumber 3\n");
    pipe.signal(Signal::SIGTERM);
    assert_eq!(pipe.wait(), Some(0));
    for service in ["first", "second", "third"] {
        assert_eq!(kit.code("svok", &[service]), 100, "{service}");
    }
    assert_eq!(kit.code("spipe", &["first"]), 1);
}

#[test]
fn multipipe_gives_each_service_a_copy() {
    let kit = Kit::new();
    fs::create_dir(kit.path("all")).unwrap();
    let service = |name: &str, run: &str| {
        let new = kit.path(format!("new-{name}"));
        fs::create_dir(&new).unwrap();
        script(&new.join("run"), run);
        fs::rename(&new, kit.path("all").join(name)).unwrap();
    };
    // They end at the end of their input, so that no line depends on when TERM comes.
    let copy = "trap '' TERM; exec cat >> result";
    service("a", copy);
    service("b", copy);
    // One that does not read does not hold up the others for long: it has ended.
    service("closed", "exec <&-; exec sleep 1000");
    service(".hidden", copy);
    let (read, write) = unix::fd::pipe().unwrap();
    let mut pipe = fs::File::from(write);
    let mut all = Running::start(with_path(&kit, "multipipe").arg("all").stdin(Stdio::from(read)));
    let result = |name: &str| text(kit.path("all").join(name).join("result"));
    pipe.write_all(b"early\n").unwrap();
    wait_until("a copy each", || result("a") == "early\n" && result("b") == "early\n");
    service("late", copy);
    wait_until("the new service", || kit.code("svok", &["all/late"]) == 0);
    pipe.write_all(b"more\n").unwrap();
    wait_until("the rest", || result("a") == "early\nmore\n" && result("late") == "more\n");
    // What is read before the end is delivered.
    pipe.write_all(b"last\n").unwrap();
    drop(pipe);
    assert_eq!(all.wait(), Some(0));
    assert!(["a", "b", "late"].iter().all(|name| result(name).ends_with("more\nlast\n")));
    assert!(!Path::new(&kit.path("all/.hidden/result")).exists());
    assert_eq!(kit.code("svok", &["all/a"]), 100);
    assert_eq!(kit.code("multipipe", &["nowhere"]), 1);
}

#[test]
fn qlogselect_filters_a_delivery_log() {
    let kit = Kit::new();
    let log =
        "5.0 new msg 1\n5.0 info msg 1: bytes 9 from <a@x> qp 2 uid 3\n6.0 status: local 0/1 remote 0/1\n";
    fs::write(kit.path("input"), log).unwrap();
    let select = |args: &[&str]| {
        let mut command = kit.ours("qlogselect");
        command.args(args).stdin(fs::File::open(kit.path("input")).unwrap()).stdout(Stdio::piped());
        let out = command.output().unwrap();
        (out.status.code().unwrap(), String::from_utf8(out.stdout).unwrap())
    };
    let without_status = log.replace("6.0 status: local 0/1 remote 0/1\n", "");
    assert_eq!(select(&[]), (0, log.to_owned()));
    assert_eq!(select(&["from", "a@*", "stripstatus"]), (0, without_status));
    assert_eq!(select(&["from", "b@*", "stripstatus"]), (0, String::new()));
    assert_eq!(select(&["start", "1970-01-02"]), (0, String::new()));
    assert_eq!(select(&["since", "5"]).0, 100);
}
