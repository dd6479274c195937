//! Limits of tcpserver: for all, for a client, for a network; changed while it runs.

mod server;

use server::*;

use nix::sys::signal::Signal;
use std::fs;
use std::io::{BufRead, BufReader};
use std::io::{Read, Write};
use std::net::Ipv6Addr;
use std::net::TcpStream;

#[test]
fn clients_above_the_limit_wait() {
    let kit = Kit::new();
    let server = kit.server(&args(&["-c", "2", "127.0.0.1", "0", "/bin/sh", "-c", "echo hello; exec cat"]));
    let mut greeted: Vec<_> = (0..2).map(|_| BufReader::new(server.connect())).collect();
    for client in &mut greeted {
        let mut line = String::new();
        client.read_line(&mut line).unwrap();
        assert_eq!(line, "hello\n");
    }
    let third = server.connect();
    kit.wait_log("status: 2/2");
    // It is in the queue of the socket; nobody greets it until another one is done.
    third.set_nonblocking(true).unwrap();
    assert_eq!((&third).read(&mut [0; 9]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    drop(greeted.pop());
    third.set_nonblocking(false).unwrap();
    let mut line = String::new();
    BufReader::new(third).read_line(&mut line).unwrap();
    assert_eq!(line, "hello\n");
}

#[test]
fn the_limit_in_a_file_is_read_again_at_hup() {
    let kit = Kit::new();
    fs::write(kit.path("max"), "1\n").unwrap();
    let server = kit.server_with(
        &args(&["-c", "max", "127.0.0.1", "0", "/bin/sh", "-c", "echo hello; exec cat"]),
        |c| {
            c.env("CONTROLDIR", kit.path(""));
        },
    );
    let hello = |stream: &TcpStream| {
        let mut buf = [0; 6];
        (&*stream).read_exact(&mut buf).unwrap();
        assert_eq!(&buf, b"hello\n");
    };
    let first = server.connect();
    hello(&first);
    let second = server.connect();
    fs::write(kit.path("max"), "3\n").unwrap();
    server.signal(Signal::SIGHUP);
    hello(&second);
    kit.wait_log("sighup: 1/3");
    // Lower than what is running: those go on, nobody new comes in.
    fs::write(kit.path("max"), "1\n").unwrap();
    server.signal(Signal::SIGHUP);
    kit.wait_log("sighup: 2/1");
    let third = server.connect();
    (&first).write_all(b"still\n").unwrap();
    let mut buf = [0; 6];
    (&first).read_exact(&mut buf).unwrap();
    assert_eq!(&buf, b"still\n");
    drop((first, second));
    hello(&third);
    // Without a file, HUP changes nothing (and does not end the server).
    let fixed = kit.server(&args(&["-c", "5", "127.0.0.1", "0", "/bin/echo", "hi"]));
    fixed.signal(Signal::SIGHUP);
    kit.wait_log("sighup: 0/5");
    assert_eq!(fixed.answer(), "hi\n");
}

#[test]
fn one_client_has_its_own_limit() {
    let kit = Kit::new();
    let server = kit.server(&args(&["-C", "2", "0", "0", "/bin/sh", "-c", "echo hello; exec cat"]));
    let greeted = |stream: &TcpStream| {
        let mut buf = [0; 6];
        (&*stream).read_exact(&mut buf).is_ok()
    };
    let kept: Vec<_> = (0..2).map(|_| server.connect()).collect();
    assert!(kept.iter().all(greeted));
    let third = server.connect();
    assert!(!greeted(&third), "sent away");
    kit.wait_log("end 127.0.0.1 perIPlimit 2");
    let other = server.connect_to(Ipv6Addr::LOCALHOST.into());
    assert!(greeted(&other), "another address is another client");
    drop(kept);
    wait_until("room", || greeted(&server.connect()));
}

#[test]
fn limits_above_twenty_and_limits_by_rule() {
    let kit = Kit::new();
    let server =
        kit.server(&args(&["-c", "50", "-C", "30", "127.0.0.1", "0", "/bin/sh", "-c", "echo x; exec cat"]));
    let clients: Vec<_> = (0..30).map(|_| server.connect()).collect();
    assert!(clients.iter().all(|mut c| c.read_exact(&mut [0; 2]).is_ok()), "the limit of -C is the limit");
    assert!(server.connect().read_exact(&mut [0; 2]).is_err());
    drop(clients);
    let rules = kit.rules("127.0.0.1:allow,MAXPERIP=\"3\"\n");
    let rules = rules.to_str().unwrap();
    for per_client in ["1", "20"] {
        let server = kit.server(&args(&[
            "-C",
            per_client,
            "-x",
            rules,
            "127.0.0.1",
            "0",
            "/bin/sh",
            "-c",
            "echo x; exec cat",
        ]));
        let clients: Vec<_> = (0..3).map(|_| server.connect()).collect();
        assert!(
            clients.iter().all(|mut c| c.read_exact(&mut [0; 2]).is_ok()),
            "a rule raises -C {per_client}"
        );
        assert!(server.connect().read_exact(&mut [0; 2]).is_err(), "and lowers it");
    }
}

#[test]
fn a_limit_for_the_addresses_of_the_acceptance_test() {
    let kit = Kit::new();
    let mut all = vec!["-C", "2", "-H", "-R", "-l", "0", "127.0.0.1", "0"];
    all.extend(GREETER);
    let server = kit.server(&all);
    let kept: Vec<_> = (0..2).map(|_| server.connect_from("127.0.0.2")).collect();
    assert!(kept.iter().all(greeted));
    assert!(!greeted(&server.connect_from("127.0.0.2")), "the third of one client");
    kit.wait_log("end 127.0.0.2 perIPlimit 2\n");
    assert!(greeted(&server.connect_from("127.0.0.3")), "another client");
}

#[test]
fn all_clients_of_a_network_have_a_limit_together() {
    let kit = Kit::new();
    let path = kit.rules("127.0.9.:allow,MAXPERNET=\"1/24\"\n127.7.:allow,MAXPERNET=\"3/16\"\n:allow\n");
    let mut all =
        vec!["--per-network", "2", "-x", path.to_str().unwrap(), "-H", "-R", "-l", "0", "127.0.0.1", "0"];
    all.extend(GREETER);
    let server = kit.server(&all);
    let serve = |from: &[&str]| {
        let all: Vec<_> = from.iter().map(|ip| server.connect_from(ip)).collect();
        assert!(all.iter().all(greeted), "{from:?}");
        all
    };
    let kept = serve(&["127.0.1.1", "127.0.1.2"]);
    assert!(!greeted(&server.connect_from("127.0.1.3")), "the third of 127.0.1.0/24");
    kit.wait_log("end 127.0.1.3 perNetLimit 2 127.0.1.0/24\n");
    let others = serve(&["127.0.2.1", "127.7.1.1", "127.7.2.1", "127.7.3.1", "127.0.9.1"]);
    assert!(!greeted(&server.connect_from("127.7.4.1")), "a rule sets number and bits");
    assert!(!greeted(&server.connect_from("127.0.9.2")), "and may be lower");
    drop((kept, others));
    wait_until("room", || greeted(&server.connect_from("127.0.1.3")));
}

#[test]
fn a_rule_by_name_raises_the_limit_as_one_by_address_does() {
    let kit = Kit::new();
    let path = kit.rules("=localhost:allow,MAXPERIP=\"3\"\n:allow\n");
    let mut all = vec!["-C", "1", "-x", path.to_str().unwrap(), "-R", "-l", "0", "127.0.0.1", "0"];
    all.extend(GREETER);
    let server = kit.server(&all);
    let kept: Vec<_> = (0..3).map(|_| server.connect()).collect();
    assert!(kept.iter().all(greeted));
    assert!(!greeted(&server.connect()));
    kit.wait_log("end 127.0.0.1 perIPlimit 3\n");
}

#[test]
fn a_limit_that_is_not_there_is_complained_about() {
    let kit = Kit::new();
    let server = kit.server_with(&args(&["-c", "max", "127.0.0.1", "0", "/bin/echo", "hi"]), |c| {
        c.env("CONTROLDIR", kit.path(""));
    });
    kit.wait_log("/max: does not exist: the limit is 40; write a number to it and send HUP\n");
    kit.wait_log("status: 0/40");
    fs::write(kit.path("max"), "a few\n").unwrap();
    server.signal(Signal::SIGHUP);
    kit.wait_log("/max: expected a number: the limit is 40\n");
    fs::write(kit.path("max"), "7\n").unwrap();
    server.signal(Signal::SIGHUP);
    kit.wait_log("sighup: 0/7");
    fs::remove_file(kit.path("max")).unwrap();
    fs::create_dir(kit.path("max")).unwrap();
    server.signal(Signal::SIGHUP);
    kit.wait_log("keeping the limit of 7: ");
    assert_eq!(server.answer(), "hi\n");
}
