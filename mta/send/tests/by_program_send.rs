//! The real qmail-send, todo-proc and qmail-clean between fake spawners.

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Behaviour, Site, Tree, always, succeed};
use e2e::kit::{PATIENCE, until, until_some};
use mta_queue::layout::{Channel, Part};
use mta_queue::spawn_protocol::Verdict;
use unix::Signal;
use unix::child::Ending;

const RULES: [(&str, &str); 2] = [("locals", "here.example\n"), ("virtualdomains", "virtual.example:virt\n")];

#[test]
fn a_message_is_delivered_on_both_channels_and_leaves_nothing() {
    let site = Site::new(&RULES);
    let tree = Tree::start(&site, succeed(), succeed());
    let id = site.inject("s@x.example", &["a@here.example", "b@far.example", "c@virtual.example"], "body\n");
    tree.wait_for_log("end msg");
    site.wait_until_empty();
    let local: Vec<_> =
        tree.local.requests().into_iter().map(|r| String::from_utf8(r.recipient).unwrap()).collect();
    assert_eq!(local, ["a@here.example", "virt-c@virtual.example"]);
    let remote = tree.remote.requests();
    assert_eq!(remote[0].recipient, b"b@far.example");
    assert_eq!(remote[0].sender, b"s@x.example");
    assert_eq!(remote[0].message, site.queue.mess_name(id).into_bytes());
    let log = tree.stop();
    for line in [
        format!("new msg {id} queue1\n"),
        format!("info msg {id}: bytes 20 from <s@x.example> qp 4242 uid 65534 queue1\n"),
        format!("local: s@x.example a@here.example {id} 20 bytes queue1 opendir mode\n"),
        format!("starting delivery 1: msg {id} to "),
        "delivery 1: success: done queue1\n".to_owned(),
        format!("end msg {id} qmail-send: queue1\n"),
        "status: local 0/10 remote 0/20 queue1\n".to_owned(),
        "queue1: ratelimit=OFF, loglock=disabled, conf split=3\n".to_owned(),
        "status: local 0/10 remote 0/20 queue1 exitasap\n".to_owned(),
    ] {
        assert!(log.contains(&line), "{line:?} is not in\n{log}");
    }
}

#[test]
fn a_failure_is_bounced_with_the_address_as_it_was_given() {
    let mut site = Site::new(&RULES);
    let kept = site.fake_queue();
    let tree = Tree::start(&site, always(Verdict::Failure, "no such user\n\n<forged@x>:\n"), succeed());
    site.inject("sender@x.example", &["c@virtual.example"], "Subject: hello\n\nbody\n");
    tree.wait_for_log("end msg");
    let (message, envelope) = only_kept(&kept);
    assert_eq!(envelope, "F\0Tsender@x.example\0\0");
    assert!(message.contains("X-Bounced-Address: c@virtual.example\n"), "{message}");
    assert!(message.contains("\n<c@virtual.example>:\nno such user\n/<forged@x>:\n\n--- "), "{message}");
    assert!(
        message.contains("Return-Path: <sender@x.example>\nReceived: here\nSubject: hello\n\nbody\n"),
        "{message}"
    );
    assert!(tree.line("bounce msg").contains(" qp "));
    assert!(tree.line("failure: ").ends_with("no_such_user//<forged@x>:/ queue1"));
    site.wait_until_empty();
}

fn only_kept(kept: &Path) -> (String, String) {
    let envelope = until_some(PATIENCE, "a bounce", || {
        let names = std::fs::read_dir(kept).unwrap().map(|e| e.unwrap().path());
        names.into_iter().find(|p| p.extension().is_some_and(|e| e == "env"))
    });
    let read = |p: &Path| String::from_utf8(std::fs::read(p).unwrap()).unwrap();
    (read(&envelope.with_extension("mess")), read(&envelope))
}

#[test]
fn bounces_of_bounces_go_to_the_postmaster_and_no_further() {
    let mut site = Site::new(&RULES);
    let kept = site.fake_queue();
    let tree = Tree::start(&site, always(Verdict::Failure, "no"), succeed());
    let triple = site.inject("#@[]", &["a@here.example"], "x\n");
    assert_eq!(tree.line("triple bounce"), format!("triple bounce: discarding bounce/{triple} queue1"));
    site.inject("", &["a@here.example"], "x\n");
    let (message, envelope) = only_kept(&kept);
    assert_eq!(envelope, "F#@[]\0Tpostmaster@mx.example\0\0");
    assert!(message.contains("Return-Path: <>\n"));
    site.wait_until_empty();
    let log = tree.stop();
    assert_eq!(log.matches("end msg").count(), 2, "{log}");
}

#[test]
fn an_empty_doublebounceto_discards_double_bounces() {
    let site = Site::new(&[("locals", "here.example\n"), ("doublebounceto", "\n")]);
    let tree = Tree::start(&site, always(Verdict::Failure, "no"), succeed());
    let id = site.inject("", &["a@here.example"], "x\n");
    assert_eq!(tree.line("double bounce"), format!("double bounce: discarding bounce/{id} queue1"));
    site.wait_until_empty();
}

#[test]
fn a_bounce_that_cannot_be_queued_is_kept_for_later() {
    let mut site = Site::new(&RULES);
    site.set("BOUNCEQUEUE", "/bin/false");
    let tree = Tree::start(&site, always(Verdict::Failure, "no"), succeed());
    site.inject("s@x", &["a@here.example"], "x\n");
    tree.wait_for_log("cannot queue the bounce");
    assert_eq!((site.count(Part::Bounce), site.count(Part::Info), site.count(Part::Mess)), (1, 1, 1));
    assert!(!tree.stop().contains("end msg"));
}

/// Deliveries go on while a queue program is busy with bounces; the end waits for these.
#[test]
fn a_bounce_that_takes_long_holds_up_no_delivery() {
    let mut site = Site::new(&RULES);
    let kept = site.fake_queue();
    let gate = site.dir.path().join("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
    std::os::unix::fs::chown(&gate, Some(common::USER), None).unwrap();
    let slow = site.dir.path().join("slow-queue");
    let fast = site.dir.path().join("fake-queue");
    let script = format!("#!/bin/sh\nread go <{}\nexec {}\n", gate.display(), fast.display());
    e2e::kit::write_program(&slow, script);
    site.set("BOUNCEQUEUE", slow.to_str().unwrap());
    let answer: Behaviour = Arc::new(|request| match request.recipient.starts_with(b"bad") {
        true => (Verdict::Failure, b"no".to_vec()),
        false => (Verdict::Success, b"done".to_vec()),
    });
    let tree = Tree::start(&site, answer, succeed());
    // More than are on their way at once.
    let failed: Vec<_> =
        (0..12).map(|n| site.inject(&format!("s{n}@x"), &["bad@here.example"], "x\n")).collect();
    until(PATIENCE, "all have failed", || tree.log().matches("failure: no").count() == 12);
    for n in 0..30 {
        let id = site.inject("s@x", &[&format!("good{n}@here.example")], "x\n");
        tree.wait_for_log(&format!("end msg {id} "));
    }
    let log = tree.log();
    assert!(!failed.iter().any(|id| log.contains(&format!("end msg {id} "))), "{log}");
    // Asked for again meanwhile: each is on its way once.
    tree.signal(tree.send, Signal::SIGALRM);
    let mut open = std::fs::OpenOptions::new().read(true).write(true).open(&gate).unwrap();
    std::io::Write::write_all(&mut open, "go\n".repeat(12).as_bytes()).unwrap();
    site.wait_until_empty();
    let log = tree.stop();
    assert_eq!((log.matches("end msg").count(), log.matches("bounce msg").count()), (42, 12), "{log}");
    let envelopes = std::fs::read_dir(&kept)
        .unwrap()
        .filter(|e| e.as_ref().unwrap().path().extension().is_some_and(|e| e == "env"));
    assert_eq!(envelopes.count(), 12);
}

#[test]
fn term_waits_for_bounces_that_are_on_their_way() {
    let mut site = Site::new(&RULES);
    let kept = site.fake_queue();
    let (gate, fast) = (site.dir.path().join("gate"), site.dir.path().join("fake-queue"));
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
    std::os::unix::fs::chown(&gate, Some(common::USER), None).unwrap();
    let slow = site.dir.path().join("slow-queue");
    let script = format!("#!/bin/sh\nread go <{}\nexec {}\n", gate.display(), fast.display());
    e2e::kit::write_program(&slow, script);
    site.set("BOUNCEQUEUE", slow.to_str().unwrap());
    let tree = Tree::start(&site, always(Verdict::Failure, "no"), succeed());
    site.inject("s@x", &["a@here.example"], "x\n");
    tree.wait_for_log("failure: no");
    // The queue program opens the gate: it runs.
    let mut open = std::fs::OpenOptions::new().write(true).open(&gate).unwrap();
    tree.signal(tree.send, Signal::SIGTERM);
    tree.wait_for_log("exitasap");
    std::io::Write::write_all(&mut open, b"go\n").unwrap();
    let log = tree.stop();
    assert!(log.contains("bounce msg "), "{log}");
    only_kept(&kept);
    assert_eq!((site.count(Part::Bounce), site.count(Part::Info)), (0, 0));
}

#[test]
fn deferred_mail_is_tried_again_when_alrm_says_so_and_the_due_time_survives_a_restart() {
    let site = Site::new(&RULES);
    let defer = always(Verdict::Deferral, "later");
    let tree = Tree::start(&site, defer.clone(), succeed());
    let id = site.inject("s@x", &["a@here.example"], "x\n");
    tree.wait_for_log("deferral: later queue1");
    until(PATIENCE, "idle", || tree.log().contains("status: local 0/10 remote 0/20 queue1\n"));
    tree.signal(tree.send, Signal::SIGALRM);
    until(PATIENCE, "second try", || tree.local.count() == 2);
    tree.wait_for_log("delivery 2: deferral");
    tree.stop();
    let birth = |part| mtime(&site.queue.path(part, id));
    let (birth, due) = (birth(Part::Info), birth(Part::Recipients(Channel::Local)));
    assert!(due >= birth + 100, "{due} is not on the schedule of {birth}");

    // Not due yet: nothing happens until ALRM.
    let tree = Tree::start(&site, succeed(), succeed());
    tree.wait_for_log("info: qmail-send: pid");
    assert_eq!(tree.local.count(), 0);
    tree.signal(tree.send, Signal::SIGALRM);
    tree.wait_for_log("end msg");
    site.wait_until_empty();
}

fn mtime(path: &Path) -> i64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).unwrap().mtime()
}

#[test]
fn a_deferral_after_the_lifetime_is_a_failure() {
    let mut site = Site::new(&[("locals", "here.example\n"), ("queuelifetime", "0\n")]);
    let kept = site.fake_queue();
    let tree = Tree::start(&site, always(Verdict::Deferral, "mailbox busy"), succeed());
    let id = site.inject("s@x", &["a@here.example"], "x\n");
    tree.wait_for_log("new msg");
    // Either the first try falls into a later second already, or the next one does.
    until(PATIENCE, "expiry", || {
        if tree.log().contains("deferral") && site.count(Part::Info) == 1 {
            tree.signal(tree.send, Signal::SIGALRM);
        }
        tree.log().contains(&format!("end msg {id}"))
    });
    let (message, _) = only_kept(&kept);
    assert!(
        message.contains("<a@here.example>:\nmailbox busy\nThe message has stayed in the queue too long"),
        "{message}"
    );
}

/// Log tools expect a word for every address, and the mode without brackets.
#[test]
fn an_empty_sender_is_shown_as_a_word() {
    let site = Site::new(&RULES);
    let tree = Tree::start(&site, succeed(), succeed());
    let id = site.inject("", &["a@here.example"], "x\n");
    let line = tree.line("local: <>");
    assert_eq!(line, format!("local: <> a@here.example {id} 17 bytes queue1 opendir mode"));
    assert!(tree.line("info msg").contains(" from <> qp "));
}

#[test]
fn mangled_reports_and_reports_about_nothing_are_survived() {
    let site = Site::new(&RULES);
    let count = Arc::new(AtomicUsize::new(0));
    let mine = count.clone();
    // The first report holds a second one inside, with letter X and for a delivery that never was.
    let behaviour: Behaviour = Arc::new(move |_| match mine.fetch_add(1, Ordering::SeqCst) {
        0 => (Verdict::Success, b"fine".to_vec()),
        _ => (Verdict::Success, vec![b'x'; 50_000]),
    });
    let tree = Tree::start(&site, behaviour, succeed());
    site.inject("s@x", &["a@here.example", "b@here.example"], "x\n");
    tree.wait_for_log("end msg");
    let long = tree.line("success: xxx");
    assert_eq!(long.matches('x').count(), 10_000);
}

#[test]
fn a_second_sender_on_the_same_queue_refuses_to_start() {
    let site = Site::new(&RULES);
    let first = Tree::start(&site, succeed(), succeed());
    first.wait_for_log("info: qmail-send: pid");
    let mut second = Tree::start(&site, succeed(), succeed());
    assert_eq!(second.wait_for_end(), Ending::Exited(111));
    assert_eq!(
        second.line("alert"),
        "alert: qmail-send: queue1: cannot start: another qmail-send runs on this queue"
    );
    let held = common::run_as_user(
        &site.bin(),
        "queue-fix",
        &[site.queue.root().to_str().unwrap()],
        site.environment(),
    );
    assert!(held.code == 111 && held.stderr.contains("a sender is running"), "{held:?}");
}

#[test]
fn missing_controls_are_named_in_the_log() {
    let site = Site::new(&[]);
    std::fs::remove_file(site.dir.path().join("control/me")).unwrap();
    let mut tree = Tree::start(&site, succeed(), succeed());
    tree.wait_for_log("/control/locals: missing");
    tree.wait_for_log("lost todo-proc connection ... dying");
    assert_eq!(tree.wait_for_end(), Ending::Exited(0));
}

#[test]
fn fix_35_a_message_in_the_wrong_split_directory_is_delivered() {
    let site = Site::shaped(&RULES, "3", "1");
    let id = site.inject("s@x", &["a@here.example"], "x\n");
    let wrong = site.queue.root().join(format!("todo/{}/{id}", (id.0 + 1) % 3));
    std::fs::rename(site.queue.path(Part::Todo, id), &wrong).unwrap();
    // Another one can neither be understood nor go away.
    let bad = site.inject("s@x", &["b@here.example"], "x\n");
    let stays = site.queue.root().join(format!("todo/{}/{bad}", (bad.0 + 1) % 3));
    std::fs::rename(site.queue.path(Part::Todo, bad), &stays).unwrap();
    std::fs::write(&stays, b"u1\0Fs@x\0\0").unwrap();
    let tree = Tree::start(&site, succeed(), succeed());
    tree.wait_for_log("warn: todo-proc: queue1: incorrect split: ");
    tree.wait_for_log(&format!("end msg {id} "));
    // It is found at each look, and warned of once.
    for n in 0..5 {
        let next = site.inject("s@x", &[&format!("c{n}@here.example")], "x\n");
        tree.wait_for_log(&format!("end msg {next} "));
    }
    tree.wait_for_log("unknown record type");
    let log = tree.stop();
    let warnings =
        |id| log.lines().filter(|l| l.contains("incorrect split") && l.ends_with(&format!("/{id}"))).count();
    assert_eq!((warnings(id), warnings(bad)), (1, 1), "{log}");
    assert!(stays.exists());
}

#[test]
fn garbage_in_todo_is_reported_and_does_not_hold_up_others() {
    let site = Site::new(&RULES);
    let bad = site.inject("s@x", &["a@here.example"], "x\n");
    std::fs::write(site.queue.path(Part::Todo, bad), b"u1\0Fs@x\0\0").unwrap();
    let tree = Tree::start(&site, succeed(), succeed());
    tree.wait_for_log("unknown record type");
    let good = site.inject("s@x", &["b@here.example"], "x\n");
    tree.wait_for_log(&format!("end msg {good}"));
    assert!(site.queue.path(Part::Todo, bad).exists() && !site.queue.path(Part::Info, bad).exists());
}

#[test]
fn a_message_without_recipients_ends_at_once() {
    let site = Site::new(&RULES);
    let tree = Tree::start(&site, succeed(), succeed());
    let id = site.inject("s@x", &[], "x\n");
    tree.wait_for_log(&format!("end msg {id}"));
    site.wait_until_empty();
}

#[test]
fn verp_senders_are_expanded_for_each_recipient() {
    let site = Site::new(&RULES);
    let tree = Tree::start(&site, succeed(), succeed());
    site.inject("list-@l.example-@[]", &["a@here.example", "b@far.example"], "x\n");
    tree.wait_for_log("end msg");
    assert_eq!(tree.local.requests()[0].sender, b"list-a=here.example@l.example");
    assert_eq!(tree.remote.requests()[0].sender, b"list-b=far.example@l.example");
}

#[test]
fn the_service_manager_hears_of_start_reload_and_end() {
    let mut site = Site::new(&RULES);
    let path = site.dir.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    site.set("NOTIFY_SOCKET", path.to_str().unwrap());
    let tree = Tree::start(&site, succeed(), succeed());
    let next = || {
        let mut bytes = [0u8; 200];
        let n = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..n]).into_owned()
    };
    assert!(next().contains("READY=1"));
    tree.signal(tree.send, Signal::SIGHUP);
    assert!(next().contains("RELOADING=1"));
    assert!(next().contains("READY=1"));
    tree.stop();
    assert!(next().contains("STOPPING=1"));
}

#[test]
fn hundreds_of_deliveries_are_open_at_once_and_reports_come_in_any_order_and_in_pieces() {
    let site = Site::new(&[("locals", "here.example\n"), ("concurrencylocal", "400\n")]);
    let tree = Tree::holding(&site, 400);
    let recipients: Vec<String> = (0..400).map(|n| format!("u{n}@here.example")).collect();
    let refs: Vec<&str> = recipients.iter().map(String::as_str).collect();
    site.inject("s@x", &refs, "x\n");
    tree.wait_for_log("status: local 400/400 ");
    tree.wait_for_log("end msg");
    let mut numbers: Vec<u16> = tree.local.requests().iter().map(|r| r.number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..400).collect::<Vec<u16>>());
    site.wait_until_empty();
}

#[test]
fn a_lost_spawner_ends_everything_and_nothing_is_lost() {
    let site = Site::new(&RULES);
    let mut tree = Tree::start(&site, Arc::new(|_| panic!("this spawner crashes")), succeed());
    site.inject("s@x", &["a@here.example", "b@far.example"], "x\n");
    tree.wait_for_log("lost spawn connection (local) ... dying");
    assert_eq!(tree.wait_for_end(), Ending::Exited(0));
    let tree = Tree::start(&site, succeed(), succeed());
    tree.wait_for_log("end msg");
    assert_eq!(tree.local.count(), 1);
    site.wait_until_empty();
}

#[test]
fn the_log_is_written_under_a_lock_when_senders_share_it() {
    let mut site = Site::new(&[("locals", "here.example\n"), ("defaultdelivery", "./Maildir/\n")]);
    site.set("LOGLOCK", "1");
    let lock = site.dir.path().join("control/defaultdelivery");
    let held = unix::lock::Lock::try_exclusive(&lock, 0o644).unwrap().unwrap();
    let tree = Tree::start(&site, succeed(), succeed());
    site.inject("s@x", &["a@here.example"], "x\n");
    // Nobody can tell that a line is *not* coming but by what the kernel says: it waits for the lock.
    until(PATIENCE, "waiting for the lock", || {
        std::fs::read_to_string("/proc/locks")
            .unwrap()
            .lines()
            .any(|l| l.contains("->") && l.contains(&tree.send.to_string()))
    });
    assert_eq!(tree.log(), "");
    drop(held);
    tree.wait_for_log("loglock=enabled");
    tree.wait_for_log("end msg");
}
