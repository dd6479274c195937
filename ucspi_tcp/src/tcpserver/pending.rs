//! Connections from proxies whose header has not come yet.

use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use unix::clock::Deadline;

use super::listener::Accepted;
use crate::proxy::{self, Header, MAX_LENGTH, Parsed};

/// One of them.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) accepted: Accepted,
    bytes: Vec<u8>,
    pub(super) deadline: Deadline,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Step {
    /// The header is not complete.
    More,
    /// It is, and nothing after it has been read.
    Ready(Header),
    /// There will be none.
    Gone(String),
}

impl Pending {
    pub(super) fn new(accepted: Accepted, deadline: Deadline) -> Self {
        Self { accepted, bytes: Vec::new(), deadline }
    }

    /// Reads what has come, without waiting.
    pub(super) fn step(&mut self) -> Step {
        let mut buffer = [0; MAX_LENGTH];
        loop {
            let room = MAX_LENGTH - self.bytes.len();
            let seen = match self.receive(&mut buffer[..room], MsgFlags::MSG_PEEK) {
                Ok(Some(0)) => return Step::Gone("closed before the PROXY header".into()),
                Ok(Some(seen)) => seen,
                Ok(None) if self.deadline.passed() => return Step::Gone("no PROXY header in time".into()),
                Ok(None) => return Step::More,
                Err(e) => return Step::Gone(e.to_string()),
            };
            let before = self.bytes.len();
            self.bytes.extend_from_slice(&buffer[..seen]);
            let (length, found) = match proxy::parse(&self.bytes) {
                Parsed::Incomplete => (self.bytes.len(), None),
                Parsed::Done(header, length) => (length, Some(header)),
                Parsed::Invalid(why) => return Step::Gone(why.into()),
            };
            // What belongs to the header is taken for good; the program gets the rest.
            self.bytes.truncate(length);
            match self.receive(&mut buffer[..length.saturating_sub(before)], MsgFlags::empty()) {
                Ok(_) => {}
                Err(e) => return Step::Gone(e.to_string()),
            }
            if let Some(header) = found {
                return Step::Ready(header);
            }
        }
    }

    /// `None`: nothing is there.
    fn receive(&self, buffer: &mut [u8], flags: MsgFlags) -> io::Result<Option<usize>> {
        match recv(self.accepted.socket.as_raw_fd(), buffer, flags | MsgFlags::MSG_DONTWAIT) {
            Ok(n) => Ok(Some(n)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcpserver::listener::From;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    fn pending() -> (UnixStream, Pending, UnixStream) {
        let (client, server) = UnixStream::pair().unwrap();
        let kept = server.try_clone().unwrap();
        let accepted = Accepted { socket: server.into(), from: From::Unix("/x".into()) };
        (client, Pending::new(accepted, Deadline::after(Duration::from_secs(100))), kept)
    }

    #[test]
    fn a_header_in_pieces_is_taken_and_nothing_else() {
        for header in [&b"PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\n"[..], &proxy::encode_v2(&Header::default())] {
            let (mut client, mut pending, mut kept) = pending();
            for byte in &header[..header.len() - 1] {
                client.write_all(&[*byte]).unwrap();
                assert!(matches!(pending.step(), Step::More));
            }
            client.write_all(&[header[header.len() - 1]]).unwrap();
            client.write_all(b"EHLO x\r\n").unwrap();
            assert!(matches!(pending.step(), Step::Ready(_)));
            let mut rest = [0; 8];
            kept.read_exact(&mut rest).unwrap();
            assert_eq!(&rest, b"EHLO x\r\n");
        }
    }

    #[test]
    fn what_is_no_header_ends_it() {
        let gone = |step| match step {
            Step::Gone(why) => why,
            other => panic!("{other:?}"),
        };
        let (mut client, mut waiting, _kept) = pending();
        client.write_all(b"EHLO x\r\n").unwrap();
        assert_eq!(gone(waiting.step()), "no PROXY header");
        let (client, mut waiting, _kept) = pending();
        drop(client);
        assert_eq!(gone(waiting.step()), "closed before the PROXY header");
        let (_client, mut waiting, _kept) = pending();
        waiting.deadline = Deadline::after(Duration::ZERO);
        assert_eq!(gone(waiting.step()), "no PROXY header in time");
    }
}
