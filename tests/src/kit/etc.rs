//! A private view of the machine: our users, NSS and PAM configuration and modules, visible only
//! to commands started through it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use unix::mail_users::{GROUPS, USERS};

use super::{set_mode, write};

/// Builds and enters the private view (needs root).
///
/// Commands run in a mount namespace of their own: files given here lie over the machine's /etc
/// (read-only there), modules over the library directory, directories are bound where wanted.
/// Each command gets a fresh namespace that is gone with it.
///
/// ```text
/// let etc = Etc::with_mail_users().file("nsswitch.conf", "passwd: files indimail\n");
/// etc.command("getent").args(["passwd", "qmailq"])
/// ```
#[derive(Debug)]
pub struct Etc {
    root: tempfile::TempDir,
    ids: BTreeMap<String, u32>,
    binds: Vec<(PathBuf, PathBuf)>,
}

impl Etc {
    /// The machine's users and groups and the mail system's, with ids that are free here.
    ///
    /// # Panics
    /// When /etc/passwd or /etc/group cannot be read or copied.
    #[must_use]
    pub fn with_mail_users() -> Self {
        let root = super::root();
        let mut passwd = read("/etc/passwd");
        let mut group = read("/etc/group");
        let taken: Vec<u32> = [&passwd, &group].iter().flat_map(|text| numbers(text)).collect();
        let mut free = (5500..60_000).filter(|id| !taken.contains(id));
        let mut ids = BTreeMap::new();
        for name in GROUPS {
            let gid = existing(&group, name).unwrap_or_else(|| {
                let gid = free.next().expect("a free group id");
                let members: Vec<_> =
                    USERS.iter().filter(|u| u.also_in.contains(name)).map(|u| u.name).collect();
                let _ = writeln!(group, "{name}:x:{gid}:{}", members.join(","));
                gid
            });
            ids.insert(format!("group {name}"), gid);
        }
        for user in USERS {
            let gid = ids[&format!("group {}", user.group)];
            let uid = existing(&passwd, user.name).unwrap_or_else(|| {
                let uid = free.next().expect("a free user id");
                let _ = writeln!(
                    passwd,
                    "{}:x:{uid}:{gid}:{}:{}:{}",
                    user.name, user.purpose, user.home, user.shell
                );
                uid
            });
            ids.insert(format!("user {}", user.name), uid);
        }
        Self { root, ids, binds: Vec::new() }.file("passwd", passwd).file("group", group)
    }

    /// Puts a file at /etc/`name`.
    #[must_use]
    pub fn file(self, name: &str, contents: impl AsRef<[u8]>) -> Self {
        write(self.layer("etc").join(name), contents);
        self
    }

    /// Puts a PAM service file at /etc/pam.d/`service`.
    #[must_use]
    pub fn pam(self, service: &str, contents: &str) -> Self {
        self.file(&format!("pam.d/{service}"), contents)
    }

    /// Puts a built library into the machine's library directory, as `name`
    /// (`libnss_indimail.so.2`, `security/pam_multi.so`).
    ///
    /// # Panics
    /// When it cannot be copied.
    #[must_use]
    pub fn library(self, built: &Path, name: &str) -> Self {
        let target = self.layer("lib").join(name);
        write(&target, std::fs::read(built).unwrap_or_else(|e| panic!("{}: {e}", built.display())));
        set_mode(&target, 0o644);
        self
    }

    /// Shows the file or directory `source` at `target`, writable.
    ///
    /// # Panics
    /// When the mount point cannot be made (targets outside /etc must exist).
    #[must_use]
    pub fn bind(mut self, source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        let (source, target) = (source.into(), target.into());
        if let Ok(below) = target.strip_prefix("/etc") {
            let point = self.layer("etc").join(below);
            if source.is_dir() {
                std::fs::create_dir_all(&point).unwrap_or_else(|e| panic!("{}: {e}", point.display()));
            } else {
                write(&point, "");
            }
        }
        self.binds.push((source, target));
        self
    }

    /// The id of a mail user.
    ///
    /// # Panics
    /// When it is not one of the mail users.
    #[must_use]
    pub fn uid(&self, user: &str) -> u32 {
        self.ids[&format!("user {user}")]
    }

    /// The id of a mail group.
    ///
    /// # Panics
    /// When it is not one of the mail groups.
    #[must_use]
    pub fn gid(&self, group: &str) -> u32 {
        self.ids[&format!("group {group}")]
    }

    /// A command inside the view.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let argv = self.argv();
        let mut command = Command::new(&argv[0]);
        command.args(&argv[1..]).arg(program);
        command
    }

    /// The argument vector to put in front of a command that is to run inside the view.
    #[must_use]
    pub fn argv(&self) -> Vec<OsString> {
        let script = self.root.path().join("enter");
        write(&script, self.script());
        let mut argv: Vec<OsString> =
            ["unshare", "--mount", "--propagation", "private", "--", "/bin/sh"].map(OsString::from).into();
        argv.push(script.into());
        argv
    }

    fn script(&self) -> String {
        let mut script = String::from("set -e\n");
        let mut overlay = |layer: PathBuf, target: &str| {
            if layer.is_dir() {
                let _ = writeln!(
                    script,
                    "mount -t overlay overlay -o 'lowerdir={}:{target}' '{target}'",
                    layer.display()
                );
            }
        };
        overlay(self.layer("etc"), "/etc");
        overlay(self.layer("lib"), &library_directory());
        for (source, target) in &self.binds {
            let _ = writeln!(script, "mount --bind '{}' '{}'", source.display(), target.display());
        }
        script.push_str("exec \"$@\"\n");
        script
    }

    fn layer(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }
}

/// Where this machine keeps its shared libraries.
fn library_directory() -> String {
    format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH)
}

fn read(path: &str) -> String {
    let mut text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}"));
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// The numbers in the third and fourth fields.
fn numbers(text: &str) -> Vec<u32> {
    text.lines().flat_map(|l| l.split(':').skip(2).take(2)).filter_map(|f| f.parse().ok()).collect()
}

fn existing(text: &str, name: &str) -> Option<u32> {
    let line = text.lines().find(|l| l.split(':').next() == Some(name))?;
    line.split(':').nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::{root, run};
    use super::*;

    #[test]
    fn users_and_files_are_there_inside_and_only_inside() {
        let dir = root();
        write(dir.path().join("me"), "host\n");
        let etc = Etc::with_mail_users()
            .pam("indimail-kit", "auth required pam_deny.so\n")
            .bind(dir.path(), "/etc/indimail-kit");
        let out = run(etc.command("getent").args(["passwd", "qmailq"])).ok().stdout;
        assert!(out.starts_with(&format!("qmailq:x:{}:{}:", etc.uid("qmailq"), etc.gid("qmail"))), "{out}");
        let out =
            run(etc.command("cat").args(["/etc/pam.d/indimail-kit", "/etc/indimail-kit/me"])).ok().stdout;
        assert_eq!(out, "auth required pam_deny.so\nhost\n");
        assert!(!Path::new("/etc/indimail-kit").exists() && !Path::new("/etc/pam.d/indimail-kit").exists());
        assert!(!read("/etc/passwd").contains("mail scheduler"));
    }
}
