//! The listening socket.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use nix::sys::socket::{
    self, AddressFamily, Backlog, SockFlag, SockType, SockaddrLike, SockaddrStorage, setsockopt, sockopt,
};

use super::settings::Address;

/// The services file, for ports by name.
const SERVICES: &str = "/etc/services";

/// A listening socket.
#[derive(Debug)]
pub enum Listener {
    /// IPv4 or IPv6.
    Tcp(TcpListener),
    /// A Unix socket, its path, and whether the file is ours to remove.
    Unix(UnixListener, PathBuf, bool),
}

/// One accepted connection.
#[derive(Debug)]
pub struct Accepted {
    /// The connection, close-on-exec.
    pub socket: OwnedFd,
    /// What it came from.
    pub from: From,
}

/// What a connection came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// Our end and the client's.
    Tcp(SocketAddr, SocketAddr),
    /// A Unix socket at this path.
    Unix(PathBuf),
}

impl Listener {
    /// Listens.
    ///
    /// # Errors
    /// No such host or port, address in use, no permission.
    pub fn open(address: &Address, only_v4: bool, interface: Option<&str>, backlog: u32) -> io::Result<Self> {
        match address {
            Address::Unix(path) => {
                let listener = unix::socket::listen(path, 0o666)?;
                listener.set_nonblocking(true)?;
                Ok(Self::Unix(listener, path.clone(), true))
            }
            Address::Tcp { host, port } => {
                let port = port_number(port)?;
                let scope = interface.map(nix::net::if_::if_nametoindex).transpose()?;
                let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
                for ip in addresses(host, only_v4)? {
                    match bind(with_scope(ip, port, scope), backlog) {
                        Ok(listener) => return Ok(Self::Tcp(listener)),
                        Err(e) => last = e,
                    }
                }
                Err(last)
            }
        }
    }

    /// Takes over listening socket number `fd` that the service manager passed.
    ///
    /// # Errors
    /// The descriptor is closed, or no listening stream socket of a kind that is served here.
    pub fn inherit(fd: RawFd) -> io::Result<Self> {
        let listener = unix::socket::inherited_stream_listener(fd)?;
        unix::fd::set_nonblocking(&listener, true)?;
        let wrong = || {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("descriptor {fd} is no IPv4, IPv6 or Unix socket"),
            )
        };
        let address: SockaddrStorage = socket::getsockname(listener.as_raw_fd())?;
        match address.family() {
            Some(AddressFamily::Inet | AddressFamily::Inet6) => Ok(Self::Tcp(listener.into())),
            Some(AddressFamily::Unix) => {
                let path = address.as_unix_addr().and_then(|a| a.path()).map(PathBuf::from);
                Ok(Self::Unix(listener.into(), path.unwrap_or_default(), false))
            }
            _ => Err(wrong()),
        }
    }

    /// The port, 0 for a Unix socket.
    ///
    /// # Errors
    /// getsockname(2) errors.
    pub fn port(&self) -> io::Result<u16> {
        match self {
            Self::Tcp(listener) => Ok(listener.local_addr()?.port()),
            Self::Unix(..) => Ok(0),
        }
    }

    /// The next connection; `Ok(None)` when there is none (any more).
    ///
    /// # Errors
    /// Out of descriptors or memory.
    pub fn accept(&self) -> io::Result<Option<Accepted>> {
        let accepted = match self {
            Self::Tcp(listener) => listener.accept().and_then(|(stream, remote)| {
                let local = stream.local_addr()?;
                Ok(Accepted { socket: stream.into(), from: From::Tcp(local, remote) })
            }),
            Self::Unix(listener, path, _) => listener
                .accept()
                .map(|(stream, _)| Accepted { socket: stream.into(), from: From::Unix(path.clone()) }),
        };
        match accepted {
            Ok(accepted) => Ok(Some(accepted)),
            Err(e) => match e.raw_os_error() {
                // The client went away, or another process took it.
                Some(libc::EAGAIN | libc::EINTR | libc::ECONNABORTED | libc::ENOTCONN | libc::EPROTO) => {
                    Ok(None)
                }
                _ => Err(e),
            },
        }
    }

    /// Removes the file of a Unix socket.
    pub fn clean_up(&self) {
        if let Self::Unix(_, path, true) = self {
            // It is of no use without us; somebody may have removed it already.
            let _ = fs::remove_file(path);
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener, ..) => listener.as_fd(),
        }
    }
}

/// Addresses to try, in order. All addresses: IPv6 with IPv4, or IPv4 where there is no IPv6.
fn addresses(host: &str, only_v4: bool) -> io::Result<Vec<IpAddr>> {
    let all_v4 = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    if matches!(host, "" | "0" | "::") {
        return Ok(if only_v4 { vec![all_v4] } else { vec![IpAddr::V6(Ipv6Addr::UNSPECIFIED), all_v4] });
    }
    let found: Vec<IpAddr> =
        (host, 0).to_socket_addrs()?.map(|a| a.ip()).filter(|ip| !only_v4 || ip.is_ipv4()).collect();
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("{host} has no usable address")));
    }
    Ok(found)
}

/// A link-local address means nothing without its interface.
fn with_scope(ip: IpAddr, port: u16, scope: Option<u32>) -> SocketAddr {
    match (ip, scope) {
        (IpAddr::V6(v6), Some(scope)) if v6.is_unicast_link_local() => {
            SocketAddrV6::new(v6, port, 0, scope).into()
        }
        _ => SocketAddr::new(ip, port),
    }
}

fn bind(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket =
        socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        setsockopt(&socket, sockopt::Ipv6V6Only, &false)?;
    }
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX).min(libc::SOMAXCONN);
    socket::listen(&socket, Backlog::new(backlog).unwrap_or(Backlog::MAXCONN))?;
    Ok(TcpListener::from(socket))
}

/// A port by number or by its name in the services file.
pub(crate) fn port_number(port: &str) -> io::Result<u16> {
    if let Ok(number) = port.parse() {
        return Ok(number);
    }
    let services = fs::read_to_string(SERVICES).unwrap_or_default();
    service_port(&services, port).ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, format!("{port}: neither a port number nor in {SERVICES}"))
    })
}

/// The TCP port of a service in the text of the services file.
fn service_port(services: &str, name: &str) -> Option<u16> {
    services.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let (first, port) = (words.next()?, words.next()?.strip_suffix("/tcp")?);
        (first == name || words.any(|alias| alias == name)).then(|| port.parse().ok())?
    })
}

/// Sets what is wanted for a connection.
///
/// # Errors
/// setsockopt(2) errors.
pub fn prepare(socket: BorrowedFd<'_>, no_delay: bool, kill_options: bool) -> io::Result<()> {
    if no_delay {
        setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
    }
    if kill_options {
        unix::socket::clear_ip_options(socket)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_by_name_and_alias() {
        let text = "# c\nsmtp\t25/tcp\tmail\ndomain 53/udp\nsubmission 587/tcp msa # mail\n";
        assert_eq!(service_port(text, "smtp"), Some(25));
        assert_eq!(service_port(text, "mail"), Some(25), "a comment's word is none");
        assert_eq!(service_port(text, "msa"), Some(587));
        assert_eq!(service_port(text, "domain"), None);
        assert_eq!(service_port(text, "nosuch"), None);
    }

    #[test]
    fn hosts() {
        assert_eq!(addresses("0", true).unwrap(), [IpAddr::V4(Ipv4Addr::UNSPECIFIED)]);
        assert_eq!(addresses("127.0.0.1", false).unwrap().len(), 1);
        assert!(addresses("::1", true).is_err());
        let shown = |ip: &str| with_scope(ip.parse().unwrap(), 25, Some(3)).to_string();
        assert_eq!(shown("fe80::1"), "[fe80::1%3]:25");
        assert_eq!(
            (shown("2001:db8::1"), shown("10.0.0.1")),
            ("[2001:db8::1]:25".into(), "10.0.0.1:25".into())
        );
    }
}
