//! Logins by real programs: pamtester and su, through libpam, the module and the daemon.

mod site;

use std::process::Command;

use accounts::{Limits, ServiceFlags};
use e2e::kit;
use site::{Site, with_mail_logins, with_module};

/// pamtester's words for the outcome of its operations, and its exit code.
fn pamtester(site: &Site, user: &str, password: &str, operations: &[&str]) -> (String, i32) {
    let mut command = site.etc.command("pamtester");
    command.args(["indimail-try", user]).args(operations);
    let out = kit::run_with_input(&mut command, format!("{password}\n").as_bytes());
    (format!("{}{}", out.stdout, out.stderr), out.code)
}

#[test]
fn pamtester_shows_each_outcome() {
    let mut site = Site::new(with_module);
    site.add("off", |a| a.active = false);
    site.add("nologin", |a| a.flags = ServiceFlags::NO_DIALUP);
    site.start();
    for (user, password, expected) in [
        ("jane@example.com", "secret", "successfully authenticated"),
        ("Jane@alias.example", "secret", "successfully authenticated"),
        ("jane@example.com", "wrong", "Authentication failure"),
        ("nobody@example.com", "secret", "User not known to the underlying authentication module"),
        ("jane@elsewhere.org", "secret", "User not known to the underlying authentication module"),
        ("root", "secret", "User not known to the underlying authentication module"),
        ("off@example.com", "secret", "Permission denied"),
        ("off@example.com", "wrong", "Authentication failure"),
        ("nologin@example.com", "secret", "Permission denied"),
    ] {
        let (text, code) = pamtester(&site, user, password, &["authenticate"]);
        assert!(text.contains(expected), "{user} {password}: {text}");
        assert_eq!(code == 0, expected.starts_with("successfully"), "{user} {password}");
    }
    let (text, code) = pamtester(
        &site,
        "jane@example.com",
        "secret",
        &["authenticate", "acct_mgmt", "setcred", "open_session", "close_session"],
    );
    assert_eq!(code, 0, "{text}");
    for (user, expected) in [
        ("off@example.com", "Permission denied"),
        ("nobody@example.com", "User not known"),
        ("jane@example.com", "account management done"),
    ] {
        let (text, _) = pamtester(&site, user, "", &["acct_mgmt"]);
        assert!(text.contains(expected), "{user}: {text}");
    }
    let (text, _) = pamtester(&site, "jane@example.com", "secret", &["chauthtok"]);
    assert!(text.contains("Authentication token manipulation error"), "{text}");
    let log = site.log();
    assert!(log.contains("login: jane@example.com from here for indimail-try: wrong password"), "{log}");
    // The daemon stops: nobody can tell, and that is what the application hears.
    site.stop();
    for operation in ["authenticate", "acct_mgmt"] {
        let (text, code) = pamtester(&site, "jane@example.com", "secret", &[operation]);
        assert!(text.contains("Authentication service cannot retrieve authentication info"), "{text}");
        assert_ne!(code, 0);
    }
    // And it comes back.
    site.start();
    assert_eq!(pamtester(&site, "jane@example.com", "secret", &["authenticate"]).1, 0);
    // A hanging daemon costs one deadline.
    site.signal(nix::sys::signal::Signal::SIGSTOP);
    let (text, _) = pamtester(&site, "jane@example.com", "secret", &["authenticate"]);
    site.signal(nix::sys::signal::Signal::SIGCONT);
    assert!(text.contains("cannot retrieve authentication info"), "{text}");
}

#[test]
fn a_configuration_file_that_others_can_write_does_not_count() {
    let mut site = Site::new(with_module);
    site.start();
    let (text, code) = pamtester(&site, "jane@example.com", "secret", &["authenticate"]);
    assert_eq!(code, 0, "{text}");
    let mut command = site.etc.command("sh");
    command.args(["-c", "cp /etc/indimail/lookup.conf $0/c && chmod 666 $0/c && mount --bind $0/c /etc/indimail/lookup.conf && exec pamtester indimail-try jane@example.com authenticate"]);
    let out = kit::run_with_input(command.arg(site.at("")), b"secret\n");
    assert!(out.stderr.contains("cannot retrieve authentication info"), "{}", out.stderr);
}

#[test]
fn expired_accounts_and_passwords_are_told_as_such() {
    let mut site = Site::new(with_module);
    site.add("gone", |_| {});
    site.add("stale", |_| {});
    std::fs::write(site.at("var/domains/example.com/.domain_limits"), "").unwrap();
    let past = Some(1_000_000_000);
    let limit = |account: &str, limits| site.store().set_limits(account, Some(&limits)).unwrap();
    limit("gone@example.com", Limits { domain_expiry: past, ..Limits::NONE });
    limit("stale@example.com", Limits { password_expiry: past, ..Limits::NONE });
    site.start();
    for (user, password, operation, expected) in [
        ("gone@example.com", "secret", "authenticate", "User account has expired"),
        ("gone@example.com", "wrong", "authenticate", "Authentication failure"),
        ("gone@example.com", "", "acct_mgmt", "User account has expired"),
        ("stale@example.com", "secret", "authenticate", "successfully authenticated"),
        ("stale@example.com", "", "acct_mgmt", "Authentication token is no longer valid; new one required"),
        ("jane@example.com", "", "acct_mgmt", "account management done"),
    ] {
        let (text, _) = pamtester(&site, user, password, &[operation]);
        assert!(text.contains(expected), "{user} {password} {operation}: {text}");
    }
}

#[test]
fn many_failures_are_told_as_too_many() {
    let mut site = Site::new(with_module);
    site.variables = vec![("INLOOKUP_FAILURES", "2".into())];
    site.start();
    let attempt = |password| pamtester(&site, "jane@example.com", password, &["authenticate"]).0;
    for _ in 0..2 {
        assert!(attempt("wrong").contains("Authentication failure"));
    }
    assert!(
        attempt("secret").contains("Have exhausted maximum number of retries for service"),
        "{}",
        attempt("secret")
    );
}

/// A dialogue with `su -l USER` as an unprivileged user on a terminal of its own: what it shows.
fn su(site: &Site, user: &str, password: &str) -> (String, i32) {
    let script = r#"
        set timeout 60
        log_user 1
        spawn setpriv --reuid=65534 --regid=65534 --clear-groups su -l $env(WHO) -c {echo "I am $(id -un) in $(pwd)"}
        expect {
            "Password:" { send "$env(WORD)\r" }
            eof { exit 90 }
            timeout { exit 91 }
        }
        expect { eof {} timeout { exit 92 } }
        exit [lindex [wait] 3]
    "#;
    let path = site.at("dialogue.exp");
    std::fs::write(&path, script).unwrap();
    let mut command: Command = site.etc.command("expect");
    let out = kit::run(command.arg("-f").arg(path).env("WHO", user).env("WORD", password));
    (format!("{}{}", out.stdout, out.stderr), out.code)
}

#[test]
fn su_logs_a_mail_user_in_and_local_users_as_before() {
    let mut site = Site::new(|etc, root| {
        let hash = accounts::password::create(accounts::password::Scheme::Sha512, b"local").unwrap();
        let hash = String::from_utf8(hash.expose().to_vec()).unwrap();
        let local = format!("localuser:{hash}:60003:60003::/:/bin/sh\n");
        with_mail_logins(with_module(etc, root), root, &["jane", "joe"], &local)
    });
    site.add("joe", |a| a.active = false);
    site.start();
    let (text, code) = su(&site, "jane@example.com", "secret");
    assert!(text.contains(&format!("I am jane@example.com in {}", site.at("home/jane").display())), "{text}");
    assert_eq!(code, 0);
    // A local user falls through to pam_unix, which asks for the password.
    let (text, code) = su(&site, "localuser", "local");
    assert!(text.contains("I am localuser in /"), "{text}");
    assert_eq!(code, 0);
    for (user, password, expected) in [
        ("jane@example.com", "wrong", "Authentication failure"),
        ("joe@example.com", "secret", "Permission denied"),
        ("joe@example.com", "wrong", "Authentication failure"),
        ("localuser", "wrong", "Authentication failure"),
    ] {
        let (text, code) = su(&site, user, password);
        assert!(text.contains(expected), "{user} {password}: {text}");
        assert_ne!(code, 0, "{user} {password}");
    }
    site.stop();
    let (text, code) = su(&site, "jane@example.com", "secret");
    assert!(text.contains("cannot retrieve authentication info"), "{text}");
    assert_ne!(code, 0);
}
