//! Handshake and relay: between a TLS socket and the pipes of a program that knows nothing of TLS.
//!
//! ```text
//!            ┌── read_tls ──► decrypted ──► input of the program
//! socket ────┤
//!            └◄─ write_tls ◄─ encrypted ◄── output of the program
//! ```
//!
//! Each direction ends by itself: what the client ends becomes the end of the program's input, what the
//! program ends becomes close_notify. Memory is bounded: nothing is read that there is no room for.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{Shutdown, shutdown};
use rustls::Connection;
use unix::clock::Deadline;
use unix::fd::{Raw, set_nonblocking};
use unix::wait::{Interest, ready};

/// Most bytes read at a time from the program.
const PIECE: usize = 16 * 1024;
/// How long a client may take to read the last bytes and close.
const LINGER: Duration = Duration::from_secs(2);
/// How much of what it still sends meanwhile is read and dropped.
const LINGER_BYTES: usize = 1 << 20;

/// How a relay ended.
#[derive(Debug)]
pub enum End {
    /// Both directions were ended in order.
    Done,
    /// Nothing moved for too long.
    Idle,
    /// The client's end failed: a reset, or bytes that are no TLS.
    Broken(io::Error),
}

/// Our ends of a program's pipes.
#[derive(Debug)]
pub struct Pipes {
    /// Leads to its descriptor 0.
    pub input: OwnedFd,
    /// Comes from its descriptor 1.
    pub output: OwnedFd,
}

/// Something else to wait for: called each time its descriptor is readable.
pub type Also<'a> = Option<(BorrowedFd<'a>, &'a mut dyn FnMut())>;

/// Shakes hands.
///
/// # Errors
/// The other end is gone or does not agree, or `TimedOut`.
pub fn handshake(tls: &mut Connection, socket: BorrowedFd<'_>, deadline: Deadline) -> io::Result<()> {
    set_nonblocking(socket, true)?;
    while tls.is_handshaking() || tls.wants_write() {
        let interest = if tls.wants_write() { Interest::Write } else { Interest::Read };
        if !unix::wait::one(socket, interest, deadline)? {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
        }
        let step = if tls.wants_write() {
            tls.write_tls(&mut Raw(socket)).map(|_| ())
        } else {
            receive(tls, socket)
        };
        match step {
            Err(e) if again(&e) => {}
            Err(e) => {
                // The alert that says why; a client that does not read it is not waited for.
                let _ = tls.write_tls(&mut Raw(socket));
                return Err(e);
            }
            Ok(()) => {}
        }
    }
    Ok(())
}

/// Reads what has come; an end in the middle is an error.
fn receive(tls: &mut Connection, socket: BorrowedFd<'_>) -> io::Result<()> {
    if tls.read_tls(&mut Raw(socket))? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    tls.process_new_packets().map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    Ok(())
}

fn again(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Copies both ways until both are ended, or nothing moves for `idle`.
pub fn relay(
    tls: &mut Connection,
    socket: BorrowedFd<'_>,
    pipes: Pipes,
    idle: Duration,
    mut also: Also<'_>,
) -> End {
    for fd in [socket, pipes.input.as_fd(), pipes.output.as_fd()] {
        if let Err(e) = set_nonblocking(fd, true) {
            return End::Broken(e);
        }
    }
    let mut relay = Relay {
        tls,
        socket,
        input: Some(pipes.input),
        output: Some(pipes.output),
        decrypted: Vec::new(),
        client_ended: false,
        idle: Deadline::after(idle),
    };
    // The handshake may have brought data along.
    relay.decrypt();
    let end = loop {
        if relay.is_done() {
            break End::Done;
        }
        match relay.turn(idle, &mut also) {
            Ok(()) if relay.idle.passed() => break End::Idle,
            Ok(()) => {}
            Err(e) => break End::Broken(e),
        }
    };
    if matches!(end, End::Done) {
        relay.linger();
    }
    end
}

struct Relay<'a> {
    tls: &'a mut Connection,
    socket: BorrowedFd<'a>,
    /// `None`: ended.
    input: Option<OwnedFd>,
    output: Option<OwnedFd>,
    /// For the program, not yet written.
    decrypted: Vec<u8>,
    client_ended: bool,
    idle: Deadline,
}

impl Relay<'_> {
    /// The program has said all, and hears nothing any more.
    fn is_done(&self) -> bool {
        self.output.is_none() && self.input.is_none() && !self.tls.wants_write()
    }

    fn turn(&mut self, idle: Duration, also: &mut Also<'_>) -> io::Result<()> {
        let sending = self.tls.wants_write();
        let hearing = !self.client_ended && self.decrypted.is_empty() && self.input.is_some();
        let socket = match (hearing, sending) {
            (true, true) => Interest::Both,
            (true, false) => Interest::Read,
            (false, true) => Interest::Write,
            (false, false) => Interest::Nothing,
        };
        // What the client has not taken yet holds the program back.
        let listening = self.output.as_ref().filter(|_| !sending);
        let mut fds = Vec::with_capacity(4);
        // A socket that nothing is wanted from would wake us for its hang-up again and again.
        let socket_at = (socket != Interest::Nothing).then(|| push(&mut fds, self.socket, socket));
        let output_at = listening.map(|fd| push(&mut fds, fd.as_fd(), Interest::Read));
        let input_at = self.input.as_ref().map(|fd| {
            let wanted = if self.decrypted.is_empty() { Interest::Nothing } else { Interest::Write };
            push(&mut fds, fd.as_fd(), wanted)
        });
        let also_at = also.as_ref().map(|(fd, _)| push(&mut fds, *fd, Interest::Read));
        let got = ready(&fds, Some(self.idle))?;
        let at = |index: Option<usize>| index.and_then(|i| got.get(i)).copied().unwrap_or_default();
        let (socket, output, input) = (at(socket_at), at(output_at), at(input_at));
        if at(also_at).read
            && let Some((_, action)) = also
        {
            action();
        }
        let mut moved = false;
        if input.closed {
            // The program does not read any more.
            self.input = None;
            self.decrypted.clear();
            moved = true;
        } else if input.write {
            self.write_input()?;
            moved = true;
        }
        if socket.write {
            match self.tls.write_tls(&mut Raw(self.socket)) {
                Err(e) if again(&e) => {}
                other => moved |= other? > 0,
            }
        }
        if socket.read && hearing {
            self.hear()?;
            moved = true;
        }
        if output.read {
            self.read_output()?;
            moved = true;
        }
        if moved {
            self.idle = Deadline::after(idle);
        }
        Ok(())
    }

    fn hear(&mut self) -> io::Result<()> {
        match self.tls.read_tls(&mut Raw(self.socket)) {
            // Without close_notify too: the end is the end, a program cannot be told more.
            Ok(0) => self.client_ended = true,
            Ok(_) => {
                if let Err(e) = self.tls.process_new_packets() {
                    let _ = self.tls.write_tls(&mut Raw(self.socket));
                    return Err(io::Error::new(io::ErrorKind::InvalidData, e));
                }
            }
            Err(e) if again(&e) => {}
            Err(e) => return Err(e),
        }
        self.decrypt();
        Ok(())
    }

    /// Takes what is decrypted; at the client's end the program's input ends.
    fn decrypt(&mut self) {
        let mut piece = [0; PIECE];
        loop {
            match self.tls.reader().read(&mut piece) {
                Ok(0) => {
                    self.client_ended = true;
                    break;
                }
                Ok(n) => self.decrypted.extend_from_slice(&piece[..n]),
                Err(e) => {
                    // No close_notify before the end of the stream.
                    self.client_ended |= !again(&e);
                    break;
                }
            }
        }
        self.end_input_if_done();
    }

    fn end_input_if_done(&mut self) {
        if self.client_ended && self.decrypted.is_empty() {
            self.input = None;
        }
    }

    fn write_input(&mut self) -> io::Result<()> {
        let Some(input) = &self.input else { return Ok(()) };
        match Raw(input.as_fd()).write(&self.decrypted) {
            Ok(n) => {
                self.decrypted.drain(..n);
            }
            Err(e) if again(&e) => {}
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {
                self.input = None;
                self.decrypted.clear();
            }
            Err(e) => return Err(e),
        }
        self.end_input_if_done();
        Ok(())
    }

    fn read_output(&mut self) -> io::Result<()> {
        let Some(output) = &self.output else { return Ok(()) };
        let mut piece = [0; PIECE];
        match Raw(output.as_fd()).read(&mut piece) {
            Ok(0) => {
                self.output = None;
                self.tls.send_close_notify();
            }
            // The buffer was empty, so a piece fits.
            Ok(n) => self.tls.writer().write_all(&piece[..n])?,
            Err(e) if again(&e) => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// Were the socket closed while the client still sends, the kernel would take the last bytes back.
    fn linger(&mut self) {
        if self.client_ended || shutdown(self.socket.as_raw_fd(), Shutdown::Write).is_err() {
            return;
        }
        let (deadline, mut left) = (Deadline::after(LINGER), LINGER_BYTES);
        let mut piece = [0; PIECE];
        while left > 0 && unix::wait::one(self.socket, Interest::Read, deadline).unwrap_or(false) {
            match Raw(self.socket).read(&mut piece) {
                Ok(n) if n > 0 => left = left.saturating_sub(n),
                Err(e) if again(&e) => {}
                _ => return,
            }
        }
    }
}

fn push<'a>(fds: &mut Vec<(BorrowedFd<'a>, Interest)>, fd: BorrowedFd<'a>, interest: Interest) -> usize {
    fds.push((fd, interest));
    fds.len() - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection, StreamOwned};
    use std::fs::File;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::thread::{self, JoinHandle};

    const LONG: Duration = Duration::from_secs(60);

    struct Place {
        client: StreamOwned<ClientConnection, UnixStream>,
        /// Descriptors 0 and 1 of the program.
        program: (File, File),
        relay: JoinHandle<End>,
    }

    /// A relay in its own thread between a client and a program that the test plays.
    fn start(idle: Duration) -> Place {
        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
        let file = dir.path().join("server.pem");
        std::fs::write(&file, format!("{}{}", made.signing_key.serialize_pem(), made.cert.pem())).unwrap();
        let config = crate::server::Options::new(&file).load().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (from_relay, input) = unix::fd::pipe().unwrap();
        let (output, to_relay) = unix::fd::pipe().unwrap();
        let relay = thread::spawn(move || {
            let mut tls = Connection::from(ServerConnection::new(config).unwrap());
            handshake(&mut tls, theirs.as_fd(), Deadline::after(LONG)).unwrap();
            relay(&mut tls, theirs.as_fd(), Pipes { input, output }, idle, None)
        });
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tls = ClientConnection::new(Arc::new(config), "a.example".try_into().unwrap()).unwrap();
        let mut client = StreamOwned::new(tls, ours);
        client.conn.complete_io(&mut client.sock).unwrap();
        Place { client, program: (from_relay.into(), to_relay.into()), relay }
    }

    #[test]
    fn bytes_go_both_ways_and_each_end_ends_by_itself() {
        let Place { mut client, program: (mut input, mut output), relay } = start(LONG);
        let much: Vec<u8> = (0u32..400_000).flat_map(u32::to_le_bytes).collect();
        let sent = much.clone();
        let echo = thread::spawn(move || {
            let mut all = Vec::new();
            input.read_to_end(&mut all).unwrap();
            output.write_all(&all).unwrap();
        });
        client.write_all(&sent).unwrap();
        client.conn.send_close_notify();
        client.flush().unwrap();
        let mut all = Vec::new();
        client.read_to_end(&mut all).unwrap();
        echo.join().unwrap();
        assert!(all == much, "what came back is what was sent");
        assert!(matches!(relay.join().unwrap(), End::Done));
    }

    #[test]
    fn a_program_that_ends_first_is_heard_to_its_end() {
        let Place { mut client, program: (input, mut output), relay } = start(LONG);
        drop(input);
        client.write_all(b"nobody reads this").unwrap();
        output.write_all(b"bye").unwrap();
        drop(output);
        let mut all = Vec::new();
        client.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"bye");
        drop(client);
        assert!(matches!(relay.join().unwrap(), End::Done));
    }

    #[test]
    fn silence_ends_a_connection_and_so_does_what_is_no_tls() {
        let Place { client, program: (mut input, output), relay } = start(Duration::from_millis(50));
        assert!(matches!(relay.join().unwrap(), End::Idle));
        assert_eq!(input.read(&mut [0; 9]).unwrap(), 0, "the program is told");
        drop((client, output));
        let Place { mut client, program, relay } = start(LONG);
        client.sock.write_all(b"plain text, not a record").unwrap();
        assert!(matches!(relay.join().unwrap(), End::Broken(_)));
        drop(program);
    }
}
