//! Giving up root: for good, or for the files of somebody else.

use std::io;

use nix::unistd::{
    Gid, Uid, getegid, geteuid, getgid, getgroups, getuid, setfsgid, setfsuid, setgid, setgroups, setuid,
};

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
    if !has_groups(gid, groups)? {
        return Err(io::Error::other("the groups are not those asked for after the change of user"));
    }
    Ok(())
}

/// Does this process work in group `gid` with exactly the supplementary `groups`? Whether `gid` is also among
/// the latter does not matter.
///
/// # Errors
/// getgroups(2) failed.
pub fn has_groups(gid: Gid, groups: &[Gid]) -> io::Result<bool> {
    let set = |mut all: Vec<Gid>, gid: Gid| {
        all.push(gid);
        all.sort_unstable_by_key(|g| g.as_raw());
        all.dedup();
        all
    };
    Ok(getegid() == gid && set(getgroups()?, gid) == set(groups.to_vec(), gid))
}

/// Does `work` with the rights that `uid`:`gid`, without supplementary groups, has on files; what it makes
/// is theirs. Only this thread changes, only for the time of `work`, and nothing but rights on files:
/// signals and the like stay as they are, so the other user has no hold on this process.
///
/// Where this process is not root, or root is who is named, `work` is done as it is.
///
/// # Errors
/// The change failed, and `work` was not done; or root was not regained, and the process must then end.
pub fn with_files_of<T>(uid: Uid, gid: Gid, work: impl FnOnce() -> T) -> io::Result<T> {
    if !geteuid().is_root() || uid.is_root() {
        return Ok(work());
    }
    let mut borrowed = Borrowed { gid: getegid(), groups: getgroups()?, over: false };
    set_thread_groups(&[gid])?;
    setfsgid(gid);
    setfsuid(uid);
    let outcome = if file_ids() == (uid, gid) {
        Ok(work())
    } else {
        Err(io::Error::other(format!("the rights of user {uid} on files cannot be taken")))
    };
    borrowed.give_back()?;
    outcome
}

/// Rights on files that are not this process's own, until this is dropped (also by a panic).
struct Borrowed {
    gid: Gid,
    groups: Vec<Gid>,
    over: bool,
}

impl Borrowed {
    fn give_back(&mut self) -> io::Result<()> {
        self.over = true;
        setfsuid(Uid::from_raw(0));
        setfsgid(self.gid);
        set_thread_groups(&self.groups)?;
        if file_ids() == (Uid::from_raw(0), self.gid) {
            return Ok(());
        }
        Err(io::Error::other("root's own rights on files were not regained"))
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if !self.over {
            // Less than root's rights remain when this fails, never more.
            let _ = self.give_back();
        }
    }
}

/// The ids that count for files; the calls that set them report no failure.
fn file_ids() -> (Uid, Gid) {
    const NOBODY: u32 = u32::MAX;
    (setfsuid(Uid::from_raw(NOBODY)), setfsgid(Gid::from_raw(NOBODY)))
}

/// As setgroups(2), which is a matter of one thread; the C library's function changes all of them.
fn set_thread_groups(groups: &[Gid]) -> io::Result<()> {
    #[cfg(any(target_arch = "x86", target_arch = "arm"))]
    const SETGROUPS: libc::c_long = libc::SYS_setgroups32;
    #[cfg(not(any(target_arch = "x86", target_arch = "arm")))]
    const SETGROUPS: libc::c_long = libc::SYS_setgroups;
    let ids: Vec<libc::gid_t> = groups.iter().map(|g| g.as_raw()).collect();
    // SAFETY: the kernel reads `ids.len()` ids from the vector, which lives through the call.
    match unsafe { libc::syscall(SETGROUPS, ids.len(), ids.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

    const OTHER: u32 = 61_234;

    fn as_other<T>(work: impl FnOnce() -> T) -> io::Result<T> {
        with_files_of(Uid::from_raw(OTHER), Gid::from_raw(OTHER), work)
    }

    #[test]
    fn the_rights_of_another_user_end_with_the_work() {
        assert!(geteuid().is_root(), "this test is for root");
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let (theirs, roots) = (dir.path().join("theirs"), dir.path().join("roots"));
        std::fs::create_dir(&theirs).unwrap();
        chown(&theirs, Some(OTHER), Some(OTHER)).unwrap();
        std::fs::write(&roots, "x").unwrap();
        std::fs::set_permissions(&roots, PermissionsExt::from_mode(0o060)).unwrap();
        let groups = getgroups().unwrap();
        let (made, read, there) = as_other(|| {
            let elsewhere = std::thread::spawn({
                let roots = roots.clone();
                // A thread made meanwhile begins with the rights of its maker.
                move || std::fs::read(roots).is_ok()
            });
            assert!(!elsewhere.join().unwrap());
            let refused = |e: io::Error| e.kind();
            (
                std::fs::write(theirs.join("f"), "x").map_err(refused),
                std::fs::read(&roots).map_err(refused),
                getgroups().unwrap(),
            )
        })
        .unwrap();
        assert_eq!(made, Ok(()));
        assert_eq!(
            read,
            Err(io::ErrorKind::PermissionDenied),
            "neither root's rights nor those of its group"
        );
        assert_eq!(there, [Gid::from_raw(OTHER)]);
        let made = std::fs::metadata(theirs.join("f")).unwrap();
        assert_eq!((made.uid(), made.gid()), (OTHER, OTHER));
        assert_eq!(getgroups().unwrap(), groups);
        assert!(std::fs::read(&roots).is_ok(), "root again");
    }

    #[test]
    fn groups_are_compared_as_sets() {
        let (gid, mut groups) = (getegid(), getgroups().unwrap());
        assert!(has_groups(gid, &groups).unwrap());
        groups.extend(groups.clone());
        groups.push(gid);
        assert!(has_groups(gid, &groups).unwrap());
        groups.push(Gid::from_raw(OTHER));
        assert!(!has_groups(gid, &groups).unwrap() && !has_groups(Gid::from_raw(OTHER), &groups).unwrap());
    }

    #[test]
    fn a_panic_gives_the_rights_back() {
        let panicked = std::panic::catch_unwind(|| as_other(|| panic!("on purpose")));
        assert!(panicked.is_err());
        assert_eq!(file_ids(), (Uid::from_raw(0), getegid()));
    }
}
