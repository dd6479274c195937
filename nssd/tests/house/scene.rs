//! Programs on a machine of their own, with the real module.

use std::path::PathBuf;
use std::process::Command;

use e2e::kit::{self, Etc, Output, run};

use super::{Daemon, House, furnished, module};

/// The order that keeps local users local and a dead daemon temporary.
pub const NSSWITCH: &str =
    "passwd: files indimail\ngroup: files indimail\nshadow: files indimail\nhosts: files\n";

/// A furnished house, and a machine whose programs ask it.
pub struct Scene {
    pub house: House,
    pub etc: Etc,
    pub consumer: PathBuf,
}

impl Scene {
    /// Programs ask the daemon.
    pub fn new() -> Self {
        Self::with("nssd_map off\n")
    }

    /// With more lines in lookup.conf.
    pub fn with(conf: &str) -> Self {
        let house = furnished();
        let consumer = house.at("consumer");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/consumer.c");
        run(Command::new("gcc")
            .args(["-Wall", "-O1", "-o"])
            .arg(&consumer)
            .arg(source)
            .args(["-pthread", "-ldl"]))
        .ok();
        kit::set_mode(&consumer, 0o755);
        let etc = Etc::with_mail_users()
            .file("nsswitch.conf", NSSWITCH)
            .file("indimail/lookup.conf", format!("nssd_socket {}\n{conf}", house.socket().display()))
            .library(&module(), "libnss_indimail.so.2");
        Self { house, etc, consumer }
    }

    pub fn started() -> (Self, Daemon) {
        let scene = Self::new();
        let daemon = scene.house.start(&[]);
        (scene, daemon)
    }

    /// Programs read the map, which is there.
    pub fn mapped() -> (Self, Daemon) {
        let scene = Self::with("");
        let daemon = scene.house.start(&[]);
        daemon.until_mapped();
        (scene, daemon)
    }

    /// Enough for several pages.
    pub fn more_accounts(&self) {
        for n in 0..600 {
            self.house.account(&format!("u{n:03}@example.org"), None, |a| a.gecos = "g".repeat(48));
        }
    }

    pub fn getent(&self, arguments: &[&str]) -> Output {
        run(self.etc.command("getent").args(arguments))
    }

    pub fn consumer(&self, arguments: &[&str]) -> Output {
        run(self.etc.command(&self.consumer).args(arguments))
    }

    /// rc, found, milliseconds of each look-up.
    pub fn asked(&self, arguments: &[&str]) -> Vec<[i64; 3]> {
        let out = self.consumer(arguments).ok();
        assert_eq!(out.stderr, "", "the module says nothing in its host");
        out.stdout.lines().map(numbers).collect()
    }
}

pub fn numbers<const N: usize>(line: &str) -> [i64; N] {
    let all: Vec<i64> = line.split(' ').map(|n| n.parse().unwrap()).collect();
    all.try_into().unwrap()
}
