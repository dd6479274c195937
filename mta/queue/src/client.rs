//! Handing a message to the queue: start the queue program, write message and envelope, read the answer.
//!
//! ```text
//! QueueProgram::new(sbin, &environment)     which program, from NULLQUEUE and QMAILQUEUE
//!     .open()                               -> Transfer
//! transfer.write(bytes) ...                 the message, in pieces of any size
//! transfer.finish(sender, recipients)       -> Outcome
//! ```
//!
//! A transfer that is dropped before `finish` aborts: the program sees an envelope without an end
//! and queues nothing. Write errors are remembered and turn the outcome into a temporary failure,
//! so callers may write without looking, and stop early when [`Transfer::failed`].

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

use crate::envelope;
use crate::exit::{Answer, Code, answer};

/// Text from the queue program that is kept, in bytes.
const ERROR_TEXT_MAX: usize = 1023;
/// How long the queue program may take for one step, unless told otherwise: a bit less than its own DEATH alarm.
const PATIENCE: Duration = Duration::from_secs(80_000);

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
        Self { command, environment: environment.to_vec(), error_fd, patience: PATIENCE }
    }

    /// Gives up and kills the program when a single step takes longer than this.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Starts the program.
    ///
    /// # Errors
    /// The outcome to report when it cannot be started.
    pub fn open(&self) -> Result<Transfer, Outcome> {
        let Some(command) = &self.command else {
            return Ok(Transfer { running: None, bad: false, patience: self.patience });
        };
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
        let running = Running { pid: Some(pid), message: Some(message), envelope: Some(envelope), errors };
        Ok(Transfer { running: Some(running), bad: false, patience: self.patience })
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
    /// `None`: everything is swallowed.
    running: Option<Running>,
    bad: bool,
    patience: Duration,
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
        let pid = self.running.as_ref().and_then(|r| r.pid).unwrap_or_else(nix::unistd::getpid);
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
        if let Some(fd) = self.running.as_ref().and_then(|r| r.message.as_ref()) {
            self.bad = write_all(fd.as_fd(), bytes, self.patience).is_err();
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
        let qp = self.qp();
        let Some(mut running) = self.running.take() else {
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
mod tests {
    use super::*;

    fn outcome(vars: &[(&str, &str)], message: &[u8], recipients: &[&[u8]]) -> Outcome {
        let vars: Vec<(OsString, OsString)> = vars.iter().map(|(n, v)| (n.into(), v.into())).collect();
        let program = QueueProgram::new(Path::new("/nonexistent"), &vars).patience(Duration::from_secs(20));
        match program.open() {
            Ok(mut transfer) => {
                transfer.write(message);
                transfer.finish(b"s@x", recipients.iter().copied())
            }
            Err(outcome) => outcome,
        }
    }

    fn with_script(script: &str, message: &[u8]) -> Outcome {
        let line = format!("/bin/sh -c '{script}'");
        outcome(&[("QMAILQUEUE", &line), ("PATH", "/usr/bin:/bin")], message, &[b"r@y"])
    }

    const READ_ALL: &str = "cat >/dev/null; cat <&1 >/dev/null; ";

    fn text(outcome: &Outcome) -> String {
        match outcome {
            Outcome::Queued { .. } => "queued".to_owned(),
            Outcome::Permanent(t) => format!("D{}", String::from_utf8_lossy(t)),
            Outcome::Temporary(t) => format!("Z{}", String::from_utf8_lossy(t)),
        }
    }

    #[test]
    fn the_program_gets_message_and_envelope_and_its_status_is_the_answer() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let script = format!("cat >{0}; cat <&1 >>{0}", out.display());
        assert!(matches!(with_script(&script, b"Subject: x\n\n"), Outcome::Queued { qp } if qp > 0));
        assert_eq!(std::fs::read(&out).unwrap(), b"Subject: x\n\nFs@x\0Tr@y\0\0");
        for (code, wanted) in [(11, 'D'), (31, 'D'), (53, 'Z'), (115, 'D'), (99, 'Z')] {
            let got = text(&with_script(&format!("{READ_ALL} exit {code}"), b""));
            assert!(got.starts_with(wanted), "{code}: {got}");
        }
        assert!(text(&with_script(&format!("{READ_ALL} kill -9 $$"), b"")).contains("crashed"));
    }

    #[test]
    fn custom_text_reaches_the_caller() {
        let custom = |t: &str| text(&with_script(&format!("{READ_ALL} printf \"{t}\" >&2; exit 88"), b""));
        assert_eq!(custom("Dno such thing (#5.0.0)\\nmore"), "Dno such thing (#5.0.0)");
        assert_eq!(custom("Zlater"), "Zlater");
        assert!(custom("D").starts_with('Z'));
        let flood = format!("{READ_ALL} printf Dfull >&2; head -c 65536 /dev/zero >&2; exit 88");
        assert!(text(&with_script(&flood, b"")).starts_with("Dfull"));
    }

    /// What fits into a pipe may be said before anything is read; what does not must not hang us.
    #[test]
    fn fix_9b_text_before_the_message_is_read_blocks_nobody() {
        let big = vec![b'x'; 1 << 20];
        let say = |size: u32| format!("printf Dno >&2; head -c {size} /dev/zero >&2; {READ_ALL} exit 88");
        assert!(text(&with_script(&say(60_000), &big)).starts_with("Dno?"));
        let line = format!("/bin/sh -c '{}'", say(1 << 20));
        let vars =
            [("QMAILQUEUE", line.as_str()), ("PATH", "/usr/bin:/bin")].map(|(n, v)| (n.into(), v.into()));
        let program = QueueProgram::new(Path::new("/x"), &vars).patience(Duration::from_millis(50));
        let mut transfer = program.open().unwrap();
        transfer.write(&big);
        // Never a success, and it comes to an end.
        assert!(!matches!(transfer.finish(b"", []), Outcome::Queued { .. }));
    }

    #[test]
    fn a_program_that_does_not_read_cannot_say_yes() {
        let big = vec![b'x'; 1 << 20];
        assert!(text(&with_script("exit 0", &big)).starts_with('Z'));
    }

    #[test]
    fn a_program_that_hangs_is_killed() {
        let vars = [(OsString::from("QMAILQUEUE"), OsString::from("/bin/sleep 1000"))];
        let program = QueueProgram::new(Path::new("/x"), &vars).patience(Duration::from_millis(50));
        let transfer = program.open().unwrap();
        assert!(text(&transfer.finish(b"", [])).starts_with('Z'));
    }

    #[test]
    fn missing_program_is_temporary_and_nullqueue_swallows() {
        assert!(text(&outcome(&[], b"", &[])).contains("cannot run the queue program"));
        assert!(matches!(
            outcome(&[("NULLQUEUE", ""), ("QMAILQUEUE", "/x")], b"m", &[]),
            Outcome::Queued { .. }
        ));
    }

    #[test]
    fn bad_addresses_are_refused_before_anything_is_queued() {
        let dir = tempfile::tempdir().unwrap();
        let line = format!("/bin/sh -c 'cat >/dev/null; cat <&1 >{}'", dir.path().join("e").display());
        let vars = [("QMAILQUEUE", line.as_str()), ("PATH", "/usr/bin:/bin")];
        assert!(text(&outcome(&vars, b"", &[&[b'x'; 1003]])).starts_with('D'));
        assert!(text(&outcome(&vars, b"", &[b"a\0b"])).starts_with('D'));
        // The program saw no complete envelope.
        assert!(!std::fs::read(dir.path().join("e")).unwrap_or_default().ends_with(b"\0\0"));
    }

    #[test]
    fn command_lines_split_with_quotes() {
        let split = |s: &str| command_line(OsStr::new(s));
        assert_eq!(split("/a/b"), ["/a/b"]);
        assert_eq!(split("/a b "), ["/a", "b"]);
        assert_eq!(split("/a b "), ["/a", "b"]);
        assert_eq!(split("/a "), ["/a "]);
        assert_eq!(split("/a 'b c' \"d'e\" f"), ["/a", "b c", "d'e", "f"]);
    }
}
