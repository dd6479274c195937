//! Giving up root for good.

use std::io;

use nix::unistd::{Gid, Uid, getegid, geteuid, getgid, getuid, setgid, setgroups, setuid};

/// Becomes `uid`:`gid` with exactly the supplementary `groups`, and makes sure there is no way back.
///
/// When the process already is that user and group (a private instance of an ordinary user),
/// nothing is changed. Call it before threads are started.
///
/// # Errors
/// A call failed, or root could be regained; the process must then end.
pub fn become_user(uid: Uid, gid: Gid, groups: &[Gid]) -> io::Result<()> {
    if !geteuid().is_root() && getuid() == uid && geteuid() == uid && getgid() == gid && getegid() == gid {
        return Ok(());
    }
    setgroups(groups)?;
    setgid(gid)?;
    setuid(uid)?;
    if !uid.is_root() && setuid(Uid::from_raw(0)).is_ok() {
        return Err(io::Error::other("root could be regained after the change of user"));
    }
    Ok(())
}

/// Keeps the memory of this process out of core files: for daemons that hold passwords.
///
/// # Errors
/// setrlimit(2) failed.
pub fn forbid_core_dumps() -> io::Result<()> {
    use nix::sys::resource::{Resource, setrlimit};
    Ok(setrlimit(Resource::RLIMIT_CORE, 0, 0)?)
}

/// Closes this process to debuggers and `/proc` readers of the same user (root still may).
///
/// # Errors
/// prctl(2) failed.
pub fn forbid_tracing() -> io::Result<()> {
    // SAFETY: PR_SET_DUMPABLE takes plain numbers and touches no memory of ours.
    match unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
