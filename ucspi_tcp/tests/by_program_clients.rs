//! tcpclient and the programs around it, with real connections, against Debian's where the two must agree.

mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixListener;

use support::{Kit, Server, run, start, text};

/// A port below those that the kernel gives to servers of tests.
const CLOSED: &str = "1";

/// Variables that describe a connection, but for the port that the kernel chose.
fn described(output: &[u8]) -> BTreeSet<String> {
    text(output)
        .lines()
        .filter(|l| l.starts_with("TCP") || l.starts_with("PROTO") || l.starts_with("UNIX"))
        .filter(|l| !l.starts_with("TCPLOCALPORT"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_program_gets_descriptors_and_variables_as_with_debians() {
    let (kit, server) = (Kit::new(), Server::echo());
    let script = "read greeting <&6; echo $greeting; echo asked >&7; read answer <&6; echo $answer; exit 5";
    let (code, out) = kit.same("tcpclient", &["-RHl0", "127.0.0.1", &server.port(), "sh", "-c", script], b"");
    assert_eq!((code, out.as_str()), (Some(5), "hi\nasked\n"));
    let [ours, debians] = [kit.ours("tcpclient"), kit.debians("tcpclient")].map(|mut command| {
        // An earlier server's variables must not survive.
        command.envs([("TCPREMOTEINFO", "forged"), ("TCPREMOTEHOST", "forged")]);
        described(&run(command.args(["-RHlme", "-i", "127.0.0.9", "0", &server.port(), "env"]), b"").stdout)
    });
    assert_eq!(ours, debians);
    for want in ["PROTO=TCP", "TCPLOCALHOST=me", "TCPLOCALIP=127.0.0.9", "TCPREMOTEIP=127.0.0.1"] {
        assert!(ours.contains(want), "{want} {ours:?}");
    }
    assert!(ours.contains(&format!("TCPREMOTEPORT={}", server.port())) && ours.len() == 5, "{ours:?}");
}

#[test]
fn what_can_be_looked_up_is_and_the_rest_is_not_set() {
    let (kit, server) = (Kit::new(), Server::echo());
    let out = run(kit.ours("tcpclient").args(["-t1", "0", &server.port(), "env"]), b"");
    let variables = described(&out.stdout);
    assert!(variables.contains("TCPREMOTEHOST=localhost") && variables.contains("TCPLOCALHOST=localhost"));
    assert!(!text(&out.stdout).contains("TCPREMOTEINFO"), "nobody answers on port 113");
}

#[test]
fn codes_are_debians() {
    let (kit, server) = (Kit::new(), Server::echo());
    let port = server.port();
    let closed = CLOSED;
    let cases: [(&[&str], i32); 7] = [
        (&["-RHl0", "127.0.0.1", closed, "true"], 111),
        (&["-RHl0", "127.0.0.1", &port, "/nonexistent"], 111),
        (&["-RHl0", "127.0.0.1", "no-such-port", "true"], 111),
        (&["127.0.0.1"], 100),
        (&[], 100),
        (&["-Z", "127.0.0.1", &port, "true"], 100),
        (&["-RHl0", "127.0.0.1", &port, "sh", "-c", "exit 7"], 7),
    ];
    for (args, code) in cases {
        assert_eq!(kit.same("tcpclient", args, b"").0, Some(code), "{args:?}");
    }
}

#[test]
fn what_went_wrong_is_said_unless_told_not_to() {
    let (kit, server) = (Kit::new(), Server::echo());
    let closed = CLOSED;
    let said = |args: &[&str]| text(&run(kit.ours("tcpclient").args(args), b"").stderr);
    let both = said(&["127.0.0.1", closed, "true"]);
    assert_eq!(both, "tcpclient: fatal: unable to connect to 127.0.0.1 port 1: connection refused\n");
    std::fs::write(kit.path("hosts"), "127.0.0.1 x\n127.0.0.2 x\n").unwrap();
    assert_eq!(
        said(&["-e", "hosts", "x", closed, "true"]),
        "tcpclient: warning: unable to connect to 127.0.0.1 port 1: connection refused\n\
         tcpclient: fatal: unable to connect to 127.0.0.2 port 1: connection refused\n"
    );
    for host in ["", "0", "[127.0.0.1]", "127.000.000.001", "[::1]"] {
        let ip = if host == "[::1]" { "::1" } else { "127.0.0.1" };
        let want = format!("tcpclient: fatal: unable to connect to {ip} port 1: connection refused\n");
        assert_eq!(said(&[host, closed, "true"]), want, "{host}");
    }
    assert_eq!(said(&["-q", "127.0.0.1", closed, "true"]), "");
    let connected = said(&["-vRHl0", "127.0.0.1", &server.port(), "true"]);
    assert_eq!(connected, format!("tcpclient: status: connected to 127.0.0.1 port {}\n", server.port()));
    for bad in [["-T0", "0"], ["-i", "x"], ["-I", "no-such-if"], ["-p", "70000"], ["-a", "0"]] {
        let out = run(kit.ours("tcpclient").args(bad).args(["0", &server.port()]), b"");
        assert_eq!(out.status.code(), Some(100), "{bad:?} {}", text(&out.stderr));
        assert!(text(&out.stderr).starts_with(&format!("tcpclient: fatal: option {}: ", &bad[0][..2])));
    }
}

#[test]
fn without_a_program_it_copies_both_ways() {
    let (kit, server) = (Kit::new(), Server::echo());
    let big = vec![b'x'; 1_000_000];
    let out = run(kit.ours("tcpclient").args(["0", &server.port()]), &big);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert!(out.stdout.starts_with(b"hi\nxxx") && out.stdout.len() == big.len() + 3);
    // The server ends first: so does tcpclient, though its own input is open.
    let server = Server::start(|mut stream| stream.write_all(b"bye").unwrap());
    let mut child = start(kit.ours("tcpclient").args(["0", &server.port()]));
    let input = child.stdin.take();
    let out = child.wait_with_output().unwrap();
    assert_eq!((out.status.code(), text(&out.stdout).as_str()), (Some(0), "bye"));
    drop(input);
}

#[test]
fn a_silent_server_is_left_after_the_time_given() {
    let kit = Kit::new();
    let server = Server::start(|mut stream| drop(stream.read(&mut [0])));
    let mut child = start(kit.ours("tcpclient").args(["-a1", "0", &server.port()]));
    let input = child.stdin.take();
    let out = child.wait_with_output().unwrap();
    drop(input);
    assert_eq!(out.status.code(), Some(111));
    assert!(text(&out.stderr).contains("-a"), "{}", text(&out.stderr));
}

#[test]
fn unix_sockets_ipv6_and_a_file_of_hosts() {
    let kit = Kit::new();
    let path = kit.path("socket");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || listener.accept().unwrap().0.write_all(b"from the socket\n").unwrap());
    let path = path.to_str().unwrap();
    let out = run(kit.ours("tcpclient").args([path, "sh", "-c", "cat <&6; env"]), b"");
    assert!(text(&out.stdout).starts_with("from the socket\n"));
    assert_eq!(
        described(&out.stdout),
        BTreeSet::from(["PROTO=UNIX".into(), format!("UNIXREMOTEPATH={path}")])
    );

    let server = Server::at("[::1]:0", |mut stream| stream.write_all(b"six").unwrap());
    let out = run(kit.ours("tcpclient").args(["-RH", "-l0", "::1", &server.port(), "env"]), b"");
    let variables = described(&out.stdout);
    for want in ["PROTO=TCP6", "TCPREMOTEIP=::1", "TCP6REMOTEIP=::1"] {
        assert!(variables.contains(want), "{want} {variables:?}");
    }
    std::fs::write(kit.path("hosts"), "127.0.0.1 there.invalid\n::1 there.invalid\n").unwrap();
    // The first address refuses, the second answers.
    let out = run(kit.ours("tcpclient").args(["-e", "hosts", "there.invalid", &server.port()]), b"");
    assert_eq!(text(&out.stdout), "six");
    let out = run(kit.ours("tcpclient").args(["-4", "-e", "hosts", "there.invalid", &server.port()]), b"");
    assert_eq!(out.status.code(), Some(111));
}

#[test]
fn mconnect_adds_carriage_returns() {
    let kit = Kit::new();
    // Ends with the first command, so that Debian's, which keeps the connection open, ends too.
    let server = Server::start(|mut stream| {
        stream.write_all(b"220 hi\r\n").unwrap();
        let mut got = Vec::new();
        while !got.ends_with(b"QUIT\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte).unwrap() == 0 {
                break;
            }
            got.push(byte[0]);
        }
        stream.write_all(format!("{got:?}").as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let _ = stream.read(&mut [0]);
    });
    let (code, out) = kit.same("mconnect", &["127.0.0.1", &server.port()], b"a\r\nQUIT\n");
    assert_eq!((code, out), (Some(0), format!("220 hi\r\n{:?}", b"a\r\r\nQUIT\r\n")));
    let args = ["-RHl0", "127.0.0.1", &server.port(), "./bin/mconnect-io"];
    let out = run(kit.ours("tcpclient").args(args), b"QUIT\n");
    assert_eq!(text(&out.stdout), format!("220 hi\r\n{:?}", b"QUIT\r\n"));
    let out = run(&mut kit.ours("mconnect-io"), b"");
    assert_eq!(out.status.code(), Some(111));
    assert!(text(&out.stderr).contains("descriptor 6 is not open"));
}

#[test]
fn questions_print_the_answer() {
    let kit = Kit::new();
    let server = Server::start(|mut stream| {
        let mut got = [0; 4096];
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let count = stream.read(&mut got).unwrap();
            request.extend_from_slice(&got[..count]);
        }
        let answer = b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nbody\r\n\r\n";
        stream.write_all(answer).unwrap();
        stream.write_all(&request).unwrap();
    });
    let port = server.port();
    let [ours, debians] = [kit.ours("http@"), kit.debians("http@")]
        .map(|mut command| text(&run(command.args(["127.0.0.1", "page?x=1", &port]), b"").stdout));
    assert_eq!(ours, format!("body\n\nGET /page?x=1 HTTP/1.0\nHost: 127.0.0.1:{port}\n\n"));
    // Debian's drops empty lines of the body, too.
    assert_eq!(ours.replace("\n\n", "\n"), debians);
    let server = Server::start(|mut stream| stream.write_all(b"a\r\n\x1b[1m\xff").unwrap());
    assert_eq!(kit.same("tcpcat", &["127.0.0.1", &server.port()], b"").1, "a\r\n\x1b[1m\u{fffd}");
    let none = run(kit.ours("who@").arg("/nonexistent"), b"");
    assert_eq!(none.status.code(), Some(111));
    // Their ports are fixed, so these are asked through a Unix socket.
    let path = kit.path("daytime");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            stream.unwrap().write_all(b"today\r\n\x1b[1m").unwrap();
        }
    });
    for name in ["date@", "who@"] {
        let out = run(kit.ours(name).arg(&path), b"");
        assert_eq!(text(&out.stdout), "today\n^[[1m", "{name}");
    }
}

#[test]
fn finger_asks_for_the_user() {
    let kit = Kit::new();
    let path = kit.path("finger");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 6];
        stream.read_exact(&mut request).unwrap();
        stream.write_all(format!("{request:?}").as_bytes()).unwrap();
    });
    let out = run(kit.ours("finger@").arg(&path).arg("jane"), b"");
    assert_eq!(text(&out.stdout), format!("{:?}", b"jane\r\n"));
}
