//! Unix sockets: listeners with a mode, peer credentials, listeners inherited from the supervisor.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, getsockopt, recv, send, sockopt,
};
use nix::unistd::{Gid, Uid};

use crate::clock::Deadline;

/// Who is at the other end of a Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Effective user when it connected.
    pub uid: Uid,
    /// Effective group when it connected.
    pub gid: Gid,
    /// Process id when it connected; it may be gone or reused.
    pub pid: i32,
}

/// Asks the kernel who is at the other end (SO_PEERCRED).
///
/// # Errors
/// Not a Unix socket.
pub fn peer(socket: impl AsFd) -> io::Result<Peer> {
    let cred = getsockopt(&socket.as_fd(), sockopt::PeerCredentials)?;
    Ok(Peer { uid: Uid::from_raw(cred.uid()), gid: Gid::from_raw(cred.gid()), pid: cred.pid() })
}

/// Listens on `path` with exactly `mode`.
///
/// A socket file that nobody listens on any more is replaced; a live one is an error
/// (`AddrInUse`), and so is a file of another kind. The caller's umask does not matter.
///
/// # Errors
/// As bind(2), and `AddrInUse` as said.
pub fn listen(path: &Path, mode: u32) -> io::Result<UnixListener> {
    use std::os::unix::fs::FileTypeExt;
    if let Ok(meta) = std::fs::symlink_metadata(path) {
        if !meta.file_type().is_socket() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{} exists and is not a socket", path.display()),
            ));
        }
        if UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                format!("another process listens on {}", path.display()),
            ));
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

/// Takes over listener number `fd` (3 and up) that the supervisor passed.
///
/// # Errors
/// The descriptor is closed or is not a listening Unix stream socket.
pub fn inherited_listener(fd: RawFd) -> io::Result<UnixListener> {
    inherited_stream_listener(fd).map(UnixListener::from)
}

/// As [`inherited_listener`], for a listening stream socket of any family.
///
/// # Errors
/// The descriptor is closed or is not a listening stream socket.
pub fn inherited_stream_listener(fd: RawFd) -> io::Result<OwnedFd> {
    if !crate::fd::is_open(fd) {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("descriptor {fd} is not open")));
    }
    // SAFETY: open, and the supervisor passed it for this process to own.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    let stream = getsockopt(&owned, sockopt::SockType)? == SockType::Stream;
    if !stream || !getsockopt(&owned, sockopt::AcceptConn)? {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("descriptor {fd} is not a listening stream socket"),
        ));
    }
    crate::fd::set_cloexec(&owned, true)?;
    Ok(owned)
}

/// Connects to a Unix stream socket; the descriptor is close-on-exec, non-blocking and above 2.
///
/// Fit for foreign processes: no signal can come of it, and closed standard descriptors are not
/// filled. While the listener's backlog is full it tries again every few milliseconds.
///
/// # Errors
/// As connect(2); `TimedOut` when the deadline passed first.
pub fn connect(path: &Path, deadline: Deadline) -> io::Result<OwnedFd> {
    let address = UnixAddr::new(path)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = nix::sys::socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    let fd = crate::fd::above_standard(fd)?;
    let mut pause = 1;
    loop {
        match nix::sys::socket::connect(fd.as_raw_fd(), &address) {
            Ok(()) => return Ok(fd),
            Err(Errno::EAGAIN | Errno::EINTR) if !deadline.passed() => {}
            Err(Errno::EAGAIN | Errno::EINTR) => return Err(io::ErrorKind::TimedOut.into()),
            Err(e) => return Err(e.into()),
        }
        // The kernel has no event for "the backlog has room again".
        let step = deadline.left().min(std::time::Duration::from_millis(pause));
        crate::wait::pause(step);
        pause = (pause * 2).min(20);
    }
}

/// Sends what fits; a peer that is gone is an error (EPIPE) and never a signal.
///
/// # Errors
/// As send(2); `WouldBlock` on a non-blocking socket.
pub fn send_quietly(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(send(socket.as_fd().as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL)?)
}

/// Sends what fits now, even on a blocking socket; a peer that is gone is an error (EPIPE).
///
/// # Errors
/// As send(2): `WouldBlock` when nothing fits, ENOTSOCK when it is no socket.
pub fn send_now(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    Ok(send(socket.as_fd().as_raw_fd(), bytes, flags)?)
}

/// Tells the other end of a connection that nothing more will come. Does nothing where that cannot be
/// said: no socket, or no connection any more.
pub fn finish_sending(socket: impl AsFd) {
    let _ = nix::sys::socket::shutdown(socket.as_fd().as_raw_fd(), nix::sys::socket::Shutdown::Write);
}

/// Receives what is there; 0 at the end.
///
/// # Errors
/// As recv(2); `WouldBlock` on a non-blocking socket.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(recv(socket.as_fd().as_raw_fd(), buffer, MsgFlags::empty())?)
}

/// Removes the IP options of an IPv4 connection, source routes among them; does nothing on IPv6.
///
/// # Errors
/// setsockopt(2) errors.
pub fn clear_ip_options(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: an open socket; no option value is read because its length is 0.
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, libc::IP_OPTIONS, std::ptr::null(), 0)
    };
    if done == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    // An IPv6 socket has none.
    if matches!(error.raw_os_error(), Some(libc::ENOPROTOOPT | libc::EOPNOTSUPP | libc::EINVAL)) {
        return Ok(());
    }
    Err(error)
}
