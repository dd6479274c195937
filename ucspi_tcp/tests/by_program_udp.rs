//! udpclient and udplogger.

mod support;

use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::process::{Child, ChildStdout};

use support::{Kit, PATIENCE, run, start, text};

/// udplogger on a free port, and its output.
struct Logger {
    child: Child,
    output: BufReader<ChildStdout>,
    port: String,
}

impl Logger {
    fn start(kit: &Kit, args: &[&str]) -> Self {
        let mut child = start(kit.ours("udplogger").args(["-1", "-p", "0"]).args(args));
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut port = String::new();
        output.read_line(&mut port).unwrap();
        Self { child, output, port: port.trim().to_owned() }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line
    }
}

impl Drop for Logger {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn lines_arrive_with_their_sender() {
    let kit = Kit::new();
    for (args, host, ip) in [
        (&["127.0.0.1"][..], "127.0.0.1", "127.0.0.1"),
        (&["::1"], "::1", "::1"),
        (&[], "127.0.0.1", "127.0.0.1"),
    ] {
        let mut logger = Logger::start(&kit, args);
        let out = run(kit.ours("udpclient").args(["-h", host, "-p", &logger.port]), b"one\n\ntwo \x1b\nlast");
        assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
        let lines = [logger.line(), logger.line(), logger.line(), logger.line()].concat();
        assert_eq!(lines, format!("{ip} one\n{ip} \n{ip} two ?\n{ip} last\n"));
    }
}

#[test]
fn an_answer_is_waited_for_and_printed() {
    let kit = Kit::new();
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let port = server.local_addr().unwrap().port().to_string();
    let answering = std::thread::spawn(move || {
        let mut buffer = [0; 100];
        // The first try is lost.
        server.recv(&mut buffer).unwrap();
        let (count, peer) = server.recv_from(&mut buffer).unwrap();
        server.send_to(&[b"got ", &buffer[..count]].concat(), peer).unwrap();
        // And nothing after that is answered.
        while server.recv(&mut buffer).unwrap() != 0 {}
    });
    let out = run(kit.ours("udpclient").args(["-p", &port, "-t", "1", "-r", "30"]), b"x\n");
    assert_eq!(
        (out.status.code(), text(&out.stdout).as_str()),
        (Some(0), "got x\n"),
        "{}",
        text(&out.stderr)
    );
    let out = run(kit.ours("udpclient").args(["-p", &port, "-t", "1"]), b"y\n");
    assert_eq!(out.status.code(), Some(111));
    assert_eq!(text(&out.stderr), "udpclient: warning: line 1: no answer\n");
    assert_eq!(run(kit.ours("udpclient").args(["-p", &port]), b"\n").status.code(), Some(0));
    answering.join().unwrap();
}

#[test]
fn what_cannot_be_sent_and_wrong_usage() {
    let kit = Kit::new();
    let out = run(kit.ours("udpclient").args(["-p", "1"]), &[&[b'x'; 70_000][..], b"\n"].concat());
    assert_eq!(out.status.code(), Some(111), "too long for a datagram");
    let out = run(kit.ours("udpclient").args(["-h", "no.such.host.invalid"]), b"x\n");
    assert_eq!(out.status.code(), Some(111));
    for args in [&["-p", "0"][..], &["-t", "x"], &["extra"]] {
        assert_eq!(run(kit.ours("udpclient").args(args), b"").status.code(), Some(100), "{args:?}");
    }
    assert_eq!(run(kit.ours("udplogger").arg("no-address"), b"").status.code(), Some(100));
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let out = run(kit.ours("udplogger").args(["-p", &port, "127.0.0.1"]), b"");
    assert_eq!(out.status.code(), Some(111));
    assert!(text(&out.stderr).contains(&port));
}
