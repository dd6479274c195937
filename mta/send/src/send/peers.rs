//! What todo-proc and the spawners say.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use mta_queue::layout::{Channel, MessageId};
use mta_queue::spawn_protocol::{Report, Verdict};
use unix::fd::Raw;

use super::bounce::{TOO_OLD, entry};
use super::driver::Driver;
use super::scheduler::{Delivery, Known};
use crate::log::{Line, delivery as delivery_number};

impl Driver<'_> {
    pub(super) fn tell_todo(&mut self, byte: u8) -> io::Result<()> {
        if self.todo.ended {
            return Ok(());
        }
        // A todo-proc that is gone shows at once as EOF on the other pipe.
        match Raw(self.todo.to.as_fd()).write_all(&[byte]) {
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(e),
            _ => Ok(()),
        }
    }

    pub(super) fn read_todo(&mut self) -> io::Result<()> {
        let mut piece = [0u8; 16 * 1024];
        let n = match Raw(self.todo.from.as_fd()).read(&mut piece) {
            Ok(n) => n,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        if n == 0 {
            self.todo.ended = true;
            if !self.scheduler.is_exiting() {
                self.alert("lost todo-proc connection ... dying");
                self.begin_exit()?;
            }
            return Ok(());
        }
        self.todo.buffer.extend_from_slice(&piece[..n]);
        let mut buffer = std::mem::take(&mut self.todo.buffer);
        let mut start = 0;
        while let Some(length) = buffer[start..].iter().position(|&b| b == 0) {
            self.todo_message(&buffer[start..start + length])?;
            start += length + 1;
        }
        buffer.drain(..start);
        self.todo.buffer = buffer;
        Ok(())
    }

    fn todo_message(&mut self, message: &[u8]) -> io::Result<()> {
        let now = unix::clock::unix_seconds();
        match message {
            [b'L', text @ ..] => self.log.raw(text),
            [b'X'] => self.todo.ended = true,
            [b'D', letter @ (b'L' | b'R' | b'B' | b'X'), id @ ..] => {
                let Some(id) = MessageId::parse(id) else {
                    self.warn("todo-proc speaks nonsense");
                    return Ok(());
                };
                let due = |on: bool| on.then_some(now);
                let known = Known { due: [due(b"LB".contains(letter)), due(b"RB".contains(letter))] };
                self.unsorted.told(id);
                self.scheduler.known(id, known, now);
            }
            _ => self.warn("todo-proc speaks nonsense"),
        }
        Ok(())
    }

    pub(super) fn write_to_spawners(&mut self) {
        for channel in Channel::BOTH {
            let spawner = &mut self.spawners[channel.index()];
            // A spawner that is gone shows as EOF on the other pipe.
            if spawner.is_alive() && spawner.write().is_err() {
                self.lost_spawner(channel);
            }
        }
    }

    pub(super) fn lost_spawner(&mut self, channel: Channel) {
        if !self.spawners[channel.index()].is_alive() {
            return;
        }
        self.spawners[channel.index()].give_up();
        self.scheduler.close(channel);
        self.alert(&format!("lost spawn connection ({}) ... dying", channel.name()));
        // The one place that cannot pass an error on: todo-proc then sees EOF when we are gone.
        let _ = self.begin_exit();
    }

    pub(super) fn read_reports(&mut self, channel: Channel) -> io::Result<()> {
        match self.spawners[channel.index()].read() {
            Ok(Some(reports)) => reports.into_iter().for_each(|r| self.report(channel, r)),
            Ok(None) | Err(_) => self.lost_spawner(channel),
        }
        Ok(())
    }

    fn report(&mut self, channel: Channel, report: Report) {
        let Some(delivery) = self.scheduler.delivery(channel, report.number) else {
            self.warn(&format!(
                "{} spawner reports on delivery {}, which does not run",
                channel.name(),
                report.number
            ));
            return;
        };
        let number = delivery_number(delivery.log_number, self.settings.ident.as_deref());
        let mut text = report.text;
        let (word, deferred) = match report.verdict {
            None => {
                let line = Line::new("delivery ")
                    .text(&number)
                    .text(": report mangled, will defer: ")
                    .safe(&self.name);
                self.log.line(line);
                return self.scheduler.settle(channel, report.number, true);
            }
            Some(Verdict::Success) => ("success", false),
            Some(Verdict::Deferral) if !delivery.last => ("deferral", true),
            Some(Verdict::Deferral) => {
                if !text.ends_with(b"\n") {
                    text.push(b'\n');
                }
                text.extend_from_slice(TOO_OLD);
                ("failure", false)
            }
            Some(Verdict::Failure) => ("failure", false),
        };
        let line = Line::new("delivery ").text(&number).text(": ").text(word).text(": ");
        // First the queue, then the log: what the log calls done is not done again.
        let recorded = deferred || self.record(channel, report.number, &delivery, word == "failure", &text);
        self.log.line(line.safe(&text).text(" ").safe(&self.name));
        self.addresses[channel.index()][usize::from(report.number)] = Vec::new();
        self.scheduler.settle(channel, report.number, deferred || !recorded);
    }

    /// Writes a final result down; `false` when the delivery has to be repeated because that failed.
    fn record(
        &mut self,
        channel: Channel,
        slot: u16,
        delivery: &Delivery,
        failure: bool,
        text: &[u8],
    ) -> bool {
        let id = delivery.id;
        if failure {
            let address = &self.addresses[channel.index()][usize::from(slot)];
            let bytes = entry(&self.settings.reread.virtualdomains, address, text);
            if let Err(e) = self.files().add_failure(id, &bytes) {
                self.alert(&format!("cannot write bounce/{id}: {e}; delivering again later"));
                return false;
            }
        }
        if let Err(e) = self.files().mark_done(channel, id, delivery.offset) {
            self.alert(&format!(
                "cannot mark a recipient of message {id}: {e}; a restart would deliver again"
            ));
        }
        true
    }
}
