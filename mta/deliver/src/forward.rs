//! Sending the message on, through the queue.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

use mta_queue::client::{Outcome, QueueProgram, Transfer};
use program::{Environment, Layout};

use crate::End;
use crate::message_file::Message;

/// What is sent on, and how.
#[derive(Debug)]
pub struct Forward<'a> {
    /// Envelope sender.
    pub sender: &'a [u8],
    /// Envelope recipients.
    pub recipients: &'a [Vec<u8>],
    /// Lines that come before the message.
    pub prefix: &'a [u8],
    /// Where the queue program is.
    pub layout: &'a Layout,
    /// Its environment.
    pub environment: &'a Environment,
}

impl Forward<'_> {
    /// Queues the message; the text of success is `qp N`.
    pub fn send(&self, message: &Message) -> Result<String, End> {
        let sbin = self.layout.sbin("");
        let mut transfer = QueueProgram::new(&sbin, &self.environment.to_vec()).open().map_err(refused)?;
        transfer.write(self.prefix);
        let mut out = Writer(&mut transfer);
        if let Err(e) = message.copy_to(&mut out) {
            transfer.abort();
            return Err(End::Temporary(format!("cannot hand the message to the queue: {e} (#4.3.0)")));
        }
        match transfer.finish(self.sender, self.recipients.iter().map(Vec::as_slice)) {
            Outcome::Queued { qp } => Ok(format!("qp {qp}")),
            other => Err(refused(other)),
        }
    }
}

/// `X-Forwarded-To` for each recipient and `X-Forwarded-For`.
#[must_use]
pub fn trace(recipients: &[Vec<u8>], forwarded_for: &[u8]) -> Vec<u8> {
    let mut lines = Vec::new();
    let mut line = |name: &str, address: &[u8]| {
        lines.extend_from_slice(name.as_bytes());
        lines.extend(address.iter().map(|&b| if b"\r\n\0".contains(&b) { b'_' } else { b }));
        lines.push(b'\n');
    };
    recipients.iter().for_each(|r| line("X-Forwarded-To: ", r));
    line("X-Forwarded-For: ", forwarded_for);
    lines
}

/// The environment of a queue program that takes a forward: archived by its own rules, filtered no more.
#[must_use]
pub fn environment(delivery: &Environment) -> Environment {
    let mut environment = delivery.clone();
    environment.set("MAILARCHIVE", OsStr::from_bytes(b"forward.arch"));
    environment.remove("SPAMFILTER");
    environment
}

fn refused(outcome: Outcome) -> End {
    let shown = |text: Vec<u8>| format!("cannot forward the message: {}", text.escape_ascii());
    match outcome {
        Outcome::Queued { .. } => End::Done,
        Outcome::Permanent(text) => End::Permanent(shown(text)),
        Outcome::Temporary(text) => End::Temporary(shown(text)),
    }
}

struct Writer<'a>(&'a mut Transfer);

impl Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes);
        // The queue program has given up: its answer says why, there is no use in going on.
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_lines_cannot_be_broken() {
        let lines = trace(&[b"a@b".to_vec(), b"x\nBcc: y@z".to_vec()], b"me\r@h");
        assert_eq!(lines, b"X-Forwarded-To: a@b\nX-Forwarded-To: x_Bcc: y@z\nX-Forwarded-For: me_@h\n");
    }
}
