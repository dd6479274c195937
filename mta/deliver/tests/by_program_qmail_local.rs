//! qmail-local as it runs: real executable, real files, a user that owns only its home.

mod support;

use std::os::unix::fs::MetadataExt;
use std::process::Command;

use e2e::kit::{self, Running, until};
use support::{Tree, USER, files, mode, only_message, text};

const MESSAGE: &str = "Subject: hello\n\nFrom here\nbody\n";

#[test]
fn defaultdelivery_when_there_is_no_file_or_an_empty_one() {
    let tree = Tree::new();
    let out = tree.local("", MESSAGE).ok();
    assert_eq!(out.stdout, "did 1+0+0\n");
    let mbox = text(tree.at("home/Mailbox"));
    assert!(mbox.starts_with("From s@t ") && mbox.contains("\n>From here\nbody\n\n"), "{mbox}");
    assert!(mbox.contains("\nReturn-Path: <s@t>\nDelivered-To: joe@x.y\nSubject: hello\n"), "{mbox}");
    assert_eq!(mode(tree.at("home/Mailbox")), 0o600);
    tree.home_file(".qmail-list", "", 0o600);
    tree.local("list", MESSAGE).ok();
    assert!(text(tree.at("home/Mailbox")).contains("Delivered-To: joe-list@x.y\n"));
}

#[test]
fn every_kind_of_line_acts_in_order_and_forwards_go_last() {
    let tree = Tree::new();
    tree.maildir("home/Maildir");
    tree.home_file(
        ".qmail-default",
        "# all\n&one@a.b\n./Maildir/\n|cat >got; printf '%s|%s|%s|%s' \"$DEFAULT\" \"$EXT2\" \"$HOST2\" \"$QQEH\" >vars\ntwo@a.b\n./box\n",
        0o600,
    );
    let out = tree.local("Foo-Bar", MESSAGE).ok();
    assert!(out.stdout.ends_with("did 2+2+1\n") && out.stdout.starts_with("qp "), "{}", out.stdout);
    let delivered = only_message(tree.at("home/Maildir"));
    assert_eq!(delivered, format!("Return-Path: <s@t>\nDelivered-To: joe-Foo-Bar@x.y\n{MESSAGE}"));
    assert_eq!(text(tree.at("home/got")), MESSAGE);
    assert_eq!(text(tree.at("home/vars")), "Foo-Bar|Bar|x|");
    let sent = tree.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].1, "Fs@t\0Tone@a.b\0Ttwo@a.b\0\0");
    assert_eq!(
        sent[0].0,
        format!(
            "Delivered-To: joe-Foo-Bar@x.y\nX-Forwarded-To: one@a.b\nX-Forwarded-To: two@a.b\n\
             X-Forwarded-For: joe-Foo-Bar@x.y\n{MESSAGE}"
        )
    );
}

#[test]
fn exit_codes_of_programs_decide() {
    let tree = Tree::new();
    for (line, code, mailbox) in [
        ("exit 0", 0, true),
        ("exit 99", 0, false),
        ("exit 100", 100, false),
        ("exit 64", 100, false),
        ("exit 112", 100, false),
        ("exit 111", 111, false),
        ("exit 1", 111, false),
        ("kill -9 $$", 111, false),
        ("/nonexistent/program", 111, false),
    ] {
        tree.home_file(".qmail-p", &format!("|{line}\n./box\n"), 0o600);
        let _ = std::fs::remove_file(tree.at("home/box"));
        assert_eq!(tree.local("p", MESSAGE).code, code, "{line}");
        assert_eq!(tree.at("home/box").exists(), mailbox, "{line}");
    }
}

#[test]
fn the_first_line_a_failing_program_prints_is_the_text() {
    let tree = Tree::new();
    tree.home_file(".qmail-p", "|echo not today; exit 100\n", 0o600);
    assert_eq!(tree.local("p", MESSAGE).stdout.lines().next(), Some("not today"));
    tree.home_file(".qmail-p", "|kill -9 $$\n", 0o600);
    let killed = "a program was killed by signal 9 (#4.3.0)";
    assert_eq!(tree.local("p", MESSAGE).stdout.lines().next(), Some(killed));
}

#[test]
fn answers_of_the_queue_decide_about_forwards() {
    let tree = Tree::new();
    tree.home_file(".qmail-f", "&a@b\n", 0o600);
    for (answer, code) in [(0, 0), (31, 100), (53, 111), (99, 111)] {
        tree.queue_answers(answer);
        assert_eq!(tree.local("f", MESSAGE).code, code, "{answer}");
    }
}

#[test]
fn files_that_are_not_obeyed() {
    let tree = Tree::new();
    tree.home_file(".qmail-default", "./Mailbox\n", 0o600);
    tree.home_file(".qmail-open", "./Mailbox\n", 0o602);
    assert_eq!(tree.local("open", MESSAGE).code, 111);
    tree.home_file(".qmail-blank", "\n./Mailbox\n", 0o600);
    assert_eq!(tree.local("blank", MESSAGE).code, 111);
    tree.home_file(".qmail-x", "./Mailbox\n", 0o700);
    assert_eq!(tree.local("x", MESSAGE).code, 111);
    let path = tree.home_file(".qmail-secret", "./Mailbox\n", 0o600);
    std::os::unix::fs::chown(path, Some(0), Some(0)).unwrap();
    assert_eq!(tree.local("secret", MESSAGE).code, 111, "an unreadable file is not an absent one");
    assert!(!tree.at("home/Mailbox").exists());
    tree.home_file(".qmail-fine", "&a@b\n", 0o700);
    assert_eq!(tree.local("fine", MESSAGE).code, 0, "forwards are allowed with the execute bit");
}

#[test]
fn nobody_by_that_name() {
    let tree = Tree::new();
    let out = tree.local("nobody", MESSAGE);
    assert_eq!(out.code, 100);
    assert!(out.stdout.contains("(#5.1.1)"), "{}", out.stdout);
}

#[test]
fn homes_that_cannot_be_used_are_temporary() {
    let tree = Tree::new();
    for bad in [0o702, 0o1700] {
        kit::set_mode(&tree.at("home"), bad);
        assert_eq!(tree.local("", MESSAGE).code, 111, "{bad:o}");
    }
    std::fs::remove_dir_all(tree.at("home")).unwrap();
    assert_eq!(tree.local("", MESSAGE).code, 111);
}

#[test]
fn fix_48_the_mask_of_untrusted_bits_is_a_control_file() {
    let tree = Tree::new();
    kit::set_mode(&tree.at("home"), 0o720);
    tree.local("", MESSAGE).ok();
    kit::write(tree.at("control/conf-patrn"), "022\n");
    assert_eq!(tree.local("", MESSAGE).code, 111);
}

#[test]
fn fix_18_sanitize_env_runs_nothing_of_the_message() {
    let tree = Tree::new();
    tree.home_file(".qmail-p", "|env >vars\n", 0o600);
    let script =
        format!("#!/bin/sh\ntouch {0}/home/owned\n\ntouch {0}/home/owned\n", tree.root.path().display());
    tree.local_with("p", &script, |c| {
        c.env("SANITIZE_ENV", "KEPT").env("KEPT", "1").env("DROPPED", "1").env("MESSID", "1/2");
    })
    .ok();
    let vars = text(tree.at("home/vars"));
    assert!(
        vars.contains("KEPT=1\n") && vars.contains("MESSID=1/2\n") && !vars.contains("DROPPED"),
        "{vars}"
    );
    assert!(!tree.at("home/owned").exists());
}

#[test]
fn strange_addresses_never_become_shell_text() {
    let tree = Tree::new();
    tree.home_file(".qmail-default", "|printf '%s\\n%s\\n' \"$SENDER\" \"$EXT\" >vars\n./box\n", 0o600);
    let evil = "a$(touch pwned)`touch pwned`;touch pwned\n|touch pwned\n'\"";
    let mut command = tree.command("qmail-local");
    command.args(["--", "joe"]).arg(tree.at("home"));
    command.args([format!("joe-{evil}"), "-".into(), evil.into(), "x.y".into(), format!("{evil}@z")]);
    command.args(["./Mailbox", ""]);
    tree.with_message(command, MESSAGE).ok();
    assert!(!tree.at("home/pwned").exists());
    assert_eq!(text(tree.at("home/vars")), format!("{evil}@z\n{evil}\n"));
    // And they stay on one line in the header of the mailbox.
    let mbox = text(tree.at("home/box"));
    assert_eq!(
        mbox.lines().filter(|l| l.starts_with("Delivered-To: ") || l.starts_with("Return-Path: ")).count(),
        2
    );
    assert!(!mbox.lines().any(|l| l.starts_with("|touch")), "{mbox}");
}

#[test]
fn a_message_that_was_here_is_looping() {
    let tree = Tree::new();
    let looped = format!("Delivered-To: joe@x.y\n{MESSAGE}");
    let out = tree.local("", &looped);
    assert!(out.code == 100 && out.stdout.contains("(#5.4.6)"), "{out:?}");
    kit::write(tree.at("control/maxdeliveredto"), "1\n");
    tree.local("", &looped).ok();
    kit::write(tree.at("control/maxdeliveredto"), "-1\n");
    tree.local("", &format!("Delivered-To: joe@x.y\nDelivered-To: joe@x.y\n{MESSAGE}")).ok();
    // A mention in the body is no loop.
    kit::write(tree.at("control/maxdeliveredto"), "0\n");
    tree.local("", &format!("{MESSAGE}Delivered-To: joe@x.y\n")).ok();
}

#[test]
fn owners_get_the_bounces_of_forwards() {
    let tree = Tree::new();
    tree.home_file(".qmail-l", "&a@b\n", 0o600);
    tree.home_file(".qmail-l-owner", "./Mailbox\n", 0o600);
    tree.local("l", MESSAGE).ok();
    assert_eq!(tree.sent()[0].1, "Fjoe-l-owner@x.y\0Ta@b\0\0");
}

#[test]
fn local_senders_only_where_asked_for() {
    let tree = Tree::new();
    kit::write(tree.at("control/localdomains"), "in.side\n");
    tree.home_file(".localdomains", "", 0o600);
    assert_eq!(tree.local("", MESSAGE).code, 100);
    kit::write(tree.at("control/localdomains"), "T\n");
    tree.local("", MESSAGE).ok();
}

#[test]
fn n_prints_and_does_nothing() {
    let tree = Tree::new();
    tree.home_file(".qmail-n", "./Maildir/\n|touch done\n./box\n&a@b\n", 0o600);
    let out = tree.local_with("n", MESSAGE, |c| {
        c.arg("-n");
    });
    assert_eq!(out.ok().stdout, "maildir ./Maildir/\nprogram touch done\nmbox ./box\nforward a@b\n");
    assert_eq!(files(tree.at("home")).len(), 1);
    assert!(tree.sent().is_empty());
}

#[test]
fn jumps_and_variables() {
    let tree = Tree::new();
    tree.give("home/vars");
    tree.home_file("vars/COLOUR", "blue\n", 0o600);
    tree.home_file(".qmail-j", "?skip exit 99\n|touch never\n:skip\n%vars\n|echo $COLOUR >out\n", 0o600);
    tree.local("j", MESSAGE).ok();
    assert!(!tree.at("home/never").exists());
    assert_eq!(text(tree.at("home/out")), "blue\n");
}

#[test]
fn wrong_number_of_operands_is_usage() {
    let tree = Tree::new();
    let mut command = tree.command("qmail-local");
    command.args(["--", "joe"]);
    assert_eq!(tree.with_message(command, MESSAGE).code, 100);
}

#[test]
fn root_never_delivers() {
    let tree = Tree::new();
    let mut command = Command::new(tree.at("usr/sbin/qmail-local"));
    command.env_clear().env("CONTROLDIR", tree.at("control"));
    command.args(["--", "root"]).arg(tree.at("home"));
    command.args(["root", "", "", "x.y", "s@t", "./Mailbox", ""]);
    assert_eq!(tree.with_message(command, MESSAGE).code, 111);
    assert!(!tree.at("home/Mailbox").exists());
}

#[test]
fn a_maildir_that_is_missing_or_not_ours_is_temporary() {
    let tree = Tree::new();
    tree.home_file(".qmail-m", "./Nowhere/\n", 0o600);
    assert_eq!(tree.local("m", MESSAGE).code, 111);
}

#[test]
fn a_full_disk_is_temporary_and_leaves_nothing_in_new() {
    let tree = Tree::new();
    tree.home_file(".qmail-m", "./disk/Maildir/\n", 0o600);
    tree.give("home/disk");
    let big = format!("{MESSAGE}{}", "x".repeat(300_000));
    kit::write(tree.at("message"), &big);
    let disk = tree.at("home/disk").display().to_string();
    let script = format!(
        "set -e; mount -t tmpfs -o size=64k,uid={USER},gid={USER},mode=700 none {disk}\n\
         setpriv --reuid={USER} --regid={USER} --clear-groups mkdir -p {disk}/Maildir/new {disk}/Maildir/cur {disk}/Maildir/tmp\n\
         set +e; \"$@\" <{}; echo code $?; find {disk}/Maildir -type f",
        tree.at("message").display()
    );
    let local = tree.command("qmail-local");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "/bin/sh", "-c", &script, "sh"]);
    command.arg(local.get_program()).args(local.get_args());
    command.args(["--", "joe"]).arg(tree.at("home")).args(["joe-m", "-", "m", "x.y", "s@t", "./Mailbox", ""]);
    command.env("CONTROLDIR", tree.at("control"));
    let out = kit::run(&mut command);
    assert!(out.stdout.ends_with("code 111\n"), "{out:?}");
    assert!(out.stdout.contains("No space left"), "{out:?}");
}

#[test]
fn kill_9_in_the_middle_leaves_files_in_tmp_only() {
    let tree = Tree::new();
    let maildir = tree.maildir("home/Maildir");
    tree.home_file(".qmail-m", "./Maildir/\n", 0o600);
    // A message large enough to be caught at work; most of it is a hole.
    let path = tree.at("big");
    kit::write(&path, "Subject: x\n\n");
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(256 << 20).unwrap();
    let mut caught = 0;
    for _ in 0..20 {
        let mut command = tree.command("qmail-local");
        command.args(["--", "joe"]).arg(tree.at("home"));
        command.args(["joe-m", "-", "m", "x.y", "s@t", "./Mailbox", ""]);
        let mut running = Running::start(command.stdin(std::fs::File::open(&path).unwrap()));
        until(kit::PATIENCE, "delivery at work or done", || {
            !files(maildir.join("tmp")).is_empty() || running.ended().is_some()
        });
        drop(running);
        let size = std::fs::metadata(&path).unwrap().size();
        for done in files(maildir.join("new")) {
            assert!(std::fs::metadata(&done).unwrap().size() > size, "half a message in new");
            std::fs::remove_file(done).unwrap();
        }
        for left in files(maildir.join("tmp")) {
            caught += 1;
            std::fs::remove_file(left).unwrap();
        }
        if caught >= 3 {
            break;
        }
    }
    assert!(caught >= 3, "no delivery was caught at work");
}
