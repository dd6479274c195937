//! Processes that are not our children: which one was it, is it still there, tell it something.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// One particular process: its number cannot be reused under this handle (pidfd).
#[derive(Debug)]
pub struct Handle {
    fd: OwnedFd,
    pid: Pid,
}

impl Handle {
    /// Takes hold of the process with this number.
    ///
    /// # Errors
    /// ESRCH when there is none; ENOSYS before Linux 5.3.
    pub fn open(pid: Pid) -> io::Result<Self> {
        // SAFETY: the call takes two integers and returns a descriptor or -1.
        let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
        let raw = i32::try_from(raw).map_err(io::Error::other)?;
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just made `raw` for us; pidfds are close-on-exec from birth.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(raw) }, pid })
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends a signal to exactly this process.
    ///
    /// # Errors
    /// ESRCH when it has ended, EPERM.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let none = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: an open pidfd, a valid signal number, no siginfo and no flags.
        let done = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.fd.as_raw_fd(), signal as libc::c_int, none, 0)
        };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// Readable once the process has ended.
impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Gives this process, and what it starts, a table of mounts of its own: what they mount is not seen outside.
///
/// # Errors
/// EPERM without the right to.
pub fn own_mounts() -> io::Result<()> {
    use nix::mount::{MsFlags, mount};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    // Where mounts are shared between tables, they would still get out.
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    Ok(mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?)
}

/// Gives this thread, and those it starts, a current directory and a umask of its own. Elsewhere all
/// threads share them.
///
/// # Errors
/// EPERM where a sandbox forbids unshare(2).
pub fn own_directory() -> io::Result<()> {
    Ok(nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS)?)
}

/// Which boot of the machine this is.
///
/// # Errors
/// /proc is not mounted.
pub fn boot_id() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|s| s.trim().to_owned())
}

/// What the kernel says about a process now; `Ok(None)` when there is none with this number.
///
/// # Errors
/// /proc cannot be read.
pub fn stat(pid: Pid) -> io::Result<Option<Stat>> {
    match fs::read(format!("/proc/{pid}/stat")) {
        Ok(stat) => Ok(parse_stat(&stat)),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Shall orphaned descendants become children of this process instead of init's?
///
/// # Errors
/// The kernel is older than 3.4.
pub fn adopt_orphans(on: bool) -> io::Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(on)?)
}

/// The children of this process, which must have one thread only; those that nobody has waited for
/// are among them.
///
/// # Errors
/// /proc cannot be read.
pub fn children() -> io::Result<Vec<Pid>> {
    if let Ok(list) = fs::read_to_string("/proc/thread-self/children") {
        return Ok(list.split_ascii_whitespace().filter_map(|p| p.parse().ok()).map(Pid::from_raw).collect());
    }
    // A kernel without that file.
    let me = Pid::this().as_raw();
    let numbers = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let processes = numbers.map(Pid::from_raw);
    Ok(processes.filter(|&p| stat(p).ok().flatten().is_some_and(|s| s.parent == me)).collect())
}

/// When a process was started, in clock ticks since boot: with the boot, the identity of a process
/// over the reuse of its number. `Ok(None)` when there is no such process or it is a zombie.
///
/// # Errors
/// /proc cannot be read.
pub fn start_time(pid: Pid) -> io::Result<Option<u64>> {
    Ok(stat(pid)?.filter(|s| s.state != b'Z' && s.state != b'X').map(|s| s.start_time))
}

/// What we read from a line of /proc/PID/stat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Process id.
    pub pid: i32,
    /// State letter.
    pub state: u8,
    /// Process id of the parent.
    pub parent: i32,
    /// Process group.
    pub group: i32,
    /// Clock ticks since boot.
    pub start_time: u64,
}

/// Reads a line of /proc/PID/stat; the name in it may hold blanks and parentheses.
#[must_use]
pub fn parse_stat(line: &[u8]) -> Option<Stat> {
    let open = line.iter().position(|&b| b == b'(')?;
    let close = line.iter().rposition(|&b| b == b')')?;
    let number = |text: &[u8]| std::str::from_utf8(text).ok().map(str::trim).map(str::to_owned);
    let pid = number(line.get(..open)?)?.parse().ok()?;
    // After the name: state is field 3, starttime field 22.
    let mut fields = line.get(close + 1..)?.split(|&b| b == b' ').filter(|f| !f.is_empty());
    let state = *fields.next()?.first()?;
    let parent = number(fields.next()?)?.parse().ok()?;
    let group = number(fields.next()?)?.parse().ok()?;
    let start_time = number(fields.nth(16)?)?.parse().ok()?;
    Some(Stat { pid, state, parent, group, start_time })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn own_stat_line() {
        let me = Pid::this();
        let line = fs::read(format!("/proc/{me}/stat")).unwrap();
        let stat = parse_stat(&line).unwrap();
        assert_eq!(stat.pid, me.as_raw());
        assert_eq!(start_time(me).unwrap(), Some(stat.start_time));
        assert_eq!(start_time(Pid::from_raw(i32::MAX)).unwrap(), None);
        assert_eq!(boot_id().unwrap().len(), 36);
        assert_eq!(stat.parent, nix::unistd::getppid().as_raw());
        assert_eq!(stat.group, nix::unistd::getpgrp().as_raw());
    }

    #[test]
    fn children_are_those_of_this_thread() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        assert!(children().unwrap().contains(&pid));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!children().unwrap().contains(&pid));
    }

    #[test]
    fn handle_signals_and_sees_the_end() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let handle = Handle::open(Pid::from_raw(i32::try_from(child.id()).unwrap())).unwrap();
        handle.signal(Signal::SIGKILL).unwrap();
        let deadline = crate::clock::Deadline::after(std::time::Duration::from_secs(10));
        assert!(crate::wait::one(handle.as_fd(), crate::wait::Interest::Read, deadline).unwrap());
        child.wait().unwrap();
        assert_eq!(handle.signal(Signal::SIGTERM).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    fn names_with_parentheses() {
        let mut line = b"7 (a) b (c) S".to_vec();
        for n in 4..=21 {
            line.extend(format!(" {n}").bytes());
        }
        line.extend(b" 4711 23\n");
        let wanted = Stat { pid: 7, state: b'S', parent: 4, group: 5, start_time: 4711 };
        assert_eq!(parse_stat(&line), Some(wanted));
    }

    proptest! {
        #[test]
        fn parse_never_panics(line: Vec<u8>) {
            let _ = parse_stat(&line);
        }
    }
}
