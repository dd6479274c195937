//! qmail-rspawn as it runs.

mod support;

use std::process::Command;

use e2e::kit;
use mta_queue::spawn_protocol::Request;
use support::{Spawner, Tree, request};

fn spawner(tree: &Tree, vars: &[(&str, &str)]) -> Spawner {
    std::os::unix::fs::chown(tree.at("queue/mess"), Some(4711), None).unwrap();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=4711", "--regid=4712", "--clear-groups", "--"])
        .arg(tree.at("usr/sbin/qmail-rspawn"));
    tree.variables(&mut command);
    command.envs(vars.iter().copied());
    Spawner::start(command)
}

#[test]
fn arguments_message_and_report() {
    let tree = Tree::new();
    let message = tree.message(1, "four", 4711);
    tree.program("qmail-remote", r#"printf 'r\0K%s|%s|%s\0' "$*" "$(cat)" "$MESSID""#);
    let mut spawner = spawner(&tree, &[]);
    let request = Request { extra_header: b"X: 1".to_vec(), ..request(9, &message, "u@v@d.org") };
    assert_eq!(spawner.deliver(&request), ('K', "d.org s@t X: 1 4 u@v@d.org|four|0/1".into()));
    spawner.close();
    assert_eq!(spawner.exit_code(), Some(0));
}

#[test]
fn every_output_has_its_letter() {
    let tree = Tree::new();
    let message = tree.message(1, "m", 4711);
    tree.program(
        "qmail-remote",
        r"case $5 in
        ok@*) printf 'rtaken\0K, done\0';;
        never@*) printf 'hno\0Dgiving up\0';;
        later@*) printf 'swait\0Kok\0';;
        silent@*) exit 0;;
        mangled@*) echo Kmangled;;
        temp@*) exit 111;;
        perm@*) exit 100;;
        dead@*) kill -9 $$;;
        esac",
    );
    let mut spawner = spawner(&tree, &[]);
    for (local, letter, text) in [
        ("ok", 'K', "taken, done"),
        ("never", 'D', "nogiving up"),
        ("later", 'Z', "waitok"),
        ("silent", 'Z', "printed nothing"),
        ("mangled", 'Z', "makes no sense"),
        ("temp", 'Z', "cannot work now"),
        ("perm", 'D', "exit code 100"),
        ("dead", 'Z', "signal 9"),
    ] {
        let got = spawner.deliver(&request(1, &message, &format!("{local}@d")));
        assert!(got.0 == letter && got.1.contains(text), "{local}: {got:?}");
    }
}

#[test]
fn tables_of_timeouts_are_forgotten_and_qmaillocal_is_not_passed_on() {
    let tree = Tree::new();
    let table = tree.at("queue/lock/tcpto");
    kit::write(&table, [7u8; 2048]);
    std::os::unix::fs::chown(&table, Some(4711), None).unwrap();
    let message = tree.message(1, "m", 4711);
    tree.program("qmail-remote", r#"printf 'r\0K%s\0' "${QMAILLOCAL-unset}""#);
    let mut spawner = spawner(&tree, &[("QMAILLOCAL", "/x")]);
    assert_eq!(spawner.deliver(&request(0, &message, "u@d")), ('K', "unset".into()));
    assert_eq!(std::fs::read(&table).unwrap(), [0u8; 2048]);
}

#[test]
fn a_broken_installation_defers_and_a_mended_one_delivers() {
    let tree = Tree::new();
    let message = tree.message(1, "m", 4711);
    let mut spawner = spawner(&tree, &[]);
    let (letter, text) = spawner.deliver(&request(1, &message, "u@d"));
    assert!(letter == 'Z' && text.contains("usr/sbin/qmail-remote"), "{letter}{text}");
    tree.program("qmail-remote", r"printf 'r\0Kok\0'");
    kit::set_mode(&tree.at("usr/sbin/qmail-remote"), 0o644);
    assert_eq!(spawner.deliver(&request(1, &message, "u@d")).0, 'Z');
    kit::set_mode(&tree.at("usr/sbin/qmail-remote"), 0o755);
    assert_eq!(spawner.deliver(&request(1, &message, "u@d")).0, 'K');
}

#[test]
fn as_qmailr_it_takes_messages_of_the_queues_owner_only() {
    let tree = Tree::new();
    let (qmailq, qmailr, qmail) = (tree.etc.uid("qmailq"), tree.etc.uid("qmailr"), tree.etc.gid("qmail"));
    std::os::unix::fs::chown(tree.at("queue/mess"), Some(qmailq), None).unwrap();
    let message = tree.message(1, "m", qmailq);
    let foreign = tree.message(2, "m", 0);
    tree.program("qmail-remote", r#"printf 'r\0K%s\0' "$(id -u)""#);
    let mut command = tree.etc.command("setpriv");
    command.arg(format!("--reuid={qmailr}")).arg(format!("--regid={qmail}")).args(["--clear-groups", "--"]);
    tree.variables(command.arg(tree.at("usr/sbin/qmail-rspawn")));
    let mut spawner = Spawner::start(command);
    assert_eq!(spawner.deliver(&request(1, &message, "u@d")), ('K', qmailr.to_string()));
    assert_eq!(spawner.deliver(&request(1, &foreign, "u@d")).0, 'Z');
}
