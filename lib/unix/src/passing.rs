//! Messages between a process and its child, each received as it was sent, with a descriptor where one goes along.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    socketpair,
};

/// What came.
#[derive(Debug)]
pub struct Received {
    /// The length of the message; 0: the other end is gone.
    pub length: usize,
    /// It did not fit into the buffer: what is there is not all of it.
    pub cut: bool,
    /// The descriptor that came along, close-on-exec.
    pub descriptor: Option<OwnedFd>,
}

/// Both ends of a connection that keeps the limits of messages (`SOCK_SEQPACKET`).
///
/// # Errors
/// No descriptors left.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Sends a message, which must not be empty, without waiting; a peer that is gone is an error (EPIPE) and
/// never a signal.
///
/// # Errors
/// `WouldBlock` when there is no room; as sendmsg(2).
pub fn send_now(socket: impl AsFd, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    send(socket.as_fd(), bytes, descriptor, MsgFlags::MSG_DONTWAIT)
}

/// As [`send_now`], waiting for room.
///
/// # Errors
/// As sendmsg(2).
pub fn send_whole(socket: impl AsFd, bytes: &[u8]) -> io::Result<()> {
    send(socket.as_fd(), bytes, None, MsgFlags::empty())
}

fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptor: Option<BorrowedFd<'_>>,
    how: MsgFlags,
) -> io::Result<()> {
    let number: Vec<RawFd> = descriptor.iter().map(AsRawFd::as_raw_fd).collect();
    let along = [ControlMessage::ScmRights(&number)];
    let along = if number.is_empty() { &along[..0] } else { &along[..] };
    let (parts, how) = ([IoSlice::new(bytes)], how | MsgFlags::MSG_NOSIGNAL);
    loop {
        match sendmsg::<()>(socket.as_raw_fd(), &parts, along, how, None) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Receives the next message; `wait`: until there is one.
///
/// # Errors
/// As recvmsg(2); `WouldBlock` when there is none and nobody waits.
pub fn receive(socket: impl AsFd, buffer: &mut [u8], wait: bool) -> io::Result<Received> {
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let how = MsgFlags::MSG_CMSG_CLOEXEC | if wait { MsgFlags::empty() } else { MsgFlags::MSG_DONTWAIT };
    loop {
        let mut parts = [IoSliceMut::new(buffer)];
        let got = match recvmsg::<()>(socket.as_fd().as_raw_fd(), &mut parts, Some(&mut space), how) {
            Ok(got) => got,
            Err(Errno::EINTR) => continue,
            Err(e) => return Err(e.into()),
        };
        let mut descriptor = None;
        if let Ok(along) = got.cmsgs() {
            for message in along {
                let ControlMessageOwned::ScmRights(numbers) = message else { continue };
                // SAFETY: the kernel has just made these descriptors for us, and nobody else knows them. All
                // of them are taken; those that are not wanted close at once.
                let all = numbers.into_iter().map(|n| unsafe { OwnedFd::from_raw_fd(n) });
                all.for_each(|fd| descriptor = Some(fd));
            }
        }
        let cut = got.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
        return Ok(Received { length: got.bytes, cut, descriptor });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn messages_keep_their_limits_and_carry_a_descriptor() {
        let (ours, theirs) = pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"text").unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        send_now(&ours, b"one", Some(file.as_fd())).unwrap();
        send_whole(&ours, b"second").unwrap();
        let mut buffer = [0; 5];
        let first = receive(&theirs, &mut buffer, true).unwrap();
        assert_eq!((first.length, first.cut, &buffer[..3]), (3, false, &b"one"[..]));
        let mut text = String::new();
        std::fs::File::from(first.descriptor.unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "text");
        let second = receive(&theirs, &mut buffer, true).unwrap();
        assert!(second.cut && second.descriptor.is_none());
        let nothing = receive(&theirs, &mut buffer, false).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        drop(ours);
        assert_eq!(receive(&theirs, &mut buffer, true).unwrap().length, 0);
        assert_eq!(send_whole(&theirs, b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_full_connection_is_not_waited_for() {
        let (ours, _theirs) = pair().unwrap();
        let error = (0..100_000).find_map(|_| send_now(&ours, &[7; 4096], None).err()).unwrap();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
