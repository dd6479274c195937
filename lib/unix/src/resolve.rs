//! Names of addresses and addresses of names, as the system's resolver has them.

use std::ffi::{CStr, CString};
use std::io;
use std::net::{IpAddr, SocketAddr};

use nix::sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage};

/// "The name has addresses, but none of the family asked for": in glibc, not in the binding.
const EAI_ADDRFAMILY: libc::c_int = -9;

/// The name of an address; `Ok(None)` when it has none. Waits as long as the resolver does.
///
/// # Errors
/// The resolver could not tell.
pub fn name_of(ip: IpAddr) -> io::Result<Option<String>> {
    let address = SockaddrStorage::from(SocketAddr::new(ip, 0));
    let mut name = [0 as libc::c_char; 1025];
    let room = libc::socklen_t::try_from(name.len()).map_err(io::Error::other)?;
    // SAFETY: the address and its length belong together; the buffer has the length given; no service
    // name is asked for.
    let code = unsafe {
        libc::getnameinfo(
            address.as_ptr(),
            address.len(),
            name.as_mut_ptr(),
            room,
            std::ptr::null_mut(),
            0,
            libc::NI_NAMEREQD,
        )
    };
    match code {
        // SAFETY: on success getnameinfo has written a NUL-terminated string into the buffer.
        0 => Ok(Some(unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned())),
        libc::EAI_NONAME => Ok(None),
        other => Err(error(other)),
    }
}

/// Which addresses are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Those that this host can reach.
    Any,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

/// The addresses of a name, best first; an address is its own name. Empty when there is no such name
/// or it has no address of that family. Waits as long as the resolver does.
///
/// # Errors
/// The resolver could not tell; the name holds a NUL.
pub fn addresses_of(name: &str, family: Family) -> io::Result<Vec<SocketAddr>> {
    let name = CString::new(name)?;
    // SAFETY: addrinfo is plain data for which all zeroes mean "no hint".
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    hints.ai_socktype = libc::SOCK_STREAM;
    hints.ai_family = match family {
        Family::Any => libc::AF_UNSPEC,
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    };
    let mut list = std::ptr::null_mut();
    // SAFETY: a NUL-terminated name, no service, live hints; the list is freed below.
    let code = unsafe { libc::getaddrinfo(name.as_ptr(), std::ptr::null(), &raw const hints, &raw mut list) };
    match code {
        0 => {}
        libc::EAI_NONAME | libc::EAI_NODATA | EAI_ADDRFAMILY => return Ok(Vec::new()),
        other => return Err(error(other)),
    }
    let mut found = Vec::new();
    let mut next = list;
    while !next.is_null() {
        // SAFETY: an entry of the list that getaddrinfo made, not yet freed.
        let entry = unsafe { &*next };
        // SAFETY: address and length of this entry belong together.
        if let Some(address) = unsafe { SockaddrStorage::from_raw(entry.ai_addr, Some(entry.ai_addrlen)) } {
            found.extend(plain(&address));
        }
        next = entry.ai_next;
    }
    // SAFETY: the list comes from getaddrinfo and nothing borrows from it any more.
    unsafe { libc::freeaddrinfo(list) };
    Ok(found)
}

fn plain(address: &SockaddrStorage) -> Option<SocketAddr> {
    match address.family()? {
        AddressFamily::Inet => address.as_sockaddr_in().map(|a| SocketAddr::V4((*a).into())),
        AddressFamily::Inet6 => address.as_sockaddr_in6().map(|a| SocketAddr::V6((*a).into())),
        _ => None,
    }
}

fn error(code: libc::c_int) -> io::Error {
    if code == libc::EAI_SYSTEM {
        return io::Error::last_os_error();
    }
    // SAFETY: gai_strerror returns a constant string for every code.
    let why = unsafe { CStr::from_ptr(libc::gai_strerror(code)) };
    io::Error::other(why.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_in_every_hosts_file() {
        assert_eq!(name_of("127.0.0.1".parse().unwrap()).unwrap().as_deref(), Some("localhost"));
    }

    #[test]
    fn addresses_and_names() {
        let all = |name: &str, family| -> Vec<String> {
            addresses_of(name, family).unwrap().iter().map(|a| a.ip().to_string()).collect()
        };
        assert_eq!(all("localhost", Family::V4), ["127.0.0.1"]);
        assert_eq!(all("::1", Family::Any), ["::1"]);
        assert!(all("127.0.0.1", Family::V6).is_empty());
        assert!(addresses_of("a\0b", Family::Any).is_err());
    }
}
