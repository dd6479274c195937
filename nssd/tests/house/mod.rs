//! A mail system of files in a temporary directory, and the real daemon on it.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

pub mod scene;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use accounts::{
    Account, Accounts, Address, DomainName, Editor, Settings, StoreSettings, UnixIds, create_store,
};
use e2e::kit::{self, Running};
use lookup::identity::Client;
use unix::Signal;

/// Directories, a store, domains.
pub struct House {
    pub dir: tempfile::TempDir,
}

impl House {
    /// With an empty store.
    pub fn new() -> Self {
        let house = Self { dir: kit::root() };
        for name in ["control", "users", "domains", "run"] {
            std::fs::create_dir(house.at(name)).unwrap();
        }
        create_store(&house.store(), None).unwrap();
        house
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.at("run/nssd.sock")
    }

    pub fn store(&self) -> StoreSettings {
        StoreSettings::sqlite(self.at("accounts.sqlite"))
    }

    fn accounts(&self) -> Accounts {
        Accounts::open(&Settings { store: self.store(), assign_dir: self.at("users") })
    }

    /// A domain whose accounts share these ids.
    pub fn domain(&self, name: &str, ids: UnixIds) {
        let dir = self.at("domains").join(name);
        std::fs::create_dir(&dir).unwrap();
        let name = DomainName::parse(name.as_bytes()).unwrap();
        let control = control::Directory::new(self.at("control"));
        Editor::new(&self.at("users"), &control, None).add(&name, ids, &dir).unwrap();
    }

    /// An account; without ids it shares those of its domain.
    pub fn account(&self, address: &str, ids: Option<UnixIds>, change: impl FnOnce(&mut Account)) {
        let address = Address::parse(address.as_bytes()).unwrap();
        let home = format!("/home/mail/{}", address.local());
        let mut account = Account { own_ids: ids, ..Account::new(address, home.into()) };
        change(&mut account);
        self.accounts().insert(&account).unwrap().expect("the domain exists");
    }

    pub fn remove(&self, address: &str) {
        let address = Address::parse(address.as_bytes()).unwrap();
        assert!(self.accounts().store().delete(&address).unwrap());
    }

    /// Takes the store away.
    pub fn break_store(&self) {
        std::fs::rename(self.at("accounts.sqlite"), self.at("accounts.away")).unwrap();
    }

    pub fn mend_store(&self) {
        std::fs::rename(self.at("accounts.away"), self.at("accounts.sqlite")).unwrap();
    }

    /// `nssd.conf`.
    pub fn configure(&self, text: &str) {
        std::fs::write(self.at("nssd.conf"), text).unwrap();
    }

    /// The daemon's command.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nssd"));
        command
            .args(arguments)
            .env_clear()
            .env("SYSCONFDIR", self.dir.path())
            .env("CONTROLDIR", self.at("control"))
            .env("ASSIGNDIR", self.at("users"))
            .env("DOMAINDIR", self.dir.path())
            .env("NSSD_SOCKET", self.socket());
        command
    }

    /// The daemon, once it answers.
    pub fn start(&self, arguments: &[&str]) -> Daemon {
        let log = std::fs::OpenOptions::new().append(true).create(true).open(self.at("log")).unwrap();
        let mut command = self.command(arguments);
        command.stdin(Stdio::null()).stderr(log);
        let daemon =
            Daemon { process: Running::start(&mut command), log: self.at("log"), socket: self.socket() };
        kit::until(kit::PATIENCE, "nssd answers", || daemon.client().status().is_ok());
        daemon
    }
}

/// A running `nssd`.
pub struct Daemon {
    pub process: Running,
    log: PathBuf,
    socket: PathBuf,
}

impl Daemon {
    pub fn client(&self) -> Client {
        Client::new(&self.socket, kit::PATIENCE)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    pub fn until_logged(&self, text: &str) {
        kit::until(kit::PATIENCE, text, || self.log().contains(text));
    }

    /// The map is there and counts.
    pub fn until_mapped(&self) {
        kit::until(kit::PATIENCE, "the map is built", || {
            let rows = self.client().status().unwrap();
            rows.contains(&(b"map_asking".to_vec(), b"0".to_vec()))
        });
    }

    pub fn counter(&self, name: &str) -> u64 {
        let rows = self.client().status().unwrap();
        let value = rows.iter().find(|(n, _)| n == name.as_bytes()).map(|(_, v)| v.clone()).unwrap();
        String::from_utf8(value).unwrap().parse().unwrap()
    }
}

/// The built module, beside this test's own executable.
pub fn module() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let built = own.parent().unwrap().join("libnss_indimail.so");
    assert!(built.exists(), "{} was not built", built.display());
    built
}

pub fn ids(uid: u32, gid: u32) -> UnixIds {
    UnixIds { uid, gid }
}

/// Two domains and four accounts.
pub fn furnished() -> House {
    let house = House::new();
    house.domain("example.org", ids(7001, 7001));
    house.domain("second.example", ids(7002, 7002));
    house.account("ann@example.org", Some(ids(8001, 8001)), |a| {
        a.gecos = "Ann Example".into();
        a.password = b"$6$salt$hash".as_slice().into();
    });
    house.account("bob@example.org", None, |_| {});
    house.account("off@example.org", Some(ids(8002, 7001)), |a| a.active = false);
    house.account("cam@second.example", Some(ids(8003, 7002)), |a| a.gecos = "é".repeat(24));
    house.configure("shell /bin/sh\n");
    house
}
