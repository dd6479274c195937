//! tcpclient with TLS, before servers of the test.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use support::{Kit, Server, run, start, text};
use tls::rustls::{ServerConfig, ServerConnection, StreamOwned};

type Secure = StreamOwned<ServerConnection, TcpStream>;

/// A certificate for `name` in `NAME.pem`, its own authority, with its key in `NAME.key`.
fn certificate(dir: &Path, name: &str) -> Arc<ServerConfig> {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    std::fs::write(dir.join(format!("{name}.pem")), made.cert.pem()).unwrap();
    let both = dir.join(format!("{name}.key"));
    std::fs::write(&both, made.signing_key.serialize_pem() + &made.cert.pem()).unwrap();
    tls::server::Options::new(both).load().unwrap()
}

/// A server that speaks TLS after what `before` does, then does as `serve` says.
fn server(
    config: Arc<ServerConfig>,
    before: impl Fn(&mut TcpStream) + Send + Sync + 'static,
    serve: impl Fn(Secure) + Send + Sync + 'static,
) -> Server {
    Server::start(move |mut stream| {
        before(&mut stream);
        serve(StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream));
    })
}

/// Greets and sends back line by line.
fn echo(mut stream: Secure) {
    if stream.write_all(b"hi\n").is_err() {
        return;
    }
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
    stream.conn.send_close_notify();
    let _ = stream.flush();
}

fn kit() -> Kit {
    let kit = Kit::new();
    let executable = kit.path("bin/tcpclient").canonicalize().unwrap();
    assert!(executable.with_file_name("tcpclient-tls").exists(), "tcpclient finds it beside itself");
    assert!(Path::new(env!("CARGO_BIN_EXE_tcpclient-tls")).exists());
    kit
}

const QUIET: &str = "-RHl0";

#[test]
fn the_program_talks_through_tls() {
    let kit = kit();
    let server = server(certificate(&kit.path(""), "mail.test"), |_| {}, echo);
    let script = "read greeting <&6; echo asked >&7; read answer <&6; echo $greeting $answer; env; exit 5";
    let out = run(
        kit.ours("tcpclient").args([QUIET, "-z", "-n", "", "0", &server.port(), "sh", "-c", script]),
        b"",
    );
    assert_eq!(out.status.code(), Some(5), "{}", text(&out.stderr));
    let said = text(&out.stdout);
    assert!(said.starts_with("hi asked\n"), "{said}");
    for want in [
        "SSL_PROTOCOL=TLSv1.3\n",
        "TCPREMOTEIP=127.0.0.1\n",
        "TLS_PROVIDER=tcpclient, TLS Server=TLSv1.3, Client=TLSv1.3, Ciphers=TLS_",
    ] {
        assert!(said.contains(want), "{want} {said}");
    }
    let out =
        run(kit.ours("tcpclient").args([QUIET, "-n", "", "-M", "TLSv1_2", "0", &server.port(), "env"]), b"");
    let said = text(&out.stdout);
    assert!(said.contains("SSL_PROTOCOL=TLSv1.2\n") && !said.contains("TLS_PROVIDER"), "{said}");
}

#[test]
fn without_a_program_it_copies() {
    let kit = kit();
    let server = server(certificate(&kit.path(""), "mail.test"), |_| {}, echo);
    let big = vec![b'x'; 1_000_000];
    let out = run(kit.ours("tcpclient").args(["-n", "", "0", &server.port()]), &big);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert!(out.stdout.starts_with(b"hi\nxxx") && out.stdout.len() == big.len() + 3, "{}", out.stdout.len());
    // The server ends first, though our input is open.
    let server = self::server(
        certificate(&kit.path(""), "mail.test"),
        |_| {},
        |mut stream| {
            stream.write_all(b"bye").unwrap();
            stream.conn.send_close_notify();
            stream.flush().unwrap();
        },
    );
    let mut child = start(kit.ours("tcpclient").args(["-n", "", "0", &server.port()]));
    let input = child.stdin.take();
    let out = child.wait_with_output().unwrap();
    assert_eq!((out.status.code(), text(&out.stdout).as_str()), (Some(0), "bye"), "{}", text(&out.stderr));
    drop(input);
}

#[test]
fn only_the_right_name_of_the_right_authority_is_believed() {
    let kit = kit();
    let server = server(certificate(&kit.path(""), "mail.test"), |_| {}, echo);
    certificate(&kit.path(""), "other.test");
    std::fs::write(kit.path("empty.pem"), "").unwrap();
    std::fs::write(kit.path("hosts"), "127.0.0.1 mail.test other.test\n").unwrap();
    let connect = |options: &[&str], host: &str| {
        let out = run(
            kit.ours("tcpclient").args([QUIET, "-e", "hosts", "-C", "."]).args(options).args([
                host,
                &server.port(),
                "true",
            ]),
            b"",
        );
        (out.status.code(), text(&out.stderr))
    };
    for (options, host) in [
        (&["-c", "mail.test.pem"][..], "mail.test"),
        (&["-c", "mail.test.pem", "-m", "mail.test"], "0"),
        (&["-c", "./mail.test.pem", "-m", "MAIL.test"], "127.0.0.1"),
        (&["-n", "mail.test.key"], "other.test"),
    ] {
        assert_eq!(connect(options, host), (Some(0), String::new()), "{options:?} {host}");
    }
    for (options, host, why) in [
        (&["-c", "mail.test.pem"][..], "other.test", "TLS handshake: "),
        (&["-c", "mail.test.pem"], "127.0.0.1", "TLS handshake: "),
        (&["-c", "mail.test.pem", "-m", "other.test"], "mail.test", "TLS handshake: "),
        (&["-c", "other.test.pem", "-m", "mail.test"], "mail.test", "TLS handshake: "),
        // -m alone believes the authorities of the system only.
        (&["-m", "mail.test"], "mail.test", "fatal: "),
        (&["-c", "none.pem"], "mail.test", "./none.pem: "),
        (&["-c", "empty.pem"], "mail.test", "./empty.pem: no certificate in it"),
        (&["-n", "mail.test.pem"], "mail.test", "./mail.test.pem: private key"),
    ] {
        let (code, said) = connect(options, host);
        assert!(code == Some(111) && said.contains(why), "{options:?} {host}: {said}");
    }
    for options in [&["-s", "ftp"][..], &["-c", "mail.test.pem", "/nonexistent"]] {
        assert_eq!(run(kit.ours("tcpclient").args(options).args(["0", "25"]), b"").status.code(), Some(100));
    }
}

/// Reads lines and answers them, as `answers` has it, until they are used up.
fn answer(stream: &mut TcpStream, greeting: &str, answers: &[(&str, &str)]) {
    stream.write_all(greeting.as_bytes()).unwrap();
    for (command, reply) in answers {
        let mut got = Vec::new();
        while !got.ends_with(b"\n") {
            let mut byte = [0];
            if stream.read(&mut byte).unwrap_or(0) == 0 {
                return;
            }
            got.push(byte[0]);
        }
        assert_eq!(text(&got), *command);
        stream.write_all(reply.as_bytes()).unwrap();
    }
}

#[test]
fn tls_is_asked_for_in_three_protocols() {
    let kit = kit();
    let config = certificate(&kit.path(""), "mail.test");
    let smtp = server(
        config.clone(),
        |stream| {
            let hello = "250-me\r\n250-STARTTLS\r\n250 SIZE\r\n";
            answer(
                stream,
                "220-one\r\n220 two\r\n",
                &[("EHLO [127.0.0.1]\r\n", hello), ("STARTTLS\r\n", "220 go\r\n")],
            );
        },
        echo,
    );
    let pop3 =
        server(config.clone(), |stream| answer(stream, "+OK pop\r\n", &[("STLS\r\n", "+OK\r\n")]), echo);
    let imap = server(
        config,
        |stream| answer(stream, "* OK imap\r\n", &[("tls STARTTLS\r\n", "tls OK go\r\n")]),
        echo,
    );
    // What the server greeted with comes first, then what it says through TLS.
    for (protocol, server, greeting) in [
        ("smtp", smtp, "220-one\r\n220 two\r\n"),
        ("pop3", pop3, "+OK pop\r\n"),
        ("imap", imap, "* OK imap\r\n"),
    ] {
        let out = run(
            kit.ours("tcpclient").args([
                "-s",
                protocol,
                "-c",
                "./mail.test.pem",
                "-m",
                "mail.test",
                "0",
                &server.port(),
            ]),
            b"x\n",
        );
        assert_eq!(text(&out.stdout), format!("{greeting}hi\nx\n"), "{protocol} {}", text(&out.stderr));
        assert_eq!(out.status.code(), Some(0));
    }
}

#[test]
fn a_server_without_tls_or_with_too_much_to_say_is_an_error() {
    let kit = kit();
    let plain = Server::start(|mut stream| {
        answer(&mut stream, "220 hi\r\n", &[("EHLO [127.0.0.1]\r\n", "250 me\r\n")]);
    });
    let injected = Server::start(|mut stream| {
        let answers =
            [("EHLO [127.0.0.1]\r\n", "250 STARTTLS\r\n"), ("STARTTLS\r\n", "220 go\r\n250 injected\r\n")];
        answer(&mut stream, "220 hi\r\n", &answers);
        let _ = stream.read(&mut [0]);
    });
    let gone = Server::start(|mut stream| answer(&mut stream, "220 hi\r\n", &[("EHLO [127.0.0.1]\r\n", "")]));
    for (server, why) in [
        (plain, "the server refuses TLS: 250 me"),
        (injected, "ahead of the TLS handshake"),
        (gone, "closed the connection before TLS"),
    ] {
        let out = run(kit.ours("tcpclient").args([QUIET, "-s", "smtp", "0", &server.port(), "cat"]), b"");
        assert_eq!(out.status.code(), Some(111));
        assert!(text(&out.stderr).contains(why), "{why}: {}", text(&out.stderr));
        assert!(out.stdout.is_empty());
    }
}
