//! vdelivermail as it runs: real executable, real Maildirs, a user that owns only its domain.

mod support;

use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use e2e::kit::{self, Output};
use lookup::frame;
use lookup::mail::{Mailbox, Quota, Reply, Request, handed};
use support::{Tree, USER, files, mode, only_message, text};
use unix::{Gid, Uid};

const MESSAGE: &str = "Subject: hello\n\nbody\n";
const BOUNCE: &str = "bounce-no-mailbox";

fn joe(tree: &Tree) -> Mailbox {
    Mailbox {
        address: b"joe@x.y".to_vec(),
        uid: Uid::from_raw(USER),
        gid: Gid::from_raw(USER),
        home: tree.at("home/joe").as_os_str().as_bytes().to_vec(),
        gecos: b"Joe".to_vec(),
        quota: Quota::default(),
        flags: 0,
        active: true,
        alias_only: false,
        aliases: Vec::new(),
    }
}

fn with_aliases(tree: &Tree, aliases: &[&str]) -> Mailbox {
    Mailbox { aliases: aliases.iter().map(|a| a.as_bytes().to_vec()).collect(), ..joe(tree) }
}

/// Delivers to EXT@x.y with this answer of inlookup handed on and these further variables.
fn deliver(
    tree: &Tree,
    answer: Option<&Mailbox>,
    instruction: &str,
    vars: &[(&str, &str)],
    message: &str,
) -> Output {
    let mut command = tree.command("vdelivermail");
    command.current_dir(tree.at("home")).args(["", instruction]);
    command.env(handed::VARIABLE, std::ffi::OsStr::from_bytes(&handed::hand(b"joe@x.y", answer).unwrap()));
    base(tree, &mut command);
    command.envs(vars.iter().copied());
    tree.with_message(command, message)
}

fn base(tree: &Tree, command: &mut std::process::Command) {
    command
        .env("EXT", "Joe")
        .env("HOST", "X.Y")
        .env("SENDER", "s@t")
        .env("RPLINE", "Return-Path: <s@t>\n")
        .env("DTLINE", "Delivered-To: x.y-joe@x.y\n")
        .env("INLOOKUP_SOCKET", tree.at("inlookup.sock"));
}

#[test]
fn home_and_maildir_are_made_and_the_message_carries_its_trace() {
    let tree = Tree::new();
    deliver(&tree, Some(&joe(&tree)), BOUNCE, &[("QQEH", "X-Extra: 1")], MESSAGE).ok();
    let maildir = tree.at("home/joe/Maildir");
    for path in ["", "Maildir", "Maildir/new", "Maildir/cur", "Maildir/tmp"] {
        let meta = std::fs::metadata(tree.at("home/joe").join(path)).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (USER, USER, 0o700), "{path}");
    }
    let message = only_message(&maildir);
    let lines: Vec<&str> = message.lines().collect();
    assert_eq!(
        lines[..4],
        ["Return-Path: <s@t>", "Delivered-To: x.y-joe@x.y", "X-Extra: 1", "X-Filter: None"]
    );
    assert!(lines[4].starts_with("Received: indimail-virtual "), "{message}");
    assert!(lines[5].starts_with(&format!(" (invoked by uid {USER}); ")), "{message}");
    assert!(message.ends_with(&format!("\n{MESSAGE}")));
    let file = &files(maildir.join("new"))[0];
    assert_eq!(mode(file), 0o600);
    assert!(file.to_str().unwrap().ends_with(&format!(",S={}", message.len())));
    assert!(!maildir.join("maildirsize").exists(), "no quota, no file");
}

#[test]
fn a_silent_inlookup_is_temporary_whatever_the_operand() {
    let tree = Tree::new();
    for instruction in [BOUNCE, "delete", "/x/Maildir/", "a@b"] {
        let mut command = tree.command("vdelivermail");
        command.current_dir(tree.at("home")).args(["", instruction]);
        base(&tree, &mut command);
        let out = tree.with_message(command, MESSAGE);
        assert_eq!(out.code, 111, "{instruction}: {out:?}");
    }
    assert!(tree.sent().is_empty());
}

#[test]
fn the_operand_decides_about_unknown_accounts() {
    let tree = Tree::new();
    let out = deliver(&tree, None, BOUNCE, &[], MESSAGE);
    assert_eq!(
        (out.code, out.stdout.trim()),
        (100, "no account joe@x.y here by that name. indimail (#5.1.5)")
    );
    assert_eq!(deliver(&tree, None, BOUNCE, &[("DISCARD_BOUNCE", "")], MESSAGE).code, 0);
    assert_eq!(deliver(&tree, None, "delete", &[], MESSAGE).code, 0);
    let other = tree.maildir("home/other");
    deliver(&tree, None, other.to_str().unwrap(), &[], MESSAGE).ok();
    assert!(only_message(&other).contains("Delivered-To: x.y-joe@x.y\n"));
    deliver(&tree, None, "catch@all.org", &[], MESSAGE).ok();
    assert_eq!(tree.sent()[0].1, "Fs@t\0Tcatch@all.org\0\0");
    assert_eq!(deliver(&tree, None, "nonsense", &[], MESSAGE).code, 100);
}

#[test]
fn inactive_and_filtered_accounts_follow_the_operand_too() {
    let tree = Tree::new();
    let off = Mailbox { active: false, ..joe(&tree) };
    let out = deliver(&tree, Some(&off), BOUNCE, &[], MESSAGE);
    assert!(out.code == 100 && out.stdout.contains("is inactive. indimail (#5.1.3)"), "{out:?}");
    assert_eq!(deliver(&tree, Some(&off), "delete", &[], MESSAGE).code, 0);
    deliver(&tree, Some(&off), BOUNCE, &[("ALLOW_INACTIVE", "")], MESSAGE).ok();
    only_message(tree.at("home/joe/Maildir"));
    assert_eq!(deliver(&tree, Some(&joe(&tree)), BOUNCE, &[("BOUNCE_MAIL", "1")], MESSAGE).code, 100);
}

#[test]
fn aliases_take_the_place_of_the_maildir() {
    let tree = Tree::new();
    let archive = tree.maildir("home/archive");
    let path = format!("{}/", archive.display());
    let account = with_aliases(&tree, &["&one@a.b", "two@a.b", &path, "|cat >got; env >vars"]);
    deliver(&tree, Some(&account), BOUNCE, &[], MESSAGE).ok();
    assert!(!tree.at("home/joe/Maildir").exists());
    only_message(&archive);
    let sent = tree.sent();
    assert_eq!((sent.len(), sent[0].1.as_str()), (1, "Fs@t\0Tone@a.b\0Ttwo@a.b\0\0"));
    assert!(sent[0].0.starts_with("Delivered-To: x.y-joe@x.y\nX-Forwarded-To: one@a.b\n"), "{}", sent[0].0);
    let got = text(tree.at("home/got"));
    assert!(got.starts_with("X-Forwarded-To: joe@x.y\nX-Forwarded-For: joe@x.y\nX-Filter: None\nReceived: "));
    assert!(got.ends_with(MESSAGE));
    let vars = text(tree.at("home/vars"));
    assert!(
        !vars.contains("RPLINE=") && !vars.contains("DTLINE=") && !vars.contains("INLOOKUP_ANSWER"),
        "{vars}"
    );
    deliver(&tree, Some(&account), BOUNCE, &[("NOALIAS", "")], MESSAGE).ok();
    only_message(tree.at("home/joe/Maildir"));
}

#[test]
fn the_own_address_among_the_aliases_is_the_own_maildir() {
    let tree = Tree::new();
    deliver(&tree, Some(&with_aliases(&tree, &["&JOE@x.y", "&copy@a.b"])), BOUNCE, &[], MESSAGE).ok();
    only_message(tree.at("home/joe/Maildir"));
    assert_eq!(tree.sent()[0].1, "Fs@t\0Tcopy@a.b\0\0");
    let alias = Mailbox { alias_only: true, home: Vec::new(), ..with_aliases(&tree, &["joe@x.y"]) };
    assert_eq!(deliver(&tree, Some(&alias), BOUNCE, &[], MESSAGE).code, 100, "an alias of itself");
}

#[test]
fn must_all_lines_are_tried_and_a_failed_one_is_never_success() {
    let tree = Tree::new();
    for (lines, code) in [
        (["|exit 0", "&a@b", "|touch last"], 0),
        (["|exit 100", "&a@b", "|touch last"], 100),
        (["|exit 111", "&a@b", "|touch last"], 111),
        (["|exit 100", "|exit 1", "|touch last"], 111),
        (["/nonexistent/Maildir/", "&a@b", "|touch last"], 111),
    ] {
        let _ = std::fs::remove_file(tree.at("home/last"));
        let out = deliver(&tree, Some(&with_aliases(&tree, &lines)), BOUNCE, &[], MESSAGE);
        assert_eq!(out.code, code, "{lines:?}");
        assert!(tree.at("home/last").exists(), "{lines:?}");
    }
    let stopped = with_aliases(&tree, &["|exit 99", "|touch never"]);
    deliver(&tree, Some(&stopped), BOUNCE, &[], MESSAGE).ok();
    assert!(!tree.at("home/never").exists());
}

#[test]
fn the_homes_qmail_file_is_obeyed() {
    let tree = Tree::new();
    tree.maildir("home/joe");
    tree.home_file("joe/.qmail", "", 0o600);
    deliver(&tree, Some(&joe(&tree)), BOUNCE, &[], MESSAGE).ok();
    assert!(!tree.at("home/joe/Maildir").exists(), "an empty file drops mail");
    tree.home_file("joe/.qmail", "./Maildir/\n|touch ran\n", 0o600);
    deliver(&tree, Some(&joe(&tree)), BOUNCE, &[], MESSAGE).ok();
    only_message(tree.at("home/joe/Maildir"));
    assert!(tree.at("home/ran").exists());
    tree.home_file("joe/.qmail", "&a@b\n", 0o602);
    assert_eq!(deliver(&tree, Some(&joe(&tree)), BOUNCE, &[], MESSAGE).code, 111);
}

#[test]
fn quota_full_held_small_and_counted() {
    let tree = Tree::new();
    let account = Mailbox { quota: Quota { bytes: Some(4000), messages: Some(3) }, ..joe(&tree) };
    let big = format!("{MESSAGE}{}\n", "x".repeat(2000));
    deliver(&tree, Some(&account), BOUNCE, &[], &big).ok();
    let maildir = tree.at("home/joe/Maildir");
    let first = only_message(&maildir);
    assert_eq!(text(maildir.join("maildirsize")), format!("4000S,3C\n0 0\n{} 1\n", first.len()));
    assert_eq!(mode(maildir.join("maildirsize")), 0o600);

    let told = tree.at("told");
    kit::write_program(&told, "#!/bin/sh\nprintf '%s ' $# \"$4\" \"$5\" >\"$OUT\"\n");
    let out_file = tree.at("home/told").display().to_string();
    let vars = [("OVERQUOTA_CMD", told.to_str().unwrap()), ("OUT", out_file.as_str())];
    let out = deliver(&tree, Some(&account), BOUNCE, &vars, &big);
    assert!(out.code == 100 && out.stdout.contains("(#5.2.2)"), "{out:?}");
    assert_eq!(text(tree.at("home/told")), "6 1 4000S,3C ");

    tree.home_file("joe/Maildir/holdoverquota", "", 0o600);
    assert_eq!(deliver(&tree, Some(&account), BOUNCE, &[], &big).code, 111, "mail waits");
    std::fs::remove_file(maildir.join("holdoverquota")).unwrap();

    deliver(&tree, Some(&account), BOUNCE, &[("OVERQUOTA_MAILSIZE", "9000")], &big).ok();
    assert_eq!(files(maildir.join("new")).len(), 2, "a small message passes");

    // Room again, seen before no is said.
    files(maildir.join("new")).iter().for_each(|f| std::fs::remove_file(f).unwrap());
    deliver(&tree, Some(&account), BOUNCE, &[], &big).ok();
    assert_eq!(files(maildir.join("tmp")).len(), 0);
}

#[test]
fn must_a_flagged_account_takes_mail_again_when_there_is_room() {
    let tree = Tree::new();
    let flagged =
        |bytes| Mailbox { flags: 0x10, quota: Quota { bytes: Some(bytes), messages: None }, ..joe(&tree) };
    assert_eq!(deliver(&tree, Some(&flagged(1_000_000)), BOUNCE, &[], MESSAGE).code, 100);
    deliver(&tree, Some(&flagged(2_000_000)), BOUNCE, &[], MESSAGE).ok();
    only_message(tree.at("home/joe/Maildir"));
}

#[test]
fn folders_groups_empty_messages_and_loops() {
    let tree = Tree::new();
    deliver(&tree, Some(&joe(&tree)), BOUNCE, &[("MAILDIRFOLDER", "Spam")], MESSAGE).ok();
    only_message(tree.at("home/joe/Maildir/.Spam"));
    assert!(tree.at("home/joe/Maildir/.Spam/maildirfolder").exists());
    assert_eq!(deliver(&tree, Some(&joe(&tree)), BOUNCE, &[("MAILDIRFOLDER", "../x")], MESSAGE).code, 111);
    let group = Mailbox { gecos: b"MailGroup all".to_vec(), ..joe(&tree) };
    deliver(&tree, Some(&group), BOUNCE, &[], MESSAGE).ok();
    deliver(&tree, None, BOUNCE, &[], "").ok();
    assert_eq!(files(tree.at("home/joe/Maildir/new")).len(), 0);
    let looped = format!("Delivered-To: x.y-joe@x.y\n{MESSAGE}");
    let out = deliver(&tree, Some(&joe(&tree)), BOUNCE, &[], &looped);
    assert!(out.code == 100 && out.stdout.contains("(#5.4.6)"), "{out:?}");
}

#[test]
fn a_mailbox_of_another_user_or_one_being_locked_waits() {
    let tree = Tree::new();
    let hers = Mailbox { uid: Uid::from_raw(USER + 1), ..joe(&tree) };
    assert_eq!(deliver(&tree, Some(&hers), BOUNCE, &[], MESSAGE).code, 111);
    let maildir = tree.maildir("home/joe/Maildir");
    kit::set_mode(&maildir, 0o1700);
    assert_eq!(deliver(&tree, Some(&joe(&tree)), BOUNCE, &[], MESSAGE).code, 111);
}

#[test]
fn wrong_calls_are_permanent() {
    let tree = Tree::new();
    let mut command = tree.command("vdelivermail");
    command.args(["", BOUNCE]).env("EXT", "joe").env("HOST", "x.y");
    let out = tree.with_message(command, MESSAGE);
    assert!(out.code == 100 && out.stderr.contains("SENDER"), "{out:?}");
    let out = deliver(&tree, None, BOUNCE, &[("EXT", "\"joe")], MESSAGE);
    assert_eq!(out.code, 100, "{out:?}");
}

#[test]
fn with_the_operands_of_qmail_local_it_works_in_the_accounts_home() {
    let tree = Tree::new();
    tree.give("home/joe");
    let account = with_aliases(&tree, &["joe@x.y", "|pwd >where; echo \"$DTLINE$EXT\" >vars"]);
    let mut command = tree.command("vdelivermail");
    command.env(
        handed::VARIABLE,
        std::ffi::OsStr::from_bytes(&handed::hand(b"joe@x.y", Some(&account)).unwrap()),
    );
    command.current_dir("/").args([
        "--",
        "x.y",
        "/nonexistent",
        "x.y-Joe",
        "-",
        "Joe",
        "x.y",
        "s@t",
        "./Mailbox",
        "X-E: 1\n",
    ]);
    assert_eq!(tree.with_message(command, MESSAGE).ok().stdout, "did 0+0+1\n");
    assert_eq!(text(tree.at("home/joe/where")).trim(), tree.at("home/joe").to_str().unwrap());
    assert_eq!(text(tree.at("home/joe/vars")), "Joe\n", "DTLINE is for mail programs");
    let message = only_message(tree.at("home/joe/Maildir"));
    assert!(message.starts_with("Return-Path: <s@t>\nDelivered-To: x.y-Joe@x.y\nX-E: 1\n"), "{message}");
}

/// The line of a virtual domain, run by qmail-local in a copy of itself and, given a TZ, as a program.
#[test]
fn the_line_of_a_domain_ends_alike_with_and_without_a_program_start() {
    for (tz, comm) in [(None, "qmail-local\n"), (Some("UTC"), "vdelivermail\n")] {
        let outcome = |answer: &dyn Fn(&Tree) -> Option<Mailbox>| {
            let tree = Tree::new();
            tree.give("home/joe");
            let line = format!("| {} '' {BOUNCE}\n", tree.at("usr/sbin/vdelivermail").display());
            tree.home_file(".qmail-joe", &line, 0o600);
            let answer = handed::hand(b"joe@x.y", answer(&tree).as_ref()).unwrap();
            let output = tree.local_with("joe", MESSAGE, |command| {
                command.env(handed::VARIABLE, std::ffi::OsStr::from_bytes(&answer));
                command.envs(tz.map(|tz| ("TZ", tz)));
            });
            (tree, output)
        };
        let (tree, output) = outcome(&|tree| Some(joe(tree)));
        assert_eq!(output.ok().stdout, "did 0+0+1\n", "{tz:?}");
        let message = only_message(tree.at("home/joe/Maildir"));
        assert!(message.starts_with("Return-Path: <s@t>\nDelivered-To: joe-joe@x.y\n"), "{message}");
        assert!(message.ends_with(MESSAGE), "{message}");

        let (_tree, output) = outcome(&|_| None);
        assert_eq!(output.code, 100, "{tz:?}");
        assert!(output.stdout.contains("#5.1.5"), "{output:?}");

        let aliases = ["|cat /proc/$PPID/comm >comm; ps -o pid=,pgid= $PPID | awk '{print $1-$2}' >>comm"];
        let (tree, output) = outcome(&|tree| Some(with_aliases(tree, &aliases)));
        assert_eq!(output.ok().code, 0);
        assert_eq!(text(tree.at("home/comm")), format!("{comm}0\n"), "{tz:?}");

        let (_tree, output) = outcome(&|tree| Some(with_aliases(tree, &["|kill -9 $PPID"])));
        assert_eq!(output.code, 111, "{tz:?}");
    }
}

/// A daemon that knows joe@x.y in the domain x.y.
fn inlookup(path: &Path, joe: Mailbox) {
    let listener = UnixListener::bind(path).unwrap();
    kit::set_mode(path, 0o777);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut seen, mut buf) = (Vec::new(), [0u8; 4096]);
            loop {
                while let Ok(Some((request, used))) = frame::split(&seen, frame::MAX_REQUEST) {
                    let reply = match Request::decode(&request).unwrap() {
                        Request::Mailbox(b"joe@x.y") => Reply::Mailbox(joe.clone()),
                        Request::Mailbox(b"down@x.y") => Reply::Temporary,
                        Request::Domain(b"x.y") => Reply::Domain(b"x.y".to_vec()),
                        _ => Reply::Absent,
                    };
                    let mut out = Vec::new();
                    reply.encode(&mut out).unwrap();
                    seen.drain(..used);
                    if stream.write_all(&out).is_err() {
                        break;
                    }
                }
                match stream.read(&mut buf) {
                    Ok(0) | Err(_) => break,
                    Ok(n) => seen.extend_from_slice(&buf[..n]),
                }
            }
        }
    });
}

#[test]
fn without_a_handed_answer_inlookup_is_asked() {
    let tree = Tree::new();
    inlookup(&tree.at("inlookup.sock"), joe(&tree));
    let ask = |ext: &str, host: &str, vars: &[(&str, &str)]| {
        let mut command = tree.command("vdelivermail");
        command.current_dir(tree.at("home")).args(["", BOUNCE]);
        base(&tree, &mut command);
        command.env("EXT", ext).env("HOST", host).envs(vars.iter().copied());
        tree.with_message(command, MESSAGE)
    };
    ask("joe", "x.y", &[]).ok();
    assert_eq!(ask("joe-list", "x.y", &[]).code, 100);
    ask("joe-list", "x.y", &[("QMAIL_EXT", "")]).ok();
    assert_eq!(files(tree.at("home/joe/Maildir/new")).len(), 2);
    let out = ask("joe", "else.where", &[]);
    assert!(out.code == 100 && out.stdout.contains("(#5.1.2)"), "{out:?}");
    assert_eq!(ask("down", "x.y", &[]).code, 111);
}
