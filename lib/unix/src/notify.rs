//! Telling a service manager about the state of this process (the protocol of sd_notify(3)).

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

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
}
