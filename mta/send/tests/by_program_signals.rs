//! Signals to qmail-send: HUP, TERM, and a storm of all of them.

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Behaviour, Site, Tree, always, succeed};
use e2e::kit::{PATIENCE, until};
use mta_queue::spawn_protocol::Verdict;
use unix::Signal;

const RULES: [(&str, &str); 2] = [("locals", "here.example\n"), ("virtualdomains", "virtual.example:virt\n")];

/// Signals only say that something has to be done: however many come at whatever moment, no delivery
/// is lost or repeated, no line of the log is torn, and the last HUP counts.
#[test]
fn fix_43_signals_at_any_moment_do_no_harm() {
    let site = Site::new(&RULES);
    let tree = Tree::start(&site, succeed(), succeed());
    tree.wait_for_log("info: qmail-send: pid");
    let storm = [
        Signal::SIGHUP,
        Signal::SIGALRM,
        Signal::SIGINT,
        Signal::SIGCHLD,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGWINCH,
    ];
    // No handler of ours runs in the middle of anything: they are events that wait until they are taken.
    let status = std::fs::read_to_string(format!("/proc/{}/status", tree.send)).unwrap();
    let mask = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    for signal in [Signal::SIGHUP, Signal::SIGALRM, Signal::SIGINT, Signal::SIGTERM] {
        let bit = 1u64 << (signal as i32 - 1);
        assert_eq!((mask("SigCgt:") & bit, mask("SigBlk:") & bit), (0, bit), "{signal}");
    }
    let (over, send) = (Arc::new(AtomicUsize::new(0)), tree.send);
    let stop = over.clone();
    let sender = std::thread::spawn(move || {
        let mut sent = 0usize;
        while stop.load(Ordering::SeqCst) == 0 {
            nix::sys::signal::kill(send, storm[sent % storm.len()]).unwrap();
            sent += 1;
            std::thread::yield_now();
        }
        sent
    });
    let mut wanted: Vec<String> = Vec::new();
    for n in 0..60 {
        site.control("concurrencylocal", &format!("{}\n", n % 5 + 1));
        let recipients = [format!("a{n}@here.example"), format!("b{n}@here.example")];
        site.inject("s@x", &[&recipients[0], &recipients[1], "r@far.example"], "x\n");
        wanted.extend(recipients);
    }
    site.wait_until_empty();
    over.store(1, Ordering::SeqCst);
    let sent = sender.join().unwrap();
    site.control("concurrencylocal", "7\n");
    tree.signal(tree.send, Signal::SIGHUP);
    tree.wait_for_log("status: local 0/7 remote 0/20 queue1\n");
    let mut served: Vec<String> =
        tree.local.requests().into_iter().map(|r| String::from_utf8(r.recipient).unwrap()).collect();
    served.sort();
    wanted.sort();
    assert_eq!((served, tree.remote.count()), (wanted, 60), "after {sent} signals");
    let log = tree.stop();
    assert_eq!(log.matches("end msg ").count(), 60);
    let known = [
        "status: ",
        "info",
        "new msg ",
        "local: ",
        "remote: ",
        "starting delivery ",
        "delivery ",
        "end msg ",
    ];
    for line in log.lines() {
        assert!(known.iter().any(|k| line.starts_with(k)) && line.contains("queue1"), "torn: {line}");
    }
}

/// The directory of control files is found anew at each reading.
#[test]
fn fix_30_the_control_directory_is_not_remembered() {
    let mut site = Site::new(&RULES);
    let (first, second) = (site.dir.path().join("control"), site.dir.path().join("control2"));
    std::fs::create_dir(&second).unwrap();
    for (name, text) in [("me", "mx.example\n"), ("locals", "second.example\n"), ("concurrencylocal", "3\n")]
    {
        std::fs::write(second.join(name), text).unwrap();
    }
    let link = site.dir.path().join("current");
    let point_to = |target: &Path| {
        let new = link.with_extension("new");
        std::os::unix::fs::symlink(target, &new).unwrap();
        std::fs::rename(new, &link).unwrap();
    };
    point_to(&first);
    site.set("CONTROLDIR", link.to_str().unwrap());
    let tree = Tree::start(&site, succeed(), succeed());
    tree.wait_for_log("status: local 0/10");
    point_to(&second);
    tree.signal(tree.send, Signal::SIGHUP);
    tree.wait_for_log("status: local 0/3");
    until(PATIENCE, "the other rules of todo-proc", || {
        site.inject("s@x", &["a@second.example"], "x\n");
        tree.log().contains("local: s@x a@second.example")
    });
}

#[test]
fn fix_42_concurrency_is_obeyed_and_follows_hup() {
    let site = Site::new(&[("locals", "here.example\n"), ("concurrencyl.queue1", "0\n")]);
    let tree = Tree::with_maximum(&site, 4, succeed(), succeed());
    tree.wait_for_log("status: local 0/0 remote 0/4 queue1\n");
    let recipients: Vec<String> = (0..20).map(|n| format!("u{n}@here.example")).collect();
    let refs: Vec<&str> = recipients.iter().map(String::as_str).collect();
    site.inject("s@x", &refs, "x\n");
    tree.wait_for_log("new msg");
    assert_eq!(tree.local.count(), 0);
    site.control("concurrencyl.queue1", "1000\n");
    tree.signal(tree.send, Signal::SIGHUP);
    tree.wait_for_log("end msg");
    assert_eq!(tree.local.count(), 20);
    let log = tree.stop();
    assert!(log.contains("status: local 0/4 ") && !log.contains("status: local 5/"), "{log}");
}

#[test]
fn hup_reaches_todo_proc() {
    let site = Site::new(&[("locals", "here.example\n")]);
    let tree = Tree::start(&site, succeed(), succeed());
    site.inject("s@x", &["a@new.example"], "x\n");
    tree.wait_for_log("remote: s@x a@new.example");
    site.control("locals", "new.example\n");
    tree.signal(tree.send, Signal::SIGHUP);
    // The byte may still be on its way, so more messages follow until one is local.
    until(PATIENCE, "the new rule", || {
        site.inject("s@x", &["a@new.example"], "x\n");
        tree.log().contains("local: s@x a@new.example")
    });
}

#[test]
fn broken_controls_keep_the_old_ones_on_hup() {
    let site = Site::new(&[("locals", "here.example\n"), ("concurrencylocal", "3\n")]);
    let tree = Tree::start(&site, succeed(), succeed());
    tree.wait_for_log("status: local 0/3");
    site.control("concurrencylocal", "many\n");
    tree.signal(tree.send, Signal::SIGHUP);
    assert!(tree.line("keeping the old controls").contains("/concurrencylocal: many: expected a number"));
    site.inject("s@x", &["a@here.example"], "x\n");
    tree.wait_for_log("end msg");
}

#[test]
fn term_waits_for_running_deliveries() {
    let site = Site::new(&RULES);
    let gate = Arc::new(AtomicUsize::new(0));
    let (reached, open) = (gate.clone(), gate.clone());
    let slow: Behaviour = Arc::new(move |_| {
        reached.store(1, Ordering::SeqCst);
        until(PATIENCE, "gate", || reached.load(Ordering::SeqCst) == 2);
        (Verdict::Success, b"ok".to_vec())
    });
    let tree = Tree::start(&site, slow, succeed());
    site.inject("s@x", &["a@here.example"], "x\n");
    until(PATIENCE, "delivery", || gate.load(Ordering::SeqCst) == 1);
    tree.signal(tree.send, Signal::SIGTERM);
    tree.wait_for_log("exitasap");
    open.store(2, Ordering::SeqCst);
    let log = tree.stop();
    assert!(log.contains("delivery 1: success: ok queue1\n"), "{log}");
    // The recipient is done with; the next start only cleans up.
    let tree = Tree::start(&site, always(Verdict::Failure, "twice"), succeed());
    tree.wait_for_log("end msg");
    assert_eq!(tree.local.count(), 0);
}
