//! The socket of one client, with or without TLS. Nothing here waits.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection};
use unix::readiness::Watched;

/// What a read came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Got {
    /// So many bytes.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// The client is gone.
    End,
}

/// A socket and what is on its way.
#[derive(Debug)]
pub(crate) struct Wire {
    socket: Watched<OwnedFd>,
    /// `None` in clear, and while a worker has it.
    pub(crate) tls: Option<Box<ServerConnection>>,
    /// Bytes that came with something else before them.
    pub(crate) early: Vec<u8>,
    out: Vec<u8>,
    sent: usize,
    broken: bool,
}

/// The socket's bytes as rustls wants to read and write them.
struct Raw<'a>(&'a Watched<OwnedFd>);

impl Read for Raw<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        unix::socket::receive(&**self.0, buf)
    }
}

impl Write for Raw<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        unix::socket::send_quietly(&**self.0, buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn later(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

impl Wire {
    pub(crate) fn new(socket: Watched<OwnedFd>) -> Self {
        Self { socket, tls: None, early: Vec::new(), out: Vec::new(), sent: 0, broken: false }
    }

    /// Asks for one event.
    pub(crate) fn watch(&mut self, read: bool, write: bool) {
        if self.socket.watch(read, write).is_err() {
            self.broken = true;
        }
    }

    /// Is there nobody to send to any more?
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Begins a handshake. What the client said in clear before is forgotten.
    pub(crate) fn start_tls(&mut self, config: Arc<ServerConfig>) -> io::Result<()> {
        let mut tls = ServerConnection::new(config).map_err(io::Error::other)?;
        tls.set_buffer_limit(None);
        self.tls = Some(Box::new(tls));
        Ok(())
    }

    /// Keeps bytes for the next [`Wire::flush`].
    pub(crate) fn send(&mut self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        match &mut self.tls {
            Some(tls) => {
                // Its buffer has no limit, so all of it is taken.
                if tls.writer().write_all(bytes).is_err() {
                    self.broken = true;
                }
                *bytes = Vec::new();
            }
            None if self.out.is_empty() => self.out = std::mem::take(bytes),
            None => self.out.append(bytes),
        }
    }

    /// Sends what is kept; false when some is left.
    pub(crate) fn flush(&mut self) -> bool {
        while !self.broken && self.sent < self.out.len() {
            match unix::socket::send_quietly(&*self.socket, &self.out[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(e) if later(&e) => return false,
                Err(_) => self.broken = true,
            }
        }
        (self.out, self.sent) = (Vec::new(), 0);
        if let Some(tls) = &mut self.tls {
            while !self.broken && tls.wants_write() {
                match tls.write_tls(&mut Raw(&self.socket)) {
                    Ok(_) => {}
                    Err(e) if later(&e) => return false,
                    Err(_) => self.broken = true,
                }
            }
        }
        true
    }

    /// What has arrived already, without a look at the socket.
    pub(crate) fn buffered(&mut self, buf: &mut [u8]) -> Got {
        if !self.early.is_empty() {
            let n = self.early.len().min(buf.len());
            buf[..n].copy_from_slice(&self.early[..n]);
            self.early.drain(..n);
            return Got::Bytes(n);
        }
        match self.tls.as_mut().map(|tls| tls.reader().read(buf)) {
            Some(Ok(n)) if n > 0 => Got::Bytes(n),
            Some(Ok(_)) => Got::End,
            Some(Err(e)) if !later(&e) => Got::End,
            _ => Got::Nothing,
        }
    }

    /// Reads.
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> Got {
        loop {
            match self.buffered(buf) {
                Got::Nothing => {}
                got => return got,
            }
            let Some(tls) = &mut self.tls else {
                return match unix::socket::receive(&*self.socket, buf) {
                    Ok(0) => Got::End,
                    Ok(n) => Got::Bytes(n),
                    Err(e) if later(&e) => Got::Nothing,
                    Err(_) => Got::End,
                };
            };
            match tls.read_tls(&mut Raw(&self.socket)) {
                Ok(0) => return Got::End,
                Ok(_) => {}
                Err(e) if later(&e) => return Got::Nothing,
                Err(_) => return Got::End,
            }
            if tls.process_new_packets().is_err() {
                // The alert that says why is still to be sent.
                self.flush();
                return Got::End;
            }
        }
    }

    /// Reads bytes of a handshake; a worker looks at them.
    pub(crate) fn read_handshake(&mut self) -> Got {
        let mut early = std::mem::take(&mut self.early);
        let Some(tls) = &mut self.tls else { return Got::End };
        if !early.is_empty() {
            let mut rest = &early[..];
            let got = tls.read_tls(&mut rest);
            let left = rest.len();
            early.drain(..early.len() - left);
            self.early = early;
            return got.map_or(Got::End, Got::Bytes);
        }
        match tls.read_tls(&mut Raw(&self.socket)) {
            Ok(0) => Got::End,
            Ok(n) => Got::Bytes(n),
            Err(e) if later(&e) => Got::Nothing,
            Err(_) => Got::End,
        }
    }

    /// Says that nothing more will come.
    pub(crate) fn finish(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
        self.flush();
        unix::socket::finish_sending(&*self.socket);
    }

    /// Reads and drops; how many bytes, or `None` at the end.
    pub(crate) fn drain(&mut self, buf: &mut [u8]) -> Option<usize> {
        match unix::socket::receive(&*self.socket, buf) {
            Ok(0) => None,
            Ok(n) => Some(n),
            Err(e) if later(&e) => Some(0),
            Err(_) => None,
        }
    }
}
