//! Carrying out what the scheduler wants, and slices of what has no hurry.

use std::io;

use mta_queue::layout::{Channel, MessageId, Part};
use mta_queue::spawn_protocol::Request;

use super::driver::{Driver, Pass};
use super::schedule::{is_last, next_try};
use super::scheduler::{Action, Delivery};
use super::sweep::{Walk, is_garbage};
use super::verp::sender_for;
use crate::clean::Command;
use crate::log::{Line, delivery as delivery_number};

/// Actions carried out before descriptors are looked at again.
const ACTIONS: usize = 100;
/// Seconds between searches for garbage.
const BETWEEN_SWEEPS: u64 = 76_431;

impl Driver<'_> {
    /// Carries out what is due; is there more to do at once?
    pub(super) fn act(&mut self, now: u64) -> io::Result<bool> {
        for _ in 0..ACTIONS {
            match self.scheduler.next(now) {
                Some(action) => self.perform(action, now)?,
                None => return self.background(now),
            }
        }
        Ok(true)
    }

    fn perform(&mut self, action: Action, now: u64) -> io::Result<()> {
        match action {
            Action::Open(channel, id) => self.open(channel, id, now),
            Action::NextRecipient(channel) => self.next_recipient(channel, now),
            Action::Remove(channel, id) => self.remove(channel, id, now),
            Action::Finish(id) => self.finish(id, now)?,
        }
        Ok(())
    }

    fn open(&mut self, channel: Channel, id: MessageId, now: u64) {
        let opened = (|| {
            let info = self.files().info(id)?;
            if !self.files().has(Part::Mess, id)? {
                return Err(io::Error::other("its mess file is missing; stop the queue and run queue-fix"));
            }
            Ok((info, self.files().recipients(channel, id)?))
        })();
        match opened {
            Ok((info, recipients)) => {
                let lifetime = match info.sender.is_empty() {
                    true => self.settings.bounce_lifetime,
                    false => self.settings.lifetime,
                };
                let (retry, last) = (next_try(info.birth, now, channel), is_last(info.birth, now, lifetime));
                self.passes[channel.index()] = Some(Pass { id, info, recipients });
                self.scheduler.opened(channel, id, retry, last);
            }
            Err(e) => {
                self.warn(&format!("cannot open message {id}: {e}; trying again later"));
                self.scheduler.channel_trouble(channel, id, now);
            }
        }
    }

    fn next_recipient(&mut self, channel: Channel, now: u64) {
        let Some(pass) = &mut self.passes[channel.index()] else {
            return self.scheduler.pass_over(channel);
        };
        match pass.recipients.next() {
            Ok(Some((offset, address))) => {
                if let Some((slot, delivery)) = self.scheduler.recipient(channel, offset) {
                    self.start_delivery(channel, slot, delivery, address);
                }
            }
            Ok(None) => {
                self.passes[channel.index()] = None;
                self.scheduler.pass_over(channel);
            }
            Err(e) => {
                let name = self.queue.name(Part::Recipients(channel), pass.id);
                self.passes[channel.index()] = None;
                self.warn(&format!("cannot read {name}: {e}; trying again later"));
                self.scheduler.pass_broken(channel, now);
            }
        }
    }

    fn start_delivery(&mut self, channel: Channel, slot: u16, delivery: Delivery, address: Vec<u8>) {
        let Some(pass) = &self.passes[channel.index()] else { return };
        let request = Request {
            number: slot,
            message: self.queue.mess_name(delivery.id).into_bytes(),
            sender: sender_for(&pass.info.sender, &address),
            extra_header: pass.info.extra_header.clone(),
            exported: pass.info.exported.clone(),
            recipient: address.clone(),
        };
        let line = Line::new("starting delivery ")
            .text(&delivery_number(delivery.log_number, self.settings.ident.as_deref()))
            .text(": msg ")
            .value(delivery.id)
            .text(" to ")
            .text(channel.name())
            .text(" ")
            .safe(&address)
            .text(" ")
            .safe(&self.name);
        self.log.line(line);
        self.addresses[channel.index()][usize::from(slot)] = address;
        if self.spawners[channel.index()].request(&request).is_err() {
            // Records end at NUL, so this cannot be; the recipient is tried again all the same.
            self.alert("a recipient holds a NUL");
            self.scheduler.settle(channel, slot, true);
        }
    }

    fn remove(&mut self, channel: Channel, id: MessageId, now: u64) {
        let other = match channel {
            Channel::Local => Channel::Remote,
            Channel::Remote => Channel::Local,
        };
        let removed = self
            .files()
            .remove(Part::Recipients(channel), id)
            .and_then(|()| self.files().has(Part::Recipients(other), id));
        match removed {
            Ok(other) => self.scheduler.removed(id, other, now),
            Err(e) => {
                let name = self.queue.name(Part::Recipients(channel), id);
                self.warn(&format!("cannot remove {name}: {e}; trying again later"));
                self.scheduler.channel_trouble(channel, id, now);
            }
        }
    }

    /// A slice of what has no hurry.
    fn background(&mut self, now: u64) -> io::Result<bool> {
        if self.scheduler.is_exiting() {
            return Ok(false);
        }
        if let Some(mut walk) = self.start_walk.take() {
            match walk.slice() {
                Ok(Some(ids)) => {
                    ids.into_iter().for_each(|id| self.load(id, now));
                    self.start_walk = Some(walk);
                }
                Ok(None) => self.tell_todo(b'C')?,
                Err(e) => {
                    self.alert(&format!("{e}; its messages wait for the next start"));
                    self.start_walk = Some(walk);
                }
            }
            return Ok(true);
        }
        if self.unsorted.due().is_some_and(|due| now >= due) {
            let mut unsorted = std::mem::take(&mut self.unsorted);
            let forgotten = unsorted.look(now, |id| self.files().has(Part::Todo, id));
            self.unsorted = unsorted;
            forgotten.into_iter().for_each(|id| self.load(id, now));
        }
        if self.garbage_walk.is_none() && now >= self.next_sweep {
            self.garbage_walk = Some(Walk::over(&self.queue, Part::Mess));
            self.next_sweep = now + BETWEEN_SWEEPS;
        }
        let Some(mut walk) = self.garbage_walk.take() else {
            return Ok(false);
        };
        match walk.slice() {
            Ok(Some(ids)) => {
                for id in ids {
                    if is_garbage(&self.queue, id, self.settings.ossified, now).unwrap_or(false) {
                        self.clean(Command::Message(id))?;
                    }
                }
                self.garbage_walk = Some(walk);
            }
            Ok(None) => return Ok(false),
            Err(e) => {
                self.warn(&e.to_string());
                self.garbage_walk = Some(walk);
            }
        }
        Ok(true)
    }

    fn load(&mut self, id: MessageId, now: u64) {
        if self.bounces.has(id) {
            return;
        }
        // A todo-proc that died while sorting sorts again; what it left does not count.
        let known = match self.files().has(Part::Todo, id) {
            Ok(true) => return self.unsorted.add(id, now),
            Ok(false) => self.files().known(id),
            Err(e) => Err(e),
        };
        match known {
            Ok(known) => self.scheduler.known(id, known, now),
            Err(e) => {
                self.warn(&format!("cannot look at message {id}: {e}; trying again later"));
                self.scheduler.finish_later(id, now);
            }
        }
    }

    pub(super) fn clean(&mut self, command: Command) -> io::Result<bool> {
        if self.scheduler.is_exiting() {
            // The files are found again at the next start.
            return Ok(true);
        }
        match self.cleaner.obey(command) {
            Ok(done) => Ok(done),
            Err(e) => {
                self.lost_cleaner(&e)?;
                Ok(true)
            }
        }
    }
}
