//! qmail-smtpd with TLS, logins and the lookup daemon.

mod support;

use support::{Place, TlsTalk};

fn enhanced(reply: &str) -> String {
    let last = reply.lines().last().unwrap_or_default();
    format!("{} {}", &last[..3], last.rsplit_once("(#").map_or("", |p| p.1.trim_end_matches(')')))
}

/// A submission service under TLS, login PLAIN, one message: the worked dialogue of the specification.
#[test]
fn golden_dialogue() {
    let mut place = Place::new();
    let accounts = place.accounts();
    let certificate = place.certificate();
    place
        .set("TCPLOCALPORT", "587")
        .set("SMTPUTF8", "")
        .set("DEFAULT_DOMAIN", "d")
        .control("databytes", "10000000\n");
    let mut talk = place.greeted();
    assert_eq!(
        talk.say("EHLO c.example"),
        "250-mx.example\n250-PIPELINING\n250-8BITMIME\n250-SIZE 10000000\n250-STARTTLS\n250-SMTPUTF8\n250 HELP"
    );
    assert_eq!(talk.say("STARTTLS"), "220 ready for TLS");
    let mut talk = TlsTalk::start(talk, &certificate).unwrap();
    assert_eq!(
        talk.say("EHLO c.example"),
        "250-mx.example\n250-AUTH LOGIN PLAIN\n250-PIPELINING\n250-8BITMIME\n250-SIZE 10000000\n250-SMTPUTF8\n250 HELP"
    );
    assert_eq!(enhanced(&talk.say("AUTH PLAIN AHUAcA==")), "235 2.0.0");
    assert_eq!(accounts.asked(), ["u@d p smtp 192.0.2.7"]);
    talk.send("MAIL FROM:<u@d> SIZE=120 BODY=8BITMIME\r\nRCPT TO:<x@remote>\r\nDATA\r\n");
    assert_eq!([talk.reply(), talk.reply(), talk.reply()].map(|r| r[..3].to_owned()), ["250", "250", "354"]);
    let reply = talk.say("Subject: hello\r\n\r\nbody\r\n.");
    assert!(reply.starts_with("250 ok ") && reply.contains(" qp "), "{reply}");
    assert_eq!(talk.say("QUIT"), "221 mx.example");
    let (rest, status) = talk.finish();
    assert_eq!((rest.as_str(), status.code()), ("", Some(0)));
    let queued = place.queued().remove(0);
    assert_eq!(queued.0, "Fu@d\0Tx@remote\0\0");
    assert!(
        queued.1.contains(" (HELO c.example) (u@[192.0.2.7])\n  by mx.example with ESMTPSA (TLSv1.3 TLS13_"),
        "{}",
        queued.1
    );
    assert!(
        queued.1.contains("\nSubject: hello\nDate: ") && queued.1.contains("\nMessage-ID: <"),
        "{}",
        queued.1
    );
    assert!(queued.2.contains("\nAUTHINFO=u\n") && queued.2.contains("TCPREMOTEINFO=u\n"), "{}", queued.2);
    let log = place.log();
    assert!(log.contains("ssl-version=TLSv1.3"), "{log}");
    let line = log.lines().find(|l| l.contains(" RCPT <x@remote> ")).unwrap();
    assert!(line.contains(" AUTH <u: AUTH PLAIN> Size: ") && line.ends_with(" TLS=TLSv1.3"), "{log}");
}

#[test]
fn passwords_travel_under_tls_only_unless_allowed() {
    let mut place = Place::new();
    place.accounts();
    let mut talk = place.greeted();
    assert!(!talk.say("EHLO c").contains("AUTH"));
    assert_eq!(enhanced(&talk.say("AUTH PLAIN AHVAZABw")), "538 5.7.11");
    place.set("ALLOW_PLAINTEXT_AUTH", "");
    let mut talk = place.greeted();
    assert!(talk.say("EHLO c").contains("250-AUTH LOGIN PLAIN\n"));
    assert!(talk.say("AUTH LOGIN").starts_with("334 VXNlcm5hbWU6"));
    assert!(talk.say("dUBk").starts_with("334 UGFzc3dvcmQ6"));
    assert_eq!(enhanced(&talk.say("cA==")), "235 2.0.0");
    talk.say("MAIL FROM:<anybody@x>");
    assert_eq!(enhanced(&talk.say("RCPT TO:<x@there.example>")), "250 ");
    place.set("SECURE_AUTH", "");
    assert!(!place.greeted().say("EHLO c").contains("AUTH"));
    place.unset("SECURE_AUTH").set("DISABLE_AUTH_LOGIN", "");
    let mut talk = place.greeted();
    assert!(talk.say("EHLO c").contains("250-AUTH PLAIN\n"));
    // A hidden method is not accepted either.
    assert_eq!(enhanced(&talk.say("AUTH LOGIN")), "504 5.5.1");
}

/// A login is the connection's: it outlives transactions, and each message carries the name.
#[test]
fn fix_a_login_lasts_and_reaches_every_message() {
    let mut place = Place::new();
    place.accounts();
    place.set("ALLOW_PLAINTEXT_AUTH", "").set("TCPREMOTEINFO", "ident");
    let mut talk = place.greeted();
    talk.say("EHLO c");
    // Nobody is anybody by the parameter of MAIL alone.
    talk.say("MAIL FROM:<a@b> AUTH=root@here.example");
    talk.say("RCPT TO:<u@here.example>");
    talk.say("DATA");
    assert!(talk.say("first\r\n.").starts_with("250"));
    assert_eq!(enhanced(&talk.say(&format!("AUTH PLAIN {}", base64("\0u@here.example\0p")))), "235 2.0.0");
    for text in ["second", "third"] {
        talk.say("MAIL FROM:<a@b> AUTH=<>");
        talk.say("RSET");
        talk.say("MAIL FROM:<a@b> AUTH=root@here.example");
        assert_eq!(enhanced(&talk.say("RCPT TO:<x@there.example>")), "250 ");
        talk.say("DATA");
        assert!(talk.say(&format!("{text}\r\n.")).starts_with("250"));
    }
    let mut names: Vec<_> = place
        .queued()
        .iter()
        .map(|(_, message, environment)| {
            let text = message.lines().last().unwrap().to_owned();
            let value = |name: &str| {
                environment.lines().find_map(|l| l.strip_prefix(name)).unwrap_or("unset").to_owned()
            };
            (text, value("AUTHINFO="), value("TCPREMOTEINFO="))
        })
        .collect();
    names.sort();
    let row = |text: &str, auth: &str, info: &str| (text.to_owned(), auth.to_owned(), info.to_owned());
    assert_eq!(
        names,
        [
            row("first", "unset", "ident"),
            row("second", "u@here.example", "u@here.example"),
            row("third", "u@here.example", "u@here.example")
        ]
    );
}

#[test]
fn logins_that_fail() {
    let mut place = Place::new();
    let accounts = place.accounts();
    place.set("ALLOW_PLAINTEXT_AUTH", "");
    let login = |user: &str, password: &str| {
        let mut talk = place.greeted();
        talk.say("EHLO c");
        talk.say("AUTH LOGIN");
        talk.say(&base64(user));
        let reply = enhanced(&talk.say(&base64(password)));
        talk.say("MAIL FROM:<a@b>");
        (reply, enhanced(&talk.say("RCPT TO:<x@there.example>")))
    };
    let both = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(login("u@d", "Topsecret1"), both("535 5.7.8", "553 5.7.1"));
    assert_eq!(login("absent@d", "p"), both("535 5.7.8", "553 5.7.1"));
    assert_eq!(login("off@d", "p"), both("535 5.7.8", "553 5.7.1"));
    assert_eq!(login("nosmtp@d", "p"), both("535 5.7.8", "553 5.7.1"));
    assert_eq!(login("down@d", "p"), both("454 4.3.0", "553 5.7.1"));
    assert_eq!(login("norelay@d", "p"), both("235 2.0.0", "553 5.7.1"));
    assert_eq!(login("u@d", "p"), both("235 2.0.0", "250 "));
    let log = place.log();
    assert!(log.contains("AUTH USER [u@d] status=[wrong name or password] TYPE=[LOGIN] failed"), "{log}");
    assert!(!log.contains("Topsecret1") && !log.contains(&base64("Topsecret1")), "{log}");
    assert!(accounts.asked().iter().any(|q| q.contains("Topsecret1")));
    let mut talk = place.greeted();
    talk.say("EHLO c");
    let wrong = "AUTH PLAIN AHVAZAB4";
    assert_eq!(
        [talk.say(wrong), talk.say(wrong), talk.say(wrong)].map(|r| enhanced(&r)),
        ["535 5.7.8", "535 5.7.8", "421 4.7.0"]
    );
    assert_eq!(talk.finish().1.code(), Some(1));
}

fn base64(text: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    text.as_bytes()
        .chunks(3)
        .flat_map(|c| {
            let n = (0..3).fold(0u32, |n, i| n << 8 | u32::from(c.get(i).copied().unwrap_or(0)));
            (0..4).map(move |i| {
                if i > c.len() { '=' } else { char::from(ALPHABET[(n >> (18 - 6 * i)) as usize & 63]) }
            })
        })
        .collect()
}

#[test]
fn recipients_are_checked_and_cannot_tell_is_not_absent() {
    let mut place = Place::new();
    place
        .set("CHECKRECIPIENT", "1")
        .control("locals", "host.example\n")
        .control("rcpthosts", "here.example\nhost.example\n");
    let rcpt = |place: &Place, address: &str| {
        let mut talk = place.greeted();
        talk.say("EHLO c");
        talk.say("MAIL FROM:<a@b>");
        enhanced(&talk.say(&format!("RCPT TO:<{address}>")))
    };
    // No daemon at all.
    assert_eq!(rcpt(&place, "u@here.example"), "451 4.3.2");
    let accounts = place.accounts();
    // FIX: an answer that is none (odd) is not yes.
    let seen = ["u", "alias", "absent", "off", "full", "down", "odd"]
        .map(|l| rcpt(&place, &format!("{l}@here.example")));
    assert_eq!(seen, ["250 ", "250 ", "550 5.1.1", "550 5.2.1", "452 4.2.2", "451 4.3.2", "451 4.3.2"]);
    place.set("OVERQUOTA_PERM", "");
    assert_eq!(rcpt(&place, "full@here.example"), "550 5.2.2");
    let before = accounts.asked().len();
    // Users of the host are whole names, not the beginnings of names.
    assert_eq!(rcpt(&place, "root@host.example"), "250 ");
    assert_eq!(rcpt(&place, "ro@host.example"), "550 5.1.1");
    assert_eq!(rcpt(&place, "../root@host.example"), "550 5.1.1");
    assert_eq!(accounts.asked().len(), before);
    let log = place.log();
    assert!(
        log.contains("Invalid RECIPIENT address: MAIL from <a@b> RCPT <absent@here.example> state <absent>"),
        "{log}"
    );
    place.control("chkrcptdomains", "@other.example\n");
    assert_eq!(rcpt(&place, "absent@here.example"), "250 ");
    place.control("chkrcptdomains", "@here.example\n").set("MAX_RCPT_ERRCOUNT", "1");
    assert_eq!(rcpt(&place, "absent@here.example"), "421 4.7.1");
}

#[test]
fn submission_rules() {
    let mut place = Place::new();
    place.accounts();
    let certificate = place.certificate();
    place.set("SUBMISSION", "1").set("FORCE_TLS", "");
    let mut talk = place.greeted();
    talk.say("EHLO c");
    assert_eq!(enhanced(&talk.say("MAIL FROM:<u@here.example>")), "530 5.7.0");
    assert_eq!(enhanced(&talk.say("AUTH PLAIN AHVAZABw")), "530 5.7.0");
    talk.say("STARTTLS");
    let mut talk = TlsTalk::start(talk, &certificate).unwrap();
    talk.say("EHLO c");
    assert_eq!(enhanced(&talk.say("MAIL FROM:<u@here.example>")), "530 5.7.0");
    assert_eq!(enhanced(&talk.say(&format!("AUTH PLAIN {}", base64("\0u@here.example\0p")))), "235 2.0.0");
    assert_eq!(enhanced(&talk.say("MAIL FROM:<u>")), "554 5.6.2");
    assert_eq!(enhanced(&talk.say("MAIL FROM:<other@here.example>")), "553 5.7.1");
    assert_eq!(enhanced(&talk.say("MAIL FROM:<absent@here.example>")), "553 5.7.1");
    assert_eq!(enhanced(&talk.say("MAIL FROM:<down@here.example>")), "451 4.3.2");
    // The same mailbox under the name of an alias domain.
    assert_eq!(enhanced(&talk.say("MAIL FROM:<u@alias.example>")), "250 ");
    assert_eq!(enhanced(&talk.say("MAIL FROM:<U@here.example>")), "250 ");
    assert_eq!(enhanced(&talk.say("RCPT TO:<x>")), "554 5.6.2");
    assert_eq!(enhanced(&talk.say("RCPT TO:<x@there.example>")), "250 ");
    place.set("MASQUERADE", "").set("ALLOW_PLAINTEXT_AUTH", "").unset("FORCE_TLS");
    let mut talk = place.greeted();
    talk.say("EHLO c");
    talk.say(&format!("AUTH PLAIN {}", base64("\0u@here.example\0p")));
    assert_eq!(enhanced(&talk.say("MAIL FROM:<anybody@here.example>")), "250 ");
}

#[test]
fn starttls_drops_what_was_sent_ahead() {
    let mut place = Place::new();
    let certificate = place.certificate();
    let mut talk = place.greeted();
    talk.say("EHLO c");
    talk.send("STARTTLS\r\nRSET\r\nMAIL FROM:<evil@x>\r\n");
    assert_eq!(talk.reply(), "220 ready for TLS");
    let mut talk = TlsTalk::start(talk, &certificate).unwrap();
    // The first answer under TLS is to the first command under TLS, and EHLO must be said again.
    assert_eq!(enhanced(&talk.say("MAIL FROM:<a@b>")), "503 5.5.4");
    assert!(talk.say("EHLO c").starts_with("250-"));
    assert_eq!(enhanced(&talk.say("STARTTLS")), "502 5.5.1");
}

#[test]
fn tls_that_cannot_be() {
    let mut place = Place::new();
    place.set("STARTTLS", "");
    let mut talk = place.greeted();
    assert!(!talk.say("EHLO c").contains("STARTTLS"));
    assert_eq!(enhanced(&talk.say("STARTTLS")), "502 5.5.1");
    std::fs::write(place.dir.path().join("certs/servercert.pem"), "no certificate").unwrap();
    let mut talk = place.greeted();
    talk.say("EHLO c");
    assert_eq!(enhanced(&talk.say("STARTTLS")), "454 4.3.0");
    assert_eq!(enhanced(&talk.say("STARTTLS now")), "501 5.5.4");
    assert!(talk.say("NOOP").starts_with("250"));
    assert!(place.log().contains("servercert.pem: no certificate in it"), "{}", place.log());
    // A client that does not shake hands is not served in clear afterwards.
    place.certificate();
    let mut talk = place.greeted();
    talk.say("EHLO c");
    talk.say("STARTTLS");
    talk.send("MAIL FROM:<a@b>\r\n");
    let (rest, status) = talk.finish();
    assert!(!rest.contains("250") && status.code() == Some(1), "{rest:?}");
}

#[test]
fn tls_from_the_first_byte() {
    let mut place = Place::new();
    let certificate = place.certificate();
    place.set("SMTPS", "");
    let mut talk = TlsTalk::start(place.start(), &certificate).unwrap();
    assert_eq!(talk.reply(), "220 mx.example");
    let hello = talk.say("EHLO c");
    assert!(hello.contains("AUTH LOGIN PLAIN") && !hello.contains("STARTTLS"), "{hello}");
    assert_eq!(talk.say("QUIT"), "221 mx.example");
    assert_eq!(talk.finish().1.code(), Some(0));
}
