//! What installation sets up outside the installed tree: the system users.

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
