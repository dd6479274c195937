//! A queue with the real programs, between fake spawners and a log that tests can read.

#![allow(dead_code, reason = "each test uses its part")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use e2e::kit::{PATIENCE, until, until_some};
use mta_queue::inject::Message;
use mta_queue::layout::{MessageId, Part, Queue, Shape, ids_in};
use mta_queue::spawn_protocol::{Report, Request, RequestDecoder, Verdict, encode_maximum};
use unix::child::{Ending, Launch, wait_for};
use unix::durable::{Disk, Durability};
use unix::fd::Raw;
use unix::{Gid, Pid, Signal, Uid};

/// Tests run as root; the queue belongs to an ordinary user who plays all roles.
pub(crate) const USER: u32 = 65_534;

/// How a fake spawner answers.
pub(crate) type Behaviour = Arc<dyn Fn(&Request) -> (Verdict, Vec<u8>) + Send + Sync>;

pub(crate) fn always(verdict: Verdict, text: &str) -> Behaviour {
    let text = text.as_bytes().to_vec();
    Arc::new(move |_| (verdict, text.clone()))
}

pub(crate) fn succeed() -> Behaviour {
    always(Verdict::Success, "done")
}

/// A queue directory with control files.
pub(crate) struct Site {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) queue: Queue,
    environment: Vec<(OsString, OsString)>,
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!(
                "the queue was:\n{}",
                e2e::kit::run(std::process::Command::new("find").arg(self.queue.root()).args(["-type", "f"]))
                    .stdout
            );
        }
    }
}

/// Runs a program of the executable under test to its end, as the owner of the queue.
pub(crate) fn run_as_user(
    bin: &Path,
    program: &str,
    args: &[&str],
    env: &[(OsString, OsString)],
) -> e2e::kit::Output {
    use std::os::unix::process::CommandExt;
    let mut command = std::process::Command::new(bin.join(program));
    command.args(args).env_clear().envs(env.iter().cloned()).uid(USER).gid(USER).current_dir("/");
    e2e::kit::run(&mut command)
}

impl Site {
    pub(crate) fn new(controls: &[(&str, &str)]) -> Self {
        Self::shaped(controls, "3", "0")
    }

    pub(crate) fn shaped(controls: &[(&str, &str)], split: &str, bigtodo: &str) -> Self {
        let dir = e2e::kit::root();
        for name in ["bin", "control"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        for (name, text) in [&[("me", "mx.example\n")], controls].concat() {
            std::fs::write(dir.path().join("control").join(name), text).unwrap();
        }
        // A copy: the user of the queue need not be able to reach the build directory.
        let bin = dir.path().join("bin");
        e2e::kit::copy_program(env!("CARGO_BIN_EXE_qmail-send"), bin.join("qmail-send"));
        for program in ["todo-proc", "qmail-clean", "queue-fix", "qmail-qread", "qmail-qstat"] {
            std::os::unix::fs::symlink("qmail-send", bin.join(program)).unwrap();
        }
        chown(dir.path(), Some(USER), Some(USER)).unwrap();
        let root = dir.path().join("queue1");
        let environment = vec![
            ("QUEUEDIR".into(), root.clone().into_os_string()),
            ("CONTROLDIR".into(), dir.path().join("control").into_os_string()),
            ("PATH".into(), "/usr/bin:/bin".into()),
        ];
        let made = run_as_user(
            &dir.path().join("bin"),
            "queue-fix",
            &["-s", split, "-b", bigtodo, root.to_str().unwrap()],
            &environment,
        );
        assert_eq!((made.code, made.stderr.as_str()), (0, ""), "{}", made.stdout);
        let shape = Shape { split: split.parse().unwrap(), bigtodo: bigtodo == "1" };
        Self { queue: Queue::new(root, shape), dir, environment }
    }

    pub(crate) fn bin(&self) -> PathBuf {
        self.dir.path().join("bin")
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.into(), value.into()));
    }

    pub(crate) fn environment(&self) -> &[(OsString, OsString)] {
        &self.environment
    }

    pub(crate) fn control(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join("control").join(name), text).unwrap();
    }

    /// A program for QMAILQUEUE that keeps each message in a directory: `N.mess` and `N.env`.
    pub(crate) fn fake_queue(&mut self) -> PathBuf {
        let kept = self.dir.path().join("kept");
        std::fs::create_dir(&kept).unwrap();
        chown(&kept, Some(USER), Some(USER)).unwrap();
        let script = self.dir.path().join("fake-queue");
        let text = format!(
            "#!/bin/sh\ncat >{0}/$$.mess; cat <&1 >{0}/$$.part; mv {0}/$$.part {0}/$$.env\n",
            kept.display()
        );
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        self.set("BOUNCEQUEUE", script.to_str().unwrap());
        kept
    }

    /// Puts a message into the queue and wakes todo-proc.
    pub(crate) fn inject(&self, sender: &str, recipients: &[&str], body: &str) -> MessageId {
        let disk = Disk::new(Durability::chosen(Some(false), None, None));
        let now = unix::clock::unix_seconds();
        // Names of embryonic files must differ between threads and fast repetitions.
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut message = Message::create(&self.queue, disk, count, now).unwrap();
        let id = message.id();
        let owned = |part| chown(self.queue.path(part, id), Some(USER), Some(USER)).unwrap();
        owned(Part::Mess);
        message.write(b"Received: here\n").unwrap();
        message.write(body.as_bytes()).unwrap();
        let mut envelope = message.envelope(USER, 4242).unwrap();
        owned(Part::Intd);
        let bytes =
            mta_queue::envelope::encode_client(sender.as_bytes(), recipients.iter().map(|r| r.as_bytes()))
                .unwrap();
        envelope.copy(&mut &bytes[..]).unwrap();
        envelope.prepare().unwrap().commit().unwrap();
        self.queue.pull_trigger();
        id
    }

    pub(crate) fn count(&self, part: Part) -> usize {
        self.queue.directories(part).map(|(_, d)| ids_in(&d).unwrap().len()).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        Part::ALL.iter().all(|&part| self.count(part) == 0)
    }

    pub(crate) fn wait_until_empty(&self) {
        until(PATIENCE, "queue empty", || self.is_empty());
    }
}

#[derive(Default)]
struct Seen {
    requests: Vec<Request>,
}

/// A fake spawner: a thread that answers requests and remembers them.
#[derive(Clone)]
pub(crate) struct Spawner {
    seen: Arc<Mutex<Seen>>,
}

impl Spawner {
    /// Answers are held back until `hold` requests are open, and then given last one first, a byte at a time.
    fn start(
        from_send: OwnedFd,
        to_send: OwnedFd,
        (maximum, hold): (u16, usize),
        behaviour: Behaviour,
    ) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mine = seen.clone();
        std::thread::spawn(move || {
            // Either end may close at any time; then this spawner is done.
            let _ = Raw(to_send.as_fd()).write_all(&encode_maximum(maximum));
            let (mut decoder, mut piece) = (RequestDecoder::default(), [0u8; 4096]);
            let mut held: Vec<Vec<u8>> = Vec::new();
            while let Ok(n @ 1..) = Raw(from_send.as_fd()).read(&mut piece) {
                for request in decoder.take(&piece[..n]).expect("qmail-send speaks the protocol") {
                    let (verdict, text) = behaviour(&request);
                    let mut bytes = Vec::new();
                    Report { number: request.number, verdict: Some(verdict), text }.encode(&mut bytes);
                    mine.lock().unwrap().requests.push(request);
                    held.push(bytes);
                    let chunk = if hold > 0 { 1 } else { usize::MAX };
                    if held.len() >= hold {
                        for bytes in held.drain(..).rev() {
                            if !bytes.chunks(chunk).all(|c| Raw(to_send.as_fd()).write_all(c).is_ok()) {
                                return;
                            }
                        }
                    }
                }
            }
        });
        Self { seen }
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().requests.clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.seen.lock().unwrap().requests.len()
    }
}

/// The running programs.
pub(crate) struct Tree {
    pub(crate) send: Pid,
    pub(crate) todo: Pid,
    pub(crate) cleaners: [Pid; 2],
    pub(crate) local: Spawner,
    pub(crate) remote: Spawner,
    log: Arc<Mutex<String>>,
    ended: BTreeMap<Pid, Ending>,
}

fn pair() -> (OwnedFd, OwnedFd) {
    unix::fd::pipe().unwrap()
}

impl Tree {
    pub(crate) fn start(site: &Site, local: Behaviour, remote: Behaviour) -> Self {
        Self::with_maximum(site, 500, local, remote)
    }

    /// Answers come only when `hold` deliveries are open at once on the local channel.
    pub(crate) fn holding(site: &Site, hold: usize) -> Self {
        Self::build(site, (500, hold), None, succeed(), succeed())
    }

    /// One of the programs (`Self::NAMES`) is killed before the nth time it makes a system call.
    pub(crate) fn killing(
        site: &Site,
        kill: (&'static str, &'static str, usize),
        local: Behaviour,
        remote: Behaviour,
    ) -> Self {
        Self::build(site, (500, 0), Some(kill), local, remote)
    }

    /// What can be killed; the first qmail-clean serves qmail-send, the second one todo-proc.
    pub(crate) const NAMES: [&'static str; 4] =
        ["qmail-send", "todo-proc", "qmail-clean", "qmail-clean of todo-proc"];

    pub(crate) fn with_maximum(site: &Site, maximum: u16, local: Behaviour, remote: Behaviour) -> Self {
        Self::build(site, (maximum, 0), None, local, remote)
    }

    fn build(
        site: &Site,
        (maximum, hold): (u16, usize),
        kill: Option<(&'static str, &'static str, usize)>,
        local: Behaviour,
        remote: Behaviour,
    ) -> Self {
        let launch = |name: &str, fds: &[(&OwnedFd, i32)]| {
            let path = site.bin().join(name.split(' ').next().unwrap());
            let launch = match kill {
                Some((victim, call, nth)) if victim == name => {
                    let inject = format!("inject={call}:signal=SIGKILL:when={nth}");
                    Launch::new("/usr/bin/strace")
                        .args(["-qq", "-o", "/dev/null", "-e", &inject])
                        .args([path])
                }
                _ => Launch::new(path),
            };
            let mut launch = launch.env_exactly(site.environment.iter().cloned()).directory("/").identity(
                Uid::from_raw(USER),
                Gid::from_raw(USER),
                vec![],
            );
            for (fd, number) in fds {
                launch = launch.descriptor(fd.as_fd(), *number).unwrap();
            }
            launch.start().unwrap()
        };
        let (log_r, log_w) = pair();
        let (local_request_r, local_request_w) = pair();
        let (local_report_r, local_report_w) = pair();
        let (remote_request_r, remote_request_w) = pair();
        let (remote_report_r, remote_report_w) = pair();
        let (clean_r, clean_w) = pair();
        let (answer_r, answer_w) = pair();
        let (clean2_r, clean2_w) = pair();
        let (answer2_r, answer2_w) = pair();
        let (to_todo_r, to_todo_w) = pair();
        let (from_todo_r, from_todo_w) = pair();
        let cleaners = [
            launch("qmail-clean", &[(&clean_r, 0), (&answer_w, 1)]),
            launch("qmail-clean of todo-proc", &[(&clean2_r, 0), (&answer2_w, 1)]),
        ];
        let todo =
            launch("todo-proc", &[(&to_todo_r, 0), (&from_todo_w, 1), (&clean2_w, 2), (&answer2_r, 3)]);
        let send = launch(
            "qmail-send",
            &[
                (&log_w, 0),
                (&local_request_w, 1),
                (&local_report_r, 2),
                (&remote_request_w, 3),
                (&remote_report_r, 4),
                (&clean_w, 5),
                (&answer_r, 6),
                (&to_todo_w, 7),
                (&from_todo_r, 8),
            ],
        );
        drop(log_w);
        let log = Arc::new(Mutex::new(String::new()));
        let mine = log.clone();
        std::thread::spawn(move || {
            let mut piece = [0u8; 4096];
            while let Ok(n @ 1..) = Raw(log_r.as_fd()).read(&mut piece) {
                mine.lock().unwrap().push_str(&String::from_utf8_lossy(&piece[..n]));
            }
        });
        Self {
            send,
            todo,
            cleaners,
            local: Spawner::start(local_request_r, local_report_w, (maximum, hold), local),
            remote: Spawner::start(remote_request_r, remote_report_w, (maximum, 0), remote),
            log,
            ended: BTreeMap::new(),
        }
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    #[track_caller]
    pub(crate) fn wait_for_log(&self, text: &str) {
        until(PATIENCE, &format!("log line with {text:?} in\n{}", self.log()), || self.log().contains(text));
    }

    /// The whole line of the log that holds this text.
    #[track_caller]
    pub(crate) fn line(&self, text: &str) -> String {
        self.wait_for_log(text);
        until_some(PATIENCE, "whole line", || {
            let log = self.log();
            let start = log.find(text)?;
            let line_start = log[..start].rfind('\n').map_or(0, |n| n + 1);
            let end = log[start..].find('\n')?;
            Some(log[line_start..start + end].to_owned())
        })
    }

    pub(crate) fn signal(&self, pid: Pid, signal: Signal) {
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    fn all(&self) -> [Pid; 4] {
        [self.send, self.todo, self.cleaners[0], self.cleaners[1]]
    }

    /// Waits until every program has ended.
    #[track_caller]
    pub(crate) fn wait_for_end(&mut self) -> Ending {
        for pid in self.all() {
            let ending =
                wait_within(pid, &format!("end of one of {:?}, which is {pid}: {}", self.all(), self.log()));
            self.ended.insert(pid, ending);
        }
        self.ended[&self.send]
    }

    /// TERM, and everything ends.
    #[track_caller]
    pub(crate) fn stop(mut self) -> String {
        self.signal(self.send, Signal::SIGTERM);
        assert_eq!(self.wait_for_end(), Ending::Exited(0), "{}", self.log());
        until(PATIENCE, "last line", || self.log().ends_with(" exiting\n"));
        self.log()
    }
}

/// Has this child ended, without taking its ending away?
pub(crate) fn has_ended(pid: Pid) -> bool {
    use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    !matches!(waitid(Id::Pid(pid), flags), Ok(WaitStatus::StillAlive))
}

#[track_caller]
fn wait_within(pid: Pid, what: &str) -> Ending {
    until(PATIENCE, what, || has_ended(pid));
    wait_for(pid).unwrap()
}

impl Drop for Tree {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the log was:\n{}", self.log());
        }
        for pid in self.all() {
            if !self.ended.contains_key(&pid) {
                let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
                let _ = wait_for(pid);
            }
        }
    }
}
