//! qmail-remote before hosts that do as scripts say, and before Postfix's smtp-sink.

mod support;

use std::process::{Command, Stdio};

use support::{Host, Place, Script, certificate};

const MESSAGE: &[u8] = b"Subject: s\n\nbody\n.dot\n";

#[test]
fn a_message_is_sent_as_it_is() {
    let host = Host::start(Script::with(&[("EHLO", "250-fake|250-PIPELINING|250-8BITMIME|250 SIZE")]));
    let mut place = Place::new();
    place.relay(&host);
    let report = place.send("Subject: s\n\n\u{fc}\n.\n..\nlone\rcr\n".as_bytes());
    report.is("rK", "127.0.0.1 accepted message.\nRemote host said: 250 taken");
    assert!(report.text.starts_with("From:<s@x.example> RCPT:<a@d.example> "));
    host.hears("EHLO MAIL RCPT DATA > > > > > > . QUIT");
    assert_eq!(
        host.heard(),
        [
            "EHLO me.example",
            "MAIL FROM:<s@x.example> SIZE=34 BODY=8BITMIME",
            "RCPT TO:<a@d.example>",
            "DATA",
            "> Subject: s",
            "> ",
            "> \u{fc}",
            "> ..",
            "> ...",
            "> lone\rcr",
            ".",
            "QUIT"
        ]
    );
}

#[test]
fn the_message_may_come_through_a_pipe_and_the_relay_by_ipv6() {
    let host = Host::at("[::1]:0", Script::with(&[]));
    let mut place = Place::new();
    place.relay(&host);
    place.pipe(MESSAGE).is("rK", "::1 accepted message");
    host.hears("EHLO MAIL RCPT DATA > > > > . QUIT");
    assert!(host.heard().contains(&"> ..dot".to_owned()));
}

#[test]
fn every_refusal_has_its_class() {
    type Case = (&'static [(&'static str, &'static str)], &'static str, &'static str);
    let cases: [Case; 22] = [
        (&[("GREETING", "554 no")], "D", "greeting failed: 554 no"),
        (&[("GREETING", "421 no")], "Z", "(#4.4.1)"),
        (&[("GREETING", "!")], "Z", "(#4.4.1)"),
        (&[("GREETING", "SSH-2.0 no")], "Z", "(#4.4.1)"),
        (&[("EHLO", "500 what")], "rK", "250 taken"),
        (&[("EHLO", "500 what"), ("HELO", "550 no")], "D", "550 no"),
        (&[("EHLO", "500 what"), ("HELO", "450 no")], "Z", "450 no"),
        (&[("EHLO", "!")], "Z", "(#4.4.2)"),
        (&[("MAIL", "550-no|550 never")], "D", "550 no\nnever"),
        (&[("MAIL", "451 later")], "Z", "451 later"),
        (&[("MAIL", "!")], "Z", "(#4.4.2)"),
        (&[("RCPT", "550 no")], "hD", "giving up"),
        (&[("RCPT", "450 later")], "sD", "giving up"),
        (&[("RCPT", "!")], "Z", "(#4.4.2)"),
        (&[("DATA", "554 no")], "rD", "554 no"),
        (&[("DATA", "451 later")], "rZ", "451 later"),
        (&[("DATA", "250 what")], "rZ", "(#4.5.0)"),
        (&[(".", "554 no")], "rD", "554 no"),
        (&[(".", "452 later")], "rZ", "452 later"),
        (&[(".", "354 what")], "rZ", "(#4.5.0)"),
        (&[(".", "!")], "rZ", "Possible duplicate"),
        (&[(".", "!250 taken")], "rK", "250 taken"),
    ];
    for (exceptions, letters, text) in cases {
        let host = Host::start(Script::with(exceptions));
        let mut place = Place::new();
        place.relay(&host);
        place.send(MESSAGE).is(letters, text);
    }
}

#[test]
fn recipients_are_reported_one_by_one() {
    for hello in ["250 fake", "250-fake|250 PIPELINING"] {
        let host = Host::start(Script::with(&[
            ("EHLO", hello),
            ("RCPT TO:<NO@D.EXAMPLE>", "550 no"),
            ("RCPT TO:<LATER@D.EXAMPLE>", "451 later"),
        ]));
        let mut place = Place::new();
        place.relay(&host);
        let all = ["a@d.example", "no@d.example", "later@d.example", "b@d.example"];
        place.send_to(MESSAGE, "d.example", &all).is("rhsrK", "accepted");
    }
}

#[test]
fn a_silent_host_is_given_up_in_time() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut place = Place::new();
    place.control("timeoutremote", "1\n");
    place.set("SMTPROUTE", &format!(":127.0.0.1:{}", listener.local_addr().unwrap().port()));
    place.send(MESSAGE).is("Z", "(#4.4.1)");
    drop(listener);
    place.send(MESSAGE).is("Z", "Connection refused");
}

#[test]
fn a_host_that_does_not_answer_is_passed_over() {
    let mut place = Place::new();
    let queue = place.dir.path().join("queue");
    std::fs::create_dir_all(queue.join("lock")).unwrap();
    std::fs::write(queue.join("lock/tcpto"), vec![0; 2048]).unwrap();
    place.set("QUEUEDIR", queue.to_str().unwrap()).set("MAX_TOLERANCE", "0");
    let host = Host::start(Script::with(&[("GREETING", "421 busy")]));
    place.relay(&host);
    for expected in ["421 busy", "421 busy", "did not answer lately", "did not answer lately"] {
        place.send(MESSAGE).is("Z", expected);
    }
    // The route has the last word.
    let port = host.address.port();
    place.set("SMTPROUTE", &format!(":127.0.0.1:{port}:0")).send(MESSAGE).is("Z", "421 busy");
    let well = Host::start(Script::with(&[]));
    let route = format!(":127.0.0.1:{}:0", well.address.port());
    place.set("SMTPROUTE", &route).send(MESSAGE).is("rK", "accepted");
    place.relay(&host).send(MESSAGE).is("Z", "421 busy");
}

#[test]
fn fix_2_the_route_counts_before_the_variable_and_the_variable_before_the_default() {
    let mut place = Place::new();
    let queue = place.dir.path().join("queue");
    std::fs::create_dir_all(queue.join("lock")).unwrap();
    std::fs::write(queue.join("lock/tcpto"), vec![0; 2048]).unwrap();
    place.set("QUEUEDIR", queue.to_str().unwrap());
    let host = Host::start(Script::with(&[("GREETING", "421 busy")]));
    let port = host.address.port();
    // Is it tried, or passed over?
    let tried = |place: &mut Place, ip: &str, numbers: &str| {
        let report = place.set("SMTPROUTE", &format!(":{ip}:{port}{numbers}")).send(MESSAGE);
        assert_eq!(report.letters, "Z", "{report:?}");
        !report.text.contains("did not answer lately")
    };
    let p = &mut place;
    // Defaults: errors within 120 seconds are one, and one is not enough.
    assert!((0..4).all(|_| tried(p, "127.0.0.1", "")));
    p.set("MAX_TOLERANCE", "0");
    assert!(tried(p, "127.0.0.1", "") && !tried(p, "127.0.0.1", ""), "the variable counts; 3600 seconds");
    p.set("MIN_PENALTY", "0");
    assert!(tried(p, "127.0.0.1", "") && !tried(p, "127.0.0.1", ":3600"), "the route before the variable");
    p.set("MIN_PENALTY", "3600");
    assert!(tried(p, "127.0.0.1", ":0") && !tried(p, "127.0.0.1", ""));
    // The same for the tolerance, with addresses that have no errors yet.
    assert!((0..4).all(|_| tried(p, "127.0.0.2", "::120")));
    p.set("MAX_TOLERANCE", "600");
    assert!(tried(p, "127.0.0.3", "::0") && tried(p, "127.0.0.3", "::0") && !tried(p, "127.0.0.3", "::0"));
    for number in ["soon", "1.5", "-1"] {
        p.set("SMTPROUTE", &format!(":127.0.0.1:{port}::{number}")).send(MESSAGE).is("D", "wrong route");
    }
}

#[test]
fn fix_6_credentials_are_no_part_of_the_relay() {
    let host = Host::start(Script::with(&[]));
    let mut place = Place::new();
    place.control("smtproutes", &format!(":127.0.0.1:{} user secret\n", host.address.port()));
    place.send(MESSAGE).is("rK", "127.0.0.1 accepted message");
    assert!(!host.heard().concat().contains("secret"));
}

#[test]
fn wrong_use_wrong_settings_wrong_message() {
    let mut place = Place::new();
    let report = |place: &Place, arguments: &[&str]| {
        let out = place.command(arguments).stdin(Stdio::null()).output().unwrap();
        assert_eq!(out.status.code(), Some(0));
        String::from_utf8(out.stdout).unwrap()
    };
    for arguments in [&[][..], &["d.example"], &["d.example", "s", "", "10"]] {
        assert!(report(&place, arguments).starts_with("Dqmail-remote was invoked improperly (#5.3.5)"));
    }
    place.send(b"Subject: s\n\nno newline").is("D", "(#5.6.2)");
    place.pipe(b"Subject: s\n\nno newline").is("D", "(#5.6.2)");
    // A mistake in a route is ours to mend, not the sender's: mail waits.
    for route in [":relay:many", ":relay:0", ":relay:65536", ":[::1", ":[::1]x"] {
        place.set("SMTPROUTE", route).send(MESSAGE).is("Z", "wrong route");
    }
    place.set("SMTPROUTE", ":relay:25:soon").send(MESSAGE).is("D", "wrong route relay:25:soon (#5.3.5)");
    place.set("SMTPROUTE", ":relay:209").send(MESSAGE).is("Z", "QMTP");
    place.control("timeoutremote", "soon\n");
    place.send(MESSAGE).is("Z", "unable to read control files");
    let place = Place::new();
    std::fs::remove_file(place.dir.path().join("control/me")).unwrap();
    place.send(MESSAGE).is("Z", "unable to read control files");
}

#[test]
fn routes_come_from_the_variable_then_the_file() {
    let (first, second) = (Host::start(Script::with(&[])), Host::start(Script::with(&[])));
    let mut place = Place::new();
    place.control("smtproutes", &format!("# comment\n.example:127.0.0.1:{}\n", second.address.port()));
    place.send(MESSAGE).is("rK", "accepted");
    assert!(first.heard().is_empty() && !second.heard().is_empty());
    place.set("SMTPROUTE", &format!("d.example:127.0.0.1:{}", first.address.port()));
    place.send(MESSAGE).is("rK", "accepted");
    assert!(!first.heard().is_empty());
}

#[test]
fn tls_when_offered_whatever_the_certificate() {
    let (config, _) = certificate("another.example");
    let offer = ("EHLO", "250-fake|250 STARTTLS");
    let host = Host::start(Script::with(&[offer]).tls(config.clone()));
    let mut place = Place::new();
    place.relay(&host).send(MESSAGE).is("rK", "accepted");
    host.hears("EHLO STARTTLS TLS EHLO MAIL RCPT DATA > > > > . QUIT");
    // It offers and then refuses: on in clear, on the same connection.
    let host = Host::start(Script::with(&[offer, ("STARTTLS", "454 not now")]));
    place.relay(&host).send(MESSAGE).is("rK", "accepted");
    host.hears("EHLO STARTTLS MAIL RCPT DATA > > > > . QUIT");
    // The handshake fails: once more in clear.
    let host = Host::start(Script::with(&[offer]));
    place.relay(&host).send(MESSAGE).is("rK", "accepted");
    host.hears("EHLO STARTTLS EHLO MAIL RCPT DATA > > > > . QUIT");
    let host = Host::start(Script::with(&[offer]).tls(config));
    place.control("notlshosts", "127.0.0.1\n");
    place.relay(&host).send(MESSAGE).is("rK", "accepted");
    host.hears("EHLO MAIL RCPT DATA > > > > . QUIT");
}

#[test]
fn a_host_with_authorities_must_prove_its_name() {
    let offer = ("EHLO", "250-fake|250 STARTTLS");
    let (right, right_pem) = certificate("localhost");
    let (wrong, _) = certificate("localhost");
    let mut place = Place::new();
    std::fs::write(place.dir.path().join("certs/tlshosts/localhost.pem"), &right_pem).unwrap();
    let mut through = |host: &Host| {
        place.set("SMTPROUTE", &format!(":localhost:{}", host.address.port()));
        place.send(MESSAGE)
    };
    let host = Host::start(Script::with(&[offer]).tls(right));
    through(&host).is("rK", "accepted");
    assert!(host.verbs().contains("STARTTLS TLS EHLO MAIL"));
    // Another certificate, no handshake, no offer: nothing is sent in clear.
    for script in [Script::with(&[offer]).tls(wrong), Script::with(&[offer]), Script::with(&[])] {
        let host = Host::start(script);
        through(&host).is("Z", "(#4.7.");
        assert!(!host.verbs().contains("MAIL"), "{}", host.verbs());
    }
}

/// Ends with the test, however that ends.
struct Sink(std::process::Child);

impl Drop for Sink {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_real_server_takes_large_and_strange_messages() {
    let port = {
        let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        probe.local_addr().unwrap().port()
    };
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let sink = Command::new("smtp-sink")
        .args(["-u", "nobody", "-R", dir.path().to_str().unwrap(), "-d", "m.", "-8"])
        .args([&format!("127.0.0.1:{port}"), "10"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("postfix's smtp-sink is needed for this test");
    let sink = Sink(sink);
    let start = std::time::Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(start.elapsed() < support::PATIENCE, "smtp-sink does not listen");
        std::thread::yield_now();
    }
    let mut place = Place::new();
    place.set("SMTPROUTE", &format!(":127.0.0.1:{port}"));
    let big = ["Subject: big\n\n", &".0123456789 abcdef\n".repeat(100_000)].concat();
    place.send(big.as_bytes()).is("rK", "accepted");
    place.send(b"").is("rK", "accepted");
    drop(sink);
    let sizes: Vec<usize> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| std::fs::read_to_string(e.unwrap().path()).unwrap())
        .filter(|t| t.contains("Subject: big"))
        .map(|t| t.lines().filter(|l| *l == ".0123456789 abcdef").count())
        .collect();
    assert_eq!(sizes, [100_000]);
}
