//! qmail-getpw, qmail-newu and the programs of dot-qmail files, as they run.

mod support;

use std::os::unix::fs::chown;
use std::process::Command;

use e2e::kit::{self, Etc, Output, write};
use support::{Tree, text};

const MESSAGE: &str = "Subject: hello\n\nbody\n";

fn tool(tree: &Tree, name: &str, args: &[&str]) -> Output {
    let mut command = tree.command(name);
    command.current_dir(tree.at("home")).args(args);
    command.env("NEWSENDER", "owner@x.y").env("DTLINE", "Delivered-To: joe@x.y\n");
    command.env("RPLINE", "Return-Path: <s@t>\n").env("UFLINE", "From s@t now\n");
    tree.with_message(command, MESSAGE)
}

#[test]
fn forward_sends_on() {
    let tree = Tree::new();
    let out = tool(&tree, "forward", &["a@b", "c@d"]).ok();
    assert!(out.stdout.starts_with("qp "));
    let (message, envelope) = tree.sent().remove(0);
    assert_eq!(envelope, "Fowner@x.y\0Ta@b\0Tc@d\0\0");
    assert_eq!(message, format!("Delivered-To: joe@x.y\n{MESSAGE}"));
    tree.queue_answers(31);
    assert_eq!(tool(&tree, "forward", &["a@b"]).code, 100);
    tree.queue_answers(71);
    assert_eq!(tool(&tree, "forward", &["a@b"]).code, 111);
    assert_eq!(tool(&tree, "forward", &[]).code, 100);
    let mut command = tree.command("forward");
    assert_eq!(
        tree.with_message(
            {
                command.arg("a@b");
                command
            },
            MESSAGE
        )
        .code,
        100,
        "no variables"
    );
}

#[test]
fn fix_28_condredirect_takes_options_of_the_program() {
    let tree = Tree::new();
    let run = |args: &[&str]| tool(&tree, "condredirect", args).code;
    assert_eq!(run(&["a@b", "grep", "-q", "-e", "hello"]), 99);
    assert_eq!(tree.sent().len(), 1);
    assert_eq!(run(&["a@b", "sh", "-c", "exit 1"]), 0);
    assert_eq!(run(&["a@b", "sh", "-c", "exit 100"]), 100);
    assert_eq!(run(&["a@b", "sh", "-c", "exit 111"]), 111);
    assert_eq!(run(&["a@b", "sh", "-c", "kill -9 $$"]), 111);
    assert_eq!(run(&["a@b", "/nonexistent"]), 111);
    assert_eq!(tree.sent().len(), 1);
    assert_eq!(run(&["-r", "a@b", "sh", "-c", "exit 0"]), 0);
    assert_eq!(run(&["-r", "a@b", "sh", "-c", "exit 3"]), 99);
    assert_eq!(run(&["a@b"]), 100);
}

#[test]
fn bouncesaying_except_and_preline() {
    let tree = Tree::new();
    let out = tool(&tree, "bouncesaying", &["go away"]);
    assert_eq!((out.code, out.stdout.as_str()), (100, "go away\n"));
    assert_eq!(tool(&tree, "bouncesaying", &["x", "grep", "-q", "hello"]).code, 100);
    assert_eq!(tool(&tree, "bouncesaying", &["x", "grep", "-q", "absent"]).code, 0);
    assert_eq!(tool(&tree, "bouncesaying", &["x", "sh", "-c", "exit 111"]).code, 111);
    assert_eq!(tool(&tree, "except", &["true"]).code, 100);
    assert_eq!(tool(&tree, "except", &["false"]).code, 0);
    assert_eq!(tool(&tree, "except", &["sh", "-c", "exit 111"]).code, 111);
    let out = tool(&tree, "preline", &["cat"]).ok();
    assert_eq!(out.stdout, format!("From s@t now\nReturn-Path: <s@t>\nDelivered-To: joe@x.y\n{MESSAGE}"));
    assert_eq!(
        tool(&tree, "preline", &["-f", "-d", "cat"]).ok().stdout,
        format!("Return-Path: <s@t>\n{MESSAGE}")
    );
    assert_eq!(tool(&tree, "preline", &["sh", "-c", "exit 100"]).code, 100);
}

#[test]
fn newu_compiles_or_leaves_the_old() {
    let tree = Tree::new();
    write(tree.at("users/assign"), "+x.y-:x.y:5:6:/d:-::\n.\n");
    let mut newu = Command::new(tree.at("usr/sbin/qmail-newu"));
    kit::run(newu.env_clear().env("ASSIGNDIR", tree.at("users"))).ok();
    let before = std::fs::read(tree.at("users/cdb")).unwrap();
    write(tree.at("users/assign"), "+x.y-:x.y:5:6:/d:-::\n");
    let out = kit::run(&mut newu);
    assert!(out.code == 111 && out.stderr.contains("assign: line 2: "), "{out:?}");
    assert_eq!(std::fs::read(tree.at("users/cdb")).unwrap(), before);
    let other = tree.at("elsewhere");
    let out = kit::run(Command::new(tree.at("usr/sbin/qmail-newu")).arg(&other));
    assert!(out.code == 111 && out.stderr.contains("elsewhere/assign"), "{out:?}");
}

#[test]
fn getpw_finds_system_users_and_falls_to_alias() {
    let tree = Tree::new();
    let etc = Etc::with_mail_users();
    // A home that the user owns, in a view of its own: the machine's users are not ours to use.
    let home = tree.at("home/qmaill");
    std::fs::create_dir_all(&home).unwrap();
    kit::set_mode(&tree.at("home"), 0o755);
    chown(&home, Some(etc.uid("qmaill")), None).unwrap();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let ids = [("alias", "nofiles"), ("qmaill", "nofiles"), ("qmailp", "nofiles")];
    let lines: Vec<String> = ids
        .iter()
        .map(|(u, g)| {
            format!("{u}:x:{}:{}::{}/{u}:/bin/sh\n", etc.uid(u), etc.gid(g), tree.at("home").display())
        })
        .collect();
    let uid = etc.uid("qmaill");
    let (alias, gid) = (etc.uid("alias"), etc.gid("nofiles"));
    let etc = etc.file("passwd", format!("{passwd}{}", lines.concat()));
    let ask = |local: &str| {
        let mut command = etc.command(tree.at("usr/sbin/qmail-getpw"));
        kit::run(command.arg(local)).ok().stdout.replace('\0', "|")
    };
    let mine = format!("qmaill|{uid}|{gid}|{}|", home.display());
    assert_eq!(ask("QMaill"), format!("{mine}||"));
    assert_eq!(ask("qmaill-Ext-x"), format!("{mine}-|Ext-x|"));
    let alias = format!("alias|{alias}|{gid}|{}|-|", tree.at("home/alias").display());
    assert_eq!(ask("nobody-here"), format!("{alias}nobody-here|"));
    assert_eq!(ask("root"), format!("{alias}root|"), "never root");
    assert_eq!(ask("qmailp"), format!("{alias}qmailp|"), "no home, no mail");
    // Without alias there is no answer.
    let out = kit::run(
        etc.file("passwd", "root:x:0:0::/:/bin/sh\n").command(tree.at("usr/sbin/qmail-getpw")).arg("x"),
    );
    assert_eq!(out.code, 116);
}

#[test]
fn every_program_explains_itself() {
    let tree = Tree::new();
    let dirs = [tree.at("usr/sbin"), tree.at("usr/bin")];
    for path in dirs.iter().flat_map(support::files) {
        if path.ends_with("qmail-queue") {
            continue;
        }
        for option in ["--help", "--version", "--man", "--completions"] {
            let out = kit::run(Command::new(&path).arg(option)).ok();
            assert!(!out.stdout.is_empty(), "{} {option}", path.display());
        }
    }
    let listed =
        kit::run(Command::new(tree.at("usr/libexec/indimail/qmail-deliver")).arg("--list-programs")).ok();
    assert_eq!(listed.stdout.lines().count(), 10);
    assert!(!text(tree.at("usr/sbin/qmail-queue")).is_empty());
}
