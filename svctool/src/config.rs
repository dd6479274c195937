//! What installation sets up outside the installed tree: the system users.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use unix::ids;
use unix::mail_users::{GROUPS, INDIMAIL_ID, USERS};

/// Creates the system's groups and users where they are missing, with the machine's own groupadd
/// and useradd. Returns what was created.
///
/// # Errors
/// Not root, a tool failed, or the name service could not tell what exists.
pub fn create_users() -> Result<Vec<String>> {
    ensure!(nix::unistd::geteuid().is_root(), "creating users needs root");
    let mut created = Vec::new();
    for name in GROUPS {
        if ids::group(name)?.is_none() {
            let mut command = Command::new("groupadd");
            command.arg("--system");
            if *name == "indimail" && is_free(INDIMAIL_ID)? {
                command.args(["--gid", &INDIMAIL_ID.to_string()]);
            }
            run(command.arg(name))?;
            created.push(format!("group {name}"));
        }
    }
    for user in USERS {
        if ids::user(user.name)?.is_none() {
            let mut command = Command::new("useradd");
            command.args(["--system", "--no-create-home", "--gid", user.group]);
            command.args(["--home-dir", user.home, "--shell", user.shell, "--comment", user.purpose]);
            if user.name == "indimail" && is_free(INDIMAIL_ID)? {
                command.args(["--uid", &INDIMAIL_ID.to_string()]);
            }
            if !user.also_in.is_empty() {
                command.args(["--groups", &user.also_in.join(",")]);
            }
            run(command.arg(user.name))?;
            created.push(format!("user {}", user.name));
        }
    }
    Ok(created)
}

/// Makes the one set-id file what it is to be; an installation before there were users could not.
/// Returns whether that had to be done.
///
/// # Errors
/// It cannot be changed, or the name service could not tell its owner.
pub fn own_queue_program(path: &Path) -> Result<bool> {
    const MODE: u32 = 0o6551;
    let shown = || path.display().to_string();
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        // Users may be made before anything is installed.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e).with_context(shown),
    };
    let uid = ids::user("qmailq")?.context("no user qmailq")?.uid.as_raw();
    let gid = ids::group("qmail")?.context("no group qmail")?.as_raw();
    if (meta.uid(), meta.gid(), meta.mode() & 0o7777) == (uid, gid, MODE) {
        return Ok(false);
    }
    // A change of owner takes the set-id bits away, so they come last.
    std::os::unix::fs::chown(path, Some(uid), Some(gid)).with_context(shown)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(MODE)).with_context(shown)?;
    Ok(true)
}

/// Is this number free both as a user and as a group, apart from our own pair?
fn is_free(id: u32) -> Result<bool> {
    let user = ids::user_by_uid(unix::Uid::from_raw(id))?;
    Ok(user.is_none_or(|u| u.name == "indimail"))
}

fn run(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}");
    let status = command.status().with_context(|| shown.clone())?;
    ensure!(status.success(), "{shown}: {status}");
    Ok(())
}
