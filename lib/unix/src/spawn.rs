//! posix_spawn(3): a child without a copy of the parent's memory map.

use std::ffi::{CString, OsStr, OsString};
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
