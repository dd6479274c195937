//! The PROXY protocol: clients behind a proxy are served, limited and ruled by their own addresses.

mod server;

use server::*;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use ucspi_tcp::proxy::{Ends, Header, Tls, encode_v1, encode_v2};

fn ends(source: &str, destination: &str) -> Option<Ends> {
    Some(Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() })
}

/// Says this and nothing more; returns the answer.
fn say(mut stream: TcpStream, bytes: &[u8]) -> String {
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    read_all(stream)
}

#[test]
fn the_program_sees_the_client_and_the_rest_of_the_stream() {
    let kit = Kit::new();
    let server =
        kit.server(&args(&["--proxy-from", "127.0.0.0/29", "0", "0", "/bin/sh", "-c", "env; exec cat"]));
    let client = ends("192.0.2.7:4000", "198.51.100.1:25");
    let tls = Tls {
        verified: true,
        version: b"TLSv1.3".to_vec(),
        cipher: b"TLS_AES_256_GCM_SHA384".to_vec(),
        common_name: b"jane\n".to_vec(),
    };
    let second = Header { ends: client, authority: Some(b"mx.example".to_vec()), tls: Some(tls) };
    for header in [encode_v1(client.as_ref()), encode_v2(&second)] {
        let stream = server.connect_from("127.0.0.1");
        let port = stream.local_addr().unwrap().port().to_string();
        let got = variables(&say(stream, &[&header[..], b"rest=of it\n"].concat()));
        for (name, value) in [
            ("PROTO", "TCP"),
            ("TCPREMOTEIP", "192.0.2.7"),
            ("TCPREMOTEPORT", "4000"),
            ("TCPLOCALIP", "198.51.100.1"),
            ("TCPLOCALPORT", "25"),
            ("TCPPROXYIP", "127.0.0.1"),
            ("TCPPROXYPORT", &port),
            ("rest", "of it"),
        ] {
            assert_eq!(got.get(name).map(String::as_str), Some(value), "{name} {got:?}");
        }
        let second = header.starts_with(b"\r\n");
        assert_eq!(got.contains_key("SSL_TLS_SNI"), second);
        assert_eq!(got.get("SSL_CLIENT_S_DN").map(String::as_str), second.then_some("CN=jane?"));
    }
    kit.wait_log("[198.51.100.1]25 [192.0.2.7]:4000");
    let six = encode_v1(ends("[2001:db8::7]:4000", "[2001:db8::1]:25").as_ref());
    let got = variables(&say(server.connect_from("127.0.0.1"), &six));
    assert_eq!((got["PROTO"].as_str(), got["TCP6REMOTEIP"].as_str()), ("TCP6", "2001:db8::7"));
    // The proxy itself, a health check.
    let got = variables(&say(server.connect_from("127.0.0.1"), &encode_v2(&Header::default())));
    assert_eq!(got["TCPREMOTEIP"], "127.0.0.1");
    // Nobody else is believed: the header is data like any other.
    let text = say(server.connect_from("127.0.0.99"), &encode_v1(client.as_ref()));
    assert!(
        text.contains("TCPREMOTEIP=127.0.0.99\n")
            && text.ends_with("PROXY TCP4 192.0.2.7 198.51.100.1 4000 25\r\n")
    );
    assert!(!text.contains("TCPPROXYIP"));
}

#[test]
fn rules_and_limits_are_about_the_client() {
    let kit = Kit::new();
    let rules = kit.rules("192.0.2.66:deny\n127.:deny\n:allow\n");
    let mut all = vec!["--proxy-from", "127.0.0.1", "-C", "1", "-x", rules.to_str().unwrap()];
    all.extend(args(&["127.0.0.1", "0"]));
    all.extend(GREETER);
    let server = kit.server(&all);
    let behind = |client: &str| {
        let mut stream = server.connect();
        stream
            .write_all(&encode_v2(&Header { ends: ends(client, "10.0.0.1:25"), ..Header::default() }))
            .unwrap();
        stream
    };
    let held = behind("192.0.2.1:1");
    assert!(greeted(&held));
    assert!(!greeted(&behind("192.0.2.1:2")), "the same client");
    kit.wait_log("end 192.0.2.1 perIPlimit 1");
    assert!(greeted(&behind("192.0.2.2:1")), "another one behind the same proxy");
    assert!(!greeted(&behind("192.0.2.66:1")));
    kit.wait_log("deny ");
}

#[test]
fn a_proxy_without_a_good_header_is_dropped_and_holds_up_nobody() {
    let kit = Kit::new();
    let mut all = vec!["--proxy-from", "127.0.0.1", "--proxy-timeout", "1000"];
    all.extend(args(&["127.0.0.1", "0"]));
    all.extend(GREETER);
    let server = kit.server(&all);
    let slow = server.connect();
    (&slow).write_all(b"PROXY TCP4 192.0.2.7 ").unwrap();
    assert!(greeted(&server.connect_from("127.0.0.2")), "others are served meanwhile");
    (&slow).write_all(b"198.51.100.1 1 2\r\n").unwrap();
    assert!(greeted(&slow), "a header in pieces");
    for (bad, why) in
        [(&b"EHLO x\r\n"[..], "no PROXY header"), (b"PROXY TCP4 x\r\n", "the line is malformed")]
    {
        let mut stream = server.connect();
        stream.write_all(bad).unwrap();
        assert_eq!(read_all(stream), "");
        kit.wait_log(&format!("warning: dropping connection from 127.0.0.1: proxy: {why}\n"));
    }
    let hasty = Kit::new();
    all[3] = "1";
    let server = hasty.server(&all);
    assert_eq!(read_all(server.connect()), "", "silence is not waited for");
    hasty.wait_log("proxy: no PROXY header in time\n");
}

#[test]
fn a_client_that_waits_for_its_header_counts() {
    let kit = Kit::new();
    let mut all = vec!["--proxy-from", "127.0.0.1", "--proxy-timeout", "1000", "-c", "1"];
    all.extend(args(&["127.0.0.1", "0"]));
    all.extend(GREETER);
    let server = kit.server(&all);
    let silent = server.connect();
    let other = server.connect_from("127.0.0.2");
    // The second stays in the queue of the socket until the first is gone.
    other.set_nonblocking(true).unwrap();
    assert_eq!((&other).read(&mut [0; 9]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    other.set_nonblocking(false).unwrap();
    drop(silent);
    assert!(greeted(&other));
    kit.wait_log("proxy: closed before the PROXY header");
}

#[test]
fn lists_are_checked() {
    let kit = Kit::new();
    let out = kit
        .command("tcpserver")
        .args(["--proxy-from", "10.0.0.1/8", "127.0.0.1", "0", "true"])
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(100));
    assert!(String::from_utf8_lossy(&out.stderr).contains("the network is 10.0.0.0/8"));
}
