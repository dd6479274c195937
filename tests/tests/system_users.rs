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
    let tool = svctool().display().to_string();
    let first = inside(&format!("{tool} config users")).ok().stdout;
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
