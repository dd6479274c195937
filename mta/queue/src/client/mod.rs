//! Handing a message to the queue: start the queue program, write message and envelope, read the answer.
//!
//! ```text
//! QueueProgram::new(sbin, &environment)     which program, from NULLQUEUE and QMAILQUEUE
//!     .open()                               -> Transfer
//! transfer.write(bytes) ...                 the message, in pieces of any size
//! transfer.finish(sender, recipients)       -> Outcome
//!
//! .service(socket)                          the queue service instead, when it listens
//! ```
//!
//! A transfer that is dropped before `finish` aborts: the program sees an envelope without an end
//! and queues nothing. Write errors are remembered and turn the outcome into a temporary failure,
//! so callers may write without looking, and stop early when [`Transfer::failed`].

mod service;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use unix::child::{Ending, Launch};
use unix::clock::Deadline;
use unix::fd::Raw;
use unix::wait::{Interest, one};
use unix::{Pid, Signal};

use self::service::Gathered;
use crate::envelope;
use crate::exit::{Answer, Code, answer};

/// Text from the queue program that is kept, in bytes.
const ERROR_TEXT_MAX: usize = 1023;
/// How long the queue program may take for one step, unless told otherwise: a bit less than its own DEATH alarm.
const PATIENCE: Duration = Duration::from_secs(80_000);
/// Where the queue service listens unless something says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/indimail/queue.sock";

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the queue and will survive a power cut.
    Queued {
        /// Process id of the queue program, which the log of qmail-send repeats as "qp".
        qp: u32,
    },
    /// It will never be accepted; one line of text for a remote peer.
    Permanent(Vec<u8>),
    /// Not this time; one line of text for a remote peer.
    Temporary(Vec<u8>),
}

impl Outcome {
    fn of(code: Code) -> Self {
        Self::from_answer(answer(code, b""), 0)
    }

    fn from_answer(answer: Answer, qp: u32) -> Self {
        match answer {
            Answer::Queued => Self::Queued { qp },
            Answer::Permanent(text) => Self::Permanent(text),
            Answer::Temporary(text) => Self::Temporary(text),
        }
    }
}

/// The queue program and what it is started with.
#[derive(Debug, Clone)]
pub struct QueueProgram {
    command: Option<Vec<OsString>>,
    environment: Vec<(OsString, OsString)>,
    error_fd: Option<RawFd>,
    patience: Duration,
    service: Option<PathBuf>,
}

impl QueueProgram {
    /// Chooses the program.
    ///
    /// `environment` is the child's whole environment. In it: NULLQUEUE set means that messages
    /// are swallowed; else QMAILQUEUE, a path or a command line; else `sbin`/qmail-queue. ERROR_FD
    /// is the descriptor for custom error text (2; -1: none).
    #[must_use]
    pub fn new(sbin: &Path, environment: &[(OsString, OsString)]) -> Self {
        let value = |name: &str| environment.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_os_str());
        let command = if value("NULLQUEUE").is_some() {
            None
        } else {
            let words = value("QMAILQUEUE").filter(|v| !v.is_empty()).map(command_line);
            Some(words.unwrap_or_else(|| vec![sbin.join("qmail-queue").into_os_string()]))
        };
        let error_fd = match value("ERROR_FD").and_then(|v| v.to_str()?.trim().parse::<RawFd>().ok()) {
            None => Some(2),
            Some(n) if n < 2 => None,
            Some(n) => Some(n),
        };
        Self { command, environment: environment.to_vec(), error_fd, patience: PATIENCE, service: None }
    }

    /// Messages of an ordinary size go to the queue service on this socket; the program is started when
    /// nobody listens there, and for all messages when QMAILQUEUE or NULLQUEUE is set.
    #[must_use]
    pub fn service(mut self, socket: &Path) -> Self {
        let chosen = |(name, value): &(OsString, OsString)| name == "QMAILQUEUE" && !value.is_empty();
        if self.command.is_some() && !self.environment.iter().any(chosen) {
            self.service = Some(socket.to_owned());
        }
        self
    }

    /// Gives up and kills the program when a single step takes longer than this.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Does [`QueueProgram::open`] start a program, so that it takes a while?
    #[must_use]
    pub fn waits(&self) -> bool {
        self.command.is_some() && self.service.is_none()
    }

    /// Starts the program.
    ///
    /// # Errors
    /// The outcome to report when it cannot be started.
    pub fn open(&self) -> Result<Transfer, Outcome> {
        let way = match (&self.command, &self.service) {
            (None, _) => Way::Nowhere,
            (Some(_), Some(socket)) => {
                Way::Service(Gathered { socket: socket.clone(), program: self.clone(), message: Vec::new() })
            }
            (Some(command), None) => Way::Program(self.start(command)?),
        };
        Ok(Transfer { way, bad: false, patience: self.patience })
    }

    fn start(&self, command: &[OsString]) -> Result<Running, Outcome> {
        let pipe = || unix::fd::pipe().map_err(|_| Outcome::of(Code::PIPES));
        let (message_r, message) = pipe()?;
        let (envelope_r, envelope) = pipe()?;
        let (errors, errors_w) = pipe()?;
        for end in [&message, &envelope] {
            unix::fd::set_nonblocking(end, true).map_err(|_| Outcome::of(Code::PIPES))?;
        }
        let launch = || -> io::Result<Launch> {
            let program = command.first().map_or(OsStr::new(""), OsString::as_os_str);
            let launch = Launch::new(PathBuf::from(program))
                .args(&command[1..])
                .env_exactly(self.environment.iter().cloned())
                .directory("/")
                .descriptor(message_r.as_fd(), 0)?
                .descriptor(envelope_r.as_fd(), 1)?;
            match self.error_fd {
                Some(number) => launch.descriptor(errors_w.as_fd(), number),
                None => Ok(launch),
            }
        };
        let launch = launch().map_err(|_| Outcome::of(Code::DUP))?;
        let pid = launch.start().map_err(|_| Outcome::of(Code::EXEC_CHILD))?;
        Ok(Running { pid: Some(pid), message: Some(message), envelope: Some(envelope), errors })
    }
}

/// Splits QMAILQUEUE: a path, or, when a blank is followed by something, words; a word that begins
/// with a quote runs to the matching one.
fn command_line(value: &OsStr) -> Vec<OsString> {
    let bytes = value.as_bytes();
    let mut words = Vec::new();
    let mut rest = bytes.trim_ascii_start();
    while let Some(&first) = rest.first() {
        let (word, after) = if first == b'"' || first == b'\'' {
            let body = &rest[1..];
            let end = body.iter().position(|&b| b == first).unwrap_or(body.len());
            (&body[..end], body.get(end + 1..).unwrap_or_default())
        } else {
            rest.split_at(rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len()))
        };
        words.push(OsString::from_vec(word.to_vec()));
        rest = after.trim_ascii_start();
    }
    if words.len() < 2 { vec![value.to_owned()] } else { words }
}

/// A message on its way into the queue.
#[derive(Debug)]
pub struct Transfer {
    way: Way,
    bad: bool,
    patience: Duration,
}

#[derive(Debug)]
enum Way {
    /// Everything is swallowed.
    Nowhere,
    /// To the queue program.
    Program(Running),
    /// To the queue service, once it is complete.
    Service(Gathered),
}

#[derive(Debug)]
struct Running {
    pid: Option<Pid>,
    message: Option<OwnedFd>,
    envelope: Option<OwnedFd>,
    errors: OwnedFd,
}

impl Transfer {
    /// Process id of the queue program, the "qp" of the logs.
    #[must_use]
    pub fn qp(&self) -> u32 {
        let child = if let Way::Program(running) = &self.way { running.pid } else { None };
        let pid = child.unwrap_or_else(nix::unistd::getpid);
        u32::try_from(pid.as_raw()).unwrap_or(0)
    }

    /// Has a write failed? The outcome cannot be success any more.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.bad
    }

    /// Makes the transfer fail, whatever the program says. Say it when the message is incomplete.
    pub fn fail(&mut self) {
        self.bad = true;
    }

    /// Adds bytes to the message. Failures are remembered, see [`Transfer::failed`].
    pub fn write(&mut self, bytes: &[u8]) {
        if self.bad {
            return;
        }
        match &mut self.way {
            Way::Nowhere => {}
            Way::Service(gathered) if gathered.message.len() + bytes.len() <= service::GATHERED_MAX => {
                gathered.message.extend_from_slice(bytes);
            }
            Way::Service(_) => {
                self.go_over_to_the_program();
                self.write(bytes);
            }
            Way::Program(running) => {
                if let Some(fd) = &running.message {
                    self.bad = write_all(fd.as_fd(), bytes, self.patience).is_err();
                }
            }
        }
    }

    /// Would [`Transfer::write`] of so many bytes, or dropping this, only touch memory?
    #[must_use]
    pub fn takes_at_once(&self, length: usize) -> bool {
        match &self.way {
            Way::Nowhere => true,
            Way::Program(_) => false,
            Way::Service(gathered) => self.bad || gathered.message.len() + length <= service::GATHERED_MAX,
        }
    }

    /// Starts the program and hands it what was gathered. A failure is remembered like that of a write.
    fn go_over_to_the_program(&mut self) {
        let Way::Service(gathered) = std::mem::replace(&mut self.way, Way::Nowhere) else {
            return;
        };
        let command = gathered.program.command.clone().unwrap_or_default();
        match gathered.program.start(&command) {
            Ok(running) => {
                self.way = Way::Program(running);
                self.write(&gathered.message);
            }
            Err(_) => self.bad = true,
        }
    }

    /// Ends the message, sends the envelope and waits for the answer.
    ///
    /// An address that is too long or holds a NUL is refused here and nothing is queued.
    pub fn finish<'a>(mut self, sender: &[u8], recipients: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
        let bytes = match envelope::encode_client(sender, recipients) {
            Ok(bytes) => bytes,
            Err(envelope::EnvelopeError::AddressTooLong) => return Outcome::of(Code::ADDRESS_TOO_LONG),
            Err(envelope::EnvelopeError::Format) => {
                return Outcome::Permanent(b"an envelope address holds a NUL byte (#5.1.3)".to_vec());
            }
        };
        if let Way::Service(gathered) = &self.way {
            if self.bad {
                return Outcome::of(Code::READ);
            }
            if let Some(outcome) = gathered.send(&bytes, self.patience) {
                return outcome;
            }
            self.go_over_to_the_program();
            if self.bad {
                return Outcome::of(Code::EXEC_QUEUE);
            }
        }
        let qp = self.qp();
        let Way::Program(mut running) = std::mem::replace(&mut self.way, Way::Nowhere) else {
            return if self.bad { Outcome::of(Code::READ) } else { Outcome::Queued { qp } };
        };
        running.message = None;
        if let Some(fd) = running.envelope.take()
            && !self.bad
        {
            self.bad = write_all(fd.as_fd(), &bytes, self.patience).is_err();
        }
        let (code, text) = running.answer(self.patience);
        if self.bad && code == Code::OK {
            return Outcome::of(Code::READ);
        }
        Outcome::from_answer(answer(code, &text), qp)
    }

    /// Gives up: nothing is queued.
    pub fn abort(self) {
        drop(self);
    }
}

impl Running {
    fn answer(&mut self, patience: Duration) -> (Code, Vec<u8>) {
        let Some(text) = read_errors(self.errors.as_fd(), patience) else {
            self.kill();
            return (Code::TIMEOUT, Vec::new());
        };
        let Some(pid) = self.pid.take() else {
            return (Code::WAIT, text);
        };
        let code = match unix::child::wait_for(pid) {
            Ok(Ending::Exited(n)) => u8::try_from(n).map_or(Code::CRASHED, Code),
            Ok(Ending::Killed(_)) => Code::CRASHED,
            Err(_) => Code::WAIT,
        };
        (code, text)
    }

    fn kill(&mut self) {
        if let Some(pid) = self.pid.take() {
            // Gone already is as good; a process that cannot be killed will be reaped by init.
            let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
            let _ = unix::child::wait_for(pid);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.message = None;
        self.envelope = None;
        if self.pid.is_some() {
            // It sees an envelope without an end, cleans up and exits.
            let _ = self.answer(Duration::from_secs(10));
        }
    }
}

/// Writes everything; `patience` is for each piece the other side takes.
fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8], patience: Duration) -> io::Result<()> {
    use std::io::Write;
    while !bytes.is_empty() {
        match Raw(fd).write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if !one(fd, Interest::Write, Deadline::after(patience))? {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Everything up to EOF, of which the first bytes are kept; `None` when time is up.
fn read_errors(fd: BorrowedFd<'_>, patience: Duration) -> Option<Vec<u8>> {
    use std::io::Read;
    let deadline = Deadline::after(patience);
    let (mut kept, mut buf) = (Vec::new(), [0u8; 1024]);
    loop {
        if !one(fd, Interest::Read, deadline).ok()? {
            return None;
        }
        match Raw(fd).read(&mut buf) {
            Ok(0) => return Some(kept),
            Ok(n) => {
                let room = ERROR_TEXT_MAX.saturating_sub(kept.len()).min(n);
                kept.extend_from_slice(&buf[..room]);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Some(kept),
        }
    }
}

#[cfg(test)]
mod tests;
