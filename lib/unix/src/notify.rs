//! Telling a service manager about the state of this process, and being told as one (the protocol of
//! sd_notify(3)).

use std::fs::{self, File, Permissions};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};

/// Sends one datagram of `KEY=value` lines to the socket that NOTIFY_SOCKET names: a path, or `@` and
/// an abstract name. It does not wait for a reader.
///
/// # Errors
/// Nobody listens there, or its queue is full.
pub fn send(socket: &Path, message: &str) -> io::Result<()> {
    let sender = UnixDatagram::unbound()?;
    sender.set_nonblocking(true)?;
    match socket.as_os_str().as_bytes().strip_prefix(b"@") {
        Some(name) => sender.send_to_addr(message.as_bytes(), &SocketAddr::from_abstract_name(name)?)?,
        None => sender.send_to(message.as_bytes(), socket)?,
    };
    Ok(())
}

/// Who sent a datagram, as the kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Process id; it may have ended since.
    pub pid: i32,
    /// Real user.
    pub uid: u32,
}

/// The socket of a service manager.
#[derive(Debug)]
pub struct Receiver(UnixDatagram);

impl Receiver {
    /// Binds a socket called `name` in an open directory, however long the directory's path is; what
    /// has the name is replaced. Every user may send to it; who did is told with each datagram.
    ///
    /// # Errors
    /// As bind(2); /proc is not mounted.
    pub fn bind(directory: &File, name: &str) -> io::Result<Self> {
        let path = format!("/proc/self/fd/{}/{name}", directory.as_raw_fd());
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let socket = UnixDatagram::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o666))?;
        setsockopt(&socket, sockopt::PassCred, &true)?;
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// The next datagram and who sent it; `Ok(None)` when there is none. What does not fit is cut off,
    /// descriptors sent with it are closed.
    ///
    /// # Errors
    /// recvmsg(2) errors.
    pub fn receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<Option<(&'b [u8], Origin)>> {
        let mut space = nix::cmsg_space!(nix::sys::socket::UnixCredentials);
        let (length, origin) = {
            let mut slices = [IoSliceMut::new(buffer)];
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
            let message = match recvmsg::<()>(self.0.as_raw_fd(), &mut slices, Some(&mut space), flags) {
                Ok(message) => message,
                Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => return Ok(None),
                Err(e) => return Err(e.into()),
            };
            let origin = message.cmsgs()?.find_map(|c| match c {
                ControlMessageOwned::ScmCredentials(c) => Some(Origin { pid: c.pid(), uid: c.uid() }),
                _ => None,
            });
            (message.bytes, origin)
        };
        let nobody = Origin { pid: 0, uid: u32::MAX };
        Ok(Some((&buffer[..length], origin.unwrap_or(nobody))))
    }
}

/// Readable when a datagram has arrived.
impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_path_and_by_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let name = format!("unix-notify-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let abstract_path = format!("@{name}");
        let listeners = [
            (UnixDatagram::bind(&path).unwrap(), path.as_path()),
            (UnixDatagram::bind_addr(&address).unwrap(), Path::new(&abstract_path)),
        ];
        for (listener, path) in &listeners {
            send(path, "READY=1\n").unwrap();
            let mut buf = [0; 99];
            assert_eq!(listener.recv(&mut buf).unwrap(), 8);
            assert_eq!(buf[..8], *b"READY=1\n");
        }
        assert!(send(Path::new("/nonexistent"), "").is_err());
    }

    #[test]
    fn the_receiver_knows_who_sent_it() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(150));
        std::fs::create_dir(&deep).unwrap();
        let directory = File::open(&deep).unwrap();
        let mut buf = [0; 8];
        let receiver = Receiver::bind(&directory, "s").unwrap();
        assert_eq!(receiver.receive(&mut buf).unwrap(), None);
        let through_link = format!("/proc/self/fd/{}/s", directory.as_raw_fd());
        send(Path::new(&through_link), "READY=1\nX=1").unwrap();
        let (bytes, origin) = receiver.receive(&mut buf).unwrap().unwrap();
        assert_eq!(bytes, b"READY=1\n", "cut to the buffer");
        let pid = i32::try_from(std::process::id()).unwrap();
        assert_eq!(origin, Origin { pid, uid: nix::unistd::getuid().as_raw() });
        drop(receiver);
        Receiver::bind(&directory, "s").unwrap();
    }
}
