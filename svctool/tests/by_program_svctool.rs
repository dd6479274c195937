//! The real executable: usage, refusals, what it says about a system that is not there.

use std::process::{Command, Output};

fn svctool(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_svctool")).args(arguments).output().expect("run svctool")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn wrong_usage_is_2_and_named() {
    let table: [(&[&str], &str); 5] = [
        (&["--no-such-option"], "--no-such-option"),
        (&["try", "--no-such-option"], "--no-such-option"),
        (&["try", "--store", "oracle://x"], "expected sqlite or mysql://"),
        (&["try", "--stop", "--detach"], "--detach"),
        (&["config", "everything"], "everything"),
    ];
    for (arguments, named) in table {
        let output = svctool(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(named), "{arguments:?}: {}", text(&output.stderr));
    }
}

#[test]
fn a_directory_that_is_no_private_system_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("precious"), "x").unwrap();
    let path = dir.path().to_str().unwrap();
    for action in [&["--stop"][..], &["--clean"], &["--status"], &["--detach"]] {
        let output = svctool(&[&["try", "--dir", path], action].concat());
        assert_eq!(output.status.code(), Some(1), "{action:?}");
        assert!(text(&output.stderr).starts_with("svctool: fatal: "), "{}", text(&output.stderr));
    }
    assert_eq!(std::fs::read(dir.path().join("precious")).unwrap(), b"x");
}

#[test]
fn cleaning_what_is_not_there_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none");
    assert_eq!(svctool(&["try", "--clean", "--dir", path.to_str().unwrap()]).status.code(), Some(0));
}

#[test]
fn without_an_installed_tree_try_says_what_to_do_and_leaves_nothing_running() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("try");
    let output = svctool(&["try", "--detach", "--dir", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    // The test's executable is in no PREFIX, so the installation it looks for is the machine's.
    assert!(text(&output.stderr).contains("/usr/libexec/indimail"), "{}", text(&output.stderr));
}

#[test]
fn doctor_finds_the_faults_of_an_absent_system() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("assign"), "+x.org-:x.org:5:5:/d:-::\n.\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_svctool"))
        .args(["doctor", "--json"])
        .env("CONTROLDIR", dir.path())
        .env("ASSIGNDIR", dir.path())
        .env("QUEUEDIR", dir.path().join("queue"))
        .env("NSSD_SOCKET", dir.path().join("nssd.sock"))
        .env("INLOOKUP_SOCKET", dir.path().join("inlookup.sock"))
        .env("CERTDIR", dir.path())
        .output()
        .expect("run svctool");
    assert_eq!(output.status.code(), Some(1));
    let findings: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let faults = findings.as_array().expect("a list").iter().filter(|f| f["ok"] == false);
    assert!(faults.clone().all(|f| f["fix"].as_str().is_some_and(|fix| !fix.is_empty())));
    assert!(faults.clone().count() >= 5, "{findings}");
    let mut tables = faults.filter(|f| f["check"].as_str().is_some_and(|c| c.starts_with("domain table")));
    let table = tables.next().expect("assignments that nobody compiled are a fault");
    assert!(table["fix"].as_str().is_some_and(|fix| fix.starts_with("qmail-newu")), "{table}");
}

#[test]
fn it_tells_installation_about_itself() {
    assert_eq!(text(&svctool(&["--list-programs"]).stdout), "svctool\tsbin\t8\n");
    assert!(text(&svctool(&["--man"]).stdout).contains(".SH NAME"));
    assert!(text(&svctool(&["--completions"]).stdout).contains("complete"));
    assert!(text(&svctool(&["--version"]).stdout).starts_with("svctool "));
}
