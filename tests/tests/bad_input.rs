//! Mistakes, damage and full disks: a clear answer, and nothing lost.

use std::os::unix::fs::chown;
use std::time::Instant;

use e2e::instance::{Instance, svctool};
use e2e::kit::{Output, PATIENCE, run, run_with_input, until};
use e2e::smtp::{self, Session};

fn tool(instance: &Instance, argv: &[&str], input: &str) -> Output {
    run_with_input(instance.command(argv[0]).args(&argv[1..]), input.as_bytes())
}

#[test]
fn tools_name_what_is_wrong() {
    let instance = Instance::start();
    let table: [(&[&str], i32, &str); 8] = [
        (&["vadddomain", "--password-fd", "0", "indimail.test"], 100, "indimail.test"),
        (&["vadduser", "--password-fd", "0", "alice@indimail.test"], 100, "alice"),
        (&["vadduser", "--password-fd", "0", "x@nowhere.test"], 1, "nowhere.test"),
        (&["vuserinfo", "nobody@indimail.test"], 1, "nobody"),
        (&["vdeluser", "nobody@indimail.test"], 1, "nobody"),
        (&["vdominfo", "nowhere.test"], 1, "nowhere.test"),
        (&["vuserinfo", "--no-such-option"], 100, "no-such-option"),
        (&["setuidgid", "nobody-at-all", "true"], 111, "nobody-at-all"),
    ];
    for (argv, code, named) in table {
        let output = tool(&instance, argv, "some password\n");
        assert_eq!(output.code, code, "{argv:?}: {output:?}");
        assert!(output.stderr.contains(named), "{argv:?}: {output:?}");
    }
}

#[test]
fn a_missing_control_file_is_named() {
    let instance = Instance::start();
    let empty = e2e::kit::root();
    let controldir = format!("CONTROLDIR={}", empty.path().display());
    let missing = format!("{}/me: missing", empty.path().display());
    for argv in [&["qmail-smtpd"][..], &["qmail-remote", "b.test", "a@indimail.test", "c@b.test"]] {
        let output = tool(&instance, &[&["env", &controldir], argv].concat(), "Subject: x\n\nx\n");
        assert!(output.stderr.contains(&missing), "{argv:?}: {output:?}");
        // Both protocols have an answer for "try again later".
        assert!(output.stdout.starts_with(['4', 'Z']), "{argv:?}: {output:?}");
    }
}

#[test]
fn a_damaged_store_is_cannot_tell_and_never_no() {
    let mut instance = Instance::start();
    instance.stop();
    let store = instance.dir().join("var/indimail/accounts.sqlite");
    let good = std::fs::read(&store).expect("the store");
    std::fs::write(&store, vec![b'x'; 8192]).expect("damage it");
    for extra in ["accounts.sqlite-wal", "accounts.sqlite-shm"] {
        let _ = std::fs::remove_file(store.with_file_name(extra));
    }
    // The proof at the end of the start fails, so that svctool must say so and leave nothing.
    let failed = run(std::process::Command::new(svctool())
        .args(["try", "--detach", "--json", "--dir"])
        .arg(instance.dir()));
    assert_eq!(failed.code, 1, "{failed:?}");
    assert!(failed.stderr.contains("451") || failed.stderr.contains("does not answer"), "{}", failed.stderr);
    assert_eq!(e2e::instance::processes_of(instance.dir()), Vec::<String>::new());
    std::fs::write(&store, good).expect("mend it");
    instance.restart();
    instance.send_and_wait("mended@client.test");
}

#[test]
fn a_store_damaged_under_running_daemons_defers_and_loses_nothing() {
    let instance = Instance::start();
    let service = |name: &str| instance.dir().join("service").join(name).display().to_string();
    // The lookup daemon is away: recipients cannot be checked.
    let _ = instance.run(&["svc", "-d", &service("inlookup")]);
    until(PATIENCE, "inlookup is down", || {
        run(instance.command("svstat").arg(service("inlookup"))).stdout.contains(": down")
    });
    let start = Instant::now();
    let refused = smtp::send(
        instance.report.ports["smtp"],
        "someone@example.org",
        &["alice@indimail.test"],
        "Subject: x\n\nx\n",
    );
    let refused = refused.expect_err("no answer is no acceptance");
    assert!(refused.contains(" 4") && !refused.contains(" 55"), "{refused}");
    assert!(start.elapsed() < PATIENCE);
    let _ = instance.run(&["svc", "-u", &service("inlookup")]);
    until(PATIENCE, "inlookup is back", || {
        std::os::unix::net::UnixStream::connect(&instance.report.sockets["inlookup"]).is_ok()
    });
    instance.send_and_wait("later@client.test");
    // The name service daemon is away: other sources still answer, at once.
    let _ = instance.run(&["svc", "-d", &service("nssd")]);
    until(PATIENCE, "nssd is down", || {
        run(instance.command("svstat").arg(service("nssd"))).stdout.contains(": down")
    });
    let start = Instant::now();
    assert!(instance.run(&["getent", "passwd", "root"]).starts_with("root:"));
    let absent = run(instance.command("getent").args(["passwd", "nobody@indimail.test"]));
    assert_ne!(absent.code, 0);
    assert!(start.elapsed().as_secs() < 5);
}

#[test]
fn a_queue_with_a_wrong_owner_refuses_mail_and_doctor_says_how_to_mend_it() {
    let instance = Instance::start();
    let mess = instance.dir().join("var/indimail/queue/mess");
    let before = std::fs::metadata(&mess).expect("mess");
    chown(&mess, Some(0), Some(0)).expect("change the owner");
    let found = run(std::process::Command::new(svctool()).args(["doctor", "--dir"]).arg(instance.dir()));
    assert_eq!(found.code, 1, "{}", found.stdout);
    assert!(
        found.stdout.contains("FAULT queue directory") && found.stdout.contains("queue-fix"),
        "{}",
        found.stdout
    );
    use std::os::unix::fs::MetadataExt;
    let queue = instance.dir().join("var/indimail/queue").display().to_string();
    let sender = instance.dir().join("service/qmail-send").display().to_string();
    let _ = instance.run(&["svc", "-d", &sender]);
    until(PATIENCE, "the sender is down", || {
        run(instance.command("svstat").arg(&sender)).stdout.contains(": down")
    });
    let _ = instance.run(&["queue-fix", &queue]);
    let _ = instance.run(&["svc", "-u", &sender]);
    assert_eq!(std::fs::metadata(&mess).expect("mess").uid(), before.uid());
    instance.send_and_wait("owner@client.test");
}

#[test]
fn a_full_disk_in_the_middle_of_a_message_is_a_temporary_error() {
    let instance = Instance::start();
    let queue = instance.dir().join("var/indimail/queue").display().to_string();
    let sender = instance.dir().join("service/qmail-send").display().to_string();
    let _ = instance.run(&["svc", "-d", &sender]);
    let _ = instance.run(&["mount", "-t", "tmpfs", "-o", "size=3m,nr_inodes=2000", "tmpfs", &queue]);
    let _ = instance.run(&["queue-fix", &queue]);
    let _ = instance.run(&["svc", "-u", &sender]);
    let port = instance.report.ports["smtp"];
    let line = "0123456789".repeat(7) + "\n";
    let big = format!("Subject: big\n\n{}", line.repeat(5_000_000 / line.len()));
    let reply = smtp::send(port, "bob@indimail.test", &["alice@indimail.test"], &big)
        .expect_err("five megabytes do not fit");
    assert!(reply.contains(": 4"), "{reply}");
    // What was written of it is gone, and a small message passes.
    instance.send_and_wait("small@client.test");
}

#[test]
fn hostile_sessions_get_answers_and_harm_nobody() {
    let instance = Instance::start();
    let port = instance.report.ports["smtp"];
    let mut session = Session::connect(port).expect("a session");
    let reply = session.command("NUL\0byte").expect("a reply");
    assert!(reply.starts_with('5'), "{reply}");
    session.expect("NOOP", "250").expect("the session goes on");
    // A line without an end is not collected for ever.
    let long = session.write(&[b'x'; 70_000]).and_then(|()| session.reply());
    assert!(long.as_ref().map_or(true, |reply| reply.starts_with('5')), "{long:?}");
    // A client that closes its sending half in the middle of a message: nothing is accepted.
    use std::io::{Read, Write};
    let mut half = std::net::TcpStream::connect(("127.0.0.1", port)).expect("connect");
    half.set_read_timeout(Some(PATIENCE)).expect("timeout");
    half.write_all(b"EHLO x\r\nMAIL FROM:<bob@indimail.test>\r\nRCPT TO:<alice@indimail.test>\r\nDATA\r\n")
        .expect("write");
    half.write_all(b"Message-ID: <half@client.test>\r\n\r\nhalf a mess").expect("write");
    half.shutdown(std::net::Shutdown::Write).expect("half close");
    let mut rest = String::new();
    half.read_to_string(&mut rest).expect("the server closes");
    assert!(!rest.lines().skip_while(|l| !l.starts_with("354")).any(|l| l.starts_with("250")), "{rest}");
    instance.send_and_wait("after@client.test");
    let boxed = e2e::instance::mailbox(&instance.account(0).maildir);
    assert!(!boxed.iter().any(|m| m.contains("<half@client.test>")));
}
