//! From nothing to mail in a mailbox, a name service entry and a login, with each store.

use std::process::Command;

use e2e::instance::{Instance, mailbox};
use e2e::kit::{MariaDb, PATIENCE, run, run_with_input, until};
use e2e::smtp::Session;

fn check_flow(instance: &Instance) {
    let alice = instance.account(0);
    let text = instance.send_and_wait("flow@client.test");
    assert!(text.starts_with("Return-Path: <bob@indimail.test>\n"), "{text}");
    assert!(text.contains("-alice@indimail.test\n"), "{text}");
    assert!(text.ends_with("\n\nbody of flow@client.test\n"), "{text}");

    let entry = instance.run(&["getent", "passwd", &alice.address]);
    assert!(entry.starts_with(&format!("{}:x:", alice.address)), "{entry}");
    let home = alice.maildir.parent().expect("a home").display().to_string();
    assert!(entry.contains(&home), "{entry}: {home}");

    login(instance, &alice.address, &alice.password, true);
    login(instance, &alice.address, "wrong", false);
    login(instance, "nobody@indimail.test", &alice.password, false);
}

fn login(instance: &Instance, address: &str, password: &str, granted: bool) {
    let mut command = instance.command("pamtester");
    command.args(["indimail-try", address, "authenticate", "acct_mgmt"]);
    let output = run_with_input(&mut command, format!("{password}\n").as_bytes());
    assert_eq!(output.code == 0, granted, "{address}: {output:?}");
}

/// A real login program, run by somebody else: it must ask for the password.
fn su(instance: &Instance, address: &str, password: &str) -> e2e::kit::Output {
    let mut command = instance.command("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "su", "-s", "/bin/sh"]);
    command.args([address, "-c", "echo $LOGNAME; id -u"]);
    run_with_input(&mut command, format!("{password}\n").as_bytes())
}

#[test]
fn su_logs_in_with_the_mail_password() {
    let instance = Instance::start();
    let alice = instance.account(0);
    let granted = su(&instance, &alice.address, &alice.password).ok();
    assert!(granted.stdout.starts_with(&format!("{}\n", alice.address)), "{granted:?}");
    assert_ne!(su(&instance, &alice.address, "wrong").code, 0);
    assert_ne!(su(&instance, "nobody@indimail.test", "wrong").code, 0);
}

#[test]
fn with_sqlite() {
    let instance = Instance::start();
    assert_eq!(instance.report.store, "sqlite");
    assert!(instance.report.left_out.is_empty(), "{:?}", instance.report.left_out);
    check_flow(&instance);
    let out = run(instance.command("svctool").args(["doctor"]));
    assert_eq!(out.code, 0, "{}", out.stdout);
}

#[test]
fn with_mariadb_only_the_configuration_differs() {
    let db = MariaDb::start();
    db.sql(
        "create database indimail; create user mail@localhost identified by 'secret word'; \
         grant all on indimail.* to mail@localhost;",
    );
    let password = db.directory().join("password");
    e2e::kit::write(&password, "secret word\n");
    let (socket, file) = (db.socket(), password.display());
    let store = format!("mysql://mail@localhost/indimail?socket={}&password-file={file}", socket.display());
    let instance = Instance::start_with(&["--store", &store], None);
    assert!(instance.report.store.starts_with("mysql://mail@localhost/indimail"));
    check_flow(&instance);
    let rows = db.sql("select count(*) from indimail.indimail where pw_name = 'alice'");
    assert_eq!(rows.trim(), "1");
}

#[test]
fn as_an_ordinary_user() {
    let instance = Instance::start_with(&[], Some(23_456));
    let text = instance.send_and_wait("user@client.test");
    assert!(text.ends_with("body of user@client.test\n"), "{text}");
    let left_out = &instance.report.left_out;
    assert!(left_out.iter().any(|l| l.contains("needs root")), "{left_out:?}");
}

#[test]
fn unknown_users_and_foreign_domains_are_refused() {
    let instance = Instance::start();
    let mut session = Session::connect(instance.report.ports["smtp"]).unwrap();
    session.expect("EHLO client.test", "250").unwrap();
    session.expect("MAIL FROM:<someone@example.org>", "250").unwrap();
    for refused in ["nobody@indimail.test", "someone@example.com"] {
        let reply = session.command(&format!("RCPT TO:<{refused}>")).unwrap();
        assert!(reply.starts_with("55"), "{refused}: {reply}");
    }
    session.expect("RCPT TO:<alice@indimail.test>", "250").unwrap();
    session.expect("QUIT", "221").unwrap();
}

#[test]
fn submission_asks_for_a_login_over_tls() {
    let instance = Instance::start();
    let (alice, bob) = (instance.account(0), instance.account(1));
    let port = instance.report.ports["submission"].to_string();
    let swaks = |password: &str| {
        run(Command::new("swaks")
            .args(["--server", "127.0.0.1", "--port", &port, "--tls", "--auth", "PLAIN"])
            .args(["--auth-user", &bob.address, "--auth-password", password])
            .args(["--from", &bob.address, "--to", &alice.address])
            .args(["--header", "Message-ID: <swaks@client.test>"]))
    };
    let refused = swaks("wrong");
    assert_ne!(refused.code, 0, "{}", refused.stdout);
    assert!(refused.stdout.contains(" 535"), "{}", refused.stdout);
    let accepted = swaks(&bob.password);
    assert_eq!(accepted.code, 0, "{}{}", accepted.stdout, accepted.stderr);
    until(PATIENCE, "submitted message", || {
        mailbox(&alice.maildir).iter().any(|m| m.contains("<swaks@client.test>"))
    });
    // Without a login nothing is taken.
    let mut session = Session::connect(instance.report.ports["submission"]).unwrap();
    session.expect("EHLO client.test", "250").unwrap();
    let reply = session.command(&format!("MAIL FROM:<{}>", bob.address)).unwrap();
    assert!(reply.starts_with('5'), "{reply}");
}
