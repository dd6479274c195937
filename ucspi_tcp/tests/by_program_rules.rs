//! Rules: tcpserver with a database, tcprules and tcprulescheck beside Debian's.

mod server;

use server::*;

use nix::sys::signal::Signal;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::Ipv6Addr;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;

#[test]
fn rules() {
    let kit = Kit::new();
    let path = kit.rules("127.0.0.1:allow,RELAYCLIENT=\"\",!HOME\n::1:deny\n:allow\n");
    let path = path.to_str().unwrap();
    let server = kit.server_with(&args(&["-x", path, "0", "0", "/usr/bin/env"]), |c| {
        c.env("HOME", "/x");
    });
    let got = variables(&server.answer());
    assert_eq!(got.get("RELAYCLIENT").map(String::as_str), Some(""));
    assert!(!got.contains_key("HOME"));
    assert_eq!(read_all(server.connect_to(Ipv6Addr::LOCALHOST.into())), "");
    kit.wait_log("deny ");
    // Read again at HUP.
    kit.rules("127.:deny\n");
    server.signal(Signal::SIGHUP);
    kit.wait_log("sighup");
    assert_eq!(server.answer(), "");
    // A network.
    kit.rules("127.0.0.0/8:allow,NET=\"yes\"\n:deny\n");
    server.signal(Signal::SIGHUP);
    wait_until("the new rules", || server.answer().contains("NET=yes"));
    // No database: nobody comes in, unless -X says otherwise.
    for (options, open) in [(&["-x", "nosuch.cdb"][..], false), (&["-X", "-x", "nosuch.cdb"], true)] {
        let mut all = options.to_vec();
        all.extend(args(&["127.0.0.1", "0", "/bin/echo", "in"]));
        let server = kit.server(&all);
        assert_eq!(server.answer() == "in\n", open, "{options:?}");
    }
    fs::write(kit.path("bad.cdb"), "this is no database").unwrap();
    let server = kit.server(&args(&["-X", "-x", "bad.cdb", "127.0.0.1", "0", "/bin/echo", "in"]));
    kit.wait_log("bad.cdb");
    assert_eq!(server.answer(), "", "-X is about a missing database only");
}

#[test]
fn tcprules_agrees_with_debians() {
    let kit = Kit::new();
    let rules = "# comment\n\n127.:allow,RELAYCLIENT=\"\"\n1.2.3.37-53:deny\n10.2-3.:allow,X='a b'\n9.9.9.9:allow,RBLSMTPD=/-no/\n:allow\n";
    let ours = kit.rules(rules);
    let mut debians = Command::new("/usr/bin/tcprules")
        .args(["debian.cdb", "debian.tmp"])
        .current_dir(kit.path(""))
        .stdin(Stdio::piped())
        .spawn()
        .expect("the package ucspi-tcp must be installed");
    debians.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    assert!(debians.wait().unwrap().success());
    let check = |program: &Path, cdb: &Path, ip: &str| {
        let out = Command::new(program).arg(cdb).env_clear().env("TCPREMOTEIP", ip).output().unwrap();
        (out.status.code(), String::from_utf8(out.stdout).unwrap())
    };
    for ip in ["127.0.0.1", "1.2.3.36", "1.2.3.37", "1.2.3.53", "10.2.9.9", "10.4.0.1", "9.9.9.9", "8.8.8.8"]
    {
        let want = check(Path::new("/usr/bin/tcprulescheck"), &kit.path("debian.cdb"), ip);
        assert_eq!(check(Path::new("/usr/bin/tcprulescheck"), &ours, ip), want, "Debian's reads ours: {ip}");
        assert_eq!(check(&kit.path("tcprulescheck"), &ours, ip), want, "ours says the same: {ip}");
        assert_eq!(
            check(&kit.path("tcprulescheck"), &kit.path("debian.cdb"), ip),
            want,
            "ours reads Debian's: {ip}"
        );
    }
    // A bad line is named, and the old database stays.
    let before = fs::read(&ours).unwrap();
    let mut child =
        kit.command("tcprules").arg(&ours).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b":allow\nnonsense here\n").unwrap();
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(100));
    assert!(
        String::from_utf8_lossy(&out.stderr).contains("line 2: unable to parse this line: nonsense here")
    );
    assert_eq!(fs::read(&ours).unwrap(), before);
}

#[test]
fn a_replaced_database_counts_at_once() {
    let kit = Kit::new();
    let path = kit.path("rules.cdb");
    let server = kit.server(&args(&["-x", path.to_str().unwrap(), "127.0.0.1", "0", "/usr/bin/env"]));
    assert_eq!(server.answer(), "");
    kit.wait_log("rules.cdb: does not exist, so that no connection is allowed");
    for n in ["1", "2"] {
        kit.rules(&format!(":allow,N=\"{n}\"\n"));
        assert_eq!(variables(&server.answer()).get("N").map(String::as_str), Some(n));
    }
    fs::write(&path, "no database").unwrap();
    assert_eq!(server.answer(), "");
    kit.wait_log("warning: dropping connection from 127.0.0.1: ");
}

#[test]
fn names_and_users_decide() {
    assert!(nix::unistd::geteuid().is_root(), "this test needs root: it listens on port 113");
    let kit = Kit::new();
    // Port 113 is everybody's; the address is of this process alone.
    let [.., b, c] = std::process::id().to_be_bytes();
    let me = std::net::Ipv4Addr::new(127, 113, b, c).to_string();
    let path = kit.rules(&format!(
        "jane@{me}:allow,BY=\"user and address\"\nevil@=localhost:deny\n=localhost:allow,BY=\"name\"\n127.:deny\n"
    ));
    let path = path.to_str().unwrap();
    let ident = std::net::TcpListener::bind((me.as_str(), 113)).unwrap();
    let (asked_from, from) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in ident.incoming().flatten() {
            asked_from.send(stream.peer_addr().unwrap().ip()).unwrap();
            let mut question = String::new();
            BufReader::new(&stream).read_line(&mut question).unwrap();
            let answer = format!("{}:USERID:UNIX:jane\r\n", question.trim_end());
            (&stream).write_all(answer.as_bytes()).unwrap();
        }
    });
    let server = kit.server(&["-l", "0", "-x", path, "127.0.0.1", "0", "/usr/bin/env"]);
    let got = variables(&read_all(server.connect_from(&me)));
    assert_eq!(got.get("BY").map(String::as_str), Some("user and address"), "{got:?}");
    assert_eq!(got.get("TCPREMOTEINFO").map(String::as_str), Some("jane"));
    kit.wait_log(&format!("[{me}]jane:"));
    assert_eq!(from.recv().unwrap(), std::net::IpAddr::from([127, 0, 0, 1]));
    // It is asked from the address that the client connected to.
    let second = kit.server(&["-l", "0", "-x", path, "127.0.0.6", "0", "/usr/bin/env"]);
    let got = variables(&read_all(second.connect_between(&me, "127.0.0.6")));
    assert_eq!(got.get("TCPREMOTEINFO").map(String::as_str), Some("jane"));
    assert_eq!(from.recv().unwrap(), std::net::IpAddr::from([127, 0, 0, 6]));
    // 127.0.0.1 has the name localhost, and the name counts before the prefix that denies.
    let got = variables(&server.answer());
    assert_eq!(got.get("BY").map(String::as_str), Some("name"));
    kit.wait_log(" localhost[127.0.0.1]:");
    // Without questions the prefix counts.
    let server = kit.server(&args(&["-x", path, "127.0.0.1", "0", "/usr/bin/env"]));
    assert_eq!(server.answer(), "");
    // Denied by name: the process that asked says so.
    let path = kit.rules("=localhost:deny\n:allow\n");
    let server = kit.server(&[
        "-R",
        "-l",
        "0",
        "-V",
        "-x",
        path.to_str().unwrap(),
        "127.0.0.1",
        "0",
        "/bin/echo",
        "x",
    ]);
    assert_eq!(server.answer(), "");
    kit.wait_log(" status 100\n");
    let log = kit.text("log");
    assert!(log.contains("deny ") && log.contains("localhost[127.0.0.1]:"), "{log}");
    assert!(log.contains("rule for 127.0.0.1=localhost: =localhost\n"), "{log}");
}

/// Exit code and database of a program that is given these rules.
fn made_by(kit: &Kit, program: &Path, rules: &str) -> (Option<i32>, Vec<u8>) {
    let out = kit.path("made.cdb");
    let _ = fs::remove_file(&out);
    let mut child = Command::new(program)
        .args(["made.cdb", "made.tmp"])
        .current_dir(kit.path(""))
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    (child.wait().unwrap().code(), fs::read(out).unwrap_or_default())
}

#[test]
fn databases_are_byte_for_byte_debians() {
    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};
    let kit = Kit::new();
    let ours = kit.path("tcprules");
    let debians = Path::new("/usr/bin/tcprules");
    assert!(debians.exists(), "the package ucspi-tcp must be installed");
    // What both know: no networks, no removals, no IPv6. Good lines and bad ones; Debian's passes lines
    // without a colon over in silence, ours does not.
    let number = "(25[0-9]|[0-9]{1,2})";
    let address = prop_oneof![
        proptest::string::string_regex(&format!("({number}\\.){{0,3}}({number})?(-{number})?\\.?")).unwrap(),
        "=[a-zA-Z.-]{0,8}",
        "[a-z-]{1,4}@=?[a-z0-9.]{1,6}",
        "[a-z]{1,3}-?[0-9]?",
    ];
    let setting = ",[A-Z]{1,3}=(\"[a-z %=,:]{0,5}\"|/[a-z\"]{0,3}/|x[a-w]{0,3}x)";
    let settings =
        proptest::string::string_regex(&format!("({setting}){{0,3}}(,|,A|,A=|,A=\"b|x| y)?")).unwrap();
    let line = (
        address,
        prop_oneof![Just(":allow"), Just(":deny"), Just(":Allow"), Just(":")],
        settings,
        "[ \t]{0,2}",
    )
        .prop_map(|(a, d, s, blank)| format!("{a}{d}{s}{blank}"));
    let text = proptest::collection::vec(
        prop_oneof![4 => line, 1 => Just("# x".to_owned()), 1 => Just(String::new())],
        1..5,
    );
    let mut agreed = [0, 0];
    let mut runner = TestRunner::new(Config { cases: 250, failure_persistence: None, ..Config::default() });
    let agreed_ref = std::cell::RefCell::new(&mut agreed);
    runner
        .run(&text, |lines| {
            let rules = lines.join("\n");
            let (a, b) = (made_by(&kit, &ours, &rules), made_by(&kit, debians, &rules));
            agreed_ref.borrow_mut()[usize::from(b.0 != Some(0))] += 1;
            prop_assert_eq!(a.0, b.0, "code for {:?}", rules);
            prop_assert!(a.1 == b.1, "bytes for {:?}", rules);
            Ok(())
        })
        .unwrap();
    assert!(agreed.iter().all(|&n| n > 10), "both kinds were tried: {agreed:?}");
}

#[test]
fn tcprulescheck_says_what_debians_says() {
    let kit = Kit::new();
    let rules = "jane@1.2.3.4:allow,A=\"1\"\njane@=a.b.c:allow,A=\"2\"\n1.2.3.4:deny\n=a.b.c:allow,A=\"3\"\n\
                 1.2.:allow,A=\"4\"\n=.b.c:deny\n=.c:allow,A=\"5\",B=/x y/\n=:allow,A=\"6\"\n9.:allow\n";
    let path = kit.rules(rules);
    for ip in [None, Some("1.2.3.4"), Some("1.2.9.9"), Some("9.9.9.9"), Some("7.7.7.7")] {
        for host in [None, Some("a.b.c"), Some("x.b.c"), Some("x.c"), Some("d"), Some("")] {
            for info in [None, Some("jane"), Some("joe"), Some("")] {
                let [ours, debians] =
                    [kit.path("tcprulescheck"), "/usr/bin/tcprulescheck".into()].map(|program| {
                        let mut command = Command::new(program);
                        command.arg(&path).env_clear();
                        for (name, value) in
                            [("TCPREMOTEIP", ip), ("TCPREMOTEHOST", host), ("TCPREMOTEINFO", info)]
                        {
                            command.envs(value.map(|v| (name, v)));
                        }
                        let out = command.output().unwrap();
                        (out.status.code(), String::from_utf8(out.stdout).unwrap())
                    });
                assert_eq!(ours, debians, "{ip:?} {host:?} {info:?}");
            }
        }
    }
    let out = kit.command("tcprulescheck").arg(&path).env("TCPREMOTEIP", "nonsense").output().unwrap();
    assert_eq!(out.status.code(), Some(100));
    assert_eq!(kit.command("tcprulescheck").arg("nosuch.cdb").output().unwrap().status.code(), Some(111));
}

#[test]
fn networks_match_the_clients_in_them() {
    let kit = Kit::new();
    let path = kit.rules("127.0.0.0/30:allow,N=\"small\"\n127.0.0.0/8:allow,N=\"large\"\n::1/128:allow,N=\"six\"\n0.0.0.0/0:deny\n");
    let server = kit.server(&args(&["-x", path.to_str().unwrap(), "0", "0", "/bin/sh", "-c", "echo $N"]));
    assert_eq!(read_all(server.connect_from("127.0.0.3")), "small\n");
    assert_eq!(read_all(server.connect_from("127.0.0.4")), "large\n");
    assert_eq!(read_all(server.connect_to(Ipv6Addr::LOCALHOST.into())), "six\n");
    let check = |ip: &str| {
        let out = kit.command("tcprulescheck").arg(&path).env("TCPREMOTEIP", ip).output().unwrap();
        String::from_utf8(out.stdout).unwrap()
    };
    assert_eq!(check("8.8.8.8"), "rule _:\ndeny connection\n");
    assert_eq!(check("2001:db8::1"), "default:\nallow connection\n");
}
