//! TCP connections made with a deadline, from an address of the caller's choice.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, getsockopt, setsockopt, sockopt};

use crate::clock::Deadline;
use crate::wait::{self, Interest};

/// Where a connection starts: what is not given the kernel chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct From {
    /// The local address; used only for a remote one of the same family.
    pub ip: Option<IpAddr>,
    /// The local port, 0 for any.
    pub port: u16,
}

impl From {
    fn address(self, remote: SocketAddr) -> Option<SocketAddr> {
        let ip = self.ip.filter(|ip| ip.is_ipv4() == remote.is_ipv4());
        let any = if remote.is_ipv4() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        } else {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        };
        (ip.is_some() || self.port != 0).then(|| SocketAddr::new(ip.unwrap_or(any), self.port))
    }
}

/// Connects to `remote`. The descriptor is close-on-exec, blocking and above 2.
///
/// # Errors
/// As connect(2) and bind(2); `TimedOut` when the deadline passed first.
pub fn tcp(remote: SocketAddr, from: From, deadline: Deadline) -> io::Result<OwnedFd> {
    let family = if remote.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = nix::sys::socket::socket(family, SockType::Stream, flags, None)?;
    let fd = crate::fd::above_standard(fd)?;
    if let Some(local) = from.address(remote) {
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        nix::sys::socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(local))?;
    }
    match nix::sys::socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(remote)) {
        Ok(()) => {}
        // An interrupted connect goes on by itself, as a non-blocking one does.
        Err(Errno::EINPROGRESS | Errno::EINTR) => {
            if !wait::one(fd.as_fd(), Interest::Write, deadline)? {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match getsockopt(&fd, sockopt::SocketError)? {
                0 => {}
                number => return Err(io::Error::from_raw_os_error(number)),
            }
        }
        Err(e) => return Err(e.into()),
    }
    crate::fd::set_nonblocking(&fd, false)?;
    Ok(fd)
}

/// The number of a network interface, for link-local addresses.
///
/// # Errors
/// There is no such interface.
pub fn interface(name: &str) -> io::Result<u32> {
    Ok(nix::net::if_::if_nametoindex(name)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    fn soon() -> Deadline {
        Deadline::after(Duration::from_secs(30))
    }

    #[test]
    fn from_the_address_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let remote = listener.local_addr().unwrap();
        let from = From { ip: Some("127.0.0.9".parse().unwrap()), port: 0 };
        let stream = TcpStream::from(tcp(remote, from, soon()).unwrap());
        assert_eq!(stream.local_addr().unwrap().ip().to_string(), "127.0.0.9");
        let from = From { ip: Some("::1".parse().unwrap()), port: 0 };
        let stream = TcpStream::from(tcp(remote, from, soon()).unwrap());
        assert_eq!(stream.local_addr().unwrap().ip().to_string(), "127.0.0.1", "the other family has no say");
    }

    #[test]
    fn refused_and_too_late() {
        // A port below those that the kernel gives to tests that run beside this one.
        let refused = tcp("127.0.0.1:1".parse().unwrap(), From::default(), soon()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        // Nobody accepts, and the queue of one is soon full: the handshake is not answered any more.
        let full =
            nix::sys::socket::socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
                .unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        nix::sys::socket::bind(full.as_raw_fd(), &SockaddrStorage::from(any)).unwrap();
        nix::sys::socket::listen(&full, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
        let remote = TcpListener::from(full);
        let address = remote.local_addr().unwrap();
        let mut kept = Vec::new();
        let late = loop {
            match tcp(address, From::default(), Deadline::after(Duration::from_millis(50))) {
                Ok(stream) => kept.push(stream),
                Err(e) => break e,
            }
            assert!(kept.len() < 100, "the queue is never full");
        };
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        assert!(interface("lo").is_ok() && interface("no-such-if").is_err());
    }
}
