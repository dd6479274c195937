//! A message that was accepted is delivered, whatever is killed in between.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use e2e::instance::{Instance, mailbox};
use e2e::kit::run;
use e2e::smtp;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What is killed, one after the other.
const DAEMONS: [&str; 9] = [
    "qmail-send",
    "todo-proc",
    "qmail-lspawn",
    "qmail-clean",
    "qmail-rspawn",
    "inlookup",
    "nssd",
    "qmail-local",
    "tcpserver",
];
const MESSAGES: usize = 200;

/// Processes of the instance by the name they were started under.
fn processes(dir: &Path, name: &str) -> Vec<Pid> {
    let programs = dir.join("usr");
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").filter_map(Result::ok) {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        let ours = std::fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe.starts_with(&programs));
        let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let first = arguments.split(|&b| b == 0).next().unwrap_or_default();
        let started_as = first.rsplit(|&b| b == b'/').next().unwrap_or_default();
        if ours && started_as == name.as_bytes() {
            found.push(Pid::from_raw(pid));
        }
    }
    found
}

fn kill_daemon(dir: &Path, name: &str) -> usize {
    // One that ended by itself in the meantime needs no signal.
    processes(dir, name).into_iter().filter(|&pid| kill(pid, Signal::SIGKILL).is_ok()).count()
}

/// How often each message of ours is in the mailbox.
fn counts(maildir: &Path) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for message in mailbox(maildir) {
        let id = message.lines().find_map(|l| l.strip_prefix("Message-ID: "));
        *counts.entry(id.unwrap_or_default().to_owned()).or_default() += 1;
    }
    counts
}

#[test]
fn killing_every_daemon_loses_nothing() {
    let instance = Instance::start();
    let (to, from) = (instance.account(0).clone(), instance.account(1).clone());
    let port = instance.report.ports["smtp"];
    let mut accepted = Vec::new();
    let mut kills = 0;
    let mut attempt = 0;
    while accepted.len() < MESSAGES {
        attempt += 1;
        assert!(attempt < MESSAGES * 200, "only {} of {attempt} attempts were accepted", accepted.len());
        let id = format!("<{attempt}@survival.test>");
        let text = format!("From: {}\nMessage-ID: {id}\n\nnumber {attempt}\n", from.address);
        match smtp::send(port, &from.address, &[&to.address], &text) {
            Ok(_) => {
                let name = DAEMONS[accepted.len() % DAEMONS.len()];
                accepted.push(id);
                kills += kill_daemon(instance.dir(), name);
                if accepted.len() % 50 == 0 {
                    kills += DAEMONS.iter().map(|name| kill_daemon(instance.dir(), name)).sum::<usize>();
                }
            }
            // The listener or the lookup daemon is being restarted: nothing was promised.
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    let sender = instance.report.services.iter().find(|s| s.name == "qmail-send").expect("qmail-send");
    let sender = sender.directory.display().to_string();
    let end = Instant::now() + Duration::from_secs(120);
    loop {
        // Deliveries that were deferred while a daemon was away are due at once.
        let _ = run(instance.command("svc").args(["-a", &sender]));
        std::thread::sleep(Duration::from_millis(200));
        let counts = counts(&to.maildir);
        let missing: Vec<_> = accepted.iter().filter(|id| !counts.contains_key(*id)).collect();
        // A sender killed between the removal of the envelope and that of the text leaves the text
        // alone, to be swept up later: such a rest is counted as a message, but belongs to nobody.
        let queue = run(&mut instance.command("qmail-qread")).stdout;
        if missing.is_empty() && queue.trim_end().ends_with("local 0 remote 0 todo 0 bouncing 0") {
            break;
        }
        assert!(Instant::now() < end, "missing: {missing:?}\n{queue}");
    }
    // A message is delivered twice only when its delivery was killed, or the sender was, between
    // the rename into the mailbox and the mark in the queue.
    let twice: usize = counts(&to.maildir).values().map(|n| n - 1).sum();
    println!("{} accepted, {kills} processes killed, {twice} delivered again", accepted.len());
    assert!(kills > MESSAGES / 2, "{kills}");
    assert!(twice <= kills, "{twice} duplicates after {kills} kills");
}
