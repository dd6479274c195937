//! qmail-smtpd before clients that we did not write: swaks, Python's smtplib, openssl s_client.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;

use support::{Listener, Place};

fn served(place: Place) -> (Arc<Place>, Listener) {
    let place = Arc::new(place);
    let listener = Listener::start(place.clone());
    (place, listener)
}

fn with_accounts() -> Place {
    let mut place = Place::new();
    place.certificate();
    place.accounts();
    place.set("CHECKRECIPIENT", "1");
    place
}

/// The server's side of a swaks transcript: code of each reply.
fn swaks(port: u16, arguments: &[&str]) -> Vec<String> {
    let out = Command::new("swaks")
        .args([
            "--server",
            "127.0.0.1",
            "--port",
            &port.to_string(),
            "--timeout",
            "15",
            "--ehlo",
            "c.example",
        ])
        .args(["--from", "u@here.example", "--header", "Subject: three", "--body", "body\n.dot"])
        .args(arguments)
        .output()
        .expect("swaks is needed for this test");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    text.lines()
        .filter_map(|l| {
            l.strip_prefix("<-  ")
                .or(l.strip_prefix("<** "))
                .or(l.strip_prefix("<~  "))
                .or(l.strip_prefix("<~* "))
        })
        .map(|l| l.trim_start())
        .filter(|l| l.as_bytes().get(3) == Some(&b' '))
        .map(|l| l[..3].to_owned())
        .collect()
}

/// The same dialogue by smtplib; its debug output holds the replies.
const SMTPLIB: &str = r#"
import smtplib, sys, ssl
port, recipient, tls = int(sys.argv[1]), sys.argv[2], sys.argv[3]
codes = []
class Client(smtplib.SMTP):
    def getreply(self):
        reply = super().getreply()
        codes.append(str(reply[0]))
        return reply
client = Client('127.0.0.1', port, local_hostname='c.example', timeout=15)
client.ehlo()
if tls == 'tls':
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    client.starttls(context=context)
    client.ehlo()
    client.login('u@here.example', 'p')
try:
    client.sendmail('u@here.example', [recipient], 'Subject: three\r\n\r\nbody\r\n.dot\r\n')
except smtplib.SMTPRecipientsRefused:
    pass
client.quit()
print(' '.join(codes))
"#;

fn smtplib(port: u16, recipient: &str, tls: bool) -> Vec<String> {
    let out = Command::new("/usr/bin/python3")
        .args(["-c", SMTPLIB, &port.to_string(), recipient, if tls { "tls" } else { "clear" }])
        .output()
        .expect("python3 is needed for this test");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).split_whitespace().map(str::to_owned).collect()
}

#[test]
fn swaks_and_smtplib_get_the_same_answers() {
    let (place, listener) = served(with_accounts());
    let port = listener.port;
    // 220, EHLO, MAIL, RCPT, DATA, text, QUIT.
    let accepted = ["220", "250", "250", "250", "354", "250", "221"];
    assert_eq!(swaks(port, &["--to", "v@here.example"]), accepted);
    assert_eq!(smtplib(port, "v@here.example", false), accepted);
    for (recipient, code) in
        [("absent@here.example", "550"), ("down@here.example", "451"), ("x@there.example", "553")]
    {
        let refused = ["220", "250", "250", code];
        assert_eq!(swaks(port, &["--to", recipient])[..4], refused, "{recipient}");
        assert_eq!(smtplib(port, recipient, false)[..4], refused, "{recipient}");
    }
    // STARTTLS, EHLO again, AUTH, then the same.
    let tls = ["220", "250", "220", "250", "235", "250", "250", "354", "250", "221"];
    let login = ["--tls", "--auth", "PLAIN", "--auth-user", "u@here.example", "--auth-password", "p"];
    assert_eq!(swaks(port, &[&login[..], &["--to", "x@there.example"]].concat()), tls);
    assert_eq!(smtplib(port, "x@there.example", true), tls);
    let queued = place.queued();
    assert_eq!(queued.len(), 4);
    for (envelope, message, _) in queued {
        assert!(envelope.starts_with("Fu@here.example\0T"), "{envelope:?}");
        assert!(
            message.ends_with("\n\nbody\n.dot\n\n\n") || message.ends_with("\n\nbody\n.dot\n"),
            "{message:?}"
        );
    }
}

/// The same dialogue in raw bytes.
const DIALOGUE: &[u8] =
    b"EHLO c.example\r\nMAIL FROM:<u@here.example>\r\nRCPT TO:<v@here.example>\r\nDATA\r\n\
    Subject: three\r\n\r\nbody\r\n..dot\r\n.\r\nQUIT\r\n";

/// Sends it in two parts.
fn raw(port: u16, cut: usize) -> Vec<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let (first, second) = DIALOGUE.split_at(cut);
    stream.write_all(first).unwrap();
    // The greeting goes out just before the first read, which so finds the first part alone.
    let mut heard = vec![0];
    stream.read_exact(&mut heard).unwrap();
    stream.write_all(second).unwrap();
    stream.read_to_end(&mut heard).unwrap();
    let heard = String::from_utf8(heard).unwrap();
    heard.lines().filter(|l| l.as_bytes().get(3) == Some(&b' ')).map(|l| l[..3].to_owned()).collect()
}

#[test]
fn raw_bytes_cut_anywhere_get_the_answers_that_swaks_and_smtplib_get() {
    let (place, listener) = served(with_accounts());
    let port = listener.port;
    let expected = swaks(port, &["--to", "v@here.example"]);
    assert_eq!(smtplib(port, "v@here.example", false), expected);
    for cut in 0..=DIALOGUE.len() {
        assert_eq!(raw(port, cut), expected, "cut at {cut}");
    }
    assert_eq!(place.queued().len(), 2 + DIALOGUE.len() + 1);
    assert!(place.queued().iter().all(|q| q.1.contains("\n\nbody\n.dot\n")));
}

#[test]
fn openssl_speaks_starttls() {
    let (_place, listener) = served(with_accounts());
    for version in ["-tls1_2", "-tls1_3"] {
        let mut client = Command::new("openssl")
            .args(["s_client", "-starttls", "smtp", "-crlf", "-quiet", "-ign_eof", version])
            .args(["-connect", &format!("127.0.0.1:{}", listener.port)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl is needed for this test");
        client.stdin.take().unwrap().write_all(b"EHLO c.example\nQUIT\n").unwrap();
        let out = client.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(
            text.contains("250-AUTH LOGIN PLAIN\r\n") && text.contains("221 mx.example"),
            "{version}: {text}"
        );
    }
}
