//! Descriptors: pipes, flags, whole reads and writes.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};

/// A pipe, both ends close-on-exec: `(read, write)`.
///
/// # Errors
/// Whatever pipe2(2) says (EMFILE, ENFILE).
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(OFlag::O_CLOEXEC)?)
}

/// A pipe with both ends close-on-exec and non-blocking: `(read, write)`.
///
/// # Errors
/// As [`pipe`].
pub fn pipe_nonblocking() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?)
}

/// Sets or clears O_NONBLOCK.
///
/// # Errors
/// EBADF.
pub fn set_nonblocking(fd: impl AsFd, on: bool) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd.as_fd(), FcntlArg::F_GETFL)?);
    let wanted = if on { flags | OFlag::O_NONBLOCK } else { flags - OFlag::O_NONBLOCK };
    if wanted != flags {
        fcntl(fd.as_fd(), FcntlArg::F_SETFL(wanted))?;
    }
    Ok(())
}

/// Sets or clears close-on-exec.
///
/// # Errors
/// EBADF.
pub fn set_cloexec(fd: impl AsFd, on: bool) -> io::Result<()> {
    let flags = if on { FdFlag::FD_CLOEXEC } else { FdFlag::empty() };
    fcntl(fd.as_fd(), FcntlArg::F_SETFD(flags))?;
    Ok(())
}

/// Makes every descriptor from `first` on close-on-exec, whoever opened it: what a program that starts
/// somebody else's does with descriptors it inherited itself.
///
/// # Errors
/// The kernel is older than 5.11.
pub fn set_cloexec_from(first: u32) -> io::Result<()> {
    // SAFETY: only flags of descriptors change; nothing is closed.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The numbers above 2, in order, that a program started from here would have as well: what this process
/// inherited and nobody made close-on-exec.
///
/// # Errors
/// /proc is not mounted.
pub fn passed_on() -> io::Result<Vec<RawFd>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let number = entry?.file_name().to_str().and_then(|n| n.parse::<RawFd>().ok());
        // SAFETY: F_GETFD only looks; a number that is closed by now answers -1.
        let stays = |fd: &RawFd| *fd > 2 && unsafe { libc::fcntl(*fd, libc::F_GETFD) } == 0;
        all.extend(number.filter(stays));
    }
    all.sort_unstable();
    Ok(all)
}

/// A close-on-exec duplicate at number `at_least` or above.
///
/// # Errors
/// EMFILE, EBADF.
pub fn duplicate_above(fd: impl AsFd, at_least: RawFd) -> io::Result<OwnedFd> {
    let raw = fcntl(fd.as_fd(), FcntlArg::F_DUPFD_CLOEXEC(at_least))?;
    // SAFETY: the kernel just made `raw` for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// The flag for opening without waiting (a FIFO without a writer, say), for `custom_flags`.
pub const NONBLOCK: i32 = libc::O_NONBLOCK;

/// The descriptor itself, or a close-on-exec duplicate of it when its number is 0, 1 or 2: in a
/// process whose standard descriptors are closed, a new file must not become one of them.
///
/// # Errors
/// EMFILE.
pub fn above_standard(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() < 3 { duplicate_above(&fd, 3) } else { Ok(fd) }
}

/// From now on SIGIO tells this process, which must have blocked or caught it, that an entry of the open
/// directory was removed or renamed.
///
/// # Errors
/// The kernel or the file system has no such events.
pub fn signal_removals(directory: BorrowedFd<'_>) -> io::Result<()> {
    // linux/fcntl.h: DN_DELETE, DN_RENAME, and DN_MULTISHOT in the sign bit.
    let events: libc::c_int = 0x8 | 0x10 | i32::MIN;
    // SAFETY: an open descriptor and plain integers.
    let done = unsafe { libc::fcntl(directory.as_raw_fd(), libc::F_NOTIFY, events) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Is this number an open descriptor of this process?
#[must_use]
pub fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD only looks; a closed number answers EBADF.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// Takes over a descriptor that the program inherited by contract (fd 3 of checkpassword, say).
///
/// Returns `None` when it is not open. The caller must be the only one to take this number.
#[must_use]
pub fn inherited(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: checked to be open; by contract of this function nobody else takes this number.
    is_open(fd).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Standard descriptors that are closed are opened on /dev/null, so that a file opened later
/// never lands on 0, 1 or 2. Call it first in a program that somebody else starts.
///
/// # Errors
/// When /dev/null cannot be opened.
pub fn sanitize_standard() -> io::Result<()> {
    while let Some(missing) = (0..3).find(|&n| !is_open(n)) {
        let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
        if null.as_raw_fd() != missing {
            return Err(io::Error::other("/dev/null did not open at the lowest free descriptor"));
        }
        std::mem::forget(null);
    }
    Ok(())
}

/// A [`Read`] and [`Write`] over a borrowed descriptor, without buffering.
#[derive(Debug, Clone, Copy)]
pub struct Raw<'a>(pub BorrowedFd<'a>);

impl Read for Raw<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        Ok(nix::unistd::read(self.0, buf)?)
    }
}

impl Write for Raw<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(nix::unistd::write(self.0, buf)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Copies up to `limit` bytes from one pipe to another without consuming them (tee(2)); 0 at the end
/// of the input.
///
/// # Errors
/// EAGAIN when there is nothing to copy or no room for it; EINVAL when one of them is no pipe.
pub fn tee(from: BorrowedFd<'_>, to: BorrowedFd<'_>, limit: usize) -> io::Result<usize> {
    // SAFETY: two open descriptors and plain integers.
    let copied = unsafe { libc::tee(from.as_raw_fd(), to.as_raw_fd(), limit, libc::SPLICE_F_NONBLOCK) };
    usize::try_from(copied).map_err(|_| io::Error::last_os_error())
}

/// Moves up to `limit` bytes from a pipe to a file without copying them through this process (splice(2)); 0
/// at the end of the input. With /dev/null behind `to` it drops them.
///
/// # Errors
/// EINVAL when `to` cannot take them this way.
pub fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, limit: usize) -> io::Result<usize> {
    let none = std::ptr::null_mut();
    // SAFETY: two open descriptors, no offsets, and plain integers.
    let moved = unsafe { libc::splice(from.as_raw_fd(), none, to.as_raw_fd(), none, limit, 0) };
    usize::try_from(moved).map_err(|_| io::Error::last_os_error())
}

/// How many bytes are in a pipe and not read yet; either end will do.
///
/// # Errors
/// Not a pipe.
pub fn unread(pipe: BorrowedFd<'_>) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: an open descriptor, and FIONREAD writes one int, which lives here.
    let done = unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut count) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(usize::try_from(count).unwrap_or(0)) }
}

/// Reads until EOF but keeps at most `limit` bytes; the rest is read and dropped.
///
/// # Errors
/// Read errors.
pub fn read_to_end_limited(source: &mut impl Read, limit: usize) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    let mut buf = [0u8; 4096];
    loop {
        match source.read(&mut buf) {
            Ok(0) => return Ok(kept),
            Ok(n) => {
                let room = limit.saturating_sub(kept.len()).min(n);
                kept.extend_from_slice(&buf[..room]);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limited_read_drains_the_rest() {
        let mut source = io::Cursor::new(vec![7u8; 10_000]);
        assert_eq!(read_to_end_limited(&mut source, 5).unwrap(), [7; 5]);
        assert_eq!(source.position(), 10_000);
    }

    #[test]
    fn only_what_is_not_close_on_exec_is_passed_on() {
        let (r, w) = pipe().unwrap();
        set_cloexec(&r, false).unwrap();
        let all = passed_on().unwrap();
        assert!(all.contains(&r.as_raw_fd()) && !all.contains(&w.as_raw_fd()), "{all:?}");
        assert!(all.iter().all(|&fd| fd > 2) && all.is_sorted());
    }

    #[test]
    fn tee_leaves_the_bytes() {
        let ((r, w), (r2, w2)) = (pipe().unwrap(), pipe().unwrap());
        assert_eq!(tee(r.as_fd(), w2.as_fd(), 9).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        Raw(w.as_fd()).write_all(b"abc").unwrap();
        for _ in 0..2 {
            assert_eq!(tee(r.as_fd(), w2.as_fd(), 9).unwrap(), 3);
            let mut buf = [0; 9];
            assert_eq!(Raw(r2.as_fd()).read(&mut buf).unwrap(), 3);
            assert_eq!(buf[..3], *b"abc");
        }
        drop(w);
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(tee(file.as_fd(), w2.as_fd(), 9).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        Raw(r.as_fd()).read_exact(&mut [0; 3]).unwrap();
        assert_eq!(tee(r.as_fd(), w2.as_fd(), 9).unwrap(), 0);
    }

    #[test]
    fn spliced_bytes_are_gone() {
        let (r, w) = pipe().unwrap();
        let null = std::fs::OpenOptions::new().write(true).open("/dev/null").unwrap();
        Raw(w.as_fd()).write_all(b"abcdef").unwrap();
        assert_eq!((unread(r.as_fd()).unwrap(), unread(w.as_fd()).unwrap()), (6, 6));
        assert_eq!(splice(r.as_fd(), null.as_fd(), 4).unwrap(), 4);
        let mut buf = [0; 9];
        assert_eq!(Raw(r.as_fd()).read(&mut buf).unwrap(), 2);
        assert_eq!(buf[..2], *b"ef");
    }

    #[test]
    fn pipe_carries_bytes_and_is_cloexec() {
        let (r, w) = pipe().unwrap();
        Raw(w.as_fd()).write_all(b"x").unwrap();
        drop(w);
        assert_eq!(read_to_end_limited(&mut Raw(r.as_fd()), 9).unwrap(), b"x");
        let flags = fcntl(r.as_fd(), FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    }
}
