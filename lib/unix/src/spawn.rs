//! Children for which nothing has to be done in between: by posix_spawn(3), without a copy of the parent's memory map,
//! or by fork(2), without waiting.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use nix::sys::signal::{SigSet, Signal};
use nix::unistd::Pid;

/// What to start.
pub(crate) struct Plan<'a> {
    /// A path with a slash in it.
    pub(crate) program: &'a OsStr,
    /// With the name first.
    pub(crate) argv: &'a [CString],
    /// `NAME=value`.
    pub(crate) environment: &'a [CString],
    pub(crate) directory: Option<&'a Path>,
    /// Which descriptor becomes which number.
    pub(crate) moves: Vec<(BorrowedFd<'a>, RawFd)>,
    pub(crate) new_group: bool,
}

/// `NAME=value`.
pub(crate) fn assignment((name, value): (&OsString, &OsString)) -> Vec<u8> {
    [name.as_bytes(), b"=", value.as_bytes()].concat()
}

/// C strings; InvalidInput when one holds a NUL.
pub(crate) fn strings(all: impl Iterator<Item = Vec<u8>>) -> io::Result<Vec<CString>> {
    all.map(|bytes| CString::new(bytes).map_err(io::Error::from)).collect()
}

/// Starts it with an empty signal mask and SIGPIPE at its default, as `signals::restore` has it.
///
/// # Errors
/// What exec, chdir or dup2 said in the child; nothing is left running.
pub(crate) fn spawn(plan: &Plan<'_>) -> io::Result<Pid> {
    let program = CString::new(plan.program.as_bytes())?;
    let directory = plan.directory.map(|d| CString::new(d.as_os_str().as_bytes())).transpose()?;
    let (argv, environment) = (pointers(plan.argv), pointers(plan.environment));
    let attributes = Attributes::new(plan.new_group)?;
    let mut actions = Actions::new()?;
    if let Some(directory) = &directory {
        // SAFETY: initialised actions and a string that the call copies.
        check(unsafe { libc::posix_spawn_file_actions_addchdir_np(&raw mut actions.0, directory.as_ptr()) })?;
    }
    for (from, to) in &plan.moves {
        // SAFETY: initialised actions and plain numbers.
        check(unsafe { libc::posix_spawn_file_actions_adddup2(&raw mut actions.0, from.as_raw_fd(), *to) })?;
    }
    let mut pid = 0;
    // SAFETY: all strings live until the call returns, which is after the child's exec; both vectors
    // end with a null pointer; attributes and actions are initialised.
    check(unsafe {
        libc::posix_spawn(
            &raw mut pid,
            program.as_ptr(),
            &raw const actions.0,
            &raw const attributes.0,
            argv.as_ptr(),
            environment.as_ptr(),
        )
    })?;
    Ok(Pid::from_raw(pid))
}

/// The exit code of a child that could not become its program.
pub(crate) const NOT_RUN: libc::c_int = 111;

/// Starts it as [`spawn`] does, but by fork(2), so that this process does not wait until the program runs: where many
/// are started on a busy machine, they compete for it from the first moment. A child that cannot become the
/// program says so on descriptor 2 and exits with [`NOT_RUN`].
///
/// # Errors
/// fork failed, or a string holds a NUL.
pub(crate) fn fork(plan: &Plan<'_>) -> io::Result<Pid> {
    let program = CString::new(plan.program.as_bytes())?;
    let directory = plan.directory.map(|d| CString::new(d.as_os_str().as_bytes())).transpose()?;
    let (argv, environment) = (pointers(plan.argv), pointers(plan.environment));
    let said = [b"unable to run ", plan.program.as_bytes(), b"\n"].concat();
    // SAFETY: in the child only `become_program` runs, which makes system calls and nothing else.
    let pid = unsafe { libc::fork() };
    match pid {
        0 => {
            // SAFETY: this is the child; the vectors end with null pointers and live until the exec.
            unsafe {
                become_program(plan, &program, directory.as_deref(), argv.as_ptr(), environment.as_ptr());
                libc::write(2, said.as_ptr().cast(), said.len());
                libc::_exit(NOT_RUN)
            }
        }
        1.. => Ok(Pid::from_raw(pid)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Returns only on failure.
///
/// # Safety
/// In a child of fork(2), with vectors that end with null pointers.
unsafe fn become_program(
    plan: &Plan<'_>,
    program: &CStr,
    directory: Option<&CStr>,
    argv: *const *mut libc::c_char,
    environment: *const *mut libc::c_char,
) {
    // SAFETY: plain system calls on values made before the fork; the new numbers of descriptors are meant
    // for the program to come and are not owned by any value of this process.
    unsafe {
        if plan.new_group && libc::setpgid(0, 0) < 0 {
            return;
        }
        for (from, to) in &plan.moves {
            if libc::dup2(from.as_raw_fd(), *to) < 0 {
                return;
            }
        }
        if directory.is_some_and(|directory| libc::chdir(directory.as_ptr()) < 0) {
            return;
        }
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        let mut none = MaybeUninit::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
        libc::execve(program.as_ptr(), argv.cast(), environment.cast());
    }
}

/// The calls return an error number instead of setting errno.
fn check(error: libc::c_int) -> io::Result<()> {
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

fn pointers(strings: &[CString]) -> Vec<*mut libc::c_char> {
    strings.iter().map(|s| s.as_ptr().cast_mut()).chain([ptr::null_mut()]).collect()
}

struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    fn new(new_group: bool) -> io::Result<Self> {
        let mut raw = MaybeUninit::uninit();
        // SAFETY: the call initialises what it is given.
        check(unsafe { libc::posix_spawnattr_init(raw.as_mut_ptr()) })?;
        // SAFETY: initialised just now.
        let mut attributes = Self(unsafe { raw.assume_init() });
        let raw = &raw mut attributes.0;
        let pipe: SigSet = [Signal::SIGPIPE].into_iter().collect();
        let group = if new_group { libc::POSIX_SPAWN_SETPGROUP } else { 0 };
        let flags = libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF | group;
        let flags = libc::c_short::try_from(flags).map_err(io::Error::other)?;
        // SAFETY: initialised attributes; the sets are copied.
        unsafe {
            check(libc::posix_spawnattr_setsigmask(raw, SigSet::empty().as_ref()))?;
            check(libc::posix_spawnattr_setsigdefault(raw, pipe.as_ref()))?;
            check(libc::posix_spawnattr_setpgroup(raw, 0))?;
            check(libc::posix_spawnattr_setflags(raw, flags))?;
        }
        Ok(attributes)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, destroyed once.
        unsafe { libc::posix_spawnattr_destroy(&raw mut self.0) };
    }
}

struct Actions(libc::posix_spawn_file_actions_t);

impl Actions {
    fn new() -> io::Result<Self> {
        let mut raw = MaybeUninit::uninit();
        // SAFETY: the call initialises what it is given.
        check(unsafe { libc::posix_spawn_file_actions_init(raw.as_mut_ptr()) })?;
        // SAFETY: initialised just now.
        Ok(Self(unsafe { raw.assume_init() }))
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, destroyed once.
        unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.0) };
    }
}
