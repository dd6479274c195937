//! tcpserver as a service: sockets that were passed to it, what it tells, how it ends.

mod server;

use server::*;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

/// Starts tcpserver with these as descriptors 3 and 4, as a service manager does; `pid` is shell.
fn inherit(kit: &Kit, pid: &str, sockets: [OwnedFd; 2], args: &[&str]) -> std::process::Child {
    let [first, second] = sockets;
    let script = format!("LISTEN_FDS=2 LISTEN_PID={pid} exec \"$0\" \"$@\" 3<&0 4<&1 0</dev/null 1>&2");
    Command::new("/bin/sh")
        .args(["-c", &script])
        .arg(kit.path("tcpserver"))
        .args(args)
        .current_dir(kit.path(""))
        .stdin(Stdio::from(first))
        .stdout(Stdio::from(second))
        .stderr(std::fs::File::create(kit.path("log")).unwrap())
        .spawn()
        .unwrap()
}

#[test]
fn passed_sockets_are_served() {
    let kit = Kit::new();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = tcp.local_addr().unwrap().port();
    let path = kit.path("passed");
    let unix = UnixListener::bind(&path).unwrap();
    let command = [
        "-v",
        "-HRl0",
        "127.0.0.1",
        "9",
        "/bin/sh",
        "-c",
        "env; ls /proc/$$/fd/3 /proc/$$/fd/4 2>/dev/null; echo end",
    ];
    let child = inherit(&kit, "$$", [tcp.into(), unix.into()], &command);
    let mut server = Server { child, port };
    kit.wait_log("status: 0/40");
    let answer = server.answer();
    let got = variables(&answer);
    assert_eq!((got["PROTO"].as_str(), got["TCPLOCALPORT"].as_str()), ("TCP", port.to_string().as_str()));
    assert!(!answer.contains("LISTEN_"), "not for the program: {answer}");
    assert!(!answer.contains("/fd/") && answer.ends_with("end\n"), "nor are the sockets: {answer}");
    let got = variables(&read_all(UnixStream::connect(&path).unwrap()));
    assert_eq!((got["PROTO"].as_str(), got["UNIXLOCALPATH"].as_str()), ("UNIX", path.to_str().unwrap()));
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(), Some(0));
    assert!(path.exists(), "the file belongs to who made the socket");
}

#[test]
fn a_descriptor_that_was_opened_for_the_programs_reaches_them() {
    let kit = Kit::new();
    std::fs::write(kit.path("file"), "from nine\n").unwrap();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "exec \"$0\" \"$@\" 9<file"]).arg(kit.path("tcpserver")).arg("-1");
    command.args(args(&["127.0.0.1", "0", "/bin/sh", "-c", "cat <&9"])).current_dir(kit.path(""));
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let server = Server { child, port: line.trim().parse().unwrap() };
    assert_eq!(server.answer(), "from nine\n");
}

#[test]
fn what_was_passed_to_another_process_or_is_no_listener_is_not_served() {
    let kit = Kit::new();
    let sockets = || {
        [TcpListener::bind("127.0.0.1:0").unwrap().into(), TcpListener::bind("127.0.0.1:0").unwrap().into()]
    };
    // Port 1 of an address that is not ours: it tries to bind by itself.
    let mut child = inherit(&kit, "1", sockets(), &["192.0.2.1", "1", "/bin/true"]);
    assert_eq!(child.wait().unwrap().code(), Some(111));
    assert!(kit.text("log").contains("unable to listen on 192.0.2.1 1"), "{}", kit.text("log"));
    let file = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let mut child = inherit(&kit, "$$", [file(), file()], &["127.0.0.1", "1", "/bin/true"]);
    assert_eq!(child.wait().unwrap().code(), Some(111));
    assert!(kit.text("log").contains("fatal: inherited socket: "), "{}", kit.text("log"));
}

#[test]
fn a_running_server_tells_about_its_connections() {
    let kit = Kit::new();
    let rules = kit.rules("127.0.0.9:deny\n:allow\n");
    let mut all = vec!["--status", "status", "-C", "1", "-c", "7", "-x", rules.to_str().unwrap()];
    all.extend(args(&["127.0.0.1", "0"]));
    all.extend(GREETER);
    let mut server = kit.server(&all);
    let held = server.connect();
    assert!(greeted(&held));
    assert!(!greeted(&server.connect()), "above the limit");
    assert!(!greeted(&server.connect_from("127.0.0.9")), "denied");
    let ask = |json: bool| {
        let mut command = kit.command("tcpstatus");
        if json {
            command.arg("--json");
        }
        let out = command.arg("status").output().unwrap();
        (out.status.code(), String::from_utf8(out.stdout).unwrap())
    };
    let (code, text) = ask(false);
    assert_eq!(code, Some(0));
    let first = format!(
        "tcpserver pid={} limit=7 connections=1 pending=0 accepted=3 denied=1 limited=1 dropped=0 draining=no\n",
        server.child.id()
    );
    assert!(text.starts_with(&first), "{text}");
    let pid = text.split("connection pid=").nth(1).unwrap().split(' ').next().unwrap();
    assert!(text.contains(&format!("connection pid={pid} ip=127.0.0.1 seconds=")), "{text}");
    let (_, json) = ask(true);
    let checked = Command::new("python3")
        .args(["-c", "import json,sys; d=json.loads(sys.argv[1]); print(d['limit'], d['denied'], d['draining'], d['table'][0]['pid'])", &json])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(checked.stdout).unwrap(), format!("7 1 False {pid}\n"), "{json}");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(), Some(0));
    assert!(!kit.path("status").exists());
    assert_eq!(ask(false).0, Some(111), "nobody is there");
}

#[test]
fn draining_waits_for_programs_and_takes_nobody_new() {
    let kit = Kit::new();
    let mut all = vec!["--drain", "1000", "--status", "status"];
    all.extend(args(&["127.0.0.1", "0"]));
    all.extend(GREETER);
    let mut server = kit.server(&all);
    let held = server.connect();
    assert!(greeted(&held));
    server.signal(Signal::SIGTERM);
    kit.wait_log("draining: 1/40");
    assert!(TcpStream::connect(("127.0.0.1", server.port)).is_err());
    (&held).write_all(b"still\n").unwrap();
    let mut buf = [0; 6];
    (&held).read_exact(&mut buf).unwrap();
    assert_eq!(&buf, b"still\n");
    let out = kit.command("tcpstatus").arg("status").output().unwrap();
    assert!(String::from_utf8_lossy(&out.stdout).contains("draining=yes"));
    assert!(server.child.try_wait().unwrap().is_none(), "it waits");
    drop(held);
    assert_eq!(server.wait(), Some(0));
    kit.wait_log("sigterm: 0/40");
}

#[test]
fn draining_has_an_end() {
    // Programs that do not end by themselves are sent TERM when the time is over, or at a second TERM are left.
    let kit = Kit::new();
    let script = "trap 'echo terminated; exit 3' TERM; echo hello; while :; do sleep 0.01; done";
    for (drain, signals, last) in [("0", 1, "terminated\n"), ("1000", 2, "")] {
        let mut all = vec!["--drain", drain];
        all.extend(args(&["127.0.0.1", "0", "/bin/sh", "-c", script]));
        let mut server = kit.server(&all);
        let mut held = server.connect();
        assert!(greeted(&held));
        server.signal(Signal::SIGTERM);
        if signals == 2 {
            kit.wait_log("draining: 1/40");
            server.signal(Signal::SIGTERM);
        }
        assert_eq!(server.wait(), Some(0));
        if last.is_empty() {
            // It runs on; its own end is the end of what it is connected to.
            let pid =
                kit.text("log").split("start, pid=").nth(1).unwrap().split(',').next().unwrap().to_owned();
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.parse().unwrap()), Signal::SIGTERM)
                .unwrap();
        }
        let mut said = String::new();
        held.read_to_string(&mut said).unwrap();
        assert_eq!(said, "terminated\n", "--drain {drain}");
    }
}

#[test]
fn programs_are_found_in_path_at_each_start() {
    let kit = Kit::new();
    for dir in ["one", "two"] {
        std::fs::create_dir(kit.path(dir)).unwrap();
    }
    let make = |place: &str, says: &str| {
        let script = format!("#!/bin/sh\necho {says}\n");
        std::fs::write(kit.path("new"), script).unwrap();
        std::fs::set_permissions(kit.path("new"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
        std::fs::rename(kit.path("new"), kit.path(place)).unwrap();
    };
    make("two/prog", "two");
    let path = format!("{}:{}:/usr/bin:/bin", kit.path("one").display(), kit.path("two").display());
    let rules = kit.rules(&format!("127.0.0.2:allow,PATH=\"{}\"\n:allow\n", kit.path("one").display()));
    let server = kit.server_with(&args(&["-x", rules.to_str().unwrap(), "127.0.0.1", "0", "prog"]), |c| {
        c.env("PATH", path);
    });
    assert_eq!(server.answer(), "two\n");
    make("one/prog", "one");
    assert_eq!(read_all(server.connect_from("127.0.0.2")), "one\n", "a rule that sets PATH");
    std::fs::remove_file(kit.path("two/prog")).unwrap();
    assert_eq!(server.answer(), "one\n", "searched again");
    std::fs::remove_file(kit.path("one/prog")).unwrap();
    assert_eq!(server.answer(), "");
    kit.wait_log("unable to run prog: ");
}
