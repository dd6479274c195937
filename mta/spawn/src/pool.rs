//! One event loop for both spawners.
//!
//! ```text
//! fd 0 ─ RequestDecoder ─► check ─► Spawner::begin ─┬─ Done ────────────────► report ─► fd 1
//!                                                   ├─ Run(child) ─ output, end ─► Spawner::ended ─┐
//!                                                   ├─ Wait ─ Spawner::look ─────► Spawner::go_on ─┤
//!                                                   ▲──────────────────────────────────────────────┘
//! ```
//!
//! A delivery ends when its child has ended; descendants that keep the pipe open do not hold it up.
//! EOF on fd 0: the deliveries that run are finished, then the loop ends. When nobody reads the
//! reports any more they are dropped, and the same happens.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use mta_queue::spawn_protocol::{Report, RequestDecoder, encode_maximum};
use unix::child::{Ending, reap};
use unix::clock::Deadline;
use unix::fd::Raw;
use unix::signals::Signals;
use unix::wait::{Interest, ready};
use unix::{Pid, Signal, Uid};

use crate::request::{Answer, Delivery, check, defer};

/// Reports that wait to be read; past this no further requests are taken.
const BACKLOG_MAX: usize = 1 << 20;
/// Bytes written at once: a pipe with any room takes that many without blocking.
const WRITE_MAX: usize = 4096;

/// A running child of a delivery.
#[derive(Debug)]
pub struct Child<S> {
    /// Its process id.
    pub pid: Pid,
    /// What it prints, the read end.
    pub output: OwnedFd,
    /// Bytes of output that are kept.
    pub keep: usize,
    /// What it is doing, given back to [`Spawner::ended`].
    pub stage: S,
}

/// What comes next for a delivery.
#[derive(Debug)]
pub enum Next<S: Spawner + ?Sized> {
    /// Wait for this child.
    Run(Child<S::Stage>),
    /// Wait until [`Spawner::look`] names this delivery.
    Wait(S::Waiting),
    /// Report this.
    Done(Answer),
}

/// How a child ended and what it printed.
#[derive(Debug)]
pub struct Ended<S> {
    /// What it was doing.
    pub stage: S,
    /// How it ended.
    pub ending: Ending,
    /// Its output, at most as many bytes as were to be kept.
    pub output: Vec<u8>,
    /// Was there more?
    pub truncated: bool,
}

/// What a spawner does for one delivery.
pub trait Spawner {
    /// The steps of a delivery.
    type Stage;
    /// What a delivery keeps while it waits for an answer.
    type Waiting;
    /// Begins a delivery; `number` tells it from the others that run.
    fn begin(&mut self, number: u16, delivery: &Delivery) -> Next<Self>;
    /// Goes on after a child has ended.
    fn ended(&mut self, number: u16, delivery: &Delivery, ended: Ended<Self::Stage>) -> Next<Self>;
    /// Goes on after [`Spawner::look`] has named this delivery.
    fn go_on(&mut self, number: u16, delivery: &Delivery, waiting: Self::Waiting) -> Next<Self>;
    /// Where answers come from, while some may come.
    fn watched(&self) -> Vec<(BorrowedFd<'_>, Interest)> {
        Vec::new()
    }
    /// When to look even if nothing came.
    fn deadline(&self) -> Option<Deadline> {
        None
    }
    /// A child has ended that does not belong to one delivery.
    fn gone(&mut self, _: Pid, _: Ending) {}
    /// Takes the answers that came; the deliveries that can go on.
    fn look(&mut self) -> Vec<u16> {
        Vec::new()
    }
}

/// Where the loop reads and writes, and what it checks.
#[derive(Debug)]
pub struct Place<'a> {
    /// Requests.
    pub requests: BorrowedFd<'a>,
    /// Reports.
    pub reports: BorrowedFd<'a>,
    /// The queue's `mess` directory.
    pub mess: &'a Path,
    /// Who must own message files.
    pub owner: Uid,
    /// Deliveries at a time.
    pub maximum: u16,
}

struct Slot<S> {
    delivery: Delivery,
    child: Child<S>,
    output: Vec<u8>,
    truncated: bool,
    open: bool,
}

/// Runs until fd 0 ends and all deliveries are done.
///
/// # Errors
/// poll or reading fd 0 failed, or the requests make no sense; deliveries that run go on without us.
pub fn run<S: Spawner>(spawner: &mut S, place: &Place<'_>) -> io::Result<()> {
    let mut signals = Signals::listen(&[Signal::SIGCHLD])?;
    let mut pool = Pool {
        spawner,
        place,
        slots: BTreeMap::new(),
        waiting: BTreeMap::new(),
        decoder: RequestDecoder::default(),
        backlog: encode_maximum(place.maximum).to_vec(),
        deaf: false,
    };
    let mut input = true;
    while input || !pool.slots.is_empty() || !pool.waiting.is_empty() || !pool.backlog.is_empty() {
        input = pool.turn(&mut signals, input)?;
    }
    Ok(())
}

struct Pool<'a, S: Spawner> {
    spawner: &'a mut S,
    place: &'a Place<'a>,
    slots: BTreeMap<u16, Slot<S::Stage>>,
    waiting: BTreeMap<u16, (Delivery, S::Waiting)>,
    decoder: RequestDecoder,
    backlog: Vec<u8>,
    deaf: bool,
}

impl<S: Spawner> Pool<'_, S> {
    /// One wait and what follows from it; is there still input to come?
    fn turn(&mut self, signals: &mut Signals, input: bool) -> io::Result<bool> {
        let mut waits = vec![(signals.as_fd(), Interest::Read)];
        let listening: Vec<u16> = self.slots.iter().filter(|(_, s)| s.open).map(|(&n, _)| n).collect();
        waits.extend(listening.iter().map(|n| (self.slots[n].child.output.as_fd(), Interest::Read)));
        let mut place_of = |wanted: bool, fd, interest| {
            wanted.then(|| {
                waits.push((fd, interest));
                waits.len() - 1
            })
        };
        let takes = input && self.backlog.len() < BACKLOG_MAX;
        let requests = place_of(takes, self.place.requests, Interest::Read);
        let reports = place_of(!self.backlog.is_empty(), self.place.reports, Interest::Write);
        let answers = waits.len();
        waits.extend(self.spawner.watched());
        let deadline = self.spawner.deadline();
        let got = ready(&waits, deadline)?;
        drop(waits);

        for (index, number) in listening.iter().enumerate() {
            if got[index + 1].read {
                self.listen(*number);
            }
        }
        let mut came = got[answers..].iter().any(|g| g.read || g.write);
        if got[0].read {
            while signals.take().is_some() {}
            came |= self.reap()?;
        }
        if came || deadline.is_some_and(Deadline::passed) {
            self.go_on();
        }
        if reports.is_some_and(|at| got[at].write || got[at].closed) {
            self.speak();
        }
        match requests {
            Some(at) if got[at].read => self.take_requests(),
            _ => Ok(input),
        }
    }

    fn take_requests(&mut self) -> io::Result<bool> {
        let mut buf = [0u8; 8192];
        let n = match Raw(self.place.requests).read(&mut buf) {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(true),
            Err(e) => return Err(e),
        };
        for request in self.decoder.take(&buf[..n]).map_err(io::Error::other)? {
            let number = request.number;
            let in_use = self.slots.contains_key(&number) || self.waiting.contains_key(&number);
            if number >= self.place.maximum || in_use {
                self.report(number, defer("the delivery number is out of range or in use (#4.3.0)\n"));
                continue;
            }
            match check(request, self.place.mess, self.place.owner) {
                Ok(delivery) => {
                    let next = self.spawner.begin(number, &delivery);
                    self.follow(number, delivery, next);
                }
                Err(answer) => self.report(number, answer),
            }
        }
        Ok(n > 0)
    }

    /// Deliveries whose answers came.
    fn go_on(&mut self) {
        for number in self.spawner.look() {
            if let Some((delivery, waiting)) = self.waiting.remove(&number) {
                let next = self.spawner.go_on(number, &delivery, waiting);
                self.follow(number, delivery, next);
            }
        }
    }

    fn follow(&mut self, number: u16, delivery: Delivery, next: Next<S>) {
        match next {
            Next::Done(answer) => self.report(number, answer),
            Next::Wait(waiting) => drop(self.waiting.insert(number, (delivery, waiting))),
            Next::Run(child) => {
                let slot = Slot { delivery, child, output: Vec::new(), truncated: false, open: true };
                self.slots.insert(number, slot);
            }
        }
    }

    fn report(&mut self, number: u16, (verdict, text): Answer) {
        if !self.deaf {
            Report { number, verdict: Some(verdict), text }.encode(&mut self.backlog);
        }
    }

    /// Reads what a child has printed so far.
    fn listen(&mut self, number: u16) {
        let Some(slot) = self.slots.get_mut(&number) else {
            return;
        };
        let mut buf = [0u8; 8192];
        loop {
            match Raw(slot.child.output.as_fd()).read(&mut buf) {
                Ok(0) => slot.open = false,
                Ok(n) => {
                    let room = slot.child.keep.saturating_sub(slot.output.len()).min(n);
                    slot.output.extend_from_slice(&buf[..room]);
                    slot.truncated |= room < n;
                    // A child that never stops printing must not keep us from the others.
                    if n == buf.len() && !slot.truncated {
                        continue;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => slot.open = false,
            }
            return;
        }
    }

    /// Takes the children that have ended; was one of them no delivery's?
    fn reap(&mut self) -> io::Result<bool> {
        let mut others = false;
        while let Some((pid, ending)) = reap()? {
            let number = self.slots.iter().find(|(_, s)| s.child.pid == pid).map(|(&n, _)| n);
            let Some(number) = number else {
                self.spawner.gone(pid, ending);
                others = true;
                continue;
            };
            // What it printed before its end is in the pipe.
            self.listen(number);
            if let Some(slot) = self.slots.remove(&number) {
                let Slot { delivery, child, output, truncated, .. } = slot;
                let ended = Ended { stage: child.stage, ending, output, truncated };
                let next = self.spawner.ended(number, &delivery, ended);
                self.follow(number, delivery, next);
            }
        }
        Ok(others)
    }

    fn speak(&mut self) {
        let piece = &self.backlog[..self.backlog.len().min(WRITE_MAX)];
        match Raw(self.place.reports).write(piece) {
            Ok(n) => drop(self.backlog.drain(..n)),
            Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(_) => {
                self.deaf = true;
                self.backlog.clear();
            }
        }
    }
}

/// A pipe for a child's output: the read end does not block, the write end is for the child.
///
/// # Errors
/// No descriptors left.
pub fn output_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = unix::fd::pipe()?;
    unix::fd::set_nonblocking(&read, true)?;
    Ok((read, write))
}
