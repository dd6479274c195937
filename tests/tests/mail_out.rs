//! Mail to other hosts: submission, queue, qmail-remote, somebody else's server; and what comes back.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use e2e::instance::{Instance, mailbox};
use e2e::kit::{PATIENCE, Running, free_port, run, set_mode, until, until_some, write};

/// Postfix's smtp-sink; what it takes goes to files in `dir`.
struct Sink {
    port: u16,
    dir: tempfile::TempDir,
    _server: Running,
}

impl Sink {
    fn start(options: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        set_mode(dir.path(), 0o777);
        let port = free_port();
        let mut command = Command::new("smtp-sink");
        command.args(options).args(["-u", "nobody", "-R"]).arg(dir.path()).args(["-d", "m."]);
        command.arg(format!("127.0.0.1:{port}")).arg("10");
        let server = Running::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()));
        until(PATIENCE, "smtp-sink", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { port, dir, _server: server }
    }

    fn mail(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.dir.path()).expect("the sink's directory");
        files.filter_map(|e| std::fs::read_to_string(e.ok()?.path()).ok()).collect()
    }
}

fn route(instance: &Instance, sink: &Sink) {
    let control: &Path = &instance.dir().join("etc/indimail/control/smtproutes");
    write(control, format!("outside.test:127.0.0.1:{}\n", sink.port));
}

/// Alice submits a message with her password.
fn submit(instance: &Instance, to: &str, id: &str) {
    let alice = instance.account(0);
    let port = instance.report.ports["submission"].to_string();
    run(Command::new("swaks")
        .args(["--server", "127.0.0.1", "--port", &port, "--tls", "--auth", "PLAIN"])
        .args(["--auth-user", &alice.address, "--auth-password", &alice.password])
        .args(["--from", &alice.address, "--to", to, "--header", &format!("Message-ID: <{id}>")])
        .args(["--body", "line\n.dot"]))
    .ok();
}

#[test]
fn submitted_mail_reaches_another_host() {
    let instance = Instance::start();
    let sink = Sink::start(&[]);
    route(&instance, &sink);
    submit(&instance, "friend@outside.test", "out@client.test");
    let text = until_some(PATIENCE, "the message at the other host", || {
        sink.mail().into_iter().find(|m| m.contains("<out@client.test>") && m.contains("\n.dot"))
    });
    let alice = &instance.account(0).address;
    assert!(text.contains(&format!("X-Mail-Args: <{alice}>")), "{text}");
    assert!(text.contains("X-Rcpt-Args: <friend@outside.test>"), "{text}");
    assert!(text.contains(" with ESMTPSA (TLSv1.3 "), "{text}");
}

#[test]
fn a_refusal_comes_back_to_the_sender() {
    let instance = Instance::start();
    let sink = Sink::start(&["-f", "RCPT"]);
    route(&instance, &sink);
    submit(&instance, "friend@outside.test", "refused@client.test");
    let bounce = until_some(PATIENCE, "the bounce", || {
        mailbox(&instance.account(0).maildir).into_iter().find(|m| m.contains("<refused@client.test>"))
    });
    assert!(bounce.contains("friend@outside.test") && bounce.contains("does not like recipient"), "{bounce}");
    assert!(sink.mail().iter().all(|m| !m.contains("refused@client.test")));
}
