//! A private system: where its parts are and what is remembered between runs.

pub mod ability;
pub mod configuration;
pub mod keeper;
pub mod leftovers;
pub mod live;
pub mod proof;
pub mod report;
pub mod services;
pub mod session;
pub mod smtp;
pub mod store;
pub mod tree;
pub mod users;
pub mod view;

use std::ffi::OsString;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// Longest path of an instance: its socket paths must fit the 108 bytes of a Unix socket address.
const LONGEST_DIRECTORY: usize = 75;

/// The directory of a private system.
#[derive(Debug, Clone)]
pub struct Instance {
    dir: PathBuf,
}

/// What is remembered between runs, in `try.json` (0600: it holds the passwords).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// The mail domain.
    pub domain: String,
    /// The accounts made with it.
    pub accounts: Vec<TryAccount>,
    /// Ports on 127.0.0.1.
    pub ports: Ports,
    /// The store, as `--store` has it, without a password.
    pub store: String,
    /// Have domain and accounts been made?
    pub populated: bool,
}

/// An account of the private system.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TryAccount {
    /// `local@domain`
    pub address: String,
    /// Its password, random for each instance.
    pub password: String,
    /// Where its mail arrives.
    pub maildir: PathBuf,
}

/// Ports on 127.0.0.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// SMTP, as other hosts would use it.
    pub smtp: u16,
    /// Submission, with authentication, as users would.
    pub submission: u16,
}

impl Instance {
    /// The instance in `dir`, which is made when it is missing. A directory that holds something
    /// else is refused. `lesser`: root will become an ordinary user, whose it is (see [`ability`]).
    ///
    /// # Errors
    /// It cannot be made, belongs to somebody else, is not empty, or its path is too long.
    pub fn create(dir: &Path, lesser: bool) -> Result<Self> {
        if !dir.exists() {
            std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        }
        let dir = dir.canonicalize().with_context(|| dir.display().to_string())?;
        ensure!(
            dir.as_os_str().len() <= LONGEST_DIRECTORY,
            "{}: longer than {LONGEST_DIRECTORY} bytes, the sockets in it could not be reached: use a shorter --dir",
            dir.display()
        );
        ensure!(
            !dir.as_os_str().as_encoded_bytes().iter().any(|c| b",:\\ \n'\"".contains(c)),
            "{}: a mount option cannot hold this name: use a --dir without spaces, commas, colons and quotes",
            dir.display()
        );
        let owner = std::fs::metadata(&dir)?.uid();
        let of_root = !lesser || !dir.join("try.json").exists();
        ensure!(
            (owner == nix::unistd::geteuid().as_raw() && of_root) || (lesser && ability::is_lesser(owner)),
            "{}: belongs to uid {owner}, made with other rights than this process has: use another --dir",
            dir.display()
        );
        let instance = Self { dir };
        if !instance.is_ours() {
            ensure!(
                std::fs::read_dir(&instance.dir)?.next().is_none(),
                "{}: not empty and not a private system: use another --dir",
                instance.dir.display()
            );
            std::fs::write(instance.marker(), "A private mail system; made by svctool try.\n")?;
        }
        std::fs::set_permissions(&instance.dir, PermissionsExt::from_mode(0o755))?;
        Ok(instance)
    }

    /// The instance in `dir`, which must be there.
    ///
    /// # Errors
    /// It is not there or something else.
    pub fn existing(dir: &Path) -> Result<Self> {
        let dir = dir.canonicalize().with_context(|| dir.display().to_string())?;
        let instance = Self { dir };
        if !instance.is_ours() {
            bail!("{}: not a private system: start one with: svctool try --dir DIR", instance.dir.display());
        }
        Ok(instance)
    }

    fn is_ours(&self) -> bool {
        self.marker().is_file()
    }

    fn marker(&self) -> PathBuf {
        self.dir.join("README")
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A place below its directory.
    #[must_use]
    pub fn at(&self, below: &str) -> PathBuf {
        self.dir.join(below)
    }

    /// A program of its own copy of the installed tree.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        let sbin = self.dir.join("usr/sbin").join(name);
        if sbin.exists() { sbin } else { self.dir.join("usr/bin").join(name) }
    }

    /// Was it made by root with too few rights, and belongs to the user it became?
    #[must_use]
    pub fn is_lesser(&self) -> bool {
        std::fs::metadata(&self.dir).is_ok_and(|meta| ability::is_lesser(meta.uid()))
    }

    /// Control files.
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.dir.join("etc/indimail/control")
    }

    /// The queue.
    #[must_use]
    pub fn queue(&self) -> PathBuf {
        self.dir.join("var/indimail/queue")
    }

    /// The scan directory of its svscan.
    #[must_use]
    pub fn service(&self) -> PathBuf {
        self.dir.join("service")
    }

    /// What lies over `/target` in the private view.
    #[must_use]
    pub fn layer(&self, name: &str) -> PathBuf {
        self.dir.join("layer").join(name)
    }

    /// The socket of a daemon.
    #[must_use]
    pub fn socket(&self, daemon: &str) -> PathBuf {
        self.dir.join(format!("run/indimail/{daemon}.sock"))
    }

    /// The variables that lead programs to this instance instead of the machine's own places.
    #[must_use]
    pub fn variables(&self) -> Vec<(&'static str, OsString)> {
        let at = |below: &str| self.dir.join(below).into_os_string();
        vec![
            ("SYSCONFDIR", at("etc/indimail")),
            ("CONTROLDIR", at("etc/indimail/control")),
            ("ASSIGNDIR", at("etc/indimail/users")),
            ("CERTDIR", at("etc/indimail/certs")),
            ("DOMAINDIR", at("var/indimail")),
            ("QUEUEDIR", at("var/indimail/queue")),
            ("BASE_PATH", at("home/mail")),
            ("INLOOKUP_SOCKET", at("run/indimail/inlookup.sock")),
            ("QUEUE_SOCKET", at("run/indimail/queue.sock")),
            ("NSSD_SOCKET", at("run/indimail/nssd.sock")),
            ("QMAIL_SEND_SERVICE", at("service/qmail-send")),
        ]
    }

    /// Its own programs first, then the machine's.
    #[must_use]
    pub fn search_path(&self) -> OsString {
        let mut path = self.dir.join("usr/bin").into_os_string();
        path.push(":");
        path.push(self.dir.join("usr/sbin"));
        path.push(":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        path
    }

    /// What was remembered; `None` on the first run.
    ///
    /// # Errors
    /// The file is there but cannot be read or understood.
    pub fn state(&self) -> Result<Option<State>> {
        let path = self.at("try.json");
        match std::fs::read(&path) {
            Ok(bytes) => {
                Ok(Some(serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?))
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| path.display().to_string()),
        }
    }

    /// Remembers.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn remember(&self, state: &State) -> Result<()> {
        let path = self.at("try.json");
        let bytes = serde_json::to_vec_pretty(state)?;
        unix::durable::replace(&path, &bytes, 0o600, None).with_context(|| path.display().to_string())
    }
}

/// Where an instance lives when nobody says: `/var/lib/indimail-try` for root, below the home
/// directory for others.
#[must_use]
pub fn default_directory(home: Option<&Path>) -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return "/var/lib/indimail-try".into();
    }
    home.map_or_else(
        || PathBuf::from(format!("/var/tmp/indimail-try-{}", nix::unistd::geteuid())),
        |home| home.join(".local/state/indimail-try"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_directories_are_refused_and_own_ones_found_again() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Instance::existing(dir.path()).is_err());
        Instance::create(&dir.path().join("new/one"), false).unwrap();
        Instance::existing(&dir.path().join("new/one")).unwrap();
        let refused = Instance::create(dir.path(), false).unwrap_err().to_string();
        assert!(refused.contains("not empty"), "{refused}");
        let long = dir.path().join("x".repeat(80));
        assert!(Instance::create(&long, false).unwrap_err().to_string().contains("longer than"));
    }

    #[test]
    fn state_is_kept_private() {
        let dir = tempfile::tempdir().unwrap();
        let instance = Instance::create(dir.path(), false).unwrap();
        assert!(instance.state().unwrap().is_none());
        let state = State {
            domain: "d.test".into(),
            accounts: vec![],
            ports: Ports { smtp: 1, submission: 2 },
            store: "sqlite".into(),
            populated: false,
        };
        instance.remember(&state).unwrap();
        assert_eq!(instance.state().unwrap().unwrap().ports.submission, 2);
        let mode = std::fs::metadata(instance.at("try.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
