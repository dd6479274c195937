//! Kills processes of a private system and writes down what that can have repeated.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::deliveries::{Kill, Victim};
use crate::kit::{PATIENCE, until};

/// Those whose death can repeat a delivery. While one of them is killed all of them stand still.
const FROZEN: [&str; 5] = ["qmail-send", "qmail-lspawn", "qmail-lworker", "qmail-local", "vdelivermail"];

/// A process of the instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: Pid,
    /// The name it was started under.
    pub name: String,
    parent: Pid,
    state: char,
}

/// A private system as seen by one who kills: its directory, its queue.
#[derive(Debug)]
pub struct Killer {
    programs: PathBuf,
    queue: PathBuf,
}

impl Killer {
    /// For the system in this directory.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { programs: dir.join("usr"), queue: dir.join("var/indimail/queue") }
    }

    /// The processes under one of these names that have not ended.
    ///
    /// # Panics
    /// When there is no /proc.
    #[must_use]
    pub fn processes(&self, names: &[&str]) -> Vec<Process> {
        let pids = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
        let pids = pids.filter_map(|e| e.file_name().to_str()?.parse().ok());
        pids.filter_map(|pid| self.process(Pid::from_raw(pid)))
            .filter(|p| names.contains(&&p.name[..]))
            .collect()
    }

    /// Do all processes of this name sleep, and is there one?
    #[must_use]
    pub fn are_waiting(&self, name: &str) -> bool {
        let found = self.processes(&[name]);
        !found.is_empty() && found.iter().all(|p| p.state == 'S')
    }

    /// `None`: not of this system, or it has ended.
    fn process(&self, pid: Pid) -> Option<Process> {
        let proc = Path::new("/proc").join(pid.to_string());
        // One that has ended has no executable any more.
        fs::read_link(proc.join("exe")).ok().filter(|exe| exe.starts_with(&self.programs))?;
        let arguments = fs::read(proc.join("cmdline")).ok()?;
        let first = arguments.split(|&b| b == 0).next()?;
        let name = String::from_utf8_lossy(first.rsplit(|&b| b == b'/').next()?).into_owned();
        let stat = fs::read_to_string(proc.join("stat")).ok()?;
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let state = fields.next()?.chars().next()?;
        Some(Process { pid, name, parent: Pid::from_raw(fields.next()?.parse().ok()?), state })
    }

    /// Kills all processes of this name with SIGKILL; how many they were is the number of victims.
    #[must_use]
    pub fn kill(&self, name: &str) -> Kill {
        let frozen = if FROZEN.contains(&name) { self.freeze() } else { Vec::new() };
        let targets: Vec<Process> = match frozen.is_empty() {
            true => self.processes(&[name]),
            false => frozen.iter().filter(|p| p.name == name).cloned().collect(),
        };
        let mut moment = Kill {
            at: SystemTime::now(),
            name: name.to_owned(),
            victims: Vec::new(),
            undone: BTreeMap::new(),
        };
        if !targets.is_empty() && !frozen.is_empty() {
            moment.undone = self.undone();
        }
        for target in &targets {
            let victims = victims(target, &frozen);
            // One that ended by itself in the meantime is nobody's victim.
            if kill(target.pid, Signal::SIGKILL).is_ok() {
                moment.victims.extend(victims);
            }
        }
        for process in frozen.iter().filter(|p| p.name != name) {
            let _ = kill(process.pid, Signal::SIGCONT);
        }
        moment
    }

    /// Stops everything that starts, makes or records deliveries; all of it stands still afterwards.
    fn freeze(&self) -> Vec<Process> {
        let mut frozen: Vec<Process> = Vec::new();
        until(PATIENCE, "all deliveries stand still", || {
            let now = self.processes(&FROZEN);
            let is = |pid: Pid, name: &str| now.iter().any(|p| p.pid == pid && p.name == name);
            // A spawner's child that is about to become another program; the spawner waits for that.
            let becoming = |p: &Process| p.name == "qmail-lspawn" && is(p.parent, "qmail-lspawn");
            let mut still = true;
            for process in &now {
                if becoming(process) {
                    still = false;
                } else if frozen.iter().all(|f| f.pid != process.pid) {
                    still = false;
                    if kill(process.pid, Signal::SIGSTOP).is_ok() {
                        frozen.push(process.clone());
                    }
                } else {
                    still &= process.state == 'T';
                }
            }
            // What has been stopped may have become another program first, or may have ended.
            frozen.retain_mut(|f| match now.iter().find(|p| p.pid == f.pid) {
                Some(p) => {
                    f.clone_from(p);
                    true
                }
                None => !still && self.process(f.pid).is_some(),
            });
            still
        });
        frozen
    }

    /// Local messages with a recipient that is not marked: number in the queue, Message-ID.
    fn undone(&self) -> BTreeMap<u64, String> {
        let mut undone = BTreeMap::new();
        for directory in entries(&self.queue.join("local")) {
            for file in entries(&directory) {
                let records = fs::read(&file).unwrap_or_default();
                let open = records.split(|&b| b == 0).any(|r| r.first() == Some(&b'T'));
                let name = file.file_name().and_then(|n| n.to_str()?.parse().ok());
                if let Some(id) = name.filter(|_| open) {
                    let part = file.strip_prefix(self.queue.join("local")).expect("a path below it");
                    undone.insert(id, message_id(&self.queue.join("mess").join(part)));
                }
            }
        }
        undone
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok).map(|e| e.path()).collect()
}

/// The Message-ID of a message file; empty when it has none.
fn message_id(path: &Path) -> String {
    let mut head = Vec::new();
    let read = fs::File::open(path).and_then(|f| f.take(65_536).read_to_end(&mut head));
    let text = String::from_utf8_lossy(&head);
    let found = text.lines().find_map(|l| l.strip_prefix("Message-ID: "));
    read.ok().and(found).unwrap_or_default().to_owned()
}

/// What a process is to the deliveries, by those above it: one victim, but one for each delivery of a worker.
fn victims(process: &Process, frozen: &[Process]) -> Vec<Victim> {
    let parent = |p: &Process| frozen.iter().find(|f| f.pid == p.parent);
    let number = |pid: Pid| pid.as_raw().unsigned_abs();
    if process.name == "qmail-send" {
        return vec![Victim::Sender(number(process.pid))];
    }
    // A delivery may consist of several processes below each other.
    let mut spawner = Some(process);
    while let Some(p) = spawner.filter(|p| p.name != "qmail-lspawn") {
        spawner = parent(p);
    }
    // A spawner whose sender is gone finishes what it has; that sender's death is on record.
    let Some(sender) = spawner.and_then(parent).filter(|p| p.name == "qmail-send") else {
        return vec![Victim::Bystander];
    };
    let sender = number(sender.pid);
    if process.name == "qmail-lspawn" {
        return vec![Victim::Spawner(sender)];
    }
    let directory = PathBuf::from(format!("/proc/{}/fd", process.pid));
    let open = match &process.name[..] {
        // What it has not read yet it has not begun; what it has answered for it has closed.
        "qmail-lworker" => entries(&directory),
        _ => vec![directory.join("0")],
    };
    let found: Vec<Victim> = open
        .iter()
        .filter_map(|fd| {
            let message = fs::read_link(fd).ok()?;
            let id = message.file_name()?.to_str()?.parse().ok()?;
            message.iter().any(|part| part == "mess").then_some(Victim::Delivery { sender, id })
        })
        .collect();
    if found.is_empty() { vec![Victim::Bystander] } else { found }
}
