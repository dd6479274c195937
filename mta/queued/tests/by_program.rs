//! The queue service, and what its clients see.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use e2e::kit::{PATIENCE, Running, root, set_mode, until, write_program};
use mta_queue::client::{Outcome, QueueProgram};
use mta_queue::envelope::{Record, records};
use mta_queue::layout::{DIRECTORIES, MessageId, Part, Queue, Shape, ids_in};
use nix::sys::signal::Signal;

struct Site {
    dir: tempfile::TempDir,
    queue: Queue,
}

impl Site {
    fn new() -> Self {
        let dir = root();
        let queue = Queue::new(dir.path().join("queue"), Shape { split: 3, bigtodo: false });
        for row in DIRECTORIES {
            let part = row.part.into_iter().filter(|p| p.is_split(queue.shape()));
            let below = part.flat_map(|p| queue.directories(p)).map(|(_, d)| d);
            for directory in std::iter::once(queue.root().join(row.name)).chain(below) {
                std::fs::create_dir_all(&directory).expect("directory");
                set_mode(&directory, row.mode);
            }
        }
        std::fs::create_dir(dir.path().join("control")).expect("directory");
        Self { dir, queue }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("queue.sock")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qmail-queued"));
        command
            .env_clear()
            .env("QUEUEDIR", self.queue.root())
            .env("CONTROLDIR", self.dir.path().join("control"))
            .env("QUEUE_SOCKET", self.socket())
            .arg("-v");
        command
    }

    /// As an ordinary user, who owns this queue: everybody of the mail system is that user then.
    fn start(&self) -> Running {
        let mut command = Command::new("setpriv");
        let user = ["--reuid=65534", "--regid=65534", "--clear-groups"];
        let own =
            Command::new("chown").args(["-R", "65534:65534"]).arg(self.dir.path()).status().expect("chown");
        assert!(own.success());
        set_mode(self.dir.path(), 0o755);
        let program = self.dir.path().join("qmail-queued");
        if !program.exists() {
            e2e::kit::copy_program(env!("CARGO_BIN_EXE_qmail-queued"), &program);
        }
        let theirs = self.command();
        command.args(user).arg(program).args(theirs.get_args()).env_clear();
        command.envs(theirs.get_envs().filter_map(|(n, v)| Some((n, v?)))).env("PATH", "/usr/bin:/bin");
        let running = Running::start(command.stderr(Stdio::null()));
        until(PATIENCE, "the service listens", || UnixStream::connect(self.socket()).is_ok());
        running
    }

    /// Hands a message over as smtpd does; no queue program is there to stand in.
    fn send(&self, text: &str, recipients: &[&str]) -> Outcome {
        let variables = [("TCPREMOTEIP".into(), "192.0.2.9".into())];
        let program = QueueProgram::new(&self.dir.path().join("sbin"), &variables)
            .service(&self.socket())
            .patience(PATIENCE);
        match program.open() {
            Ok(mut transfer) => {
                transfer.write(text.as_bytes());
                transfer.finish(b"sender@x.test", recipients.iter().map(|r| r.as_bytes()))
            }
            Err(outcome) => outcome,
        }
    }

    fn ids(&self, part: Part) -> Vec<MessageId> {
        self.queue.directories(part).flat_map(|(_, d)| ids_in(&d).expect("queue")).collect()
    }

    fn text(&self, id: MessageId) -> String {
        std::fs::read_to_string(self.queue.path(Part::Mess, id)).expect("message")
    }
}

fn queued(outcome: &Outcome) -> u32 {
    match outcome {
        Outcome::Queued { qp } => *qp,
        other => panic!("{other:?}"),
    }
}

fn raw(site: &Site, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(site.socket()).expect("connect");
    let _ = stream.write_all(bytes);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answer");
    answer
}

#[test]
fn a_message_is_queued_with_its_envelope_and_its_origin() {
    let site = Site::new();
    let _service = site.start();
    let qp = queued(&site.send("Subject: x\n\nbody\n", &["a@x.test", "b@y.test"]));
    let ids = site.ids(Part::Todo);
    assert_eq!(ids.len(), 1);
    let text = site.text(ids[0]);
    let head = format!("Received: indimail-mta queue {qp} by host ");
    assert!(text.starts_with(&head) && text.ends_with("\nSubject: x\n\nbody\n"), "{text}");
    assert!(text.contains("(invoked from network 192.0.2.9, by uid 0)"), "{text}");
    let envelope = std::fs::read(site.queue.path(Part::Todo, ids[0])).expect("envelope");
    let records: Vec<_> = records(&envelope).map(|r| format!("{:?}", r.expect("record").1)).collect();
    let wanted = [
        Record::Uid(0),
        Record::Pid(qp),
        Record::Sender(b"sender@x.test"),
        Record::Recipient(b"a@x.test"),
        Record::Recipient(b"b@y.test"),
    ];
    assert_eq!(records, wanted.map(|r| format!("{r:?}")));
    assert!(
        site.ids(Part::Intd).len() == 1
            && std::fs::read_dir(site.queue.root().join("pid")).unwrap().count() == 0
    );
}

#[test]
fn what_is_no_request_or_not_complete_leaves_nothing() {
    let site = Site::new();
    let service = site.start();
    assert!(raw(&site, b"EHLO x\r\n").contains(":Zenvelope format error"), "no request");
    let long = format!("3000:3:x\n\n,1500:{},", "a".repeat(1500));
    assert!(raw(&site, long.as_bytes()).contains(":Dan envelope address is too long"));
    let mut half = UnixStream::connect(site.socket()).expect("connect");
    half.write_all(b"30:10:half a mes").expect("write");
    until(PATIENCE, "the message begins", || site.ids(Part::Mess).len() == 1);
    drop(half);
    until(PATIENCE, "what came of it is removed", || site.ids(Part::Mess).is_empty());
    assert!(site.ids(Part::Todo).is_empty() && site.ids(Part::Intd).is_empty());
    drop(service);
}

#[test]
fn a_queue_that_cannot_be_written_to_is_said_and_nothing_stays() {
    let site = Site::new();
    let _service = site.start();
    std::fs::remove_dir(site.queue.root().join("todo")).expect("todo");
    assert!(matches!(site.send("x\n", &["a@x.test"]), Outcome::Temporary(t) if t.ends_with(b"(#4.3.0)")));
    assert!(site.ids(Part::Mess).is_empty() && site.ids(Part::Intd).is_empty());
}

#[test]
fn who_finds_no_service_starts_the_program() {
    let site = Site::new();
    let out = site.dir.path().join("out");
    std::fs::create_dir(site.dir.path().join("sbin")).expect("directory");
    write_program(
        site.dir.path().join("sbin/qmail-queue"),
        format!("#!/bin/sh\ncat >{0}; cat <&1 >>{0}\n", out.display()),
    );
    queued(&site.send("text\n", &["a@x.test"]));
    assert_eq!(std::fs::read(&out).expect("out"), b"text\nFsender@x.test\0Ta@x.test\0\0");
    // What is too great to be gathered takes the same way although the service is there.
    let _service = site.start();
    let great = "a line of thirty bytes, or so.\n".repeat(40_000);
    queued(&site.send(&great, &["a@x.test"]));
    assert!(site.ids(Part::Mess).is_empty());
    assert!(std::fs::read(&out).expect("out").starts_with(great.as_bytes()));
}

#[test]
fn sigterm_cuts_off_what_is_not_complete_and_ends_in_order() {
    let site = Site::new();
    let mut service = site.start();
    let mut half = UnixStream::connect(site.socket()).expect("connect");
    half.write_all(b"30:10:half a mes").expect("write");
    until(PATIENCE, "the message begins", || site.ids(Part::Mess).len() == 1);
    queued(&site.send("whole\n", &["a@x.test"]));
    service.signal(Signal::SIGTERM);
    assert!(service.wait_within(PATIENCE).success());
    assert_eq!((site.ids(Part::Mess).len(), site.ids(Part::Todo).len()), (1, 1));
}

/// Clients at the same time, and the service killed again and again between them.
#[test]
fn a_killed_service_has_lost_nothing_that_it_promised() {
    const CLIENTS: usize = 8;
    const EACH: usize = 40;
    let site = Site::new();
    let mut service = site.start();
    let done = std::sync::atomic::AtomicUsize::new(0);
    let (mut kills, mut promised) = (0, Vec::new());
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (site, done) = (&site, &done);
                scope.spawn(move || {
                    let mut accepted = Vec::new();
                    for n in 0..EACH {
                        let text = format!("Message-ID: <{client}.{n}>\n\n{}", "x".repeat(2000));
                        if matches!(site.send(&text, &["a@x.test"]), Outcome::Queued { .. }) {
                            accepted.push(format!("<{client}.{n}>"));
                        }
                        done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                    accepted
                })
            })
            .collect();
        while done.load(std::sync::atomic::Ordering::Relaxed) < CLIENTS * EACH {
            std::thread::sleep(Duration::from_millis(60));
            service.signal(Signal::SIGKILL);
            service.wait_within(PATIENCE);
            kills += 1;
            service = site.start();
        }
        for client in clients {
            promised.extend(client.join().expect("client"));
        }
    });
    let mut there: BTreeMap<String, usize> = BTreeMap::new();
    for id in site.ids(Part::Todo) {
        let text = site.text(id);
        let name =
            text.lines().find_map(|l| l.strip_prefix("Message-ID: ")).expect("a whole message").to_owned();
        *there.entry(name).or_default() += 1;
        assert!(text.ends_with(&"x".repeat(2000)), "{id}: not whole");
        let envelope = std::fs::read(site.queue.path(Part::Todo, id)).expect("envelope");
        assert_eq!(records(&envelope).filter(|r| matches!(r, Ok((_, Record::Recipient(_))))).count(), 1);
    }
    let lost: Vec<_> = promised.iter().filter(|id| there.get(*id) != Some(&1)).collect();
    println!("{} promised, {kills} kills, {} in the queue", promised.len(), there.len());
    assert!(lost.is_empty(), "lost or doubled: {lost:?}");
    assert!(!promised.is_empty() && kills > 0);
}

#[test]
fn a_queue_that_is_none_is_named_with_the_way_out() {
    let site = Site::new();
    let missing = site.dir.path().join("nowhere");
    let output = site.command().env("QUEUEDIR", &missing).output().expect("run");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // Root without the users of the mail system is told so first.
    assert_eq!(output.status.code(), Some(111), "{said}");
    assert!(said.contains("queue-fix") || said.contains("qmailq"), "{said}");
    assert!(!Path::new("/nowhere").exists());
}
