//! A site of its own for a test: a domain with accounts in a real store, and a running daemon inside
//! a private view of the machine in which the mail users exist.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

use std::fmt::Write as _;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use accounts::{Account, AccountStore, Accounts, Address, Domains, StoreSettings, password};
use e2e::kit::{self, Etc, PATIENCE, Running};
use nix::sys::signal::Signal;

/// Domain and alias domain of every site.
pub const DOMAIN: &str = "example.com";
pub const ALIAS_DOMAIN: &str = "alias.example";

pub struct Site {
    root: tempfile::TempDir,
    pub etc: Etc,
    daemon: Option<Running>,
    pub options: Vec<&'static str>,
    pub variables: Vec<(&'static str, String)>,
}

impl Site {
    /// A site with the account jane (password `secret`), shaped further by `etc`.
    pub fn new(shape: impl FnOnce(Etc, &Path) -> Etc) -> Self {
        let root = kit::root();
        let etc = shape(Etc::with_mail_users(), root.path());
        let site = Self { root, etc, daemon: None, options: vec!["-v"], variables: Vec::new() };
        let (uid, gid) = site.indimail();
        for directory in ["control", "assign", "var/domains/example.com", "run", "home"] {
            std::fs::create_dir_all(site.at(directory)).unwrap();
            chown(site.at(directory), Some(uid), Some(gid)).unwrap();
        }
        chown(site.at("var"), Some(uid), Some(gid)).unwrap();
        symlink(site.at("var/domains/example.com"), site.at("var/domains/alias.example")).unwrap();
        let domain = |name: &str| {
            let directory = site.at("var/domains").join(name);
            let directory = directory.to_str().unwrap().as_bytes();
            assign::Line::of_domain(name.as_bytes(), DOMAIN.as_bytes(), uid, gid, directory).to_text()
        };
        std::fs::write(
            site.at("assign/assign"),
            [domain(DOMAIN), domain(ALIAS_DOMAIN), b".\n".to_vec()].concat(),
        )
        .unwrap();
        assign::rebuild(&site.at("assign"), None).unwrap();
        let owner = Some((unix::Uid::from_raw(uid), unix::Gid::from_raw(gid)));
        accounts::create_store(&site.store_settings(), owner).unwrap();
        site.add("jane", |_| {});
        site
    }

    /// A site whose daemon runs.
    pub fn running() -> Self {
        let mut site = Self::new(|etc, _| etc);
        site.start();
        site
    }

    pub fn at(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }

    pub fn socket(&self) -> PathBuf {
        self.at("run/inlookup.sock")
    }

    pub fn indimail(&self) -> (u32, u32) {
        (self.etc.uid("indimail"), self.etc.gid("indimail"))
    }

    pub fn store_settings(&self) -> StoreSettings {
        StoreSettings::sqlite(self.at("var/accounts.sqlite"))
    }

    /// The store, to change it.
    pub fn store(&self) -> Box<dyn AccountStore> {
        accounts::open_store(&self.store_settings())
    }

    /// Adds an account with the password `secret`, as `change` wants it.
    pub fn add(&self, local: &str, change: impl FnOnce(&mut Account)) {
        let address = Address::new(local.as_bytes(), DOMAIN.as_bytes()).unwrap();
        let home = self.at("home").join(local);
        std::fs::create_dir_all(&home).unwrap();
        let mut account = Account::new(address, home);
        account.password = password::create(password::Scheme::Sha512, b"secret").unwrap();
        change(&mut account);
        let mut accounts = Accounts::new(self.store(), Domains::new(&self.at("assign")));
        assert_eq!(accounts.insert(&account).unwrap(), Some(accounts::Added::Done));
    }

    /// The command that starts the daemon (as root, inside the view).
    pub fn daemon_command(&self) -> Command {
        let mut command = self.etc.command(env!("CARGO_BIN_EXE_inlookup"));
        command.args(&self.options).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("CONTROLDIR", self.at("control"));
        command.env("ASSIGNDIR", self.at("assign"));
        command.env("DOMAINDIR", self.at("var"));
        command.env("INLOOKUP_SOCKET", self.socket());
        command.envs(self.variables.iter().map(|(n, v)| (n, v)));
        command
    }

    /// Starts the daemon and waits until it answers.
    pub fn start(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.at("log")).unwrap();
        let mut command = self.daemon_command();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.daemon = Some(Running::start(&mut command));
        kit::until(PATIENCE, "the daemon answers", || {
            if let Some(status) = self.daemon.as_mut().and_then(Running::ended) {
                panic!("{status}: {}", self.log());
            }
            self.ask(&["-q", "status"]).code == 0
        });
    }

    /// What the daemon has logged.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.at("log")).unwrap()).into_owned()
    }

    pub fn signal(&self, signal: Signal) {
        self.daemon.as_ref().unwrap().signal(signal);
    }

    /// SIGTERM, and the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.daemon.take().unwrap().stop().code()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        daemon.signal(Signal::SIGKILL);
        daemon.wait_within(PATIENCE);
    }

    pub fn pid(&self) -> i32 {
        self.daemon.as_ref().unwrap().pid().as_raw()
    }

    /// inquerytest, as a copy that every user may run.
    fn client(&self) -> PathBuf {
        let path = self.at("inquerytest");
        if !path.exists() {
            // By another process: while this one has a program open for writing, a child that another
            // test starts meanwhile would hold it open and make it "busy".
            kit::run(Command::new("cp").arg(env!("CARGO_BIN_EXE_inlookup")).arg(&path)).ok();
            kit::set_mode(&path, 0o755);
        }
        path
    }

    /// Asks as root.
    pub fn ask(&self, arguments: &[&str]) -> kit::Output {
        self.ask_with(arguments, b"")
    }

    /// Asks as root, with a password on descriptor 0.
    pub fn ask_with(&self, arguments: &[&str], input: &[u8]) -> kit::Output {
        let mut command = Command::new(self.client());
        kit::run_with_input(command.args(arguments).env("INLOOKUP_SOCKET", self.socket()), input)
    }

    /// Asks as another user.
    pub fn ask_as(
        &self,
        uid: u32,
        gid: u32,
        groups: &[u32],
        arguments: &[&str],
        input: &[u8],
    ) -> kit::Output {
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}"));
        match groups {
            [] => command.arg("--clear-groups"),
            _ => command
                .arg(format!("--groups={}", groups.iter().map(u32::to_string).collect::<Vec<_>>().join(","))),
        };
        command.arg("--").arg(self.client()).args(arguments).env("INLOOKUP_SOCKET", self.socket());
        kit::run_with_input(&mut command, input)
    }

    pub fn owner_of(&self, path: &Path) -> (u32, u32, u32) {
        let meta = std::fs::metadata(path).unwrap();
        (meta.uid(), meta.gid(), meta.mode() & 0o7777)
    }
}

/// The module as cargo built it, beside the test's own executable.
pub fn module() -> PathBuf {
    let own = std::env::current_exe().expect("path of this test");
    let module = own.with_file_name("libpam_multi.so");
    assert!(module.is_file(), "{} is not built", module.display());
    module
}

/// The module in place, with its configuration file and services: `indimail-try` with the module
/// alone, `su` and `sshd` with mail accounts before local ones.
pub fn with_module(etc: Etc, root: &Path) -> Etc {
    let alone = |kind| format!("{kind} required pam_multi.so nodelay\n");
    let own = ["auth", "account", "session", "password"].map(alone).concat();
    let su = "auth sufficient pam_rootok.so\n\
              auth [success=done user_unknown=ignore default=die] pam_multi.so nodelay\n\
              auth required pam_unix.so\n\
              account [success=done user_unknown=ignore default=die] pam_multi.so\n\
              account required pam_unix.so\n\
              session required pam_unix.so\n";
    let sshd = su.replace("auth sufficient pam_rootok.so\n", "");
    let conf = format!("inlookup_socket {}/run/inlookup.sock\nlogin_timeout 5000\n", root.display());
    etc.library(&module(), "security/pam_multi.so")
        .pam("indimail-try", &own)
        .pam("su", su)
        .pam("su-l", su)
        .pam("sshd", &sshd)
        .file("indimail/lookup.conf", conf)
}

/// Unix identities for mail accounts, by entries in the private passwd file, and further lines of it.
pub fn with_mail_logins(etc: Etc, root: &Path, locals: &[&str], further: &str) -> Etc {
    let mut passwd = kit::run(etc.command("cat").arg("/etc/passwd")).ok().stdout;
    for (uid, local) in (60_001..).zip(locals) {
        let home = root.join("home").join(local);
        writeln!(passwd, "{local}@{DOMAIN}:x:{uid}:{uid}:{local}:{}:/bin/sh", home.display()).unwrap();
    }
    etc.file("passwd", passwd + further)
}
