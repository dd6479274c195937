//! qmail-lspawn as it runs: as root with the mail users, and as an ordinary user.

mod support;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;

use e2e::kit::{self, Running};
use lookup::frame;
use lookup::mail::{Mailbox, Quota, Reply, Request as Question};
use mta_queue::spawn_protocol::Request;
use support::{Spawner, Tree, request};
use unix::{Gid, Signal, Uid};

const SHOW: &str = r#"echo "ids $(id -u):$(id -g):$(id -G)"; echo "args $*"; echo "messid $MESSID"; cat"#;

fn tree(local: &str) -> (Tree, String) {
    let tree = Tree::new();
    tree.program("qmail-local", local);
    tree.program("qmail-getpw", "exit 118");
    let message = tree.message(1, "the message\n", tree.etc.uid("qmailq"));
    tree.assign(
        "=joe:joe:4711:4712:/home/joe:::\n+joe-:joe:4711:4712:/home/joe:-::\n=toor:toor:0:0:/root:::\n",
    );
    (tree, message)
}

#[test]
fn a_delivery_runs_as_the_recipient_for_good() {
    let (tree, message) = tree(SHOW);
    let mut spawner = Spawner::start(lspawn(&tree));
    let request = Request { extra_header: b"X-E: 1\n".to_vec(), ..request(7, &message, "Joe-List@x.y") };
    let (letter, text) = spawner.deliver(&request);
    assert_eq!(letter, 'K', "{text}");
    assert_eq!(
        text,
        "ids 4711:4712:4712\nargs -- joe /home/joe Joe-List - List x.y s@t ./Mailbox X-E: 1\n\nmessid 0/1\nthe message\n"
    );
}

#[test]
fn root_and_foreign_files_are_refused() {
    let (tree, message) = tree(SHOW);
    let mut spawner = Spawner::start(lspawn(&tree));
    let (letter, text) = spawner.deliver(&request(0, &message, "toor@x.y"));
    assert!(letter == 'Z' && text.contains("root"), "{letter}{text}");
    let foreign = tree.message(2, "secret\n", 0);
    let (letter, text) = spawner.deliver(&request(0, &foreign, "joe@x.y"));
    assert!(letter == 'Z' && text.contains("#4.3.5"), "{letter}{text}");
    assert_eq!(spawner.deliver(&request(0, "../../../etc/passwd", "joe@x.y")).0, 'D');
    assert_eq!(spawner.deliver(&request(0, "0/99", "joe@x.y")).0, 'Z');
    assert_eq!(spawner.deliver(&request(0, &message, "joe")).0, 'D');
    assert_eq!(spawner.deliver(&request(500, &message, "joe@x.y")).0, 'Z');
    assert_eq!(spawner.deliver(&request(0, &message, "@x.y")).0, 'K');
    // It is all right after all that.
    assert_eq!(spawner.deliver(&request(0, &message, "joe@x.y")).0, 'K');
}

#[test]
fn exit_codes_and_crashes() {
    let (tree, message) = tree("echo out; case $6 in kill) kill -9 $$;; *) exit $6;; esac");
    let mut spawner = Spawner::start(lspawn(&tree));
    for (ext, wanted) in
        [("0", 'K'), ("100", 'D'), ("1", 'D'), ("111", 'Z'), ("75", 'Z'), ("kill", 'Z'), ("113", 'Z')]
    {
        let (letter, text) = spawner.deliver(&request(1, &message, &format!("joe-{ext}@x.y")));
        assert_eq!(letter, wanted, "{ext}");
        assert_eq!(text == "out\n", !matches!(ext, "kill" | "113"), "{ext}: {text}");
    }
}

#[test]
fn users_that_are_not_assigned_are_looked_for_as_qmailp() {
    let (tree, message) = tree(SHOW);
    let script = r#"case $1 in
        found-x) printf 'me\0%s\0%s\0/h\0-\0x\0' 4321 4322; id -u >$OUT/getpw;;
        garbage) printf 'me\0';;
        flood) yes | head -c 100000;;
        dead) kill -9 $$;;
        bounce) exit 100;;
        root) printf 'root\0000\0000\0/\0\0\0';;
        *) exit 118;; esac"#;
    tree.program("qmail-getpw", script);
    let mut spawner = Spawner::start(lspawn(&tree));
    let (letter, text) = spawner.deliver(&request(1, &message, "found-x@x.y"));
    assert!(letter == 'K' && text.starts_with("ids 4321:4322:4322\nargs -- me /h found-x - x x.y"), "{text}");
    let uid = std::fs::read_to_string(tree.at("out/getpw")).unwrap();
    assert_eq!(uid.trim(), tree.etc.uid("qmailp").to_string());
    for local in ["garbage", "flood", "dead", "bounce", "root", "silent"] {
        let (letter, text) = spawner.deliver(&request(1, &message, &format!("{local}@x.y")));
        assert_eq!(letter, 'Z', "{local}: {text}");
    }
}

#[test]
fn damaged_assignments_are_temporary() {
    let (tree, message) = tree(SHOW);
    kit::write(tree.at("users/cdb"), vec![0xff; 3000]);
    let mut spawner = Spawner::start(lspawn(&tree));
    assert_eq!(spawner.deliver(&request(1, &message, "joe@x.y")).0, 'Z');
}

#[test]
fn fix_8c_fix_19_header_variables_belong_to_one_delivery() {
    let (tree, message) = tree("env; exit 0");
    let mut command = lspawn(&tree);
    command.env("QMAILREMOTE", "/x").env("SITE", "ours");
    let mut spawner = Spawner::start(command);
    let exported =
        b"X-Tag: one\n two\nPath: /evil\nQmailLocal: /evil\nLd-Preload: /evil\nSite: theirs\nSender: evil\n";
    let with = Request { exported: exported.to_vec(), ..request(1, &message, "joe@x.y") };
    let (_, text) = spawner.deliver(&with);
    assert!(text.contains("X_TAG=one two\n") && text.contains("SITE=ours\n"), "{text}");
    assert!(!text.contains("evil") && !text.contains("QMAILREMOTE"), "{text}");
    let (_, text) = spawner.deliver(&request(2, &message, "joe@x.y"));
    assert!(!text.contains("X_TAG") && text.contains("MESSID=0/1\n"), "{text}");
}

#[test]
fn text_is_cut_and_a_grandchild_does_not_hold_the_report_up() {
    let (tree, message) = tree("case $6 in flood) yes | head -c 500000;; *) sleep 1000 & echo done;; esac");
    let mut spawner = Spawner::start(lspawn(&tree));
    let (letter, text) = spawner.deliver(&request(1, &message, "joe-flood@x.y"));
    assert_eq!((letter, text.len()), ('K', 3000));
    assert_eq!(spawner.deliver(&request(1, &message, "joe-back@x.y")), ('K', "done\n".into()));
}

#[test]
fn many_at_a_time_and_the_end_waits_for_them() {
    let (tree, message) = tree("read line <$OUT/gate; echo \"$6\"; exit 0");
    nix::unistd::mkfifo(&tree.at("out/gate"), nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
    kit::set_mode(&tree.at("out/gate"), 0o666);
    let mut spawner = Spawner::start(lspawn(&tree));
    for n in 0..60 {
        spawner.ask(&request(n, &message, &format!("joe-{n}@x.y")));
    }
    // In use: refused, and the first one is not harmed.
    spawner.ask(&request(3, &message, "joe-again@x.y"));
    assert_eq!(spawner.report(3).0, 'Z');
    spawner.close();
    let mut gate = std::fs::OpenOptions::new().write(true).open(tree.at("out/gate")).unwrap();
    gate.write_all("go\n".repeat(10_000).as_bytes()).unwrap();
    for n in 0..60 {
        assert_eq!(spawner.report(n), ('K', format!("{n}\n")));
    }
    assert_eq!(spawner.exit_code(), Some(0));
}

#[test]
fn qmaillocal_replaces_the_program_and_a_missing_one_is_named() {
    let (tree, message) = tree(SHOW);
    kit::write_program(tree.at("mine"), "#!/bin/sh\necho mine $3\n");
    let mut command = lspawn(&tree);
    command.env("QMAILLOCAL", tree.at("mine"));
    let mut spawner = Spawner::start(command);
    assert_eq!(spawner.deliver(&request(1, &message, "joe@x.y")), ('K', "mine /home/joe\n".into()));
    let mut command = lspawn(&tree);
    command.env("QMAILLOCAL", "/nonexistent");
    let mut spawner = Spawner::start(command);
    let (letter, text) = spawner.deliver(&request(1, &message, "joe@x.y"));
    assert!(
        letter == 'Z' && text.contains("cannot run qmail-local") && text.contains("/nonexistent"),
        "{letter}{text}"
    );
}

#[test]
fn a_broken_installation_defers_and_a_mended_one_delivers() {
    let (tree, message) = tree(SHOW);
    let local = tree.at("usr/sbin/qmail-local");
    let mut spawner = Spawner::start(lspawn(&tree));
    let mut refused = |what: &str| {
        let (letter, text) = spawner.deliver(&request(1, &message, "joe@x.y"));
        assert!(letter == 'Z' && text.contains("cannot run qmail-local"), "{what}: {letter}{text}");
    };
    kit::set_mode(&local, 0o644);
    refused("not executable");
    kit::write_program(&local, "#!/nonexistent/interpreter\n");
    refused("no interpreter");
    std::fs::remove_file(&local).unwrap();
    refused("missing");
    tree.program("qmail-local", SHOW);
    assert_eq!(spawner.deliver(&request(1, &message, "joe@x.y")).0, 'K');
}

#[test]
fn an_ordinary_user_delivers_as_itself_only() {
    let (tree, _) = tree(SHOW);
    let message = tree.message(3, "m\n", 4711);
    let mut command = Command::new("setpriv");
    command.args(["--reuid=4711", "--regid=4712", "--clear-groups", "--"]);
    command.arg(tree.at("usr/sbin/qmail-lspawn")).arg("./Mailbox");
    tree.variables(&mut command);
    let mut spawner = Spawner::start(command);
    let (letter, text) = spawner.deliver(&request(1, &message, "joe@x.y"));
    assert!(letter == 'K' && text.starts_with("ids 4711:4712:4712\n"), "{text}");
    tree.assign("=joe:joe:4713:4712:/home/joe:::\n");
    assert_eq!(spawner.deliver(&request(1, &message, "joe@x.y")).0, 'Z', "not somebody else");
    let foreign = tree.message(4, "m\n", 0);
    assert_eq!(spawner.deliver(&request(1, &foreign, "joe@x.y")).0, 'Z');
}

#[test]
fn wrong_usage_and_a_missing_queue() {
    let (tree, _) = tree(SHOW);
    assert_eq!(kit::run(&mut tree.command("qmail-lspawn")).code, 100);
    let mut command = lspawn(&tree);
    let out = kit::run(command.env("QUEUEDIR", "/nonexistent"));
    assert!(out.code == 111 && out.stderr.contains("/nonexistent/mess"), "{out:?}");
}

#[test]
fn fix_47_accounts_with_their_own_user_get_mail_as_that_user_and_no_hash_goes_along() {
    let (tree, message) = tree("echo local $(id -u); env");
    tree.program("vdelivermail", "echo virtual $(id -u):$(id -g) $*; env");
    tree.assign("+x.y-:x.y:4711:4712:/var/x.y:-::\n");
    let listener = UnixListener::bind(tree.at("inlookup.sock")).unwrap();
    std::thread::spawn(move || serve(&listener));
    let mut spawner = Spawner::start(lspawn(&tree));
    let (letter, text) = spawner.deliver(&request(1, &message, "x.y-Own@x.y"));
    let wanted = "virtual 5001:5002 -- x.y /var/x.y x.y-Own - Own x.y s@t ./Mailbox";
    assert!(letter == 'K' && text.starts_with(wanted), "{letter}{text}");
    assert!(text.contains("INLOOKUP_ANSWER=own@x.y "), "{text}");
    let (_, text) = spawner.deliver(&request(1, &message, "x.y-shared@x.y"));
    assert!(text.starts_with("local 4711\n") && text.contains("INLOOKUP_ANSWER=shared@x.y "), "{text}");
    let (_, text) = spawner.deliver(&request(1, &message, "x.y-root@x.y"));
    assert!(text.contains("root") && !text.contains("virtual"), "{text}");
    // Nobody answers: it runs as the domain, which asks for itself.
    let (_, text) = spawner.deliver(&request(1, &message, "x.y-down@x.y"));
    assert!(text.starts_with("local 4711\n") && !text.contains("INLOOKUP_ANSWER"), "{text}");
}

/// A delivery waits for its answer alone: the others go on, however long the daemon is silent.
#[test]
fn a_stopped_inlookup_holds_up_nobody_but_those_who_ask() {
    let (tree, message) = tree(r#"echo "$(id -u) ${INLOOKUP_ANSWER-unknown}""#);
    tree.assign("=joe:joe:4711:4712:/home/joe:::\n+x.y-:x.y:4713:4712:/var/x.y:-::\n");
    // Far beyond the patience of this test: whoever blocks is found out, however slow the machine is.
    kit::write(tree.at("control/timeoutread"), "600\n");
    let script = "import socket, sys, time\ns = socket.socket(socket.AF_UNIX)\ns.bind(sys.argv[1])\ns.listen()\nwhile True: time.sleep(1000)";
    let mut python = Command::new("python3");
    let daemon = Running::start(python.args(["-c", script]).arg(tree.at("inlookup.sock")));
    kit::until(kit::PATIENCE, "the daemon listens", || tree.at("inlookup.sock").exists());
    nix::sys::signal::kill(daemon.pid(), Signal::SIGSTOP).unwrap();
    let mut spawner = Spawner::start(lspawn(&tree));
    for n in 0..20 {
        spawner.ask(&request(n, &message, &format!("x.y-u{n}@x.y")));
    }
    for n in 20..60 {
        assert_eq!(spawner.deliver(&request(n, &message, "joe@host")), ('K', "4711 unknown\n".into()));
    }
    // A number that waits is in use.
    spawner.ask(&request(7, &message, "joe@host"));
    assert_eq!(spawner.report(7).0, 'Z');
    assert!(!spawner.has_report(), "those who ask still wait");
    // It dies: they are delivered as their domain, which asks for itself. Nobody is lost at the end.
    spawner.close();
    drop(daemon);
    for n in 0..20 {
        assert_eq!(spawner.report(n), ('K', "4713 unknown\n".into()));
    }
    assert_eq!(spawner.exit_code(), Some(0));
}

/// The kept connection is gone: asked again on a new one.
#[test]
fn a_restarted_inlookup_is_asked_again() {
    let (tree, message) = tree(r#"echo "${INLOOKUP_ANSWER-unknown}""#);
    tree.assign("+x.y-:x.y:4711:4712:/var/x.y:-::\n");
    let listener = UnixListener::bind(tree.at("inlookup.sock")).unwrap();
    std::thread::spawn(move || {
        // One answer for each connection, and then it is closed.
        for stream in listener.incoming() {
            answer_questions(stream.unwrap(), 1);
        }
    });
    let mut spawner = Spawner::start(lspawn(&tree));
    for n in 0..5 {
        let (letter, text) = spawner.deliver(&request(n, &message, "x.y-shared@x.y"));
        assert!(letter == 'K' && text.starts_with("shared@x.y "), "{n}: {letter}{text}");
    }
}

fn serve(listener: &UnixListener) {
    for stream in listener.incoming() {
        answer_questions(stream.unwrap(), usize::MAX);
    }
}

fn answer_questions(mut stream: UnixStream, mut most: usize) {
    let (mut seen, mut buf) = (Vec::new(), [0u8; 4096]);
    while let Ok(n @ 1..) = stream.read(&mut buf) {
        seen.extend_from_slice(&buf[..n]);
        while let Ok(Some((question, used))) = frame::split(&seen, frame::MAX_REQUEST) {
            let reply = match Question::decode(&question).unwrap() {
                Question::Mailbox(b"own@x.y") => account(5001, 5002),
                Question::Mailbox(b"shared@x.y") => account(4711, 4712),
                Question::Mailbox(b"root@x.y") => account(0, 0),
                _ => Reply::Temporary,
            };
            seen.drain(..used);
            let mut out = Vec::new();
            reply.encode(&mut out).unwrap();
            stream.write_all(&out).unwrap();
            most -= 1;
            if most == 0 {
                return;
            }
        }
    }
}

fn account(uid: u32, gid: u32) -> Reply {
    Reply::Mailbox(Mailbox {
        address: b"a@x.y".to_vec(),
        uid: Uid::from_raw(uid),
        gid: Gid::from_raw(gid),
        home: b"/h".to_vec(),
        gecos: Vec::new(),
        quota: Quota::default(),
        flags: 0,
        active: true,
        alias_only: false,
        aliases: Vec::new(),
    })
}

fn lspawn(tree: &Tree) -> Command {
    let mut command = tree.command("qmail-lspawn");
    command.arg("./Mailbox");
    command
}
