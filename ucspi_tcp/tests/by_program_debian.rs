//! tcpserver beside Debian's: what the program gets, what the log says, codes.

mod server;

use server::*;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

const DEBIANS: &str = "/usr/bin/tcpserver";

/// A running server, its log in the file `log` of its kit.
fn start(kit: &Kit, program: &str, args: &[&str]) -> Server {
    assert!(std::path::Path::new(program).exists(), "the package ucspi-tcp must be installed");
    let log = std::fs::File::create(kit.path("log")).unwrap();
    let mut child = Command::new(program)
        .arg("-1v")
        .args(args)
        .current_dir(kit.path(""))
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("TCPREMOTEINFO", "forged")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    Server { child, port: line.trim().parse().unwrap() }
}

fn talk(server: &Server, sent: &str) -> (u16, String) {
    let mut client = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    client.write_all(sent.as_bytes()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    (client.local_addr().unwrap().port(), read_all(client))
}

/// Log lines with stand-ins for process ids and ports, sorted, since two processes write them.
fn lines(kit: &Kit, replace: &[(u16, &str)]) -> Vec<String> {
    let mut pids: Vec<String> = Vec::new();
    let mut all: Vec<String> = Vec::new();
    for line in kit.text("log").lines() {
        let mut words: Vec<String> =
            line.strip_prefix("tcpserver: ").unwrap().split(' ').map(str::to_owned).collect();
        if words[0] == "status:" {
            // What follows the numbers is ours only.
            words.truncate(2);
        } else {
            if !pids.contains(&words[1]) {
                pids.push(words[1].clone());
            }
            words[1] = "PID".into();
        }
        if words[0] == "ok" || words[0] == "deny" {
            for word in &mut words[2..] {
                *word = word.replace(['[', ']'], ":").split(":maxperip=").next().unwrap().to_owned();
            }
        }
        if words[0] == "end" && words[2] == "status" {
            let status: i32 = words[3].parse().unwrap();
            // Debian's prints what wait(2) returns, ours the exit code.
            words[3] = if status > 255 { status >> 8 } else { status }.to_string();
        }
        let mut line = words.join(" ");
        for (port, name) in replace {
            line = line.replace(&format!(":{port}"), &format!(":{name}"));
        }
        all.push(line);
    }
    all.sort();
    all
}

#[test]
fn variables_stream_and_log_are_the_same() {
    let [ours, debians] = [true, false].map(|ours| {
        let kit = Kit::new();
        let program = kit.path("tcpserver");
        let program = if ours { program.to_str().unwrap() } else { DEBIANS };
        let script = "env | grep -E '^(PROTO|TCP)'; cat; exit 7";
        let server = start(
            &kit,
            program,
            &["-c", "5", "-H", "-R", "-l", "here", "127.0.0.1", "0", "/bin/sh", "-c", script],
        );
        let (port, answer) = talk(&server, "echo=this\n");
        kit.wait_log("status: 0/5\n");
        wait_until("the end in the log", || kit.text("log").matches("status: 0/5").count() == 2);
        let mut got = variables(&answer);
        let ports = [got.remove("TCPREMOTEPORT"), got.remove("TCPLOCALPORT")];
        assert_eq!(ports, [Some(port.to_string()), Some(server.port.to_string())]);
        (got, lines(&kit, &[(port, "REMOTE"), (server.port, "LOCAL")]))
    });
    assert_eq!(ours, debians);
    let wanted: BTreeMap<_, _> = [
        ("PROTO", "TCP"),
        ("TCPLOCALHOST", "here"),
        ("TCPLOCALIP", "127.0.0.1"),
        ("TCPREMOTEIP", "127.0.0.1"),
        ("echo", "this"),
    ]
    .map(|(n, v)| (n.to_owned(), v.to_owned()))
    .into();
    assert_eq!(ours.0, wanted);
    assert_eq!(ours.1.len(), 6, "{:?}", ours.1);
}

#[test]
fn rules_and_banner_are_the_same() {
    let [ours, debians] = [true, false].map(|ours| {
        let kit = Kit::new();
        let program = kit.path("tcpserver");
        let program = if ours { program.to_str().unwrap() } else { DEBIANS };
        kit.rules("127.0.0.1:allow,A=\"b c\",D=\"\"\n:deny\n");
        let args = [
            "-x",
            "rules.cdb",
            "-B",
            "first\n",
            "-H",
            "-R",
            "-l",
            "0",
            "127.0.0.1",
            "0",
            "/bin/sh",
            "-c",
            "echo \"$A.$D.\"",
        ];
        let server = start(&kit, program, &args);
        let allowed = talk(&server, "").1;
        // The rules are changed under the running server.
        kit.rules("127.:deny\n");
        let denied = talk(&server, "").1;
        kit.wait_log("deny ");
        let log = lines(&kit, &[(server.port, "LOCAL")]);
        let deny: Vec<String> = log.into_iter().filter(|l| l.starts_with("deny")).collect();
        // The client's port stands at the end.
        (allowed, denied, deny[0].rsplit_once(':').unwrap().0.to_owned())
    });
    assert_eq!(ours, debians);
    assert_eq!((ours.0.as_str(), ours.1.as_str()), ("first\nb c..\n", "first\n"));
    assert_eq!(ours.2, "deny PID 0:127.0.0.1:LOCAL :127.0.0.1:");
}

#[test]
fn codes_are_the_same() {
    let kit = Kit::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().port().to_string();
    for args in [
        &[][..],
        &["127.0.0.1"],
        &["127.0.0.1", "0"],
        &["-Z", "127.0.0.1", "0", "true"],
        &["127.0.0.1", "nosuchservice", "true"],
        &["127.0.0.1", &taken, "true"],
        &["192.0.2.1", "0", "true"],
    ] {
        let code = |program: &std::path::Path| {
            let mut command = Command::new(program);
            command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().unwrap().code()
        };
        assert_eq!(code(&kit.path("tcpserver")), code(DEBIANS.as_ref()), "{args:?}");
    }
    for program in [kit.path("tcpserver").to_str().unwrap(), DEBIANS] {
        let mut server = start(&kit, program, &["-H", "-R", "-l", "0", "127.0.0.1", "0", "true"]);
        kit.wait_log("status: 0/40");
        server.signal(Signal::SIGTERM);
        assert_eq!(server.wait(), Some(0), "{program}");
    }
}
