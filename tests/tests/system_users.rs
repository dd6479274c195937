//! `svctool config users` on a machine without our users (a private copy of /etc).

use std::process::Command;

use e2e::instance::svctool;
use e2e::kit::{root, run};

#[test]
fn users_are_created_once_and_the_error_text_that_names_the_command_is_true() {
    let dir = root();
    let etc = dir.path().join("etc");
    run(Command::new("cp").args(["-a", "/etc"]).arg(&etc)).ok();
    let inside = |script: &str| {
        let script = format!("mount --bind '{}' /etc && {script}", etc.display());
        run(Command::new("unshare").args(["--mount", "--propagation", "private", "--", "sh", "-c", &script]))
    };
    // An installation of its own: the set-id program gets its owner now that he exists.
    let prefix = dir.path().join("usr");
    let (libexec, queue) = (prefix.join("libexec/indimail"), prefix.join("sbin/qmail-queue"));
    std::fs::create_dir_all(&libexec).expect("a directory");
    std::fs::create_dir_all(prefix.join("sbin")).expect("a directory");
    e2e::kit::copy_program(svctool(), libexec.join("svctool"));
    std::fs::write(&queue, "").expect("qmail-queue");
    let tool = libexec.join("svctool").display().to_string();
    let first = inside(&format!("{tool} config users")).ok().stdout;
    let owner = inside(&format!("stat -c '%U:%G %a' {}", queue.display())).ok().stdout;
    assert_eq!(owner, "qmailq:qmail 6551\n");
    assert!(first.contains("qmail-queue: set-id of qmailq"), "{first}");
    assert!(first.contains("created user qmailq") && first.contains("created group nofiles"), "{first}");
    let again = inside(&format!("{tool} --config=users")).ok().stdout;
    assert_eq!(again, "all users and groups exist\n");
    let entry = inside("getent passwd indimail; id -Gn qmailr").ok().stdout;
    assert!(entry.starts_with("indimail:x:") && entry.contains("qmail qcerts"), "{entry}");
    assert!(
        run(Command::new("getent").args(["passwd", "qmailq"])).code != 0,
        "the machine itself has them now"
    );
}
