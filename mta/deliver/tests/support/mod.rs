//! An installed tree with our programs and a queue program that keeps what it is given, and a user
//! that owns nothing.

#![allow(dead_code, unreachable_pub, reason = "a module of test programs; each uses its part of it")]

use std::ffi::OsStr;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::kit::{self, Output, write};

/// A user and group that no account of the machine has.
pub const USER: u32 = 54_321;

/// The tree.
#[derive(Debug)]
pub struct Tree {
    pub root: tempfile::TempDir,
}

impl Tree {
    pub fn new() -> Self {
        let root = kit::root();
        let at = |p: &str| root.path().join(p);
        let exe = at("usr/libexec/indimail/qmail-deliver");
        kit::write_program(&exe, std::fs::read(env!("CARGO_BIN_EXE_qmail-deliver")).unwrap());
        for name in ["qmail-local", "vdelivermail", "qmail-getpw", "qmail-newu"] {
            link(&exe, &at(&format!("usr/sbin/{name}")));
        }
        for name in ["forward", "condredirect", "bouncesaying", "except", "preline"] {
            link(&exe, &at(&format!("usr/bin/{name}")));
        }
        link(&exe, &at("usr/libexec/indimail/qmail-lworker"));
        std::fs::create_dir_all(at("control")).unwrap();
        let tree = Self { root };
        tree.give("sent");
        tree.give("home");
        tree.queue_answers(0);
        tree
    }

    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.path().join(path)
    }

    /// A directory of the user, mode 0700.
    pub fn give(&self, path: &str) -> PathBuf {
        let path = self.at(path);
        std::fs::create_dir_all(&path).unwrap();
        kit::set_mode(&path, 0o700);
        chown(&path, Some(USER), Some(USER)).unwrap();
        path
    }

    /// A file in the user's home.
    pub fn home_file(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.at("home").join(name);
        write(&path, text);
        kit::set_mode(&path, mode);
        chown(&path, Some(USER), Some(USER)).unwrap();
        path
    }

    /// A Maildir of the user.
    pub fn maildir(&self, path: &str) -> PathBuf {
        for sub in ["", "/cur", "/new", "/tmp"] {
            self.give(&format!("{path}{sub}"));
        }
        self.at(path)
    }

    /// The queue program keeps message and envelope and ends with this code.
    pub fn queue_answers(&self, code: i32) {
        let sent = self.at("sent");
        let script = format!(
            "#!/bin/sh\ncat >{0}/message.$$; cat <&1 >{0}/envelope.$$\nexit {code}\n",
            sent.display()
        );
        kit::write_program(self.at("usr/sbin/qmail-queue"), script);
    }

    /// What the queue program was given: messages and envelopes.
    pub fn sent(&self) -> Vec<(String, String)> {
        let mut all = Vec::new();
        for path in files(self.at("sent")) {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if let Some(pid) = name.strip_prefix("message.") {
                let envelope = self.at("sent").join(format!("envelope.{pid}"));
                all.push((text(&path), text(&envelope)));
            }
        }
        all
    }

    /// A command as the user, with only the variables of this tree.
    pub fn command(&self, program: &str) -> Command {
        let places =
            ["usr/sbin", "usr/bin", "usr/libexec/indimail"].map(|place| self.at(place).join(program));
        let path = places.iter().find(|p| p.exists()).expect("a program of ours");
        let mut command = Command::new("setpriv");
        command
            .arg(format!("--reuid={USER}"))
            .arg(format!("--regid={USER}"))
            .args(["--clear-groups", "--"])
            .arg(path)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("CONTROLDIR", self.at("control"));
        command
    }

    /// qmail-local for joe-EXT@x.y in the user's home.
    pub fn local(&self, ext: &str, message: &str) -> Output {
        self.local_with(ext, message, |_| {})
    }

    /// As [`Tree::local`], with changes to the command.
    pub fn local_with(&self, ext: &str, message: &str, change: impl FnOnce(&mut Command)) -> Output {
        let mut command = self.command("qmail-local");
        change(&mut command);
        let (dash, local) = if ext.is_empty() { ("", "joe".to_owned()) } else { ("-", format!("joe-{ext}")) };
        command.arg("--").arg("joe").arg(self.at("home"));
        command.args([&local, dash, ext, "x.y", "s@t", "./Mailbox", ""]);
        self.with_message(command, message)
    }

    /// Runs a command with the message in a file on descriptor 0.
    pub fn with_message(&self, mut command: Command, message: impl AsRef<[u8]>) -> Output {
        let path = self.at("message");
        write(&path, message);
        kit::set_mode(&path, 0o644);
        let output = command.stdin(std::fs::File::open(&path).unwrap()).output().unwrap();
        Output {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

fn link(exe: &Path, name: &Path) {
    std::fs::create_dir_all(name.parent().unwrap()).unwrap();
    symlink(exe, name).unwrap();
}

/// The files in a directory, sorted.
pub fn files(dir: impl AsRef<Path>) -> Vec<PathBuf> {
    let mut all: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    all.sort();
    all
}

/// A file's text.
pub fn text(path: impl AsRef<Path>) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned()
}

/// The only message of a Maildir.
#[track_caller]
pub fn only_message(maildir: impl AsRef<Path>) -> String {
    let new = files(maildir.as_ref().join("new"));
    assert_eq!(new.len(), 1, "{new:?}");
    assert_eq!(files(maildir.as_ref().join("tmp")), Vec::<PathBuf>::new());
    text(&new[0])
}

/// The permission bits of a path.
pub fn mode(path: impl AsRef<Path>) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Is this word in the text?
pub fn has(text: &str, word: impl AsRef<OsStr>) -> bool {
    text.contains(word.as_ref().to_str().unwrap())
}
