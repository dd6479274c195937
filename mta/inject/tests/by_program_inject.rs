//! qmail-inject and sendmail as they run, as an ordinary user.

use std::os::unix::fs::{chown, symlink};
use std::path::PathBuf;
use std::process::Command;

use e2e::kit::{self, Output, run_with_input, write};

const USER: u32 = 54_321;

struct Tree {
    root: tempfile::TempDir,
}

impl Tree {
    fn new() -> Self {
        let root = kit::root();
        let at = |p: &str| root.path().join(p);
        let exe = at("usr/libexec/indimail/qmail-inject");
        kit::write_program(&exe, std::fs::read(env!("CARGO_BIN_EXE_qmail-inject")).unwrap());
        for dir in ["usr/bin", "usr/sbin", "control", "sent", "home"] {
            std::fs::create_dir_all(at(dir)).unwrap();
        }
        symlink(&exe, at("usr/bin/qmail-inject")).unwrap();
        symlink(&exe, at("usr/sbin/sendmail")).unwrap();
        for mine in ["sent", "home"] {
            chown(at(mine), Some(USER), Some(USER)).unwrap();
        }
        write(at("control/me"), "mx.example.org\n");
        write(at("control/defaultdomain"), "example.org\n");
        let tree = Self { root };
        tree.queue_answers(0);
        tree
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn queue_answers(&self, code: i32) {
        let sent = self.at("sent").display().to_string();
        let script = format!(
            "#!/bin/sh\ncat >{sent}/message; cat <&1 >{sent}/envelope\nenv >{sent}/env\nexit {code}\n"
        );
        kit::write_program(self.at("usr/sbin/qmail-queue"), script);
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={USER}")).arg(format!("--regid={USER}")).args(["--clear-groups", "--"]);
        command.arg(self.at("usr").join(program)).env_clear();
        command.env("CONTROLDIR", self.at("control")).env("USER", "joe").env("PATH", "/usr/bin:/bin");
        command.env("HOME", self.at("home"));
        command
    }

    fn run(&self, program: &str, args: &[&str], message: &str) -> Output {
        run_with_input(self.command(program).args(args), message.as_bytes())
    }

    fn sent(&self, file: &str) -> String {
        String::from_utf8_lossy(&std::fs::read(self.at("sent").join(file)).unwrap()).into_owned()
    }

    fn nothing_sent(&self) -> bool {
        !self.at("sent/envelope").exists()
            || !std::fs::read(self.at("sent/envelope")).unwrap().ends_with(b"\0\0")
    }
}

#[test]
fn a_message_is_completed_and_queued() {
    let tree = Tree::new();
    tree.run("bin/qmail-inject", &["-h"], "To: fred, a@b.c\nBcc: secret@x.y\nSubject: hi\n\nbody\n.\nmore")
        .ok();
    assert_eq!(tree.sent("envelope"), "Fjoe@mx.example.org\0Tfred@mx.example.org\0Ta@b.c\0Tsecret@x.y\0\0");
    let message = tree.sent("message");
    // The last line becomes a whole one: SMTP cannot carry half a line, and the message would bounce.
    assert!(message.ends_with("To: fred@mx.example.org, a@b.c\nSubject: hi\n\nbody\n.\nmore\n"), "{message}");
    let lines: Vec<&str> = message.lines().collect();
    assert!(lines[0].starts_with("Date: ") && lines[2] == "From: joe@mx.example.org", "{message}");
    assert!(lines[1].starts_with("Message-ID: <20") && lines[1].ends_with(".indimail@mx.example.org>"));
    assert!(!message.contains("secret"));
}

#[test]
fn a_message_without_header_or_with_damage_gets_its_empty_line() {
    let tree = Tree::new();
    tree.run("bin/qmail-inject", &["a@b.c"], "just text\n").ok();
    assert!(tree.sent("message").ends_with("shown: ;\n\njust text\n"), "{}", tree.sent("message"));
    tree.run("bin/qmail-inject", &["a@b.c"], "Subject: x").ok();
    assert!(tree.sent("message").ends_with("Subject: x\n\n"));
    tree.run("bin/qmail-inject", &["a@b.c"], "").ok();
    assert!(tree.sent("message").ends_with("shown: ;\n\n"));
}

#[test]
fn answers_of_the_queue_and_mistakes_have_their_codes() {
    let tree = Tree::new();
    for (answer, code) in [(0, 0), (31, 100), (11, 100), (53, 111), (120, 111)] {
        tree.queue_answers(answer);
        assert_eq!(tree.run("bin/qmail-inject", &["a@b.c"], "X: y\n\n").code, code, "{answer}");
    }
    tree.queue_answers(0);
    std::fs::remove_file(tree.at("sent/envelope")).unwrap();
    for (args, message) in [
        (&["-h"][..], "Subject: nobody\n\n"),
        (&["-h"], "To: a b\n\n"),
        (&["a b"], "\n"),
        (&["-f", "a, b", "c@d.e"], "\n"),
        (&["-z"], "\n"),
    ] {
        let out = tree.run("bin/qmail-inject", args, message);
        assert!(out.code == 100 && out.stderr.starts_with("qmail-inject: fatal: "), "{args:?} {out:?}");
    }
    assert!(tree.nothing_sent());
    std::fs::remove_file(tree.at("usr/sbin/qmail-queue")).unwrap();
    assert_eq!(tree.run("bin/qmail-inject", &["a@b.c"], "\n").code, 111);
}

#[test]
fn limits_of_size_and_recipients() {
    let tree = Tree::new();
    write(tree.at("control/databytes"), "5000\n");
    write(tree.at("control/maxrecipients"), "2\n");
    tree.run("bin/qmail-inject", &["a@b.c", "d@e.f"], &format!("\n{}", "x".repeat(4000))).ok();
    std::fs::remove_file(tree.at("sent/envelope")).unwrap();
    assert_eq!(tree.run("bin/qmail-inject", &["a@b.c"], &format!("\n{}", "x".repeat(6000))).code, 100);
    assert_eq!(tree.run("bin/qmail-inject", &["a@b.c", "d@e.f", "g@h.i"], "\n").code, 100);
    assert!(tree.nothing_sent());
}

#[test]
fn n_prints_and_queues_nothing() {
    let tree = Tree::new();
    let out = tree
        .run("bin/qmail-inject", &["-n", "a@b.c"], "Date: x\nMessage-ID: <a>\nFrom: a\nTo: b\n\nbody\n")
        .ok();
    assert_eq!(
        out.stdout,
        "Date: x\nMessage-ID: <a>\nFrom: a@mx.example.org\nTo: b@mx.example.org\n\nbody\n"
    );
    assert!(tree.nothing_sent());
}

#[test]
fn letters_of_qmailinject_and_names() {
    let tree = Tree::new();
    let mut command = tree.command("bin/qmail-inject");
    command
        .env("QMAILINJECT", "cfir")
        .env("QMAILNAME", "Joe (X)")
        .env("QMAILUSER", "me")
        .env("QMAILHOST", "host");
    run_with_input(command.arg("a@b.c"), b"From: old@x.y\nMessage-ID: <old>\n\n").ok();
    let message = tree.sent("message");
    assert!(
        message.contains("\nFrom: me@host.example.org (Joe  X )\n") && !message.contains("old"),
        "{message}"
    );
    assert_eq!(tree.sent("envelope"), "Fme-@host.example.org-@[]\0Ta@b.c\0\0");
}

#[test]
fn the_queue_is_found_through_the_default_directories() {
    let tree = Tree::new();
    write(tree.at("control/defaultqueue/QUEUEDIR"), "/the/queue\n");
    tree.run("bin/qmail-inject", &["a@b.c"], "\n").ok();
    assert!(tree.sent("env").contains("QUEUEDIR=/the/queue\n"));
    write(tree.at("home/.defaultqueue/QUEUEDIR"), "/mine\n");
    tree.run("bin/qmail-inject", &["a@b.c"], "\n").ok();
    assert!(tree.sent("env").contains("QUEUEDIR=/mine\n"));
}

#[test]
fn sendmail_as_programs_call_it() {
    let tree = Tree::new();
    tree.run("sbin/sendmail", &["-t", "-oi"], "To: a@b.c\nBcc: d@e.f\n\nx\n").ok();
    assert_eq!(tree.sent("envelope"), "Fjoe@mx.example.org\0Ta@b.c\0Td@e.f\0\0");
    tree.run(
        "sbin/sendmail",
        &["-i", "-f", "me@x.y", "-F", "Me", "--", "a@b.c", "-o@p.q"],
        "To: no@no.no\n\nx\n",
    )
    .ok();
    assert_eq!(tree.sent("envelope"), "Fme@x.y\0Ta@b.c\0T-o@p.q\0\0");
    assert!(tree.sent("message").contains("\nFrom: Me <me@x.y>\n"));
    tree.run("sbin/sendmail", &["-bm", "-Am", "-N", "never", "a@b.c"], "x\n").ok();
    assert_eq!(tree.run("sbin/sendmail", &["-bi"], "").code, 100);
    assert_eq!(tree.run("sbin/sendmail", &["-I"], "").code, 100);
    assert_eq!(tree.run("sbin/sendmail", &["-t"], "Subject: nobody\n\n").code, 100);
}

#[test]
fn sendmail_hands_over_to_the_queue_list_and_to_smtp() {
    let tree = Tree::new();
    kit::write_program(tree.at("usr/bin/qmail-qread"), "#!/bin/sh\necho queue\n");
    kit::write_program(
        tree.at("usr/sbin/qmail-smtpd"),
        "#!/bin/sh\necho \"smtp ${RELAYCLIENT-no} $TCPREMOTEIP\"; pwd\n",
    );
    assert_eq!(tree.run("sbin/sendmail", &["-bp"], "").ok().stdout, "queue\n");
    assert_eq!(tree.run("sbin/sendmail", &["-bs"], "").ok().stdout, "smtp  127.0.0.1\n/\n");
}

#[test]
fn strange_addresses_are_bytes_or_refused_but_never_text_of_a_shell_or_header() {
    let tree = Tree::new();
    let evil = "\"$(touch pwned)`touch pwned`;|x\"@b.c";
    tree.run("sbin/sendmail", &["--", evil], "X: y\n\n").ok();
    assert_eq!(tree.sent("envelope"), "Fjoe@mx.example.org\0T$(touch pwned)`touch pwned`;|x@b.c\0\0");
    let out = tree.run("sbin/sendmail", &["-f", "a@b\nBcc: evil@x.y", "c@d.e"], "\n");
    assert!(out.code == 100 || !tree.sent("message").contains("\nBcc:"), "{out:?}");
    let mut command = tree.command("bin/qmail-inject");
    command.env("QMAILNAME", "x\nBcc: evil@x.y").env("USER", "a\nb");
    let out = run_with_input(command.arg("a@b.c"), b"\n");
    assert_eq!(out.code, 100, "a sender with a line end: {out:?}");
}
