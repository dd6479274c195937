//! The end of a message: bounce what failed, remove the rest.

use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

use mta_queue::client::QueueProgram;
use mta_queue::layout::{MessageId, Part};

use super::bounce::{Notice, Plan};
use super::driver::Driver;
use super::files::Info;
use super::injector::Job;
use super::verp::bounce_sender;
use crate::clean::Command;
use crate::log::Line;

/// Longest bounce file that goes into a notice, in bytes.
const FAILURES_MAX: u64 = 4 << 20;
/// How long the queue program may take for one step; then it is killed, and the bounce tried again.
const INJECTION_PATIENCE: Duration = Duration::from_secs(1200);

/// Where the end of a message stands.
enum End {
    /// The message is not at its end, or gone.
    NotYet,
    /// A bounce is on its way; its result comes by itself.
    Bouncing,
    /// Nothing is left but the message itself.
    Reached,
}

impl Driver<'_> {
    /// Nothing is left to deliver. Whatever cannot be done now is done later.
    pub(super) fn finish(&mut self, id: MessageId, now: u64) -> io::Result<()> {
        if self.bounces.has(id) {
            return Ok(());
        }
        let end = self.try_finish(id, now);
        self.ended(id, end, now)
    }

    /// Bounces that were on their way have arrived, or could not be queued.
    pub(super) fn take_bounces(&mut self, now: u64) -> io::Result<()> {
        let (results, turns) = self.bounces.take();
        for (id, result) in results {
            let end = result.and_then(|qp| {
                let line =
                    Line::new("bounce msg ").value(id).text(" qp ").value(qp).text(" ").safe(&self.name);
                self.log.line(line);
                self.remove_last(id)
            });
            self.ended(id, end, now)?;
        }
        turns.into_iter().try_for_each(|id| self.finish(id, now))
    }

    fn ended(&mut self, id: MessageId, end: io::Result<End>, now: u64) -> io::Result<()> {
        match end {
            Ok(End::Reached) => {
                if !self.clean(Command::Message(id))? {
                    self.warn(&format!("qmail-clean could not remove {}", self.queue.name(Part::Mess, id)));
                }
                let line = Line::new("end msg ").value(id).text(" qmail-send: ").safe(&self.name);
                self.log.line(line);
            }
            Ok(End::NotYet | End::Bouncing) => {}
            Err(e) => {
                self.alert(&format!("cannot finish message {id}: {e}; trying again later"));
                self.scheduler.finish_later(id, now);
            }
        }
        Ok(())
    }

    fn try_finish(&mut self, id: MessageId, now: u64) -> io::Result<End> {
        let known = self.files().known(id)?;
        if known.due != [None, None] {
            self.scheduler.known(id, known, now);
            return Ok(End::NotYet);
        }
        if self.files().has(Part::Todo, id)? {
            // Not sorted yet, or again: todo-proc will tell.
            return Ok(End::NotYet);
        }
        let info = match self.files().info(id) {
            Ok(info) => info,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(End::NotYet),
            Err(e) => return Err(e),
        };
        if self.files().has(Part::Bounce, id)? && self.bounce(id, &info, now)? {
            return Ok(End::Bouncing);
        }
        self.remove_last(id)
    }

    /// What says that there is a message goes last.
    fn remove_last(&self, id: MessageId) -> io::Result<End> {
        self.files().remove(Part::Bounce, id)?;
        self.files().remove(Part::Info, id)?;
        Ok(End::Reached)
    }

    /// Is a bounce on its way, or waiting for its turn? Otherwise there is none to be sent.
    fn bounce(&mut self, id: MessageId, info: &Info, now: u64) -> io::Result<bool> {
        let sender = bounce_sender(&info.sender);
        match self.settings.policy.plan(&sender) {
            Plan::DiscardDouble => self.discard("double", id),
            Plan::DiscardTriple => self.discard("triple", id),
            Plan::Notice { sender: from, recipient, double } => {
                if !self.bounces.has_room_for(id) {
                    return Ok(true);
                }
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
                let job = Job {
                    program: QueueProgram::new(&self.sbin, &self.bounce_environment)
                        .patience(INJECTION_PATIENCE),
                    head: notice.head(),
                    tails: [notice.tail(false), notice.tail(true)],
                    mess: self.queue.path(Part::Mess, id),
                    max_bytes: policy.max_bytes,
                    from: from.to_vec(),
                    to: recipient,
                };
                self.bounces.start(id, job)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn discard(&mut self, kind: &str, id: MessageId) {
        let line = Line::new(kind).text(" bounce: discarding bounce/").value(id).text(" ").safe(&self.name);
        self.log.line(line);
    }
}
