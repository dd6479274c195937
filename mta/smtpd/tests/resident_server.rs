//! What only the resident server does: many clients, limits, reload, drain, a lookup daemon that hangs.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;

use proptest::prelude::*;
use support::{Place, Served, Talk, TlsTalk, until};
use unix::Signal;

/// Clients that wait in the test of many. The descriptors of both sides are in different processes.
const MANY: usize = 2000;

/// One whole reply, read byte by byte.
fn reply(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let mut start = 0;
    loop {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "closed after {}", text.escape_ascii());
        text.push(byte[0]);
        if byte == *b"\n" {
            if text[start..].get(3) == Some(&b' ') {
                return String::from_utf8(text).unwrap().trim_end().to_owned();
            }
            start = text.len();
        }
    }
}

fn say(stream: &mut TcpStream, line: &str) -> String {
    stream.write_all(format!("{line}\r\n").as_bytes()).unwrap();
    reply(stream)
}

fn greeted(port: u16) -> TcpStream {
    let mut stream = Talk::with(port).unwrap();
    assert!(reply(&mut stream).starts_with("220 "));
    stream
}

fn everything(mut stream: TcpStream) -> String {
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    rest
}

/// Memory of a process that nobody else has, bytes.
fn memory(served: &Served) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", served.id())).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<usize>().unwrap() * 1024
}

fn threads(served: &Served) -> usize {
    std::fs::read_dir(format!("/proc/{}/task", served.id())).unwrap().count()
}

#[test]
fn thousands_of_idle_sessions_cost_little_and_delay_nobody() {
    unix::host::raise_descriptor_limit(u64::try_from(2 * MANY).unwrap()).unwrap();
    let place = Place::new();
    let (served, port) = place.resident_anywhere(&["--connections", "3000"]);
    let first = greeted(port);
    let before = memory(&served);
    let mut idle: Vec<TcpStream> = (0..MANY).map(|_| Talk::with(port).unwrap()).collect();
    for stream in &mut idle {
        assert!(reply(stream).starts_with("220 "));
        assert!(say(stream, "EHLO c.example").starts_with("250"));
    }
    let each = memory(&served).saturating_sub(before) / MANY;
    println!("{MANY} idle sessions: {each} bytes each");
    assert!(each <= 16 * 1024, "{each} bytes for an idle session");
    assert!(threads(&served) < 20, "{} threads", threads(&served));
    let mut talk = greeted(port);
    for (line, code) in
        [("EHLO c", "250"), ("MAIL FROM:<a@b>", "250"), ("RCPT TO:<u@here.example>", "250"), ("DATA", "354")]
    {
        assert!(say(&mut talk, line).starts_with(code), "{line}");
    }
    assert!(say(&mut talk, "Subject: new\r\n\r\nbody\r\n.").starts_with("250 ok "));
    assert_eq!(place.queued().len(), 1);
    // Those who waited are still there.
    for stream in idle.iter_mut().step_by(100) {
        assert!(say(stream, "NOOP").starts_with("250"));
    }
    drop(first);
}

#[test]
fn limits_turn_clients_away_with_421() {
    let place = Place::new();
    let (_served, port) = place.resident_anywhere(&["--per-client", "2"]);
    let (one, two) = (greeted(port), greeted(port));
    let refused = everything(Talk::with(port).unwrap());
    assert!(refused.starts_with("421 ") && refused.contains("#4.7.0"), "{refused:?}");
    drop(one);
    // Once it is noticed that one has gone, another may come.
    until("a place is free", || reply(&mut Talk::with(port).unwrap()).starts_with("220 "));
    drop(two);
    let (_served, port) = place.resident_anywhere(&["--connections", "1"]);
    let one = greeted(port);
    let refused = everything(Talk::with(port).unwrap());
    assert!(refused.starts_with("421 ") && refused.contains("#4.3.2"), "{refused:?}");
    drop(one);
    until("a place is free", || reply(&mut Talk::with(port).unwrap()).starts_with("220 "));
    let (_served, port) = place.resident_anywhere(&["--per-network", "1/8"]);
    let _one = greeted(port);
    assert!(everything(Talk::with(port).unwrap()).starts_with("421 "));
}

/// Rules mean for a connection what they mean for a program that tcpserver starts.
#[test]
fn rules_deny_and_set_variables() {
    let place = Place::new();
    let rules = place.dir.path().join("r.cdb");
    let path = rules.to_str().unwrap();
    let write = |value: &[u8]| {
        let mut builder = cdb::Builder::default();
        builder.add(b"127.", value).unwrap();
        std::fs::write(rules.with_extension("new"), builder.finish().unwrap()).unwrap();
        std::fs::rename(rules.with_extension("new"), &rules).unwrap();
    };
    write(b"+RELAYCLIENT=\0+DATABYTES=7\0+MAXPERIP=1\0");
    let (_served, port) = place.resident_anywhere(&["--rules", path]);
    let mut talk = greeted(port);
    assert!(say(&mut talk, "EHLO c").contains("SIZE 7"));
    assert!(say(&mut talk, "MAIL FROM:<a@b>").starts_with("250"));
    assert!(say(&mut talk, "RCPT TO:<u@elsewhere.example>").starts_with("250"));
    assert!(everything(Talk::with(port).unwrap()).starts_with("421 "), "one connection for each address");
    drop(talk);
    until("a place is free", || reply(&mut Talk::with(port).unwrap()).starts_with("220 "));
    // The next connection finds what has been made of the rules meanwhile.
    write(b"D\0");
    assert_eq!(everything(Talk::with(port).unwrap()), "");
    write(b"-RELAYCLIENT\0");
    let mut talk = greeted(port);
    assert!(!say(&mut talk, "EHLO c").contains("SIZE"));
    say(&mut talk, "MAIL FROM:<a@b>");
    assert!(say(&mut talk, "RCPT TO:<u@elsewhere.example>").starts_with("553"));
}

#[test]
fn changed_control_files_count_for_the_next_connection_and_broken_ones_never() {
    let mut place = Place::new();
    let (served, port) = place.resident_anywhere(&[]);
    let rcpt = |domain: &str| {
        let mut talk = greeted(port);
        say(&mut talk, "EHLO c");
        say(&mut talk, "MAIL FROM:<a@b>");
        say(&mut talk, &format!("RCPT TO:<u@{domain}>"))[..3].to_owned()
    };
    assert_eq!((rcpt("here.example").as_str(), rcpt("new.example").as_str()), ("250", "553"));
    place.control("rcpthosts", "here.example\nnew.example\n");
    assert_eq!((rcpt("here.example").as_str(), rcpt("new.example").as_str()), ("250", "250"));
    std::fs::remove_file(place.dir.path().join("control/rcpthosts")).unwrap();
    served.signal(Signal::SIGHUP);
    until("it is told", || place.whole_log().contains("the settings stay as they were"));
    assert_eq!(rcpt("new.example"), "250");
    place.control("rcpthosts", "new.example\n");
    assert_eq!((rcpt("here.example").as_str(), rcpt("new.example").as_str()), ("553", "250"));
}

#[test]
fn reload_brings_a_new_certificate_and_drops_no_connection() {
    let mut place = Place::new();
    let old = place.certificate();
    let (served, port) = place.resident_anywhere(&[]);
    let talk = |served| Talk::on(served, greeted(port));
    let shake = |mut talk: Talk, certificate: &rustls_pki_types::CertificateDer<'static>| {
        assert!(talk.say("STARTTLS").starts_with("220"));
        TlsTalk::start(talk, certificate)
    };
    let mut before = shake(talk(None), &old).unwrap();
    assert!(before.say("EHLO c").starts_with("250"));
    let new = place.certificate();
    served.signal(Signal::SIGHUP);
    until("the new certificate is used", || shake(talk(None), &new).is_ok());
    assert!(shake(talk(None), &old).is_err());
    assert!(before.say("NOOP").starts_with("250"), "the old connection lives on");
    // One that cannot be used changes nothing.
    std::fs::write(place.dir.path().join("certs/servercert.pem"), "no certificate").unwrap();
    served.signal(Signal::SIGHUP);
    until("it is told", || place.whole_log().contains("the certificate stays as it was"));
    assert!(shake(talk(None), &new).is_ok());
    assert!(before.say("NOOP").starts_with("250"));
}

#[test]
fn sigterm_lets_messages_under_way_be_finished() {
    let place = Place::new();
    let (served, port) = place.resident_anywhere(&[]);
    let idle = greeted(port);
    let mut busy = greeted(port);
    for line in ["EHLO c", "MAIL FROM:<a@b>", "RCPT TO:<u@here.example>", "DATA"] {
        say(&mut busy, line);
    }
    served.signal(Signal::SIGTERM);
    assert!(everything(idle).starts_with("421 "));
    until("nobody is let in", || TcpStream::connect(("127.0.0.1", port)).is_err());
    assert!(say(&mut busy, "Subject: last\r\n\r\nbody\r\n.").starts_with("250 ok "));
    assert!(everything(busy).starts_with("421 "));
    assert_eq!(served.exited().code(), Some(0));
    assert_eq!(place.queued().len(), 1);
}

/// A daemon that hangs costs the patience once, and those who do not ask it nothing.
#[test]
fn a_lookup_daemon_that_hangs_defers_recipients_and_stops_nobody_else() {
    let mut place = Place::new();
    place.set("CHECKRECIPIENT", "1").control("timeoutread", "1\n");
    // It accepts, in the kernel, and says nothing.
    let _hangs = std::os::unix::net::UnixListener::bind(place.dir.path().join("inlookup.sock")).unwrap();
    let (served, port) = place.resident_anywhere(&["--questions", "2"]);
    let mut asking: Vec<TcpStream> = (0..30).map(|_| greeted(port)).collect();
    for stream in &mut asking {
        say(stream, "EHLO c");
        say(stream, "MAIL FROM:<a@b>");
        stream.write_all(b"RCPT TO:<u@here.example>\r\n").unwrap();
    }
    let mut other = greeted(port);
    say(&mut other, "EHLO c");
    say(&mut other, "MAIL FROM:<a@b>");
    assert!(say(&mut other, "RCPT TO:<u@elsewhere.example>").starts_with("553"));
    for stream in &mut asking {
        assert!(reply(stream).starts_with("451 "));
        // The session goes on.
        assert!(say(stream, "RSET").starts_with("250"));
    }
    assert!(threads(&served) <= 4, "{} threads", threads(&served));
}

#[test]
fn clients_that_speak_before_the_greeting_are_cut_off() {
    let place = Place::new();
    let (_served, port) = place.resident_anywhere(&["--greet-delay", "1"]);
    let mut eager = Talk::with(port).unwrap();
    eager.write_all(b"EHLO c\r\n").unwrap();
    assert!(everything(eager).starts_with("554 "));
    assert!(reply(&mut Talk::with(port).unwrap()).starts_with("220 "));
}

#[test]
fn only_proxies_may_say_who_the_client_is() {
    let place = Place::new();
    let (_served, port) = place.resident_anywhere(&["--proxy-from", "127.0.0.1"]);
    let mut talk = Talk::with(port).unwrap();
    talk.write_all(b"PROXY TCP4 198.51.100.9 192.0.2.1 4321 25\r\nEHLO\r\nQUIT\r\n").unwrap();
    assert!(everything(talk).starts_with("220 "));
    assert!(place.whole_log().contains(" from 198.51.100.9\n"), "{}", place.whole_log());
    let mut talk = Talk::with(port).unwrap();
    talk.write_all(b"EHLO c\r\n").unwrap();
    assert_eq!(everything(talk), "");
    let (_served, port) = place.resident_anywhere(&[]);
    let mut talk = greeted(port);
    assert!(say(&mut talk, "PROXY TCP4 198.51.100.9 192.0.2.1 4321 25").starts_with("502"));
}

#[test]
fn sockets_of_its_own_by_service() {
    let mut place = Place::new();
    let certificate = place.certificate();
    place.accounts();
    let free = || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let (plain, submission, smtps) = (free(), free(), free());
    let listen = |port: u16, service: &str| format!("127.0.0.1:{port}{service}");
    let (a, b, c) = (listen(plain, ""), listen(submission, ",submission"), listen(smtps, ",smtps"));
    let (nothing, _) = (std::net::TcpListener::bind("127.0.0.1:0").unwrap(), ());
    let _served = place.resident(nothing, &["--listen", &a, "--listen", &b, "--listen", &c]);
    until("it listens", || TcpStream::connect(("127.0.0.1", smtps)).is_ok());
    let mut talk = greeted(plain);
    say(&mut talk, "EHLO c");
    assert!(say(&mut talk, "MAIL FROM:<a@b>").starts_with("250"));
    let mut talk = greeted(submission);
    say(&mut talk, "EHLO c");
    assert!(say(&mut talk, "MAIL FROM:<a@b>").starts_with("530"), "a login first");
    let mut talk = TlsTalk::start(Talk::on(None, Talk::with(smtps).unwrap()), &certificate).unwrap();
    assert!(talk.reply().starts_with("220 "));
    assert!(talk.say("EHLO c").contains("AUTH"));
}

/// Replies without what differs from message to message.
fn comparable(replies: &str) -> String {
    let known = |line: &str| if line.starts_with("250 ok ") { "250 ok".to_owned() } else { line.to_owned() };
    replies.lines().map(known).collect::<Vec<_>>().join("\n")
}

const LINES: [&str; 16] = [
    "EHLO c.example",
    "HELO c",
    "MAIL FROM:<a@b.example>",
    "MAIL FROM:<a@b.example> SIZE=9",
    "RCPT TO:<u@here.example>",
    "RCPT TO:<u@there.example>",
    "RCPT TO:<absent@here.example>",
    "RCPT TO:<down@here.example>",
    "DATA",
    "DATA",
    "text\r\n..\r\n.",
    "RSET",
    "NOOP",
    "AUTH PLAIN AHVAaGVyZS5leGFtcGxlAHA=",
    "what",
    "",
];

/// The event loop and the loop of one program give the same answers, however the bytes arrive.
#[test]
fn any_dialogue_in_any_pieces_gets_the_answers_of_a_program_of_its_own() {
    let mut place = Place::new();
    place.set("CHECKRECIPIENT", "1").set("ALLOW_PLAINTEXT_AUTH", "");
    place.accounts();
    let (_served, port) = place.resident_anywhere(&[]);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 40,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let dialogue = prop::collection::vec(prop::sample::select(&LINES[..]), 0..14);
    let cuts = prop::collection::vec(any::<prop::sample::Index>(), 0..6);
    let case = (dialogue, cuts, any::<bool>());
    runner
        .run(&case, |(lines, cuts, quit)| {
            let mut input = lines.iter().map(|line| format!("{line}\r\n")).collect::<String>();
            input.push_str(if quit { "QUIT\r\n" } else { ".\r\nQUI" });
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(input.len())).collect();
            cuts.sort_unstable();
            let mut stream = Talk::with(port).unwrap();
            let mut start = 0;
            for cut in cuts.into_iter().chain([input.len()]) {
                // One that was cut off is not there to hear more.
                let _ = stream.write_all(&input.as_bytes()[start..cut]);
                start = cut;
            }
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut alone = place.start_alone();
            alone.send(&input);
            alone.half_close();
            prop_assert_eq!(comparable(&everything(stream)), comparable(&alone.finish().0));
            Ok(())
        })
        .unwrap();
}
