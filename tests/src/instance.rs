//! Drives a whole private system.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::kit::{Output, PATIENCE, root, run, stage, until_some};
use crate::smtp;

/// A private system that is stopped and removed when this is dropped.
#[derive(Debug)]
pub struct Instance {
    root: tempfile::TempDir,
    user: Option<u32>,
    /// What `svctool try --json` said about it.
    pub report: Report,
}

/// The JSON object of `svctool try --json`.
#[derive(Debug, Clone, Deserialize)]
pub struct Report {
    /// Its directory.
    pub dir: PathBuf,
    /// Its mail domain.
    pub domain: String,
    /// Its accounts.
    pub accounts: Vec<Account>,
    /// Ports by name.
    pub ports: BTreeMap<String, u16>,
    /// Sockets by daemon.
    pub sockets: BTreeMap<String, PathBuf>,
    /// Its store.
    pub store: String,
    /// Its services.
    pub services: Vec<Service>,
    /// What to put in front of a command that is to run inside.
    pub enter: Vec<String>,
    /// What could not be done.
    pub left_out: Vec<String>,
}

/// An account of an instance.
#[derive(Debug, Clone, Deserialize)]
pub struct Account {
    /// Its address.
    pub address: String,
    /// Its password.
    pub password: String,
    /// Its mailbox.
    pub maildir: PathBuf,
}

/// A service of an instance.
#[derive(Debug, Clone, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its service directory.
    pub directory: PathBuf,
    /// Its current log file.
    pub log: PathBuf,
}

/// The svctool of the staged tree.
#[must_use]
pub fn svctool() -> PathBuf {
    stage().join("usr/sbin/svctool")
}

impl Instance {
    /// A system with its accounts in SQLite.
    #[must_use]
    #[track_caller]
    pub fn start() -> Self {
        Self::start_with(&[], None)
    }

    /// A system with more arguments for `svctool try`, started by another user than root.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    #[track_caller]
    pub fn start_with(arguments: &[&str], user: Option<u32>) -> Self {
        let root = root();
        if let Some(uid) = user {
            std::os::unix::fs::chown(root.path(), Some(uid), Some(uid)).expect("give the directory away");
        }
        let report = start_in(&root.path().join("try"), arguments, user);
        Self { root, user, report }
    }

    /// Stops it; the directory stays.
    ///
    /// # Panics
    /// When svctool says that something is left.
    #[track_caller]
    pub fn stop(&self) -> Output {
        run(as_user(self.user, svctool()).args(["try", "--stop", "--dir"]).arg(self.dir())).ok()
    }

    /// Starts it again after [`Instance::stop`].
    #[track_caller]
    pub fn restart(&mut self) {
        self.report = start_in(&self.root.path().join("try"), &[], self.user);
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.report.dir
    }

    /// A command inside it.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = as_user(self.user, &self.report.enter[0]);
        command.args(&self.report.enter[1..]).arg(program);
        command
    }

    /// Runs a command inside it that must succeed; what it printed.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    #[must_use]
    pub fn run(&self, argv: &[&str]) -> String {
        run(self.command(argv[0]).args(&argv[1..])).ok().stdout
    }

    /// An account by its place in the report.
    #[must_use]
    pub fn account(&self, number: usize) -> &Account {
        &self.report.accounts[number]
    }

    /// Sends a message from the second account to the first and waits for it; the message as
    /// delivered.
    ///
    /// # Panics
    /// When it is refused or does not arrive.
    #[track_caller]
    pub fn send_and_wait(&self, id: &str) -> String {
        let (to, from) = (self.account(0), self.account(1));
        let message = format!("From: {}\nMessage-ID: <{id}>\nSubject: {id}\n\nbody of {id}\n", from.address);
        let port = self.report.ports["smtp"];
        smtp::send(port, &from.address, &[&to.address], &message).unwrap_or_else(|e| panic!("{e}"));
        until_some(PATIENCE, "message in the mailbox", || {
            mailbox(&to.maildir).into_iter().find(|m| m.contains(&format!("<{id}>")))
        })
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // A failed test must not leave a mail system behind.
        let _ = as_user(self.user, svctool()).args(["try", "--stop", "--dir"]).arg(self.dir()).output();
    }
}

/// Starts an instance in `dir` and returns its report.
///
/// # Panics
/// When it does not start.
#[track_caller]
pub fn start_in(dir: &Path, arguments: &[&str], user: Option<u32>) -> Report {
    let mut command = as_user(user, svctool());
    command.args(["try", "--detach", "--json", "--dir"]).arg(dir).args(arguments);
    let output = run(&mut command).ok();
    serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", output.stdout))
}

/// A command as another user, who has no name.
pub fn as_user(user: Option<u32>, program: impl AsRef<OsStr>) -> Command {
    let Some(uid) = user else { return Command::new(program) };
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={uid}")).arg(format!("--regid={uid}")).arg("--clear-groups").arg(program);
    command
}

/// All messages in `new` and `cur` of a Maildir.
#[must_use]
pub fn mailbox(maildir: &Path) -> Vec<String> {
    ["new", "cur"]
        .iter()
        .filter_map(|sub| std::fs::read_dir(maildir.join(sub)).ok())
        .flatten()
        .filter_map(Result::ok)
        .filter_map(|e| std::fs::read(e.path()).ok())
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .collect()
}

/// Processes whose mount namespace is not this one's and that mention `dir` in their arguments or
/// environment: what an instance must not leave behind.
#[must_use]
pub fn processes_of(dir: &Path) -> Vec<String> {
    let wanted = dir.as_os_str().as_encoded_bytes();
    let mentions = |bytes: &[u8]| bytes.windows(wanted.len()).any(|w| w == wanted);
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").filter_map(Result::ok) {
        let path = entry.path();
        let numeric = path.file_name().is_some_and(|n| n.as_encoded_bytes().iter().all(u8::is_ascii_digit));
        if !numeric || path.ends_with(std::process::id().to_string()) {
            continue;
        }
        let arguments = std::fs::read(path.join("cmdline")).unwrap_or_default();
        let environment = std::fs::read(path.join("environ")).unwrap_or_default();
        if mentions(&arguments) || mentions(&environment) {
            found.push(String::from_utf8_lossy(&arguments).replace('\0', " "));
        }
    }
    found
}
