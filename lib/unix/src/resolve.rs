//! Names of addresses, as the system's resolver has them.

use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, SocketAddr};

use nix::sys::socket::{SockaddrLike, SockaddrStorage};

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
        libc::EAI_SYSTEM => Err(io::Error::last_os_error()),
        other => {
            // SAFETY: gai_strerror returns a constant string for every code.
            let why = unsafe { CStr::from_ptr(libc::gai_strerror(other)) };
            Err(io::Error::other(why.to_string_lossy()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_in_every_hosts_file() {
        assert_eq!(name_of("127.0.0.1".parse().unwrap()).unwrap().as_deref(), Some("localhost"));
    }
}
