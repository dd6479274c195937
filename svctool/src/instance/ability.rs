//! What root may do here. In many containers it may do little: capabilities tell, the number 0 does not.

use std::os::unix::fs::lchown;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use caps::{CapSet, Capability};
use unix::{Gid, Uid};

use super::{Instance, view};

/// What a system with users and an /etc of its own takes.
const WHOLE: [Capability; 6] = [
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SETUID,
    Capability::CAP_SETGID,
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_KILL,
];
/// What it takes to become an ordinary user and leave him the directory.
const STEP_DOWN: [Capability; 3] = [Capability::CAP_SETUID, Capability::CAP_SETGID, Capability::CAP_CHOWN];

/// Whom root becomes where it has too few rights: `nobody`, by its number everywhere.
const NOBODY: u32 = 65_534;

/// What this process may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Root with everything that a whole private system takes.
    Root,
    /// Root with too few rights: it becomes an ordinary user. The text says what is missing.
    Lesser(String),
    /// An ordinary user.
    Ordinary,
}

/// Looks at the capabilities of this process, and whether the kernel lets it use them.
///
/// # Errors
/// Root has so few that it can neither have users of its own nor become an ordinary one.
pub fn examine() -> Result<Standing> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(Standing::Ordinary);
    }
    let held = caps::read(None, CapSet::Effective).context("capabilities of this process")?;
    let without = |wanted: &[Capability]| -> Vec<String> {
        wanted.iter().filter(|c| !held.contains(c)).map(ToString::to_string).collect()
    };
    let missing = without(&WHOLE);
    if missing.is_empty() && may_make_a_mount_namespace() {
        return Ok(Standing::Root);
    }
    let needed = without(&STEP_DOWN);
    ensure!(
        needed.is_empty(),
        "root without {} can neither use users of its own nor become an ordinary one: run it as an ordinary user",
        needed.join(", ")
    );
    Ok(Standing::Lesser(if missing.is_empty() {
        "this container does not let root make a mount namespace".to_owned()
    } else {
        format!("root has no {} here", missing.join(", "))
    }))
}

/// A filter of system calls may forbid it to a process that has the capability.
fn may_make_a_mount_namespace() -> bool {
    let mut command = Command::new("unshare");
    command.args(["--mount", "true"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // Without that program nsenter is missing too, and the next step says so.
    command.status().map_or(true, |status| status.success())
}

/// Gives the instance to `nobody` and becomes it for good. The tree must have been copied: the
/// installation may be where only root can read.
///
/// # Errors
/// The instance was made by root with more rights or cannot be reached by others.
pub fn step_down(instance: &Instance) -> Result<()> {
    let dir = instance.dir();
    if let Some(closed) = view::closed_parents(dir)?.first() {
        anyhow::bail!("{}: only its owner may enter {}: use another --dir", dir.display(), closed.display());
    }
    give_away(dir)?;
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    unix::privilege::become_user(uid, gid, &[]).context("become an ordinary user")?;
    Ok(())
}

/// Is this the user that root becomes?
#[must_use]
pub fn is_lesser(uid: u32) -> bool {
    uid == NOBODY
}

/// In front of a command of root that is to run as the owner of an instance of nobody's.
pub(super) const AS_NOBODY: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

fn give_away(path: &Path) -> Result<()> {
    lchown(path, Some(NOBODY), Some(NOBODY)).with_context(|| path.display().to_string())?;
    if path.is_dir() && !path.is_symlink() {
        for entry in std::fs::read_dir(path).with_context(|| path.display().to_string())? {
            give_away(&entry?.path())?;
        }
    }
    Ok(())
}
