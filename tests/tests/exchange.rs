//! Mail from one system to another, and what comes back when it cannot be delivered.

use std::time::{Duration, Instant};

use e2e::instance::{Instance, mailbox};
use e2e::kit::{run, run_with_input, write};

/// Waits for a message in the first mailbox that has all of `parts`;
fn wait_for(instance: &Instance, account: usize, parts: &[&str]) -> String {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let boxed = mailbox(&instance.account(account).maildir);
        if let Some(found) = boxed.iter().find(|m| parts.iter().all(|p| m.contains(p))) {
            return found.clone();
        }
        let queue = run(&mut instance.command("qmail-qread")).stdout;
        assert!(Instant::now() < end, "no message with {parts:?} in {boxed:?}\n{queue}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn two_systems_exchange_mail_and_refusals_come_back() {
    let (here, there) = (Instance::start(), Instance::start());
    // The other system gets a domain of its own.
    let password = b"a password for other.test\n";
    for argv in [["vadddomain", "other.test"], ["vadduser", "carol@other.test"]] {
        let mut command = there.command(argv[0]);
        run_with_input(command.args(["--password-fd", "0", argv[1]]), password).ok();
    }
    let route = format!("other.test:127.0.0.1:{}\n", there.report.ports["smtp"]);
    write(here.dir().join("etc/indimail/control/smtproutes"), route);

    let inject = |recipient: &str, id: &str| {
        let message = format!("To: {recipient}\nMessage-ID: <{id}@client.test>\nSubject: {id}\n\nbody\n");
        let mut command = here.command("qmail-inject");
        run_with_input(command.args(["-f", "bob@indimail.test"]), message.as_bytes()).ok();
    };
    inject("carol@other.test", "taken");
    inject("nobody@other.test", "refused");

    let info = run(there.command("vuserinfo").args(["--json", "carol@other.test"])).ok().stdout;
    let info: serde_json::Value = serde_json::from_str(&info).expect("JSON");
    let maildir = std::path::PathBuf::from(info["maildir"].as_str().expect("maildir"));
    e2e::kit::until(Duration::from_secs(60), "mail at the other system", || {
        mailbox(&maildir).iter().any(|m| m.contains("<taken@client.test>") && m.contains("ESMTP"))
    });
    let bounce = wait_for(&here, 1, &["nobody@other.test", "550", "<refused@client.test>"]);
    assert!(bounce.starts_with("Return-Path: <>\n"), "{bounce}");
}

#[test]
fn mail_for_an_unknown_local_user_bounces() {
    let instance = Instance::start();
    let message = "Message-ID: <unknown@client.test>\n\nbody\n";
    let mut command = instance.command("qmail-inject");
    let recipient = ["-f", "bob@indimail.test", "nobody@indimail.test"];
    run_with_input(command.args(recipient), message.as_bytes()).ok();
    let bounce = wait_for(&instance, 1, &["nobody@indimail.test", "<unknown@client.test>"]);
    assert!(bounce.starts_with("Return-Path: <>\n"), "{bounce}");
}
