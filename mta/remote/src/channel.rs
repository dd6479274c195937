//! The connection with a remote host: a deadline for each step, and TLS.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection};
use rustls_pki_types::ServerName;
use unix::clock::Deadline;
use unix::wait::{Interest, one};

use crate::plan::Target;

/// A connection.
#[derive(Debug)]
pub(crate) struct Channel {
    wire: Wire,
    tls: Option<Box<ClientConnection>>,
}

/// A socket with a deadline for each read and write.
#[derive(Debug)]
struct Wire {
    socket: TcpStream,
    timeout: Duration,
}

impl Wire {
    fn wait(&self, interest: Interest) -> io::Result<()> {
        match one(self.socket.as_fd(), interest, Deadline::after(self.timeout))? {
            true => Ok(()),
            false => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl Read for Wire {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.socket.read(buf) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.wait(Interest::Read)?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }
}

impl Write for Wire {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        loop {
            match self.socket.write(buf) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.wait(Interest::Write)?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Channel {
    /// Connects within `connect`; each later read and write may take `timeout`.
    pub(crate) fn connect(target: &Target, connect: Duration, timeout: Duration) -> io::Result<Self> {
        let socket = TcpStream::connect_timeout(&SocketAddr::new(target.ip, target.port), connect)?;
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        Ok(Self { wire: Wire { socket, timeout }, tls: None })
    }

    /// Shakes hands. On failure the connection is of no use any more.
    pub(crate) fn start_tls(&mut self, config: Arc<ClientConfig>, target: &Target) -> io::Result<()> {
        let name = ServerName::try_from(target.name.trim_end_matches('.').to_owned())
            .unwrap_or_else(|_| ServerName::IpAddress(target.ip.into()));
        let mut tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut self.wire)?;
        }
        self.tls = Some(Box::new(tls));
        Ok(())
    }

    /// Sends all of it.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => {
                let mut stream = rustls::Stream::new(&mut **tls, &mut self.wire);
                stream.write_all(bytes)?;
                stream.flush()
            }
            None => self.wire.write_all(bytes),
        }
    }

    /// Reads something; 0 when the host has closed.
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.wire).read(buf),
            None => self.wire.read(buf),
        }
    }

    /// Says goodbye to TLS; the answer is not waited for.
    pub(crate) fn close(mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            // The outcome is known; a host that has gone already does not change it.
            let _ = tls.write_tls(&mut self.wire);
        }
    }
}
