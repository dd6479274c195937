//! The real qmail-queue: descriptors, exit codes, privileges, full disks, sudden deaths.

mod common;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::kit::{run, set_mode};
use mta_queue::layout::{MessageId, Part, Queue, ids_in};
use proptest::prelude::*;
use unix::child::{Ending, Launch, wait_for};
use unix::fd::Raw;
use unix::{Gid, Uid};

/// Owner of the queue and of the set-id program.
const OWNER: u32 = 61_001;
/// Somebody else on the host.
const OUTSIDER: u32 = 61_002;

struct Site {
    dir: tempfile::TempDir,
    queue: Queue,
}

fn make_queue(root: &Path) -> Queue {
    let queue = common::make_queue(root, 3, OWNER, OWNER);
    nix::unistd::mkfifo(&queue.trigger(), nix::sys::stat::Mode::from_bits_truncate(0o622)).unwrap();
    chown(queue.trigger(), Some(OWNER), Some(OWNER)).unwrap();
    queue
}

impl Site {
    fn new() -> Self {
        let dir = e2e::kit::root();
        let queue = make_queue(&dir.path().join("queue1"));
        let program = dir.path().join("qmail-queue");
        e2e::kit::copy_program(env!("CARGO_BIN_EXE_qmail-queue"), &program);
        chown(&program, Some(OWNER), Some(OWNER)).unwrap();
        set_mode(&program, 0o6551);
        Self { dir, queue }
    }

    fn program(&self) -> PathBuf {
        self.dir.path().join("qmail-queue")
    }

    fn files(&self, part: Part) -> BTreeSet<MessageId> {
        self.queue.directories(part).flat_map(|(_, d)| ids_in(&d).unwrap()).collect()
    }

    fn embryos(&self) -> usize {
        std::fs::read_dir(self.queue.root().join("pid")).unwrap().count()
    }

    fn is_clean(&self) -> bool {
        self.embryos() == 0 && [Part::Mess, Part::Intd, Part::Todo].iter().all(|&p| self.files(p).is_empty())
    }

    fn call(&self) -> Call {
        Call {
            program: self.program(),
            caller: None,
            env: vec![("QUEUEDIR".into(), self.queue.root().to_str().unwrap().into())],
            message: b"Subject: x\n\nbody\n".to_vec(),
            envelope: b"Fs@x\0Ta@y\0\0".to_vec(),
        }
    }
}

/// One run of the program.
#[derive(Clone)]
struct Call {
    program: PathBuf,
    caller: Option<u32>,
    env: Vec<(String, String)>,
    message: Vec<u8>,
    envelope: Vec<u8>,
}

fn feed(bytes: Vec<u8>) -> OwnedFd {
    let (r, w) = unix::fd::pipe().unwrap();
    std::thread::spawn(move || {
        // The program may end before it has read everything.
        let _ = Raw(w.as_fd()).write_all(&bytes);
    });
    r
}

impl Call {
    fn env(mut self, name: &str, value: &str) -> Self {
        self.env.retain(|(n, _)| n != name);
        self.env.push((name.into(), value.into()));
        self
    }

    fn by(mut self, uid: u32) -> Self {
        self.caller = Some(uid);
        self
    }

    fn envelope(mut self, bytes: &[u8]) -> Self {
        self.envelope = bytes.to_vec();
        self
    }

    fn message(mut self, bytes: &[u8]) -> Self {
        self.message = bytes.to_vec();
        self
    }

    /// The exit code, and what was written to descriptor 2.
    fn run(self) -> (i32, String) {
        let (errors_r, errors_w) = unix::fd::pipe().unwrap();
        let (message, envelope) = (feed(self.message), feed(self.envelope));
        let mut launch = Launch::new(&self.program)
            .env_exactly(self.env.into_iter().map(|(n, v)| (n.into(), v.into())))
            .directory("/")
            .descriptor(message.as_fd(), 0)
            .and_then(|l| l.descriptor(envelope.as_fd(), 1))
            .and_then(|l| l.descriptor(errors_w.as_fd(), 2))
            .unwrap();
        if let Some(uid) = self.caller {
            launch = launch.identity(Uid::from_raw(uid), Gid::from_raw(uid), vec![]);
        }
        let pid = launch.start().unwrap();
        drop((errors_w, message, envelope));
        let mut text = String::new();
        std::fs::File::from(errors_r).read_to_string(&mut text).unwrap();
        match wait_for(pid).unwrap() {
            Ending::Exited(code) => (code, text),
            Ending::Killed(signal) => (1000 + signal, text),
        }
    }

    fn code(self) -> i32 {
        self.run().0
    }
}

#[test]
fn a_message_lies_in_the_queue_as_the_layout_says() {
    let site = Site::new();
    let mut trigger = std::fs::OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::custom_flags(trigger.read(true), nix::fcntl::OFlag::O_NONBLOCK.bits());
    let mut trigger = trigger.open(site.queue.trigger()).unwrap();
    let body = b"Subject: x\n\nNUL \0 and no newline";
    let call = site.call().by(OUTSIDER).env("HOSTNAME", "mx.example").env("TCPREMOTEIP", "192.0.2.1");
    assert_eq!(call.message(body).envelope(b"F\0Ta@y\0Tb@z\0\0").run(), (0, String::new()));

    let ids = site.files(Part::Mess);
    let id = *ids.first().unwrap();
    assert_eq!((ids.len(), site.embryos()), (1, 0));
    assert_eq!((site.files(Part::Intd), site.files(Part::Todo)), (ids.clone(), ids));
    let mess = site.queue.path(Part::Mess, id);
    let meta = std::fs::metadata(&mess).unwrap();
    assert_eq!((meta.ino(), meta.uid(), meta.gid(), meta.mode() & 0o7777), (id.0, OWNER, OWNER, 0o644));
    let text = std::fs::read(&mess).unwrap();
    let (head, rest) = text.split_at(text.len() - body.len());
    assert_eq!(rest, body);
    let head = String::from_utf8(head.to_vec()).unwrap();
    let wanted = format!("by host mx.example\n (invoked from network 192.0.2.1, by uid {OUTSIDER}); ");
    assert!(head.starts_with("Received: indimail-mta queue ") && head.contains(&wanted), "{head}");
    let todo = String::from_utf8(std::fs::read(site.queue.path(Part::Todo, id)).unwrap()).unwrap();
    assert!(todo.starts_with(&format!("u{OUTSIDER}\0p")) && todo.ends_with("\0F\0Ta@y\0Tb@z\0"), "{todo:?}");
    let mut pulled = [9u8];
    trigger.read_exact(&mut pulled).unwrap();
    assert_eq!(pulled, [0]);
}

#[test]
fn without_set_id_it_works_as_the_owner_of_the_queue() {
    let site = Site::new();
    set_mode(&site.program(), 0o755);
    assert_eq!(site.call().by(OWNER).code(), 0);
    // Root becomes the owner, so that deliveries accept the files.
    assert_eq!(site.call().code(), 0);
    for id in site.files(Part::Mess) {
        assert_eq!(std::fs::metadata(site.queue.path(Part::Mess, id)).unwrap().uid(), OWNER);
    }
    assert_eq!(site.files(Part::Todo).len(), 2);
}

#[test]
fn mistakes_have_their_codes_and_leave_nothing() {
    let site = Site::new();
    let long = |n: usize| [b"F\0T".to_vec(), vec![b'x'; n], b"\0\0".to_vec()].concat();
    for (envelope, code) in [
        (&b""[..], 54),
        (b"Fs@x\0Ta@y\0", 54),
        (b"Fs@x\0Ta", 54),
        (b"Ta@y\0\0", 79),
        (b"Fs\0Xy\0\0", 79),
        (b"Fs\0Ty\0Qz\0\0", 79),
        (b"\0\0", 79),
        (&long(1003), 11),
    ] {
        assert_eq!(site.call().envelope(envelope).code(), code, "{envelope:?}");
        assert!(site.is_clean());
    }
    let missing = site.dir.path().join("nowhere");
    assert_eq!(site.call().env("QUEUEDIR", missing.to_str().unwrap()).code(), 61);
    assert_eq!(site.call().envelope(&long(1002)).code(), 0);
    assert_eq!(site.call().envelope(b"Fs@x\0\0").code(), 0, "no recipient is legal");
}

#[test]
fn missing_parts_of_the_queue_have_their_codes() {
    for (missing, code) in [("pid", 70), ("mess/0", 67), ("intd", 65), ("todo", 66)] {
        let site = Site::new();
        if missing == "mess/0" {
            (0..3).for_each(|n| std::fs::remove_dir(site.queue.root().join(format!("mess/{n}"))).unwrap());
        } else {
            std::fs::remove_dir(site.queue.root().join(missing)).unwrap();
        }
        assert_eq!(site.call().code(), code, "{missing}");
        let left = [Part::Mess, Part::Intd].iter().filter(|p| site.queue.root().join(p.name()).exists());
        for part in left.filter(|_| missing != "mess/0" && missing != "intd") {
            assert!(site.files(*part).is_empty(), "{missing}");
        }
    }
}

#[test]
fn a_queue_of_somebody_else_is_refused_in_clear_words() {
    let site = Site::new();
    set_mode(&site.program(), 0o755);
    let root = site.queue.root();
    set_mode(root, 0o755);
    let call = site.call().by(OUTSIDER);
    assert_eq!(call.clone().run(), (87, String::new()), "silent unless asked for");
    let (code, text) = call.env("QMAIL_QUEUE_CUSTOM_ERROR", "").run();
    let wanted = format!(
        "Zqmail-queue: queue directory {} belongs to user {OWNER} but this program runs as user {OUTSIDER}",
        root.display()
    );
    assert!(
        code == 88 && text.starts_with(&wanted) && text.ends_with(" (#4.3.5)") && !text.contains('\n'),
        "{text}"
    );
}

#[test]
fn custom_text_says_what_failed_and_permanent_errors_stay_permanent() {
    let site = Site::new();
    let custom = |call: Call| call.env("QMAIL_QUEUE_CUSTOM_ERROR", "").run();
    let (code, text) = custom(site.call().env("QUEUEDIR", "/nonexistent/q"));
    assert_eq!(
        (code, text.as_str()),
        (
            88,
            "Zqmail-queue: cannot enter the queue directory /nonexistent/q: No such file or directory (#4.3.0)"
        )
    );
    let (code, text) = custom(site.call().envelope(&[b"F".to_vec(), vec![b'x'; 2000]].concat()));
    assert!(
        code == 88 && text.starts_with("Dqmail-queue: envelope: ") && text.ends_with(" (#5.1.3)"),
        "{text}"
    );
    assert_eq!(
        custom(site.call().env("QUEUEDIR", "/nonexistent").env("ERROR_FD", "-1")),
        (61, String::new())
    );
    assert_eq!(
        custom(site.call().env("QUEUEDIR", "/nonexistent").env("ERROR_FD", "77")),
        (61, String::new())
    );
}

#[test]
fn fix_37b_outsiders_cannot_point_it_at_a_queue_of_their_own() {
    let site = Site::new();
    let trap = site.dir.path().join("trap");
    std::fs::create_dir(&trap).unwrap();
    chown(&trap, Some(OUTSIDER), Some(OUTSIDER)).unwrap();
    set_mode(&trap, 0o777);
    make_queue(&trap.join("queue1"));
    chown(trap.join("queue1"), Some(OUTSIDER), Some(OUTSIDER)).unwrap();
    set_mode(&trap.join("queue1"), 0o777);
    let path = |p: &Path| p.to_str().unwrap().to_owned();
    let directly = site.call().env("QUEUEDIR", &path(&trap.join("queue1")));
    assert_eq!(directly.clone().by(OUTSIDER).code(), 61);
    let mut by_base = site.call().env("QUEUE_BASE", &path(&trap));
    by_base.env.retain(|(n, _)| n != "QUEUEDIR");
    assert_eq!(by_base.by(OUTSIDER).code(), 61);
    let controls = trap.join("control");
    std::fs::create_dir(&controls).unwrap();
    chown(&controls, Some(OUTSIDER), Some(OUTSIDER)).unwrap();
    std::fs::write(controls.join("queue_base"), path(&trap)).unwrap();
    let mut by_control = site.call().env("CONTROLDIR", &path(&controls));
    by_control.env.retain(|(n, _)| n != "QUEUEDIR");
    assert_eq!(by_control.by(OUTSIDER).code(), 55);
    // The owner's queue is open to everybody, a member of the group may choose, and the shape cannot be lied about.
    assert_eq!(site.call().by(OUTSIDER).env("CONFSPLIT", "1").env("BIGTODO", "1").code(), 0);
    let id = *site.files(Part::Mess).first().unwrap();
    assert!(site.queue.path(Part::Mess, id).exists() && site.queue.path(Part::Todo, id).exists());
}

#[test]
fn fix_7_quarantine_and_extra_recipients_make_a_readable_envelope() {
    let site = Site::new();
    let control = site.dir.path().join("control");
    std::fs::create_dir(&control).unwrap();
    std::fs::write(control.join("quarantine"), "first@q\nsecond@q\n").unwrap();
    let call = site
        .call()
        .env("CONTROLDIR", control.to_str().unwrap())
        .env("EXTRAQUEUE", "log@x")
        .env("QQEH", "X-Mark: 1");
    assert_eq!(call.envelope(b"Fs@x\0Ta@y\0Tb@\nz\0\0").code(), 0);
    let id = *site.files(Part::Todo).first().unwrap();
    let todo = String::from_utf8(std::fs::read(site.queue.path(Part::Todo, id)).unwrap()).unwrap();
    let wanted = "\0Fs@x\0Tlog@x\0Tfirst@q\0Tsecond@q\0eX-Quarantine-ID: first@q,second@q,a@y,b@_z\nX-Mark: 1\n\0\
         hX-Quarantine-ID: first@q,second@q,a@y,b@_z\n\0";
    assert!(todo.ends_with(wanted), "{todo:?}");
    assert!(mta_queue::envelope::records(todo.as_bytes()).all(|r| r.is_ok()));
}

/// Acknowledged mail is on the disk unless somebody has switched that off in so many words.
#[test]
fn fix_15_everything_is_forced_out_unless_switched_off() {
    let site = Site::new();
    set_mode(&site.program(), 0o755);
    let (message, envelope) = (site.dir.path().join("m"), site.dir.path().join("e"));
    std::fs::write(&message, b"Subject: x\n\nbody\n").unwrap();
    std::fs::write(&envelope, b"Fs@x\0Ta@y\0\0").unwrap();
    let forced = |variables: &[(&str, &str)]| {
        let trace = site.dir.path().join("trace");
        let script = format!(
            "exec strace -qq -y -o {} -e trace=fsync,fdatasync {} <{} 1<{}",
            trace.display(),
            site.program().display(),
            message.display(),
            envelope.display()
        );
        let mut command = Command::new("sh");
        command.args(["-c", &script]).env("QUEUEDIR", site.queue.root());
        run(command.envs(variables.iter().copied())).ok();
        let calls = std::fs::read_to_string(trace).unwrap();
        // The kernel knows the message by the name under which it was made.
        let names = ["/pid/", "/mess/", "/intd", "/todo"];
        names.map(|name| calls.lines().filter(|l| l.contains(name)).count())
    };
    // Message and its directory, envelope and its directory, the directory of the commit.
    assert_eq!(forced(&[]), [1, 1, 2, 1]);
    assert_eq!(forced(&[("USE_FSYNC", ""), ("USE_SYNCDIR", "")]), [1, 1, 2, 1], "empty is not no");
    assert_eq!(forced(&[("USE_FDATASYNC", "1"), ("USE_FSYNC", "0")]), [1, 1, 2, 1]);
    assert_eq!(forced(&[("USE_SYNCDIR", "0")]), [1, 0, 1, 0]);
    assert_eq!(forced(&[("USE_FSYNC", "0")]), [0, 0, 0, 0]);
}

/// With our own module in nsswitch.conf, walking passwd would walk every mail account.
#[test]
fn fix_25_users_are_looked_up_one_by_one() {
    let program = std::fs::read(env!("CARGO_BIN_EXE_qmail-queue")).unwrap();
    let has = |name: &str| program.windows(name.len()).any(|w| w == name.as_bytes());
    assert!(has("getpwnam_r"), "the names of functions cannot be found in the program");
    for name in ["getpwent", "getgrent", "initgroups"] {
        assert!(!has(name), "{name} is linked");
    }
}

/// A set-id program reads nothing below somebody's home.
#[test]
fn the_callers_default_queue_is_not_for_this_program() {
    let site = Site::new();
    let home = site.dir.path().join("home");
    std::fs::create_dir_all(home.join(".defaultqueue")).unwrap();
    std::fs::write(home.join(".defaultqueue/QUARANTINE"), "thief@x\n").unwrap();
    std::fs::write(home.join(".defaultqueue/QUEUEDIR"), "/nonexistent\n").unwrap();
    assert_eq!(site.call().by(OUTSIDER).env("HOME", home.to_str().unwrap()).code(), 0);
    let id = *site.files(Part::Todo).first().unwrap();
    let todo = std::fs::read(site.queue.path(Part::Todo, id)).unwrap();
    assert!(todo.ends_with(b"\0Fs@x\0Ta@y\0"), "{}", todo.escape_ascii());
}

#[test]
fn dangerous_variables_have_no_effect() {
    let site = Site::new();
    let mark = site.dir.path().join("mark");
    let script = format!("/usr/bin/touch {}", mark.display());
    let mut call = site.call().by(OUTSIDER);
    for name in
        ["QHPSI", "SCANCMD", "LD_PRELOAD", "LD_LIBRARY_PATH", "PLUGINDIR", "QUEUE_PLUGIN_SYMB", "QMAILQUEUE"]
    {
        call = call.env(name, &script);
    }
    assert_eq!(call.env("HOSTNAME", &"h".repeat(100_000)).code(), 0);
    assert!(!mark.exists());
}

#[test]
fn messages_spread_over_the_queues_of_a_base() {
    let site = Site::new();
    make_queue(&site.dir.path().join("queue2"));
    let base = site.dir.path().to_str().unwrap().to_owned();
    for _ in 0..40 {
        let mut call = site.call().env("QUEUE_BASE", &base).env("QUEUE_COUNT", "2");
        call.env.retain(|(n, _)| n != "QUEUEDIR");
        assert_eq!(call.code(), 0);
    }
    // All on one side happens once in 2^39 runs.
    let first = site.files(Part::Todo).len();
    assert!(first > 0 && first < 40, "{first}");
}

#[test]
fn a_base_that_is_a_queue_itself_is_the_one_to_use() {
    let site = Site::new();
    let mut call = site.call().env("QUEUE_BASE", site.queue.root().to_str().unwrap());
    call.env.retain(|(n, _)| n != "QUEUEDIR");
    assert_eq!(call.code(), 0);
    assert_eq!(site.files(Part::Todo).len(), 1);
}

#[test]
fn the_death_alarm_ends_it_without_cleaning_up() {
    let site = Site::new();
    let (message, hold) = unix::fd::pipe().unwrap();
    Raw(hold.as_fd()).write_all(b"Subject: never ends\n").unwrap();
    let pid = Launch::new(site.program())
        .env_exactly([("QUEUEDIR".into(), site.queue.root().into()), ("DEATH".into(), "1".into())])
        .descriptor(message.as_fd(), 0)
        .and_then(|l| l.descriptor(message.as_fd(), 1))
        .unwrap()
        .start()
        .unwrap();
    assert_eq!(wait_for(pid).unwrap(), Ending::Exited(52));
    assert_eq!((site.files(Part::Mess).len(), site.files(Part::Todo).len()), (1, 0));
}

#[test]
fn a_full_disk_is_code_53_and_leaves_nothing() {
    let site = Site::new();
    // The queue is made on a file system of 400 KiB that only this shell sees.
    let script = format!(
        "set -e; q={0}; mount -t tmpfs -o size=400k none $q; cd $q
         mkdir pid mess mess/0 mess/1 mess/2 intd todo lock; chown -R {OWNER}:{OWNER} .; chmod 755 .
         run() {{ printf 'Fs@x\\0Ta@y\\0\\0' >../envelope; set +e; QUEUEDIR=$q {1} <$1 1<../envelope; code=$?; set -e; }}
         head -c 1000000 /dev/zero >../big; echo small >../small
         run ../big; echo big $code $(find pid mess intd todo -type f | wc -l)
         run ../small; echo small $code $(find todo -type f | wc -l)",
        site.queue.root().display(),
        site.program().display()
    );
    let output = run(Command::new("unshare").args(["--mount", "sh", "-c", &script])).ok();
    assert_eq!(output.stdout, "big 53 0\nsmall 0 1\n", "{}", output.stderr);
}

#[test]
fn killed_before_any_system_call_it_leaves_no_partial_message_committed() {
    let site = Site::new();
    set_mode(&site.program(), 0o755);
    let (message, envelope) = (site.dir.path().join("m"), site.dir.path().join("e"));
    std::fs::write(&message, b"Subject: x\n\nbody\n").unwrap();
    std::fs::write(&envelope, b"Fs@x\0Ta@y\0\0").unwrap();
    // Every call that changes the disk, and those that come between.
    let calls = ["openat", "linkat", "unlink", "write", "fsync", "statx", "read", "close", "exit_group"];
    let (mut killed, mut queued_though_killed) = (0, 0);
    for call in calls {
        for nth in 1.. {
            let before = site.files(Part::Todo);
            let script = format!(
                "exec strace -qq -o /dev/null -e inject={call}:signal=SIGKILL:when={nth} {} <{} 1<{}",
                site.program().display(),
                message.display(),
                envelope.display()
            );
            let code = run(Command::new("sh").args(["-c", &script]).env("QUEUEDIR", site.queue.root())).code;
            let todo = site.files(Part::Todo);
            let new: Vec<_> = todo.difference(&before).collect();
            for id in &new {
                let text = std::fs::read(site.queue.path(Part::Mess, **id)).unwrap();
                assert!(text.ends_with(b"\nSubject: x\n\nbody\n"), "{call} {nth}: partial message");
                let records = std::fs::read(site.queue.path(Part::Todo, **id)).unwrap();
                assert!(records.ends_with(b"\0Fs@x\0Ta@y\0"), "{call} {nth}: partial envelope");
            }
            if code == 0 {
                assert_eq!(new.len(), 1, "{call} {nth}");
                break;
            }
            assert_eq!(code, 128 + 9, "{call} {nth}");
            killed += 1;
            queued_though_killed += new.len();
        }
    }
    println!("killed {killed} times, {queued_though_killed} after the commit");
    // At the least: 5 fsync, 2 linkat, 2 write, 1 unlink; the last fsync comes after the commit.
    assert!(killed > 30 && queued_though_killed > 0, "{killed} {queued_though_killed}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn garbage_for_an_envelope_is_refused_and_leaves_nothing(
        envelope in prop::collection::vec(prop::sample::select(b"FTQ\0\0ax\n".to_vec()), 0..60),
    ) {
        thread_local!(static SITE: Site = Site::new());
        SITE.with(|site| {
            let code = site.call().envelope(&envelope).code();
            if code == 0 {
                for part in [Part::Todo, Part::Intd, Part::Mess] {
                    for id in site.files(part) {
                        std::fs::remove_file(site.queue.path(part, id)).unwrap();
                    }
                }
                prop_assert!(envelope.starts_with(b"F") && envelope.windows(2).any(|w| w == [0, 0]));
            } else {
                prop_assert!([54, 79, 11].contains(&code), "{code}");
            }
            prop_assert!(site.is_clean());
            Ok(())
        })?;
    }
}
