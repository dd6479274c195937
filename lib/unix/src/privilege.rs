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
