//! Programs of the sending side are killed again and again while mail flows.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Behaviour, Site, Tree};
use e2e::kit::{PATIENCE, until};
use mta_queue::layout::{Channel, Part};
use mta_queue::spawn_protocol::{Request, Verdict};
use unix::Signal;

const MESSAGES: usize = 200;
const KILLS: usize = 24;
/// Deliveries at once, both channels: as many may be repeated after each kill.
const CONCURRENCY: usize = 10 + 20;

fn recipient(r: &Request) -> String {
    String::from_utf8(r.recipient.clone()).unwrap()
}

/// Every message goes to one local and one remote recipient of its own; every seventh try of a
/// recipient is deferred first.
fn behaviour(count: &Arc<AtomicUsize>) -> Behaviour {
    let count = count.clone();
    Arc::new(move |_| match count.fetch_add(1, Ordering::SeqCst) % 7 {
        6 => (Verdict::Deferral, b"later".to_vec()),
        _ => (Verdict::Success, b"ok".to_vec()),
    })
}

#[test]
fn nothing_is_lost_and_little_repeated_when_programs_are_killed_at_random() {
    let site = Site::new(&[("locals", "here.example\n")]);
    let count = Arc::new(AtomicUsize::new(0));
    let mut served: BTreeMap<String, usize> = BTreeMap::new();
    let mut injected = 0;
    let mut random = unix::host::random().unwrap();
    let seed = random;
    for round in 0..KILLS {
        let mut tree = Tree::start(&site, behaviour(&count), behaviour(&count));
        let batch = if round + 1 == KILLS { MESSAGES - injected } else { MESSAGES / KILLS };
        for n in injected..injected + batch {
            site.inject("s@x", &[&format!("u{n}@here.example"), &format!("u{n}@far.example")], "x\n");
        }
        injected += batch;
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let victim = [tree.send, tree.todo, tree.cleaners[0], tree.cleaners[1]]
            [usize::try_from(random >> 33).unwrap() % 4];
        tree.wait_for_log("info: qmail-send: pid");
        // Somewhere in the middle of the work: after so many deliveries, or when there is no work left.
        let wanted = usize::try_from(random >> 40).unwrap() % (2 * batch);
        tree.signal(tree.send, Signal::SIGALRM);
        until(PATIENCE, "some deliveries", || {
            tree.local.count() + tree.remote.count() >= wanted || site.is_empty() || {
                tree.signal(tree.send, Signal::SIGALRM);
                false
            }
        });
        tree.signal(victim, Signal::SIGKILL);
        tree.wait_for_end();
        collect(&tree, &mut served);
    }
    let tree = Tree::start(&site, behaviour(&count), behaviour(&count));
    tree.wait_for_log("info: qmail-send: pid");
    until(PATIENCE, "everything delivered", || {
        tree.signal(tree.send, Signal::SIGALRM);
        is_idle(&site)
    });
    let garbage = site.count(Part::Mess);
    collect(&tree, &mut served);
    tree.stop();

    assert_eq!(injected, MESSAGES);
    for n in 0..MESSAGES {
        for host in ["here", "far"] {
            assert!(
                served.contains_key(&format!("u{n}@{host}.example")),
                "u{n} at {host} is lost, seed {seed}"
            );
        }
    }
    let tries: usize = served.values().sum();
    let deferred = count.load(Ordering::SeqCst) / 7;
    let repeated = tries.saturating_sub(deferred + served.len());
    println!(
        "{MESSAGES} messages, {KILLS} kills: {tries} tries, {deferred} deferrals, {repeated} repeated, {garbage} mess files left"
    );
    assert!(repeated <= KILLS * CONCURRENCY / 4, "{repeated} repetitions, seed {seed}");
    // A qmail-send or qmail-clean that dies between info and mess leaves garbage that is collected later.
    assert!(garbage <= KILLS, "{garbage}");
}

/// Garbage in mess aside, is there nothing left to do?
fn is_idle(site: &Site) -> bool {
    let parts = [
        Part::Info,
        Part::Todo,
        Part::Intd,
        Part::Recipients(Channel::Local),
        Part::Recipients(Channel::Remote),
    ];
    parts.iter().all(|&part| site.count(part) == 0)
}

fn collect(tree: &Tree, served: &mut BTreeMap<String, usize>) {
    for request in tree.local.requests().iter().chain(&tree.remote.requests()) {
        *served.entry(recipient(request)).or_default() += 1;
    }
}

#[test]
fn a_bounce_is_never_lost_when_qmail_send_is_killed_after_recording_it() {
    let mut site = Site::new(&[("locals", "here.example\n")]);
    // The bounce cannot be queued at first, so the kill falls between recording and sending.
    site.set("BOUNCEQUEUE", "/bin/false");
    let mut tree = Tree::start(&site, common::always(Verdict::Failure, "no such user"), common::succeed());
    site.inject("s@x", &["a@here.example"], "x\n");
    tree.wait_for_log("cannot queue the bounce");
    tree.signal(tree.send, Signal::SIGKILL);
    tree.wait_for_end();
    assert_eq!(site.count(Part::Bounce), 1);
    let kept = site.fake_queue();
    let tree = Tree::start(&site, common::succeed(), common::succeed());
    tree.wait_for_log("bounce msg");
    site.wait_until_empty();
    assert_eq!(tree.local.count(), 0, "the recipient was done with");
    assert_eq!(std::fs::read_dir(kept).unwrap().count(), 2, "one message, one envelope");
}

#[test]
fn thousands_of_messages_go_through_a_small_queue() {
    let site =
        Site::new(&[("locals", "here.example\n"), ("concurrencylocal", "50\n"), ("conf-fsync", "0\n")]);
    let many = 2_000;
    for n in 0..many {
        site.inject("s@x", &[&format!("u{n}@here.example")], "x\n");
    }
    let started = std::time::Instant::now();
    let tree = Tree::start(&site, common::succeed(), common::succeed());
    until(PATIENCE * 4, "all delivered", || site.is_empty());
    println!("{many} messages in {:?}", started.elapsed());
    assert_eq!(tree.local.count(), many);
    let log = tree.stop();
    assert_eq!(log.matches("end msg ").count(), many);
}

/// System calls that change something or wait for somebody.
const CALLS: [&str; 7] = ["openat", "write", "pwrite64", "fsync", "unlink", "poll", "read"];
/// Of calls that are made often, every so manieth is met.
const STRIDE: usize = 9;

/// One message with a recipient that fails and one that does not, and a kill in the middle of its
/// way. Was the kill too late to meet it? Else, was something done twice?
fn one_kill(kill: (&'static str, &'static str, usize)) -> Option<bool> {
    let fail = || common::always(Verdict::Failure, "no such user");
    let what = format!("{kill:?}");
    let mut site = Site::new(&[("locals", "here.example\n")]);
    let kept = site.fake_queue();
    let id = site.inject("s@x", &["a@here.example", "b@far.example"], "x\n");
    let mut tree = Tree::killing(&site, kill, fail(), common::succeed());
    until(PATIENCE, &what, || site.is_empty() || common::has_ended(tree.send));
    let came_through = !common::has_ended(tree.send);
    let mut trees = Vec::new();
    if came_through {
        trees.push(tree);
    } else {
        tree.wait_for_end();
        // What is marked is never repeated.
        let sorted = !site.queue.path(Part::Todo, id).exists();
        let marked = Channel::BOTH.map(|c| {
            let record = std::fs::read(site.queue.path(Part::Recipients(c), id));
            record.map_or(sorted, |bytes| bytes.starts_with(b"D"))
        });
        let second = Tree::start(&site, fail(), common::succeed());
        second.wait_for_log("info: qmail-send: pid");
        until(PATIENCE, &what, || is_idle(&site));
        for (marked, tries) in marked.into_iter().zip([second.local.count(), second.remote.count()]) {
            assert!(!marked || tries == 0, "{what}: a recipient that was marked is tried again");
        }
        trees.extend([tree, second]);
    }
    let local: usize = trees.iter().map(|t| t.local.count()).sum();
    let remote: usize = trees.iter().map(|t| t.remote.count()).sum();
    let bounces = std::fs::read_dir(&kept).unwrap().map(|e| e.unwrap().path());
    let bounces = bounces.filter(|p| p.extension().is_some_and(|e| e == "env")).count();
    let all = [local, remote, bounces];
    assert!(all.iter().all(|n| (1..=2).contains(n)), "{what}: {all:?}");
    (!came_through).then_some(all != [1, 1, 1])
}

#[test]
fn a_kill_before_any_system_call_of_any_program_loses_nothing() {
    for program in Tree::NAMES {
        let (mut kills, mut repeated) = (0, 0);
        for call in CALLS {
            let often = ["openat", "read", "poll"].contains(&call);
            let mut nth = 1;
            while let Some(twice) = one_kill((program, call, nth)) {
                kills += 1;
                repeated += usize::from(twice);
                nth += if often { STRIDE } else { 1 };
                assert!(nth < 1000, "{program} never comes through");
            }
        }
        println!("{program}: {kills} kills, {repeated} with something repeated");
        assert!(kills >= 5, "{program}: {kills} kills only");
    }
}
