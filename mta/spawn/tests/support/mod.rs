//! An installed tree with our executable and programs made for the test, a queue, and a spawner
//! that is talked to as qmail-send does.

#![allow(dead_code, unreachable_pub, reason = "a module of test programs; each uses its part of it")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use e2e::kit::{self, Etc, Running, write};
use mta_queue::spawn_protocol::{ReportDecoder, Request, Verdict};

/// The tree and the private view of the machine.
#[derive(Debug)]
pub struct Tree {
    pub root: tempfile::TempDir,
    pub etc: Etc,
}

impl Tree {
    pub fn new() -> Self {
        let root = kit::root();
        let at = |p: &str| root.path().join(p);
        kit::write_program(
            at("usr/libexec/indimail/qmail-root"),
            std::fs::read(env!("CARGO_BIN_EXE_qmail-root")).unwrap(),
        );
        std::fs::create_dir_all(at("usr/sbin")).unwrap();
        for name in ["qmail-start", "qmail-lspawn", "qmail-rspawn"] {
            symlink(at("usr/libexec/indimail/qmail-root"), at("usr/sbin").join(name)).unwrap();
        }
        for dir in ["queue/mess/0", "queue/lock", "control", "out"] {
            std::fs::create_dir_all(at(dir)).unwrap();
        }
        kit::set_mode(&at("out"), 0o777);
        Self { root, etc: Etc::with_mail_users() }
    }

    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.path().join(path)
    }

    /// A shell script in the place of one of our programs.
    pub fn program(&self, name: &str, script: &str) {
        kit::write_program(self.at("usr/sbin").join(name), format!("#!/bin/sh\n{script}\n"));
    }

    /// A message that belongs to this user; its name for requests.
    pub fn message(&self, number: u32, text: &str, owner: u32) -> String {
        let path = self.at(format!("queue/mess/0/{number}"));
        write(&path, text);
        chown(&path, Some(owner), None).unwrap();
        format!("0/{number}")
    }

    /// users/cdb with these lines.
    pub fn assign(&self, lines: &str) {
        write(self.at("users/assign"), format!("{lines}.\n"));
        assign::rebuild(&self.at("users"), None).unwrap();
    }

    /// A program of the tree in the private view, with only the variables of this tree.
    pub fn command(&self, name: &str) -> Command {
        let mut command = self.etc.command(self.at("usr/sbin").join(name));
        self.variables(&mut command);
        command
    }

    pub fn variables(&self, command: &mut Command) {
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("QUEUEDIR", self.at("queue"))
            .env("ASSIGNDIR", self.at("users"))
            .env("CONTROLDIR", self.at("control"))
            .env("INLOOKUP_SOCKET", self.at("inlookup.sock"))
            .env("OUT", self.at("out"));
    }
}

/// A running spawner.
#[derive(Debug)]
pub struct Spawner {
    running: Running,
    requests: Option<ChildStdin>,
    bytes: Receiver<Vec<u8>>,
    decoder: ReportDecoder,
    reports: BTreeMap<u16, (char, String)>,
}

impl Spawner {
    /// Starts it and reads its maximum.
    pub fn start(mut command: Command) -> Self {
        let mut running = Running::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let requests = running.child().stdin.take();
        let mut out = running.child().stdout.take().unwrap();
        let (to, bytes) = channel();
        std::thread::spawn(move || {
            let mut buf = [0u8; 4096];
            while let Ok(n) = out.read(&mut buf) {
                if n == 0 || to.send(buf[..n].to_vec()).is_err() {
                    break;
                }
            }
        });
        let me =
            Self { running, requests, bytes, decoder: ReportDecoder::default(), reports: BTreeMap::new() };
        let first = me.bytes.recv_timeout(kit::PATIENCE).expect("the spawner's maximum");
        assert_eq!(first, [0xf4, 0x01]);
        me
    }

    pub fn ask(&mut self, request: &Request) {
        let mut bytes = Vec::new();
        request.encode(&mut bytes).unwrap();
        self.requests.as_mut().unwrap().write_all(&bytes).unwrap();
    }

    /// The report about this delivery.
    #[track_caller]
    pub fn report(&mut self, number: u16) -> (char, String) {
        loop {
            if let Some(report) = self.reports.remove(&number) {
                return report;
            }
            let bytes = self.bytes.recv_timeout(kit::PATIENCE).expect("a report");
            for report in self.decoder.take(&bytes) {
                let letter = report.verdict.map_or('?', |v: Verdict| char::from(v.letter()));
                let text = String::from_utf8_lossy(&report.text).into_owned();
                assert!(self.reports.insert(report.number, (letter, text)).is_none(), "two reports");
            }
        }
    }

    /// Is there a report that nobody has asked for yet?
    pub fn has_report(&mut self) -> bool {
        while let Ok(bytes) = self.bytes.try_recv() {
            for report in self.decoder.take(&bytes) {
                self.reports.insert(report.number, ('?', String::new()));
            }
        }
        !self.reports.is_empty()
    }

    /// One request and its report.
    #[track_caller]
    pub fn deliver(&mut self, request: &Request) -> (char, String) {
        self.ask(request);
        self.report(request.number)
    }

    /// No more requests.
    pub fn close(&mut self) {
        self.requests = None;
    }

    /// Waits for the end after [`Spawner::close`].
    #[track_caller]
    pub fn exit_code(&mut self) -> Option<i32> {
        self.running.wait_within(kit::PATIENCE).code()
    }

    pub fn pid(&self) -> i32 {
        self.running.pid().as_raw()
    }
}

/// A request.
pub fn request(number: u16, message: &str, recipient: &str) -> Request {
    Request {
        number,
        message: message.into(),
        sender: b"s@t".to_vec(),
        recipient: recipient.into(),
        ..Request::default()
    }
}
