//! tcpserver and tcp-env, with real connections.

mod server;

use server::*;

use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::net::Ipv6Addr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::process::Stdio;

#[test]
fn the_program_gets_the_connection_and_its_description() {
    let kit = Kit::new();
    let mut server = kit.server_with(&args(&["127.0.0.1", "0", "/bin/sh", "-c", "env; exec cat"]), |c| {
        c.env("TCPREMOTEINFO", "forged").env("TCPREMOTEHOST", "forged").env("KEPT", "1");
    });
    let mut client = server.connect();
    client.write_all(b"echo=this\n").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let port = client.local_addr().unwrap().port().to_string();
    let got = variables(&read_all(client));
    let local = server.port.to_string();
    for (name, value) in [
        ("PROTO", "TCP"),
        ("TCPLOCALIP", "127.0.0.1"),
        ("TCPLOCALPORT", local.as_str()),
        ("TCPLOCALHOST", "here"),
        ("TCPREMOTEIP", "127.0.0.1"),
        ("TCPREMOTEPORT", port.as_str()),
        ("KEPT", "1"),
        ("echo", "this"),
    ] {
        assert_eq!(got.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(
        !got.contains_key("TCPREMOTEINFO") && !got.contains_key("TCPREMOTEHOST"),
        "an outer server's values"
    );
    kit.wait_log("status: 0/40 end");
    let log = kit.text("log");
    let lines: Vec<_> = log.lines().map(|l| l.strip_prefix("tcpserver: ").unwrap()).collect();
    let pid = lines[2].split(' ').nth(1).unwrap();
    assert_eq!(lines[0], "status: 0/40");
    assert_eq!(lines[1], format!("status: 1/40 start, pid={pid}, IP 127.0.0.1"));
    assert_eq!(lines[2], format!("pid {pid} from 127.0.0.1"));
    assert_eq!(lines[3], format!("ok {pid} here[127.0.0.1]{local} [127.0.0.1]:{port}:maxperip=20"));
    assert_eq!(lines[4], format!("end {pid} status 0"));
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn all_addresses_means_both_families() {
    let kit = Kit::new();
    for host in ["0", "", "::"] {
        let server = kit.server(&args(&[host, "0", "/usr/bin/env"]));
        let got = variables(&server.answer());
        assert_eq!((got["PROTO"].as_str(), got["TCPREMOTEIP"].as_str()), ("TCP", "127.0.0.1"));
        assert_eq!(got["TCP6REMOTEIP"], "::ffff:127.0.0.1");
        let got = variables(&read_all(server.connect_to(Ipv6Addr::LOCALHOST.into())));
        assert_eq!((got["PROTO"].as_str(), got["TCPREMOTEIP"].as_str()), ("TCP6", "::1"));
        assert_eq!(got["TCP6LOCALHOST"], "here");
    }
    let server = kit.server(&args(&["-4", "0", "0", "/usr/bin/env"]));
    assert!(!server.answer().contains("TCP6"));
    let server = kit.server(&args(&["-6", "0", "0", "/usr/bin/env"]));
    assert_eq!(variables(&server.answer())["PROTO"], "TCP6");
}

#[test]
fn term_leaves_running_connections() {
    let kit = Kit::new();
    let mut server = kit.server(&args(&["127.0.0.1", "0", "/bin/sh", "-c", "echo hello; exec cat"]));
    let client = server.connect();
    (&client).read_exact(&mut [0; 6]).unwrap();
    server.signal(Signal::SIGUSR1);
    kit.wait_log("connection: pid=");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(), Some(0));
    assert!(TcpStream::connect(("127.0.0.1", server.port)).is_err(), "nobody listens");
    (&client).write_all(b"still\n").unwrap();
    let mut buf = [0; 6];
    (&client).read_exact(&mut buf).unwrap();
    assert_eq!(&buf, b"still\n");
}

#[test]
fn endings_are_logged() {
    let kit = Kit::new();
    let server = kit.server(&args(&["127.0.0.1", "0", "/bin/sh", "-c", "exit 7"]));
    server.answer();
    kit.wait_log(" status 7\n");
    let server = kit.server(&args(&["127.0.0.1", "0", "/bin/sh", "-c", "kill -9 $$"]));
    server.answer();
    kit.wait_log(" killed by signal 9\n");
    let server = kit.server(&args(&["127.0.0.1", "0", "/nonexistent"]));
    assert_eq!(server.answer(), "");
    kit.wait_log("unable to run /nonexistent");
    assert_eq!(server.answer(), "", "and the server goes on");
}

#[test]
fn banner_and_unix_socket() {
    let kit = Kit::new();
    let server = kit.server(&args(&["-B", "220 early\r\n", "127.0.0.1", "0", "/bin/echo", "late"]));
    assert_eq!(server.answer(), "220 early\r\nlate\n");
    let path = kit.path("s");
    let shown = path.to_str().unwrap().to_owned();
    let mut server = kit.server(&[&shown, "/usr/bin/env"]);
    let got = variables(&read_all(UnixStream::connect(&path).unwrap()));
    assert_eq!((got["PROTO"].as_str(), got["UNIXLOCALPATH"].as_str()), ("UNIX", shown.as_str()));
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(), Some(0));
    assert!(!path.exists(), "the socket file is removed");
}

#[test]
fn root_is_given_up_for_good() {
    assert!(nix::unistd::geteuid().is_root(), "this test needs root");
    let kit = Kit::new();
    let show = ["127.0.0.1", "0", "/bin/sh", "-c", "id -u; id -g; id -G"];
    for (options, want) in [
        (&["-u", "nobody"][..], "65534\n65534\n65534\n"),
        (&["-u", "nobody", "-g", "mail,12"], "65534\n8\n8 12\n"),
        (&["-u", "65534", "-g", "65534"], "65534\n65534\n65534\n"),
    ] {
        let mut all = options.to_vec();
        all.extend(args(&show));
        assert_eq!(kit.server(&all).answer(), want, "{options:?}");
    }
    let mut all = vec!["-U"];
    all.extend(args(&show));
    let server = kit.server_with(&all, |c| {
        c.env("UID", "65534").env("GID", "12");
    });
    assert_eq!(server.answer(), "65534\n12\n12\n");
}

#[test]
fn names_are_looked_up_by_default() {
    let kit = Kit::new();
    let server = kit.server(&["-R", "127.0.0.1", "0", "/usr/bin/env"]);
    let got = variables(&server.answer());
    assert_eq!((got["TCPREMOTEHOST"].as_str(), got["TCPLOCALHOST"].as_str()), ("localhost", "localhost"));
    assert_eq!(got["TCPREMOTEIP"], "127.0.0.1");
    let server = kit.server(&["-R", "-p", "127.0.0.1", "0", "/usr/bin/env"]);
    assert_eq!(variables(&server.answer())["TCPREMOTEHOST"], "localhost");
    // Nobody answers at port 113 of this host: no variable, and no delay by the timeout either.
    let server = kit.server(&["-H", "-l", "x", "127.0.0.1", "0", "/usr/bin/env"]);
    assert!(!server.answer().contains("TCPREMOTEINFO"));
}

#[test]
fn tcp_env_by_itself() {
    // As from inetd: the connection on descriptor 0, nothing in the environment.
    let kit = Kit::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    let socket = std::os::fd::OwnedFd::from(accepted);
    let out = kit
        .command("tcp-env")
        .args(["-HR", "-l", "me", "/usr/bin/env"])
        .stdin(Stdio::from(socket))
        .output()
        .unwrap();
    let got = variables(&String::from_utf8(out.stdout).unwrap());
    assert_eq!(got["TCPREMOTEPORT"], client.local_addr().unwrap().port().to_string());
    assert_eq!((got["PROTO"].as_str(), got["TCPLOCALHOST"].as_str()), ("TCP", "me"));
    let out = kit.command("tcp-env").args(["/nonexistent"]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(out.status.code(), Some(111));
}

#[test]
fn readiness_is_announced_and_not_passed_on() {
    let kit = Kit::new();
    let path = kit.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let server = kit.server_with(&args(&["127.0.0.1", "0", "/usr/bin/env"]), |c| {
        c.env("NOTIFY_SOCKET", &path);
    });
    let mut buf = [0; 100];
    let n = socket.recv(&mut buf).unwrap();
    assert_eq!(&buf[..n], b"READY=1\n");
    assert!(!server.answer().contains("NOTIFY_SOCKET"));
}

#[test]
fn one_instance_for_a_pid_file() {
    let kit = Kit::new();
    let server = kit.server(&args(&["-e", "pid", "127.0.0.1", "0", "/bin/true"]));
    assert_eq!(kit.text("pid"), format!("{}\n", server.child.id()));
    let mut second = kit.command("tcpserver");
    second.args(args(&["-e", "pid", "127.0.0.1", "0", "/bin/true"])).stdin(Stdio::null());
    let out = second.output().unwrap();
    assert_eq!(out.status.code(), Some(111));
    assert!(String::from_utf8_lossy(&out.stderr).contains("another instance"));
}

#[test]
fn usage() {
    let kit = Kit::new();
    let code = |args: &[&str]| {
        kit.command("tcpserver").args(args).stdin(Stdio::null()).output().unwrap().status.code()
    };
    assert_eq!(code(&[]), Some(100));
    assert_eq!(code(&["127.0.0.1", "0"]), Some(100));
    assert_eq!(code(&["-c", "0", "127.0.0.1", "0", "true"]), Some(100));
    assert_eq!(code(&["-C", "x", "127.0.0.1", "0", "true"]), Some(100));
    assert_eq!(code(&["-u", "nosuchuser", "127.0.0.1", "0", "true"]), Some(100));
    assert_eq!(code(&["127.0.0.1", "nosuchservice", "true"]), Some(111));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    assert_eq!(code(&["127.0.0.1", &taken.local_addr().unwrap().port().to_string(), "true"]), Some(111));
}

#[test]
fn nothing_leaks_into_the_program() {
    let kit = Kit::new();
    let rules = kit.rules(":allow\n");
    let server = kit.server(&args(&[
        "-x",
        rules.to_str().unwrap(),
        "-e",
        "pid",
        "127.0.0.1",
        "0",
        "/bin/ls",
        "/proc/self/fd",
    ]));
    let list = Command::new("/bin/ls").arg("/proc/self/fd").stdin(Stdio::null()).output().unwrap();
    assert_eq!(server.answer(), String::from_utf8(list.stdout).unwrap());
}
