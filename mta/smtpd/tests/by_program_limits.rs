//! What qmail-smtpd must never do: relay by mistake, refuse for good what is our own fault, read lines
//! without end, let a client write the log.

mod support;

use std::io::{Read, Write};

use support::Place;

const ENVELOPE: &str = "EHLO c.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<u@here.example>\r\nDATA\r\n";

/// Code and enhanced code of a reply.
fn enhanced(reply: &str) -> String {
    let last = reply.lines().last().unwrap_or_default();
    format!("{} {}", &last[..3], last.rsplit_once("(#").map_or("", |p| p.1.trim_end_matches(')')))
}

/// Neither an open relay nor a host that bounces everybody's mail: it waits.
#[test]
fn must_without_rcpthosts_nothing_is_relayed_and_nothing_is_refused_for_good() {
    let mut place = Place::new();
    let rcpthosts = place.dir.path().join("control/rcpthosts");
    std::fs::remove_file(&rcpthosts).unwrap();
    let (replies, status) = place.batch(ENVELOPE);
    assert_eq!((enhanced(&replies).as_str(), status.code()), ("451 4.3.0", Some(1)));
    assert!(place.log().contains("control/rcpthosts: missing"), "{}", place.log());
    // Those who may send anywhere do not need it, and a submission service has no domains to take mail for.
    let last = |place: &Place| {
        let mut talk = place.greeted();
        talk.say("EHLO c");
        talk.say("MAIL FROM:<a@b>");
        enhanced(&talk.say("RCPT TO:<u@there.example>"))
    };
    place.set("RELAYCLIENT", "");
    assert_eq!(last(&place), "250 ");
    place.unset("RELAYCLIENT").set("SUBMISSION", "1");
    assert_eq!(last(&place), "503 5.5.1");
    // The cdb alone will do.
    place.unset("SUBMISSION");
    let more = place.dir.path().join("control/morercpthosts.cdb");
    std::fs::write(&more, cdb::Builder::default().finish().unwrap()).unwrap();
    assert_eq!(last(&place), "553 5.7.1");
    // There and unreadable is neither.
    std::fs::create_dir(&rcpthosts).unwrap();
    assert_eq!(enhanced(&place.batch(ENVELOPE).0), "451 4.3.0");
}

#[test]
fn bad_configuration_is_a_temporary_error() {
    let place = Place::new();
    std::fs::remove_file(place.dir.path().join("control/me")).unwrap();
    let (replies, status) = place.start().finish();
    assert_eq!((enhanced(&replies).as_str(), status.code()), ("451 4.3.0", Some(1)));
    assert!(place.log().contains("control/me: missing"), "{}", place.log());
    let mut place = Place::new();
    place.set("DATABYTES", "lots");
    assert_eq!(enhanced(&place.start().finish().0), "451 4.3.0");
    assert!(place.log().contains("variable DATABYTES: lots"), "{}", place.log());
    // A list that is there and cannot be read is not an empty one.
    for list in ["rcpthosts", "badmailfrom", "badrcptto", "locals", "me"] {
        let place = Place::new();
        let path = place.dir.path().join("control").join(list);
        let _ = std::fs::remove_file(&path);
        std::fs::create_dir(&path).unwrap();
        assert_eq!(enhanced(&place.start().finish().0), "451 4.3.0", "{list}");
        assert!(place.log().contains(&format!("control/{list}: ")), "{}", place.log());
    }
    // So is a run script that starts it in a way it does not know.
    let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut child =
        place.command(theirs).args(["mx.example", "/x/checkpassword", "/bin/false"]).spawn().unwrap();
    let mut heard = String::new();
    ours.read_to_string(&mut heard).unwrap();
    drop(ours);
    assert_eq!((enhanced(&heard).as_str(), support::wait(&mut child).code()), ("451 4.3.0", Some(100)));
    assert!(place.log().contains("unexpected operand"), "{}", place.log());
}

/// Commands that came before the last reply must not make the kernel take it back.
#[test]
fn every_refusal_at_the_start_reaches_a_client_that_talks_first() {
    let mut place = Place::new();
    place.set("DATABYTES", "lots");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(support::PATIENCE)).unwrap();
    client.write_all(ENVELOPE.as_bytes()).unwrap();
    let mut child = place.command(listener.accept().unwrap().0).spawn().unwrap();
    let mut heard = String::new();
    client.read_to_string(&mut heard).unwrap();
    assert_eq!(enhanced(&heard), "451 4.3.0");
    drop(client);
    assert_eq!(support::wait(&mut child).code(), Some(1));
}

/// A cdb is looked up each time: it is replaced while sessions run.
#[test]
fn must_a_replaced_cdb_counts_in_the_session_that_runs() {
    let place = Place::new();
    let list = place.dir.path().join("control/morercpthosts.cdb");
    let replace = |domain: &[u8]| {
        let mut builder = cdb::Builder::default();
        builder.add(domain, b"").unwrap();
        std::fs::write(list.with_extension("new"), builder.finish().unwrap()).unwrap();
        std::fs::rename(list.with_extension("new"), &list).unwrap();
    };
    let mut talk = place.greeted();
    talk.say("EHLO c");
    talk.say("MAIL FROM:<a@b>");
    for (domain, first, second) in
        [("one.example", "250 ", "553 5.7.1"), ("two.example", "553 5.7.1", "250 ")]
    {
        replace(domain.as_bytes());
        assert_eq!(enhanced(&talk.say("RCPT TO:<u@one.example>")), first, "{domain}");
        assert_eq!(enhanced(&talk.say("RCPT TO:<u@two.example>")), second, "{domain}");
    }
}

#[test]
fn fix_delays_and_limits_have_their_defaults() {
    let mut place = Place::new();
    place.unset("PENALTY");
    let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut command = place.command(ours);
    let out = command.arg("--show-settings").stdout(std::process::Stdio::piped()).output().unwrap();
    let shown = String::from_utf8(out.stdout).unwrap();
    for (name, value) in [
        ("tarpitdelay", "5"),
        ("penalty", "5"),
        ("failed logins", "3"),
        ("maxhops", "100"),
        ("timeout", "1200"),
    ] {
        let line = shown.lines().find(|l| l.starts_with(&format!("{name} ")));
        let line = line.unwrap_or_else(|| panic!("{name} is not in\n{shown}"));
        assert_eq!(line[name.len()..].split_whitespace().next(), Some(value), "{line}");
    }
}

/// A command line has an end, whatever the control file says; one with a login may be longer.
#[test]
fn fix_lines_are_capped() {
    let mut place = Place::new();
    place.set("ALLOW_PLAINTEXT_AUTH", "").control("maxcmdlen", "0\n");
    let mut talk = place.greeted();
    assert!(talk.say(&format!("NOOP {}", "x".repeat(4096 - 7))).starts_with("250"));
    assert_eq!(enhanced(&talk.say(&format!("AUTH PLAIN {}", "=".repeat(12_288 - 13)))), "501 5.5.4");
    assert_eq!(enhanced(&talk.say(&format!("AUTH PLAIN {}", "=".repeat(12_288 - 12)))), "553 5.5.2");
    assert_eq!(talk.finish().1.code(), Some(1));
    let mut talk = place.greeted();
    assert_eq!(enhanced(&talk.say(&format!("NOOP {}", "x".repeat(4096 - 6)))), "553 5.5.2");
    place.control("maxcmdlen", "20\n");
    let mut talk = place.greeted();
    assert!(talk.say("EHLO c").starts_with("250"));
    assert_eq!(enhanced(&talk.say("MAIL FROM:<a@b.example>")), "553 5.5.2");
}

/// Whatever a client says, a line of the log is a line of ours.
#[test]
fn fix_no_client_can_forge_the_log() {
    let mut place = Place::new();
    place.accounts();
    place.control("badmailfrom", "*evil*\n").set("ALLOW_PLAINTEXT_AUTH", "");
    let stream = "EHLO a\rqmail-smtpd: pid 1 b%n\x1b[1m\r\nMAIL FROM:<\"evil%s\u{9b}\"@x>\r\nAUTH PLAIN AAoleAp4AHg=\r\n\
                  MAIL FROM:<\"a%\u{9b}\"@x>\r\nRCPT TO:<\"b\u{9b}\"@there.example>\r\nRCPT TO:<u%n@here.example>\r\n\
                  RCPT TO:<\"u\u{9b}\"@here.example>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n";
    let (replies, status) = place.batch(stream);
    assert_eq!(status.code(), Some(0), "{replies}");
    let log = place.log();
    assert_eq!((place.queued().len(), log.lines().count()), (1, 5), "{replies}\n{log}");
    for line in log.lines() {
        let ours = line.starts_with("qmail-smtpd: pid ") && line.matches("qmail-smtpd: pid ").count() <= 2;
        assert!(ours && line.bytes().all(|b| (b' '..127).contains(&b) && b != b'%'), "{line:?}");
    }
}
