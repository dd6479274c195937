//! Children: start them with clean signals, find out what became of them.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid};

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It called exit with this code.
    Exited(i32),
    /// This signal killed it.
    Killed(i32),
}

impl Ending {
    /// Did it exit with code 0?
    #[must_use]
    pub fn is_success(self) -> bool {
        self == Self::Exited(0)
    }
}

/// Waits for one child, through interruptions.
///
/// # Errors
/// ECHILD.
pub fn wait_for(pid: Pid) -> io::Result<Ending> {
    loop {
        match waitpid(pid, None) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(Ending::Exited(code)),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(Ending::Killed(signal as i32)),
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Waits for one child, but not past the deadline; `Ok(None)` when it still runs then.
///
/// # Errors
/// ECHILD, or the child cannot be watched.
pub fn wait_until(pid: Pid, deadline: crate::clock::Deadline) -> io::Result<Option<Ending>> {
    let handle = crate::process::Handle::open(pid)?;
    if crate::wait::one(handle.as_fd(), crate::wait::Interest::Read, deadline)? {
        return wait_for(pid).map(Some);
    }
    Ok(None)
}

/// The next child that has ended, without waiting; `None` when none has.
///
/// # Errors
/// waitpid(2) errors other than ECHILD, which reads as `None`.
pub fn reap() -> io::Result<Option<(Pid, Ending)>> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => return Ok(Some((pid, Ending::Exited(code)))),
            Ok(WaitStatus::Signaled(pid, signal, _)) => {
                return Ok(Some((pid, Ending::Killed(signal as i32))));
            }
            Ok(WaitStatus::StillAlive) | Err(nix::errno::Errno::ECHILD) => return Ok(None),
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// A program to start: argument vector, exact environment, descriptors, identity.
///
/// The child gets default signal actions and an empty mask, only the descriptors listed here
/// (everything else made by this workspace is close-on-exec), and, with [`Launch::identity`],
/// another user for good.
#[derive(Debug)]
pub struct Launch {
    command: std::process::Command,
    moves: Vec<(OwnedFd, RawFd)>,
    identity: Option<(Uid, Gid, Vec<Gid>)>,
    new_session: bool,
    new_group: bool,
    record: Option<(OwnedFd, i64)>,
}

impl Launch {
    /// Starts from `program` (a path or a name to be found in PATH).
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            command: std::process::Command::new(program),
            moves: Vec::new(),
            identity: None,
            new_session: false,
            new_group: false,
            record: None,
        }
    }

    /// Adds arguments after the program's name.
    #[must_use]
    pub fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, args: I) -> Self {
        self.command.args(args);
        self
    }

    /// Gives the child another `argv[0]`.
    #[must_use]
    pub fn arg0(mut self, name: impl AsRef<OsStr>) -> Self {
        self.command.arg0(name);
        self
    }

    /// The child's whole environment.
    #[must_use]
    pub fn env_exactly<I: IntoIterator<Item = (OsString, OsString)>>(mut self, vars: I) -> Self {
        self.command.env_clear();
        self.command.envs(vars);
        self
    }

    /// Changes the child's directory before anything of it runs.
    #[must_use]
    pub fn directory(mut self, dir: impl AsRef<std::path::Path>) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// The child has `fd` as its descriptor number `number`.
    ///
    /// # Errors
    /// No descriptor can be duplicated.
    pub fn descriptor(mut self, fd: BorrowedFd<'_>, number: RawFd) -> io::Result<Self> {
        // High up, so that no later move overwrites the source of another one.
        self.moves.push((crate::fd::duplicate_above(fd, 64)?, number));
        Ok(self)
    }

    /// The child runs as this user and group, for good.
    #[must_use]
    pub fn identity(mut self, uid: Uid, gid: Gid, groups: Vec<Gid>) -> Self {
        self.identity = Some((uid, gid, groups));
        self
    }

    /// The child leads a session of its own.
    #[must_use]
    pub fn new_session(mut self) -> Self {
        self.new_session = true;
        self
    }

    /// The child leads a process group of its own.
    #[must_use]
    pub fn new_process_group(mut self) -> Self {
        self.new_group = true;
        self
    }

    /// The child copies its line of /proc/self/stat into this file, at this offset, before the program
    /// runs: whoever can lock a close-on-exec lock of this process afterwards finds it there.
    ///
    /// # Errors
    /// No descriptor can be duplicated.
    pub fn record(mut self, file: BorrowedFd<'_>, offset: i64) -> io::Result<Self> {
        self.record = Some((crate::fd::duplicate_above(file, 64)?, offset));
        Ok(self)
    }

    /// Starts it.
    ///
    /// # Errors
    /// fork, exec, the change of user or of descriptors failed; nothing is left running.
    pub fn start(mut self) -> io::Result<Pid> {
        self.prepare();
        let child = self.command.spawn()?;
        Ok(Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?))
    }

    /// Replaces this process by the program; returns only on failure.
    pub fn replace(mut self) -> io::Error {
        self.prepare();
        self.command.exec()
    }

    fn prepare(&mut self) {
        let moves = std::mem::take(&mut self.moves);
        let identity = self.identity.take();
        let (session, group) = (self.new_session, self.new_group);
        let record = self.record.take();
        let between = move || {
            if session {
                nix::unistd::setsid()?;
            } else if group {
                nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
            }
            if let Some((file, offset)) = &record {
                record_stat(file.as_raw_fd(), *offset);
            }
            for (from, to) in &moves {
                // SAFETY: plain dup2 in the child; the new number is meant for the program to
                // come and is not owned by any value of this process.
                if unsafe { libc::dup2(from.as_raw_fd(), *to) } < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            if let Some((uid, gid, groups)) = &identity {
                crate::privilege::become_user(*uid, *gid, groups)?;
            }
            crate::signals::restore()
        };
        // SAFETY: between fork and exec only system calls are made, without allocating.
        unsafe { self.command.pre_exec(between) };
    }
}

/// Copies /proc/self/stat into a file. Without /proc nothing is recorded, which readers take as
/// "nothing known"; the program runs all the same.
fn record_stat(file: RawFd, offset: i64) {
    let mut line = [0u8; 1024];
    // SAFETY: plain system calls on a constant path and a buffer of the length given, no allocation:
    // this runs between fork and exec.
    unsafe {
        let stat = libc::open(c"/proc/self/stat".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        if stat < 0 {
            return;
        }
        let got = libc::read(stat, line.as_mut_ptr().cast(), line.len());
        libc::close(stat);
        if let Ok(length) = usize::try_from(got) {
            libc::pwrite(file, line.as_ptr().cast(), length, offset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn waiting_has_an_end() {
        let pid = Launch::new("/bin/sleep").args(["1000"]).start().unwrap();
        let soon = crate::clock::Deadline::after(Duration::from_millis(20));
        assert_eq!(wait_until(pid, soon).unwrap(), None);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        let late = crate::clock::Deadline::after(Duration::from_secs(30));
        assert_eq!(wait_until(pid, late).unwrap(), Some(Ending::Killed(9)));
    }

    #[test]
    fn child_has_only_what_it_was_given() {
        let (r, w) = crate::fd::pipe().unwrap();
        let pid = Launch::new("/bin/sh")
            .args(["-c", "echo $A $B >&7; exit 9"])
            .env_exactly([("A".into(), "one".into())])
            .descriptor(w.as_fd(), 7)
            .unwrap()
            .start()
            .unwrap();
        drop(w);
        let out = crate::fd::read_to_end_limited(&mut crate::fd::Raw(r.as_fd()), 100).unwrap();
        assert_eq!(out, b"one\n");
        assert_eq!(wait_for(pid).unwrap(), Ending::Exited(9));
    }
}
