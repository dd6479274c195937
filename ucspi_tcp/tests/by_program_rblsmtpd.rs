//! rblsmtpd with a name server of the test, against Debian's where the two must agree.

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use support::{Kit, PATIENCE, run, text, wait_until};

/// What a name has.
#[derive(Clone)]
enum Has {
    Text(Vec<&'static [u8]>),
    Address([u8; 4]),
    /// The server answers SERVFAIL.
    Trouble,
    /// It does not answer at all.
    Silence,
}

/// A name server on port 53 of an address of 127.0.0.0/8 that is free: Debian's program knows no other port.
struct NameServer {
    ip: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl NameServer {
    fn start(zones: &[(&str, Has)]) -> Self {
        let zones: BTreeMap<String, Has> = zones.iter().map(|(n, h)| ((*n).to_owned(), h.clone())).collect();
        let pid = std::process::id().to_be_bytes();
        let (ip, socket) = (1..255)
            .map(|n| format!("127.{}.{}.{n}", pid[2].max(1), pid[3]))
            .find_map(|ip| UdpSocket::bind((ip.as_str(), 53)).ok().map(|socket| (ip, socket)))
            .expect("port 53 of a local address (this test needs root)");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            while let Ok((count, peer)) = socket.recv_from(&mut buffer) {
                if let Some(answer) = answer(&buffer[..count], &zones, &log) {
                    socket.send_to(&answer, peer).unwrap();
                }
            }
        });
        Self { ip, asked }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn answer(query: &[u8], zones: &BTreeMap<String, Has>, log: &Mutex<Vec<String>>) -> Option<Vec<u8>> {
    let (mut at, mut labels) = (12, Vec::new());
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(String::from_utf8(query[at + 1..end].to_vec()).unwrap().to_lowercase());
        at = end;
    }
    let name = labels.join(".");
    let kind = u16::from_be_bytes([query[at + 1], query[at + 2]]);
    log.lock().unwrap().push(format!("{name} {kind}"));
    let string = |s: &&[u8]| [&[u8::try_from(s.len()).unwrap()], *s].concat();
    let (code, data) = match (zones.get(&name), kind) {
        (None, _) => (3, None),
        (Some(Has::Silence), _) => return None,
        (Some(Has::Trouble), _) => (2, None),
        (Some(Has::Text(strings)), 16) => (0, Some(strings.iter().flat_map(string).collect())),
        (Some(Has::Address(address)), 1) => (0, Some(address.to_vec())),
        (Some(_), _) => (0, None),
    };
    let count = u8::from(data.is_some());
    let mut out =
        [&query[..2], &[0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0], &query[12..at + 5]].concat();
    if let Some(data) = data {
        out.extend_from_slice(&[0xc0, 12]);
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&[0, 1, 0, 0, 0, 60]);
        out.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
        out.extend_from_slice(&data);
    }
    Some(out)
}

fn kit() -> Kit {
    let kit = Kit::new();
    kit.link(env!("CARGO_BIN_EXE_ucspi-dns"));
    kit
}

fn world() -> Vec<(&'static str, Has)> {
    let long = &[b'a'; 150];
    vec![
        ("2.0.0.127.z.test", Has::Text(vec![b"See http://x.test/?127.0.0.2"])),
        ("3.0.0.127.z.test", Has::Text(vec![b"three"])),
        ("3.0.0.127.white.test", Has::Address([127, 0, 0, 2])),
        ("4.0.0.127.z.test", Has::Text(vec![long, b"b\x01\xff", long])),
        ("5.0.0.127.a.test", Has::Address([127, 0, 0, 4])),
        ("6.0.0.127.a.test", Has::Address([127, 255, 255, 254])),
        ("7.0.0.127.z.test", Has::Trouble),
        ("8.0.0.127.z.test", Has::Silence),
        (
            "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.z.test",
            Has::Text(vec![b"six %IP%"]),
        ),
    ]
}

const DIALOGUE: &[u8] =
    b"HELO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nRSET\r\nNOOP\r\nEHLO y\r\nVRFY a\r\nQUIT\r\n";

/// Code, output and log, without process ids.
fn outcome(out: &Output) -> (Option<i32>, String, String) {
    let log = text(&out.stderr);
    let words = log.split(' ').collect::<Vec<_>>();
    let log = words
        .iter()
        .map(|w| if w.ends_with(':') && w[..w.len() - 1].parse::<u32>().is_ok() { "N:" } else { w });
    (out.status.code(), text(&out.stdout), log.collect::<Vec<_>>().join(" "))
}

fn client(
    command: &mut Command,
    server: &NameServer,
    ip: &str,
    args: &[&str],
) -> (Option<i32>, String, String) {
    command.env("DNSCACHEIP", &server.ip).env("TCPREMOTEIP", ip).args(args).args(["echo", "let in"]);
    outcome(&run(command, DIALOGUE))
}

#[test]
fn verdicts_and_replies_are_debians() {
    let (kit, server) = (kit(), NameServer::start(&world()));
    let cases: [(&str, &[&str], &str); 7] = [
        ("127.0.0.9", &["-r", "z.test"], "let in"),
        ("127.0.0.2", &["-r", "z.test"], "451 See http://x.test/?127.0.0.2"),
        ("127.0.0.2", &["-b", "-r", "none.test", "-r", "z.test"], "553 See http"),
        ("127.0.0.2", &["-b", "-B", "-r", "z.test"], "451 See http"),
        ("127.0.0.3", &["-a", "white.test", "-r", "z.test"], "let in"),
        ("127.0.0.3", &["-r", "z.test", "-a", "white.test"], "451 three"),
        ("127.0.0.4", &["-r", "z.test"], "451 aaa"),
    ];
    for (ip, args, want) in cases {
        let ours = client(&mut kit.ours("rblsmtpd"), &server, ip, args);
        let questions = server.asked();
        let debians = client(&mut kit.debians("rblsmtpd"), &server, ip, args);
        assert_eq!((ours.0, &ours.1), (debians.0, &debians.1), "{ip} {args:?}");
        assert!(ours.1.contains(want), "{ip} {args:?}: {ours:?}");
        // Ours also logs senders and recipients.
        let first = |log: &str| log.lines().next().unwrap_or_default().to_owned();
        assert_eq!(first(&ours.2), first(&debians.2), "{ip} {args:?}");
        assert_eq!(questions, server.asked(), "no question more: {ip} {args:?}");
    }
}

#[test]
fn a_list_in_trouble_has_nobody_or_everybody() {
    // Debian's says the same, after half a minute.
    let (kit, server) = (kit(), NameServer::start(&world()));
    let ask = |args: &[&str]| client(&mut kit.ours("rblsmtpd"), &server, "127.0.0.7", args).1;
    assert_eq!(ask(&["-r", "z.test"]), "let in\n");
    let refused = ask(&["-b", "-c", "-r", "z.test"]);
    assert!(refused.contains("\r\n451 temporary RBL lookup error\r\n"), "{refused}");
}

#[test]
fn senders_recipients_and_silent_lists_are_logged() {
    let (kit, server) = (kit(), NameServer::start(&world()));
    let (_, _, log) = client(&mut kit.ours("rblsmtpd"), &server, "127.0.0.3", &["-r", "z.test"]);
    let line = |what: &str| format!("rblsmtpd: 127.0.0.3 pid N: {what}\n");
    assert_eq!(log, line("451 three") + &line("MAIL FROM:<a@b>") + &line("RCPT TO:<c@d>"));
    let (_, out, log) = client(&mut kit.ours("rblsmtpd"), &server, "127.0.0.7", &["-r", "z.test"]);
    assert_eq!(out, "let in\n");
    assert!(log.starts_with("rblsmtpd: warning: unable to ask a list: 7.0.0.127.z.test: "), "{log}");
}

#[test]
fn texts_of_ours_ask_for_addresses() {
    let (kit, server) = (kit(), NameServer::start(&world()));
    let ask = |ip: &str, args: &[&str]| client(&mut kit.ours("rblsmtpd"), &server, ip, args).1;
    let text = "a.test:You %IP%: go";
    assert!(ask("127.0.0.5", &["-b", "-r", text]).contains("\r\n553 You 127.0.0.5: go\r\n"));
    assert!(ask("::ffff:127.0.0.5", &["-r", text]).contains("\r\n451 You 127.0.0.5: go\r\n"));
    assert_eq!(ask("127.0.0.2", &["-r", text]), "let in\n");
    // An answer that is no entry of a list.
    assert_eq!(ask("127.0.0.6", &["-r", text]), "let in\n");
    assert!(ask("127.0.0.6", &["-c", "-r", text]).contains("451 temporary RBL lookup error"));
    // -c and -C hold for what follows.
    assert_eq!(ask("127.0.0.7", &["-r", "z.test", "-c", "-r", "none.test"]), "let in\n");
    assert_eq!(ask("127.0.0.7", &["-c", "-C", "-r", "z.test"]), "let in\n");
}

#[test]
fn ipv6_is_asked_by_its_digits() {
    let (kit, server) = (kit(), NameServer::start(&world()));
    let ask = |ip: &str| client(&mut kit.ours("rblsmtpd"), &server, ip, &["-r", "z.test"]).1;
    assert!(ask("2001:db8::567:89ab").contains("\r\n451 six 2001:db8::567:89ab\r\n"));
    assert_eq!(ask("2001:db8::567:89ac"), "let in\n");
    assert_eq!(
        server.asked()[1],
        "c.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.z.test 16"
    );
}

#[test]
fn the_variable_decides_without_questions() {
    let (kit, server) = (kit(), NameServer::start(&world()));
    let cases = [("", "let in"), ("later", "451 later"), ("-never", "553 never")];
    for (value, want) in cases {
        let [ours, debians] = [kit.ours("rblsmtpd"), kit.debians("rblsmtpd")].map(|mut command| {
            client(command.env("RBLSMTPD", value), &server, "127.0.0.2", &["-r", "z.test"]).1
        });
        assert_eq!(ours, debians, "{value}");
        assert!(ours.contains(want), "{value}: {ours}");
    }
    assert!(server.asked().is_empty());
    let mut command = kit.ours("rblsmtpd");
    let (_, out, _) =
        client(command.env("RBLSMTPD", "-no %IP%\r\n"), &server, "127.0.0.2", &["-r", "z.test"]);
    assert!(out.contains("\r\n553 no 127.0.0.2??\r\n"), "{out}");
}

#[test]
fn one_reply_names_and_capabilities() {
    let (kit, server) = (kit(), NameServer::start(&world()));
    let [ours, debians] = [kit.ours("rblsmtpd"), kit.debians("rblsmtpd")]
        .map(|mut command| client(&mut command, &server, "127.0.0.3", &["-t0", "-r", "z.test"]));
    assert_eq!(ours, debians);
    assert_eq!(ours.1, "451 three\r\n");
    let mut command = kit.ours("rblsmtpd");
    command.env("RBLGREETING", "mx.test").env("RBLEHLO", "");
    let (_, out, _) = client(&mut command, &server, "127.0.0.3", &["-r", "z.test"]);
    assert!(out.starts_with("220 mx.test\r\n250 mx.test\r\n"), "{out}");
    assert!(out.contains("\r\n250-mx.test\r\n250-PIPELINING\r\n250 8BITMIME\r\n"), "{out}");
}

#[test]
fn wrong_usage_is_named() {
    let kit = kit();
    let cases: [(&[&str], &str); 6] = [
        (&["true"], "missing option -r"),
        (&["-a", "x.test", "true"], "missing option -r"),
        (&["-r", "x.test"], "missing operand"),
        (&["-r", "x..test", "true"], "x..test: expected the name of a zone"),
        (&["-t", "x", "-r", "x.test", "true"], "option -t: x"),
        (&["-r", ":text", "true"], "expected the name of a zone"),
    ];
    for (args, want) in cases {
        let out = run(kit.ours("rblsmtpd").args(args), b"");
        assert_eq!(out.status.code(), Some(100), "{args:?}");
        assert!(text(&out.stderr).contains(want), "{args:?}: {}", text(&out.stderr));
    }
    let out = run(kit.ours("rblsmtpd").env("DNSCACHEIP", "x").args(["-r", "x.test", "true"]), b"");
    assert_eq!(out.status.code(), Some(100));
    let out = run(kit.ours("rblsmtpd").env("RBLSMTPD", "").args(["-r", "x.test", "/nonexistent"]), b"");
    assert_eq!(out.status.code(), Some(111));
}

/// rblsmtpd with a connection, as tcpserver starts it.
fn connected(kit: &Kit, args: &[&str], variables: &[(&str, &str)]) -> (TcpStream, std::process::Child) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let server = std::os::fd::OwnedFd::from(listener.accept().unwrap().0);
    let child = kit
        .ours("rblsmtpd")
        .args(args)
        .args(["sh", "-c", "echo 220 program; read line; echo \"heard $line\""])
        .envs(variables.iter().copied())
        .stdin(server.try_clone().unwrap())
        .stdout(server)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    (client, child)
}

fn rest(mut client: &TcpStream) -> String {
    let mut all = Vec::new();
    let _ = client.read_to_end(&mut all);
    text(&all)
}

#[test]
fn a_refused_client_has_so_much_time_and_no_more() {
    let kit = kit();
    let (client, mut child) = connected(&kit, &["-t1", "-r", "z.test"], &[("RBLSMTPD", "later")]);
    let begun = Instant::now();
    assert_eq!(rest(&client), "220 rblsmtpd.local\r\n");
    assert!(begun.elapsed().as_millis() >= 900, "not before its time");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    // Nor may it hold the process by never reading.
    let (mut client, mut child) = connected(&kit, &["-t1", "-r", "z.test"], &[("RBLSMTPD", "later")]);
    client.set_write_timeout(Some(PATIENCE)).unwrap();
    let flood = b"X\r\n".repeat(100_000);
    while client.write_all(&flood).is_ok() && child.try_wait().unwrap().is_none() {}
    wait_until("rblsmtpd to end", || child.try_wait().unwrap().is_some());
}

#[test]
fn those_who_cannot_wait_are_refused_if_wanted() {
    let kit = kit();
    let server = NameServer::start(&world());
    let variables = [("DNSCACHEIP", server.ip.as_str()), ("TCPREMOTEIP", "127.0.0.9")];
    let talk_first = |args: &[&str], variables: &[(&str, &str)]| {
        let (mut client, mut child) = connected(&kit, args, variables);
        client.write_all(b"HELO early\n").unwrap();
        let said = rest(&client);
        child.wait().unwrap();
        said
    };
    let early = talk_first(&["-w", "30", "-W", "-r", "z.test"], &variables);
    assert_eq!(early, "554 5.7.1 you talk before you are greeted\r\n");
    // Without -W they only wait; one that is welcome does not even wait.
    let heard = "220 program\nheard HELO early\n";
    assert_eq!(talk_first(&["-w", "1", "-r", "z.test"], &variables), heard);
    assert_eq!(talk_first(&["-w", "3600", "-W", "-r", "z.test"], &[("RBLSMTPD", "")]), heard);
    // One that waits is let in.
    let (mut client, mut child) = connected(&kit, &["-w", "1", "-W", "-r", "z.test"], &variables);
    let mut greeting = [0; 12];
    client.read_exact(&mut greeting).unwrap();
    client.write_all(b"HELO polite\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&client), "heard HELO polite\n");
    child.wait().unwrap();
}

#[test]
fn a_silent_name_server_does_not_hold_a_client_for_long() {
    let (kit, server) = (kit(), NameServer::start(&world()));
    let (_, out, log) = client(&mut kit.ours("rblsmtpd"), &server, "127.0.0.8", &["-r", "z.test"]);
    assert_eq!(out, "let in\n");
    assert!(log.contains("unable to ask a list: 8.0.0.127.z.test"), "{log}");
}
