//! A mail site in a temporary directory, and the real executable installed in it.

// Each test file uses its own part of this.
#![allow(dead_code, reason = "shared by several test executables")]

use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use accounts::{Accounts, Address, Entry, Settings};
use e2e::kit::{Etc, Output, root, run_with_input, write};

/// User and group of the test's domain.
pub(crate) const ID: u32 = 6101;

pub(crate) struct Site {
    dir: tempfile::TempDir,
    etc: Etc,
    /// Runs the commands as this ordinary user.
    user: Option<u32>,
    variables: Vec<(String, String)>,
}

impl Site {
    /// A site of root's.
    pub(crate) fn new() -> Self {
        let dir = root();
        for sub in ["control", "users", "var", "mail", "usr/bin", "usr/libexec/indimail"] {
            std::fs::create_dir_all(dir.path().join(sub)).unwrap();
        }
        e2e::kit::copy_program(env!("CARGO_BIN_EXE_vadmin"), dir.path().join("usr/libexec/indimail/vadmin"));
        let list = Command::new(env!("CARGO_BIN_EXE_vadmin")).arg("--list-programs").output().unwrap();
        for line in String::from_utf8(list.stdout).unwrap().lines() {
            let name = line.split('\t').next().unwrap();
            symlink("../libexec/indimail/vadmin", dir.path().join("usr/bin").join(name)).unwrap();
        }
        Self { dir, etc: Etc::with_mail_users(), user: None, variables: Vec::new() }
    }

    /// A site of an ordinary user's.
    pub(crate) fn of_user(uid: u32) -> Self {
        let mut site = Self::new();
        for sub in ["control", "users", "var", "mail"] {
            std::os::unix::fs::chown(site.path(sub), Some(uid), Some(uid)).unwrap();
        }
        site.user = Some(uid);
        site
    }

    pub(crate) fn as_user(&mut self, uid: Option<u32>) {
        self.user = uid;
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub(crate) fn put(&self, name: &str, text: &str) {
        write(self.path(name), text);
    }

    /// Owner, group and mode.
    pub(crate) fn owner(&self, name: &str) -> (u32, u32, u32) {
        let m = std::fs::symlink_metadata(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        (m.uid(), m.gid(), m.mode() & 0o7777)
    }

    pub(crate) fn uid(&self, user: &str) -> u32 {
        self.etc.uid(user)
    }

    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.variables.retain(|(n, _)| n != name);
        self.variables.push((name.to_owned(), value.into()));
    }

    /// The value that was set for a variable.
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        self.variables.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone())
    }

    pub(crate) fn restore(&mut self, name: &str, value: Option<String>) {
        self.variables.retain(|(n, _)| n != name);
        self.variables.extend(value.map(|v| (name.to_owned(), v)));
    }

    pub(crate) fn command(&self, argv: &[&str]) -> Command {
        let program = self.path("usr/bin").join(argv[0]);
        let mut command = match self.user {
            None => self.etc.command(program),
            Some(uid) => {
                let mut command = self.etc.command("setpriv");
                command.arg(format!("--reuid={uid}")).arg(format!("--regid={uid}"));
                command.args(["--clear-groups", "--"]).arg(program);
                command
            }
        };
        command.args(&argv[1..]).current_dir("/");
        for name in ["POST_HANDLE", "PASSWORD_HASH", "QMAIL_SEND_SERVICE"] {
            command.env_remove(name);
        }
        for (name, sub) in [
            ("CONTROLDIR", "control"),
            ("ASSIGNDIR", "users"),
            ("DOMAINDIR", "var"),
            ("BASE_PATH", "mail"),
            ("INLOOKUP_SOCKET", "inlookup.sock"),
            ("NSSD_SOCKET", "nssd.sock"),
        ] {
            command.env(name, self.path(sub));
        }
        command.envs(self.variables.iter().map(|(n, v)| (n, v)));
        command
    }

    /// Runs a command with a password on descriptor 0.
    pub(crate) fn with_password(&self, argv: &[&str], password: &str) -> Output {
        let mut all = vec![argv[0], "--password-fd", "0"];
        all.extend(&argv[1..]);
        run_with_input(&mut self.command(&all), format!("{password}\n").as_bytes())
    }

    pub(crate) fn run(&self, argv: &[&str]) -> Output {
        run_with_input(&mut self.command(argv), b"")
    }

    /// Makes the domain `example.com`.
    pub(crate) fn domain(&self) {
        let id = ID.to_string();
        let argv: &[&str] = match self.user {
            None => &["vadddomain", "-i", &id, "-g", &id, "example.com"],
            Some(_) => &["vadddomain", "example.com"],
        };
        self.with_password(argv, "post secret").ok();
    }

    /// Makes the domain once more after a removal that stopped halfway.
    pub(crate) fn domain_again(&self) {
        drop(std::fs::remove_file(self.path("var/domains/example.com/.base_path")));
        self.run(&["vdeldomain", "example.com"]).ok();
        self.domain();
    }

    pub(crate) fn accounts(&self) -> Accounts {
        let control = control::Directory::new(self.path("control"));
        Accounts::open(&Settings::load(&control, &self.path("var"), &self.path("users")).unwrap())
    }

    pub(crate) fn account(&self, address: &str) -> Option<Entry> {
        self.accounts().account(&Address::parse(address.as_bytes()).unwrap()).unwrap()
    }

    pub(crate) fn verifies(&self, address: &str, password: &str) -> bool {
        let field = self.account(address).expect("the account").account.combined_password();
        accounts::password::verify(field.expose(), password.as_bytes()).unwrap()
    }
}

/// Names in a directory, sorted.
pub(crate) fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(path)
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// The output, which must be a refusal with this code that names `what`.
#[track_caller]
pub(crate) fn refused(output: &Output, code: i32, what: &str) {
    assert_eq!(output.code, code, "{output:?}");
    assert!(output.stderr.contains(": fatal: ") && output.stderr.contains(what), "{what}: {output:?}");
}
