//! Children: start them with clean signals, find out what became of them.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid};

use crate::spawn;

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

/// The child that [`reap`] would hand out next, left where it is: its name can still be looked up.
///
/// # Errors
/// As [`reap`].
pub fn ended() -> io::Result<Option<Pid>> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    loop {
        match nix::sys::wait::waitid(nix::sys::wait::Id::All, flags) {
            Ok(status) => return Ok(status.pid()),
            Err(nix::errno::Errno::ECHILD) => return Ok(None),
            Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// The next child that was stopped (by this signal) or continued (`None`), without waiting for any.
///
/// # Errors
/// waitid(2) errors other than ECHILD, which reads as `None`.
pub fn stopped_or_continued() -> io::Result<Option<(Pid, Option<i32>)>> {
    use nix::sys::wait::{Id, waitid};
    let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WCONTINUED | WaitPidFlag::WNOHANG;
    match waitid(Id::All, flags) {
        Ok(WaitStatus::Stopped(pid, signal)) => Ok(Some((pid, Some(signal as i32)))),
        Ok(WaitStatus::Continued(pid)) => Ok(Some((pid, None))),
        Ok(_) | Err(nix::errno::Errno::ECHILD | nix::errno::Errno::EINTR) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Runs `body` in a copy of this process that has `input` as descriptor 0 and leads a process group
/// of its own: a program of the same executable, without the cost of starting it. The code it
/// returns is the child's exit code; 111 when the child cannot be set up, 101 when it panics.
///
/// # Errors
/// There is no copy: fork failed, or this process has more than one thread.
pub fn run_in_copy(input: BorrowedFd<'_>, body: impl FnOnce() -> u8) -> io::Result<Pid> {
    run_beside(|| {
        let group = nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0));
        // SAFETY: plain dup2; descriptor 0 is the child's input by contract of this function.
        if group.is_err() || unsafe { libc::dup2(input.as_raw_fd(), 0) } < 0 {
            return 111;
        }
        body()
    })
}

/// Runs `body` in a copy of this process, in the same process group and with the same descriptors: what
/// goes on beside the program that this process will become. The code it returns is the child's exit
/// code; 101 when it panics.
///
/// # Errors
/// As [`run_in_copy`].
pub fn run_beside(body: impl FnOnce() -> u8) -> io::Result<Pid> {
    // One link for each thread, beside `.` and the entry in the parent.
    if std::fs::metadata("/proc/self/task")?.nlink() != 3 {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "more than one thread"));
    }
    // What is still in the buffer would be written twice.
    io::stdout().flush()?;
    // SAFETY: this thread is the only one, so the copy lacks nobody who could hold a lock.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if pid > 0 {
        return Ok(Pid::from_raw(pid));
    }
    // Nothing may get out of here into the code of the parent, a panic included.
    let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let code = body();
        let _ = io::stdout().flush();
        code
    }));
    // SAFETY: ends the child at once; what the parent wants to be done at its end is the parent's.
    unsafe { libc::_exit(code.map_or(101, i32::from)) }
}

/// Runs `body` in a copy of this process that has `connection` as descriptors 0 and 1, descriptor 2 and those
/// of `keep` (in order, above 2) as they are, and no other: what has to be done for one connection before its
/// program starts. The code it returns is the child's exit code; 111 when the child cannot be set up, 101
/// when it panics.
///
/// `body` must not use or drop what holds another descriptor of this process: the copy has none of them.
///
/// # Errors
/// As [`run_in_copy`].
pub fn run_with_connection(
    connection: BorrowedFd<'_>,
    keep: &[RawFd],
    body: impl FnOnce() -> u8,
) -> io::Result<Pid> {
    run_beside(|| {
        // SAFETY: plain dup2; the numbers are the child's input and output by contract of this function.
        let moved = unsafe {
            libc::dup2(connection.as_raw_fd(), 0) == 0 && libc::dup2(connection.as_raw_fd(), 1) == 1
        };
        let mut from = 3;
        let closed = keep.iter().map(|&fd| fd.unsigned_abs()).chain([u32::MAX]).all(|next| {
            let (first, last) = (from, if next == u32::MAX { next } else { next - 1 });
            from = next.saturating_add(1);
            // SAFETY: closed in the copy only, where no value that owns one is used again, by contract, or
            // dropped, since `run_beside` ends by _exit.
            first > last || unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == 0
        });
        if moved && closed && crate::signals::restore().is_ok() { body() } else { 111 }
    })
}

/// A program to start: argument vector, exact environment, descriptors, identity.
///
/// The child gets default signal actions and an empty mask, only the descriptors listed here
/// (everything else made by this workspace is close-on-exec), and, with [`Launch::identity`],
/// another user for good.
#[derive(Debug)]
pub struct Launch {
    program: OsString,
    name: Option<OsString>,
    args: Vec<OsString>,
    environment: Option<BTreeMap<OsString, OsString>>,
    directory: Option<PathBuf>,
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
            program: program.as_ref().to_owned(),
            name: None,
            args: Vec::new(),
            environment: None,
            directory: None,
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
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Gives the child another `argv[0]`.
    #[must_use]
    pub fn arg0(mut self, name: impl AsRef<OsStr>) -> Self {
        self.name = Some(name.as_ref().to_owned());
        self
    }

    /// The child's whole environment.
    #[must_use]
    pub fn env_exactly<I: IntoIterator<Item = (OsString, OsString)>>(mut self, vars: I) -> Self {
        self.environment = Some(vars.into_iter().collect());
        self
    }

    /// Changes the child's directory before anything of it runs.
    #[must_use]
    pub fn directory(mut self, dir: impl AsRef<std::path::Path>) -> Self {
        self.directory = Some(dir.as_ref().to_owned());
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
    /// What needs no step of ours between fork and exec is started without copying this process's
    /// memory map (posix_spawn), which costs a fraction; the child cannot tell.
    ///
    /// # Errors
    /// fork, exec, the change of user or of descriptors failed; nothing is left running.
    pub fn start(mut self) -> io::Result<Pid> {
        if self.is_plain() {
            match self.planned(spawn::spawn) {
                // A script without #!, or a string with a NUL: as ever.
                Err(e)
                    if e.raw_os_error() == Some(libc::ENOEXEC) || e.kind() == io::ErrorKind::InvalidInput => {
                }
                other => return other,
            }
        }
        let child = self.command().spawn()?;
        Ok(Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?))
    }

    /// Starts it without waiting until it runs. A program that cannot be run is then a child that ends with 111,
    /// after a message on its descriptor 2.
    ///
    /// # Errors
    /// As [`Launch::start`], for what is noticed before.
    pub fn start_unwatched(self) -> io::Result<Pid> {
        if self.is_plain() { self.planned(spawn::fork) } else { self.start() }
    }

    /// Replaces this process by the program; returns only on failure.
    pub fn replace(mut self) -> io::Error {
        self.command().exec()
    }

    /// Can posix_spawn do all of it? A bare name it would look up in the PATH of this process instead
    /// of the child's.
    fn is_plain(&self) -> bool {
        let handed_on = self.identity.is_some() || self.record.is_some() || self.new_session;
        !handed_on && self.program.as_bytes().contains(&b'/')
    }

    fn planned(&self, start: fn(&spawn::Plan<'_>) -> io::Result<Pid>) -> io::Result<Pid> {
        let environment = match &self.environment {
            Some(exactly) => spawn::strings(exactly.iter().map(spawn::assignment)),
            None => spawn::strings(std::env::vars_os().map(|(n, v)| spawn::assignment((&n, &v)))),
        }?;
        let argv = std::iter::once(self.name.as_ref().unwrap_or(&self.program)).chain(&self.args);
        start(&spawn::Plan {
            program: &self.program,
            argv: &spawn::strings(argv.map(|arg| arg.as_bytes().to_vec()))?,
            environment: &environment,
            directory: self.directory.as_deref(),
            moves: self.moves.iter().map(|(from, to)| (from.as_fd(), *to)).collect(),
            new_group: self.new_group,
        })
    }

    fn command(&mut self) -> std::process::Command {
        let mut command = std::process::Command::new(&self.program);
        command.args(&self.args);
        if let Some(name) = &self.name {
            command.arg0(name);
        }
        if let Some(exactly) = &self.environment {
            command.env_clear().envs(exactly);
        }
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
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
        unsafe { command.pre_exec(between) };
        command
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
    fn stops_are_noticed() {
        let pid = Launch::new("/bin/sleep").args(["1000"]).start().unwrap();
        for (signal, wanted) in [(libc::SIGSTOP, Some(libc::SIGSTOP)), (libc::SIGCONT, None)] {
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::try_from(signal).unwrap()).unwrap();
            let start = std::time::Instant::now();
            // Other tests of this process have children of their own.
            while !matches!(stopped_or_continued().unwrap(), Some((p, how)) if p == pid && how == wanted) {
                assert!(start.elapsed() < Duration::from_secs(30));
            }
        }
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        wait_for(pid).unwrap();
    }

    #[test]
    fn both_ways_to_start_look_the_same_to_the_child() {
        let run = |launch: Launch| {
            let (r, w) = crate::fd::pipe().unwrap();
            let signals = crate::signals::Signals::listen(&[nix::sys::signal::Signal::SIGUSR2]).unwrap();
            let pid = launch
                .arg0("name")
                .args(["-c", "echo $0 $A ${HOME-none}; pwd; grep -E 'Sig(Blk|Ign|Cgt)' /proc/self/status | grep -o '........$'; ls /proc/$$/fd"])
                .env_exactly([("A".into(), "one".into()), ("A".into(), "two".into())])
                .directory("/usr")
                .descriptor(w.as_fd(), 1)
                .unwrap()
                .start()
                .unwrap();
            drop((w, signals));
            assert_eq!(wait_for(pid).unwrap(), Ending::Exited(0));
            String::from_utf8(crate::fd::read_to_end_limited(&mut crate::fd::Raw(r.as_fd()), 1000).unwrap())
                .unwrap()
        };
        let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
        let plain = run(Launch::new("/bin/sh"));
        // Signals 1 to 32: glibc leaves one of its own behind, 33, which it sets up when it needs it.
        assert!(plain.starts_with("name two none\n/usr\n00000000\n"), "{plain}");
        assert_eq!(plain, run(Launch::new("/bin/sh").identity(uid, gid, Vec::new())));
    }

    #[test]
    fn nobody_has_to_wait_until_it_runs() {
        let (r, w) = crate::fd::pipe().unwrap();
        let launch = |program: &str| Launch::new(program).descriptor(w.as_fd(), 2).unwrap();
        let script = "echo $0 $A >&2; pwd >&2; grep -E 'Sig(Blk|Ign)' /proc/self/status | grep -o '.......$' >&2; exit 7";
        // Signals 1 to 28: those behind belong to the C library.
        let signals = crate::signals::Signals::listen(&[nix::sys::signal::Signal::SIGUSR2]).unwrap();
        let shell = launch("/bin/sh").arg0("name").args(["-c", script]).directory("/usr");
        let child = shell.env_exactly([("A".into(), "one".into())]).start_unwatched().unwrap();
        assert_eq!(wait_for(child).unwrap(), Ending::Exited(7));
        drop(signals);
        let child = launch("/nonexistent/program").start_unwatched().unwrap();
        assert_eq!(wait_for(child).unwrap(), Ending::Exited(111));
        let child = launch("/bin/true").directory("/nonexistent").start_unwatched().unwrap();
        assert_eq!(wait_for(child).unwrap(), Ending::Exited(111));
        drop(w);
        let said = crate::fd::read_to_end_limited(&mut crate::fd::Raw(r.as_fd()), 1000).unwrap();
        let said = String::from_utf8(said).unwrap();
        assert_eq!(
            said,
            "name one\n/usr\n0000000\n0000000\nunable to run /nonexistent/program\nunable to run /bin/true\n"
        );
    }

    #[test]
    fn what_cannot_be_started_says_why_and_a_script_without_an_interpreter_runs() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("script");
        let started = || Launch::new(&script).start().map_err(|e| e.raw_os_error());
        assert_eq!(started(), Err(Some(libc::ENOENT)));
        std::fs::write(&script, "exit 7\n").unwrap();
        assert_eq!(started(), Err(Some(libc::EACCES)));
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(wait_for(started().unwrap()).unwrap(), Ending::Exited(7));
        let nowhere = Launch::new("/bin/true").directory(dir.path().join("none")).start();
        assert_eq!(nowhere.unwrap_err().raw_os_error(), Some(libc::ENOENT));
        assert!(Launch::new("/bin/true").args(["a\0b"]).start().is_err());
    }

    #[test]
    fn a_process_with_threads_is_not_copied() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let other = std::thread::spawn(std::thread::park);
        assert_eq!(run_in_copy(null.as_fd(), || 0).unwrap_err().kind(), io::ErrorKind::Unsupported);
        other.thread().unpark();
        other.join().unwrap();
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
