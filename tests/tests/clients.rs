//! Different clients get the same answers.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use e2e::instance::{Instance, mailbox};
use e2e::kit::{PATIENCE, run, run_with_input, until};

const SMTPLIB: &str = r#"
import smtplib, ssl, sys
smtp, submission, user, password, to = sys.argv[1:]
s = smtplib.SMTP("127.0.0.1", int(smtp))
s.sendmail(user, [to], "Message-ID: <smtplib-25@client.test>\r\n\r\n.\r\n..\r\nlast\r\n")
try:
    s.sendmail(user, ["nobody@indimail.test"], "x")
    sys.exit("an unknown recipient was taken")
except smtplib.SMTPRecipientsRefused as e:
    assert all(code == 550 for code, _ in e.recipients.values()), e
s.quit()
tls = ssl.create_default_context()
tls.check_hostname = False
tls.verify_mode = ssl.CERT_NONE
s = smtplib.SMTP("127.0.0.1", int(submission))
s.starttls(context=tls)
try:
    s.login(user, "wrong")
    sys.exit("a wrong password was taken")
except smtplib.SMTPAuthenticationError as e:
    assert e.smtp_code == 535, e
s.login(user, password)
s.sendmail(user, [to], "Message-ID: <smtplib-587@client.test>\r\n\r\nhello\r\n")
s.quit()
"#;

#[test]
fn swaks_and_smtplib_agree() {
    let instance = Instance::start();
    let (alice, bob) = (instance.account(0), instance.account(1));
    let (smtp, submission) =
        (instance.report.ports["smtp"].to_string(), instance.report.ports["submission"].to_string());
    let mut python = Command::new("python3");
    python.args(["-", &smtp, &submission, &bob.address, &bob.password, &alice.address]);
    run_with_input(&mut python, SMTPLIB.as_bytes()).ok();
    let swaks = |to: &str| {
        run(Command::new("swaks")
            .args(["--server", "127.0.0.1", "--port", &smtp, "--from", &bob.address, "--to", to])
            .args(["--header", "Message-ID: <swaks-25@client.test>"]))
    };
    swaks(&alice.address).ok();
    let refused = swaks("nobody@indimail.test");
    assert!(refused.code != 0 && refused.stdout.contains(" 550 "), "{}", refused.stdout);
    for id in ["smtplib-25", "smtplib-587", "swaks-25"] {
        until(PATIENCE, id, || mailbox(&alice.maildir).iter().any(|m| m.contains(id)));
    }
    let dots = mailbox(&alice.maildir).into_iter().find(|m| m.contains("smtplib-25")).expect("it is there");
    assert!(dots.ends_with("\n\n.\n..\nlast\n"), "{dots}");
}

/// Everything a server says to bytes that arrive in two parts.
fn answers(port: u16, first: &[u8], second: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    stream.set_nodelay(true).expect("no delay");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream.write_all(first).expect("write");
    stream.write_all(second).expect("write");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("the server closes after QUIT");
    // The time of day stands after the name.
    text.lines().map(|l| l.split(" ESMTP").next().unwrap_or_default().to_owned() + "\n").collect()
}

#[test]
fn bytes_split_at_every_boundary_get_the_same_answers() {
    let instance = Instance::start();
    let port = instance.report.ports["smtp"];
    let dialogue = b"EHLO client.test\r\nMAIL FROM:<bob@indimail.test>\r\nRCPT TO:<alice@indimail.test>\r\n\
        RSET\r\nVRFY x\r\nMAIL FROM:<>\r\nRCPT TO:<a@elsewhere.test>\r\nNOOP\r\nQUIT\r\n";
    let whole = answers(port, dialogue, b"");
    assert!(whole.contains("\n221 ") && whole.contains("\n55"), "{whole}");
    for at in 1..dialogue.len() {
        let (first, second) = dialogue.split_at(at);
        assert_eq!(answers(port, first, second), whole, "split at {at}");
    }
}
