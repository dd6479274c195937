//! What the kernel knows about this process and this host.

use std::ffi::{CStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// The path given to execve for this process, symbolic links not followed (AT_EXECFN).
///
/// Unlike `argv[0]` the caller cannot make it say anything but the file that was started.
#[must_use]
pub fn exec_path() -> Option<PathBuf> {
    // SAFETY: getauxval only reads the auxiliary vector of this process.
    let at = unsafe { libc::getauxval(libc::AT_EXECFN) };
    if at == 0 {
        return None;
    }
    // SAFETY: AT_EXECFN, when present, is the address of a NUL-terminated string that lives as
    // long as the process.
    let path = unsafe { CStr::from_ptr(at as *const libc::c_char) };
    Some(PathBuf::from(OsString::from_vec(path.to_bytes().to_vec())))
}

/// The executable of this process with all links resolved.
///
/// # Errors
/// /proc is not mounted.
pub fn executable() -> std::io::Result<PathBuf> {
    std::fs::read_link("/proc/self/exe")
}

/// The host's name as gethostname(2) has it; `localhost` when it has none.
#[must_use]
pub fn name() -> String {
    match nix::unistd::gethostname() {
        Ok(n) if !n.is_empty() => n.to_string_lossy().into_owned(),
        _ => "localhost".to_owned(),
    }
}

/// Was this process started set-user-id or set-group-id (or with file capabilities)?
#[must_use]
pub fn is_set_id() -> bool {
    // SAFETY: getauxval only reads the auxiliary vector of this process.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Sets the file mode creation mask and returns the old one.
pub fn umask(mask: u32) -> u32 {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(mask)).bits()
}

/// A random number from the kernel.
///
/// # Errors
/// The kernel has no getrandom(2).
pub fn random() -> std::io::Result<u64> {
    let mut bytes = [0u8; 8];
    loop {
        // SAFETY: the kernel writes at most `bytes.len()` bytes to a live buffer.
        let n = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        if n == 8 {
            return Ok(u64::from_ne_bytes(bytes));
        }
        let error = std::io::Error::last_os_error();
        if n < 0 && error.kind() != std::io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Lets this process open `wanted` descriptors, as far as its hard limit allows; how many it may open now.
///
/// # Errors
/// getrlimit(2), setrlimit(2) errors.
pub fn raise_descriptor_limit(wanted: u64) -> std::io::Result<u64> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft >= wanted.min(hard) {
        return Ok(soft);
    }
    setrlimit(Resource::RLIMIT_NOFILE, wanted.min(hard), hard)?;
    Ok(wanted.min(hard))
}
