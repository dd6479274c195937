//! A message that was accepted is delivered, whatever is killed in between; and it is delivered again
//! only when a kill cut one of its deliveries short (docs/ARCHITECTURE.md, "The crash window").

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use e2e::deliveries::{self, Kill};
use e2e::instance::{Instance, Service, mailbox};
use e2e::killing::Killer;
use e2e::kit::{PATIENCE, run, until};
use e2e::smtp;
use nix::sys::signal::{Signal, kill};

/// What is killed, one after the other.
const DAEMONS: [&str; 11] = [
    "qmail-send",
    "todo-proc",
    "qmail-lspawn",
    "qmail-clean",
    "qmail-rspawn",
    "inlookup",
    "nssd",
    "qmail-lworker",
    "qmail-local",
    "vdelivermail",
    "qmail-smtpd",
];
const MESSAGES: usize = 200;

/// How often each message of ours is in the mailbox.
fn counts(maildir: &Path) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for message in mailbox(maildir) {
        let id = message.lines().find_map(|l| l.strip_prefix("Message-ID: "));
        *counts.entry(id.unwrap_or_default().to_owned()).or_default() += 1;
    }
    counts
}

fn sender(instance: &Instance) -> &Service {
    instance.report.services.iter().find(|s| s.name == "qmail-send").expect("qmail-send")
}

/// Everything that qmail-send has logged, oldest first. The logger goes on writing.
fn log(service: &Service) -> String {
    let directory = service.log.parent().expect("directory of the log");
    let names = std::fs::read_dir(directory).expect("log directory").map(|e| e.expect("entry").path());
    let mut old: Vec<PathBuf> =
        names.filter(|p| p.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"@"))).collect();
    old.sort();
    let files = old.iter().chain([&service.log]);
    files.map(|f| String::from_utf8_lossy(&std::fs::read(f).expect("log file")).into_owned()).collect()
}

/// Sends one message; its Message-ID when it was accepted.
fn send(instance: &Instance, number: usize) -> Option<String> {
    let (to, from) = (instance.account(0), instance.account(1));
    let id = format!("<{number}@survival.test>");
    let text = format!("From: {}\nMessage-ID: {id}\n\nnumber {number}\n", from.address);
    smtp::send(instance.report.ports["smtp"], &from.address, &[&to.address], &text).ok().map(|_| id)
}

/// Waits until all of these are in the mailbox and the queue is empty.
fn wait_for(instance: &Instance, accepted: &[String]) {
    let directory = sender(instance).directory.display().to_string();
    let end = Instant::now() + Duration::from_secs(120);
    loop {
        // Deliveries that were deferred while a daemon was away are due at once.
        let _ = run(instance.command("svc").args(["-a", &directory]));
        std::thread::sleep(Duration::from_millis(200));
        let counts = counts(&instance.account(0).maildir);
        let missing: Vec<_> = accepted.iter().filter(|id| !counts.contains_key(*id)).collect();
        // A sender killed between the removal of the envelope and that of the text leaves the text
        // alone, to be swept up later: such a rest is counted as a message, but belongs to nobody.
        let queue = run(&mut instance.command("qmail-qread")).stdout;
        if missing.is_empty() && queue.trim_end().ends_with("local 0 remote 0 todo 0 bouncing 0") {
            return;
        }
        assert!(Instant::now() < end, "missing: {missing:?}\n{queue}");
    }
}

#[test]
fn killing_every_daemon_loses_nothing_and_repeats_only_what_it_cut_short() {
    let instance = Instance::start();
    let killer = Killer::new(instance.dir());
    let mut accepted = Vec::new();
    let mut kills: Vec<Kill> = Vec::new();
    let mut attempt = 0;
    while accepted.len() < MESSAGES {
        attempt += 1;
        assert!(attempt < MESSAGES * 200, "only {} of {attempt} attempts were accepted", accepted.len());
        if let Some(id) = send(&instance, attempt) {
            kills.push(killer.kill(DAEMONS[accepted.len() % DAEMONS.len()]));
            accepted.push(id);
            if accepted.len() % 50 == 0 {
                kills.extend(DAEMONS.iter().map(|name| killer.kill(name)));
            }
        } else {
            // The listener or the lookup daemon is being restarted: nothing was promised.
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    wait_for(&instance, &accepted);
    // The logger writes what it has and ends.
    let _ = instance.stop();
    let attempts = deliveries::attempts(&log(sender(&instance))).expect("log of qmail-send");
    let counts = counts(&instance.account(0).maildir);
    let killed: usize = kills.iter().map(|k| k.victims.len()).sum();
    let ties = deliveries::ties(&attempts, &kills).len();
    match deliveries::judge(&counts, &attempts, &kills) {
        Ok(twice) => println!(
            "{} accepted, {killed} processes killed, {} deliveries started, {ties} of them cut short, \
             {twice} delivered again, all of them tied to a kill",
            accepted.len(),
            attempts.len(),
        ),
        Err(stories) => panic!("delivered again without a kill to blame:\n{}", stories.join("\n")),
    }
    assert!(killed > MESSAGES / 2, "{killed}");
    assert!(attempts.len() >= MESSAGES, "{} deliveries in the log", attempts.len());
}

/// The window itself: the copy is in the mailbox, the mark is not in the queue.
#[test]
fn a_sender_killed_before_the_mark_delivers_once_more() {
    let instance = Instance::start();
    let killer = Killer::new(instance.dir());
    let maildir = &instance.account(0).maildir;
    let signal = |name: &str, signal| {
        let found = killer.processes(&[name]);
        assert_eq!(found.len(), 1, "{found:?}");
        kill(found[0].pid, signal).expect("signal");
    };
    // The spawner waits until the sender, which has handed the delivery to it, cannot hear the result.
    signal("qmail-lspawn", Signal::SIGSTOP);
    let started = || deliveries::attempts(&log(sender(&instance))).expect("log of qmail-send");
    let before = started().len();
    let id = send(&instance, 1).expect("accepted");
    until(PATIENCE, "the delivery is in the log", || started().len() > before);
    until(PATIENCE, "qmail-send waits", || killer.are_waiting("qmail-send"));
    signal("qmail-send", Signal::SIGSTOP);
    signal("qmail-lspawn", Signal::SIGCONT);
    until(PATIENCE, "the copy is in the mailbox", || counts(maildir).contains_key(&id));
    let moment = killer.kill("qmail-send");
    assert_eq!(moment.undone.values().collect::<Vec<_>>(), [&id], "{moment:?}");
    until(PATIENCE, "the second copy", || counts(maildir)[&id] == 2);
    wait_for(&instance, std::slice::from_ref(&id));
    let _ = instance.stop();
    let (attempts, counts) = (started(), counts(maildir));
    assert_eq!(counts[&id], 2);
    assert_eq!(deliveries::judge(&counts, &attempts, std::slice::from_ref(&moment)), Ok(1));
    // Without that kill nothing excuses it.
    let stories = deliveries::judge(&counts, &attempts, &[]).expect_err("a copy too many");
    assert!(stories.len() == 1 && stories[0].contains(&id), "{stories:?}");
}
