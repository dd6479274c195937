//! The end of a message: bounce what failed, remove the rest.

use std::fs::File;
use std::io::{self, Read};

use mta_queue::client::{Outcome, QueueProgram, Transfer};
use mta_queue::layout::{MessageId, Part};

use super::bounce::{Notice, Plan};
use super::driver::Driver;
use super::files::Info;
use super::verp::bounce_sender;
use crate::clean::Command;
use crate::log::Line;

/// Longest bounce file that goes into a notice, in bytes.
const FAILURES_MAX: u64 = 4 << 20;

impl Driver<'_> {
    /// Nothing is left to deliver. Whatever cannot be done now is done later.
    pub(super) fn finish(&mut self, id: MessageId, now: u64) -> io::Result<()> {
        match self.try_finish(id, now) {
            Ok(true) => {
                if !self.clean(Command::Message(id))? {
                    self.warn(&format!("qmail-clean could not remove {}", self.queue.name(Part::Mess, id)));
                }
                let line = Line::new("end msg ").value(id).text(" qmail-send: ").safe(&self.name);
                self.log.line(line);
            }
            Ok(false) => {}
            Err(e) => {
                self.alert(&format!("cannot finish message {id}: {e}; trying again later"));
                self.scheduler.finish_later(id, now);
            }
        }
        Ok(())
    }

    /// `Ok(false)`: the message is not at its end, or gone.
    fn try_finish(&mut self, id: MessageId, now: u64) -> io::Result<bool> {
        let known = self.files().known(id)?;
        if known.due != [None, None] {
            self.scheduler.known(id, known, now);
            return Ok(false);
        }
        if self.files().has(Part::Todo, id)? {
            // Not sorted yet, or again: todo-proc will tell.
            return Ok(false);
        }
        let info = match self.files().info(id) {
            Ok(info) => info,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(e),
        };
        if self.files().has(Part::Bounce, id)? {
            self.bounce(id, &info, now)?;
            self.files().remove(Part::Bounce, id)?;
        }
        self.files().remove(Part::Info, id)?;
        Ok(true)
    }

    fn bounce(&mut self, id: MessageId, info: &Info, now: u64) -> io::Result<()> {
        let sender = bounce_sender(&info.sender);
        match self.settings.policy.plan(&sender) {
            Plan::DiscardDouble => self.discard("double", id),
            Plan::DiscardTriple => self.discard("triple", id),
            Plan::Notice { sender: from, recipient, double } => {
                let mut failures = Vec::new();
                File::open(self.queue.path(Part::Bounce, id))?
                    .take(FAILURES_MAX)
                    .read_to_end(&mut failures)?;
                let policy = &self.settings.policy;
                let notice = Notice {
                    policy,
                    original_sender: &info.sender,
                    recipient: &recipient,
                    double,
                    failures: &failures,
                    birth: info.birth,
                    id: id.0,
                    now,
                    offset: unix::clock::local_offset(now),
                };
                let qp = self.inject(id, &notice, from, &recipient)?;
                let line =
                    Line::new("bounce msg ").value(id).text(" qp ").value(qp).text(" ").safe(&self.name);
                self.log.line(line);
            }
        }
        Ok(())
    }

    fn discard(&mut self, kind: &str, id: MessageId) {
        let line = Line::new(kind).text(" bounce: discarding bounce/").value(id).text(" ").safe(&self.name);
        self.log.line(line);
    }

    fn inject(&self, id: MessageId, notice: &Notice<'_>, from: &[u8], to: &[u8]) -> io::Result<u32> {
        let program = QueueProgram::new(&self.sbin, &self.bounce_environment);
        let mut transfer = program.open().map_err(refused)?;
        transfer.write(&notice.head());
        let mess = File::open(self.queue.path(Part::Mess, id))?;
        let cut = match copy_original(&mut transfer, mess, notice.policy.max_bytes) {
            Ok(cut) => cut,
            Err(e) => {
                transfer.abort();
                return Err(e);
            }
        };
        transfer.write(&notice.tail(cut));
        match transfer.finish(from, [to]) {
            Outcome::Queued { qp } => Ok(qp),
            other => Err(refused(other)),
        }
    }
}

fn refused(outcome: Outcome) -> io::Error {
    let text = match outcome {
        Outcome::Queued { .. } => Vec::new(),
        Outcome::Permanent(text) | Outcome::Temporary(text) => text,
    };
    io::Error::other(format!("cannot queue the bounce: {}", text.escape_ascii()))
}

/// Copies the original up to `max` bytes (0: all); was some of it left out?
fn copy_original(transfer: &mut Transfer, mut mess: File, max: u64) -> io::Result<bool> {
    let mut left = if max == 0 { u64::MAX } else { max };
    let mut piece = vec![0u8; 64 * 1024];
    loop {
        let n = match mess.read(&mut piece) {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        let keep = usize::try_from(left).unwrap_or(usize::MAX).min(n);
        transfer.write(&piece[..keep]);
        left -= keep as u64;
        if n == 0 || keep < n {
            return Ok(keep < n);
        }
    }
}
