//! What `--svscanlog` makes: `.svscan` of a scan directory, and the service resolvconf.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::variables::{self, Change};
use super::words;

/// What `--svscanlog` was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SvscanLog {
    pub(super) scan_directory: PathBuf,
    pub(super) log_directory: PathBuf,
    /// For INITCMD; without, `.svscan/run` is.
    pub(super) init_command: Option<Vec<u8>>,
    /// Seconds.
    pub(super) scan_interval: u64,
    pub(super) path: String,
    pub(super) unshare: bool,
    pub(super) resolvconf: bool,
    pub(super) down: bool,
    /// Configuration of the system.
    pub(super) sysconfdir: PathBuf,
    /// Variables for all services.
    pub(super) global: PathBuf,
    /// The user the logger runs as; `None`: whoever starts it.
    pub(super) log_user: Option<&'static str>,
    /// The command line that asked for all this.
    pub(super) options: Vec<Vec<u8>>,
}

impl SvscanLog {
    /// Makes or renews everything. Variables that are not ours stay.
    ///
    /// # Errors
    /// Something cannot be written.
    pub(super) fn create(&self) -> io::Result<()> {
        let own = self.scan_directory.join(".svscan");
        fs::create_dir_all(own.join("log"))?;
        fs::create_dir_all(&self.log_directory)?;
        let set = |name: &str, value: &str| (name.into(), Change::Set(Some(value.into())));
        let mut all = vec![
            set("PATH", &self.path),
            set("SCANINTERVAL", &self.scan_interval.to_string()),
            set("SCANLOG", ""),
            set("AUTOSCAN", "1"),
            set("TERMINATE_SESSION", "1"),
            set("UNSHARE", if self.unshare { "1" } else { "" }),
        ];
        all.push(("INITCMD".into(), Change::Set(Some(self.init_command.clone().unwrap_or_default()))));
        let dir = own.join("variables");
        variables::change(&dir, &self.global, &all)?;
        variables::write_beside(&dir, ".options", &self.options_line())?;
        script(&own.join("run"), b"exit 0")?;
        script(&own.join("shutdown"), &self.shutdown())?;
        script(&own.join("log/run"), &self.logger("svscan"))?;
        if self.resolvconf {
            self.create_resolvconf()?;
        }
        Ok(())
    }

    fn options_line(&self) -> Vec<u8> {
        let mut line = words::join(&self.options);
        line.push(b'\n');
        line
    }

    /// Stops all services; what it leaves svscan stops itself.
    fn shutdown(&self) -> Vec<u8> {
        let dir = quoted(&self.scan_directory);
        let pick = [b"for dir in ".as_slice(), &dir, b"/*; do"].concat();
        let rest = b"\n\tif [ -d \"$dir\" ]; then set -- \"$@\" \"$dir\"; fi\ndone\n[ $# -eq 0 ] || svc -dx \"$@\"\nexit 0";
        [pick.as_slice(), rest.as_slice()].concat()
    }

    fn logger(&self, name: &str) -> Vec<u8> {
        let user = self.log_user.map(|user| format!("setuidgid {user} ")).unwrap_or_default();
        let dir = quoted(&self.log_directory.join(name));
        [b"exec ".as_slice(), user.as_bytes(), b"multilog t ", &dir].concat()
    }

    /// The file that another program replaces at will is put over the one of the system, again each time it is
    /// replaced.
    fn create_resolvconf(&self) -> io::Result<()> {
        let service = self.scan_directory.join("resolvconf");
        // Built under a name that svscan passes over.
        let building = self.scan_directory.join(".resolvconf.new");
        let dir = if service.exists() { &service } else { &building };
        fs::create_dir_all(dir.join("log"))?;
        let run = resolvconf_run(&self.sysconfdir);
        script(&dir.join("run"), &run)?;
        script(&dir.join("log/run"), &self.logger("resolvconf"))?;
        if self.down {
            fs::write(dir.join("down"), "")?;
        }
        let path = (b"PATH".to_vec(), Change::Set(Some(self.path.clone().into_bytes())));
        variables::change(&dir.join("variables"), &self.global, &[path])?;
        if dir == &building {
            fs::rename(&building, &service)?;
        }
        Ok(())
    }
}

/// The script is a process group of its own, because it is more than one process that has to end.
fn resolvconf_run(sysconfdir: &Path) -> Vec<u8> {
    let text = "\
exec 2>&1
[ \"$1\" = main ] || exec pgrphack ./run main
trap 'trap - TERM; umount /etc/resolv.conf; kill 0' TERM
bind() {
\tumount /etc/resolv.conf 2>/dev/null
\tmount --bind FILE /etc/resolv.conf && echo bound FILE
}
if ! bind; then
\techo FILE cannot be bound
\tsleep 5
\texit 1
fi
inotify -n DIRECTORY | while read -r kind path what; do
\tcase \"$path $what\" in
\t\t*/resolv.conf\\ closed|*/resolv.conf\\ newname*) bind ;;
\tesac
done &
wait";
    let (file, directory) = (quoted(&sysconfdir.join("resolv.conf")), quoted(sysconfdir));
    let mut out = Vec::new();
    for (at, piece) in text.split("FILE").enumerate() {
        if at > 0 {
            out.extend(&file);
        }
        match piece.split_once("DIRECTORY") {
            Some((before, after)) => out.extend([before.as_bytes(), &directory, after.as_bytes()].concat()),
            None => out.extend(piece.bytes()),
        }
    }
    out
}

fn quoted(path: &Path) -> Vec<u8> {
    words::quote(path.as_os_str().as_bytes())
}

fn script(path: &Path, text: &[u8]) -> io::Result<()> {
    let head: &[u8] = b"#!/bin/sh\n# Made by minisvc; changes are lost at the next minisvc --refreshsvc.\n";
    // A rename keeps whoever runs the old one undisturbed.
    unix::durable::replace(path, &[head, text, b"\n"].concat(), 0o755, None)?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
}

/// The user that owns logs, if this system has him and we may become him.
pub(super) fn log_user(complain: &mut dyn FnMut(String)) -> Option<&'static str> {
    const USER: &str = "qmaill";
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    match unix::ids::user(USER) {
        Ok(Some(_)) => Some(USER),
        Ok(None) => {
            complain(format!("there is no user {USER}: the logger will run as root"));
            None
        }
        Err(e) => {
            // Cannot tell: the logger will.
            complain(format!("user {USER}: {e}"));
            Some(USER)
        }
    }
}

/// Makes the place for the logs of svscan, given to the user of the logger.
///
/// # Errors
/// It cannot be made or given away.
pub(super) fn log_place(dir: &Path, user: Option<&str>) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let Some(user) = user else { return Ok(()) };
    if let Some(account) = unix::ids::user(user)? {
        std::os::unix::fs::chown(dir, Some(account.uid.as_raw()), Some(account.gid.as_raw()))?;
    }
    Ok(())
}
