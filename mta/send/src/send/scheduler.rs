//! What to do next: events in, actions out, no clock, no files, no descriptors.
//!
//! ```text
//!            known ─► due heap ──open──► pass ──next recipient──► slots ──report──► settle
//!                        ▲                                                             │ all back
//!                        └────────── next try ◄── some left ◄── job ──► none left ──► remove channel file
//!                                                                                         │ both gone
//!        system errors: the same step again after a while             done heap ──► finish message
//! ```
//!
//! A message waits in one heap per channel; while a pass walks over its recipients and deliveries
//! run, a job holds it instead. Everything is a heap or a table: no event costs more than the
//! logarithm of the number of messages.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

use mta_queue::layout::{Channel, MessageId};

/// Seconds for which a step is put aside after a system error.
pub const ASIDE: u64 = 123;

/// Earliest first.
type Heap = BinaryHeap<Reverse<(u64, MessageId)>>;

fn pop_due(heap: &mut Heap, now: u64) -> Option<MessageId> {
    let &Reverse((due, id)) = heap.peek()?;
    if due > now {
        return None;
    }
    heap.pop();
    Some(id)
}

/// What the driver must do, and which event answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Open the message's channel file: [`Scheduler::opened`] or [`Scheduler::channel_trouble`].
    Open(Channel, MessageId),
    /// Read the next recipient of the open pass: [`Scheduler::recipient`], [`Scheduler::pass_over`]
    /// or [`Scheduler::pass_broken`].
    NextRecipient(Channel),
    /// No recipient is left: remove the channel file, [`Scheduler::removed`] or [`Scheduler::channel_trouble`].
    Remove(Channel, MessageId),
    /// Nothing is left to deliver: bounce and remove the message; then nothing, [`Scheduler::finish_later`]
    /// or, when files turn up, [`Scheduler::known`].
    Finish(MessageId),
}

/// Files that a message has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Known {
    /// Next try of each channel that has a file, by [`Channel::index`].
    pub due: [Option<u64>; 2],
}

/// A delivery that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// The message.
    pub id: MessageId,
    /// Where its recipient's record begins in the channel file.
    pub offset: u64,
    /// Number in the log, counted per process.
    pub log_number: u64,
    /// Is this the last try, so that a deferral must count as a failure?
    pub last: bool,
}

#[derive(Debug)]
struct Job {
    id: MessageId,
    running: usize,
    reading: bool,
    deferred: bool,
    retry: u64,
    last: bool,
}

#[derive(Debug)]
struct Slot {
    job: u64,
    delivery: Delivery,
}

#[derive(Debug)]
struct Lane {
    due: Heap,
    pass: Option<u64>,
    slots: Vec<Option<Slot>>,
    free: BinaryHeap<Reverse<u16>>,
    in_use: usize,
    limit: usize,
    open: bool,
}

impl Lane {
    fn has_room(&self) -> bool {
        self.open && self.in_use < self.limit && !self.free.is_empty()
    }
}

/// The state of all messages and deliveries.
#[derive(Debug)]
pub struct Scheduler {
    lanes: [Lane; 2],
    jobs: HashMap<u64, Job>,
    next_job: u64,
    next_log_number: u64,
    removals: VecDeque<(Channel, MessageId)>,
    done: Heap,
    exiting: bool,
    turn: usize,
}

impl Scheduler {
    /// For spawners with these maxima, by [`Channel::index`]. Tables have the size of the maximum
    /// once and for all, whatever the limits become (FIX-42).
    #[must_use]
    pub fn new(maxima: [u16; 2]) -> Self {
        let lane = |maximum: u16| Lane {
            due: Heap::new(),
            pass: None,
            slots: (0..maximum).map(|_| None).collect(),
            free: (0..maximum).map(Reverse).collect(),
            in_use: 0,
            limit: usize::from(maximum),
            open: true,
        };
        Self {
            lanes: maxima.map(lane),
            jobs: HashMap::new(),
            next_job: 0,
            next_log_number: 1,
            removals: VecDeque::new(),
            done: Heap::new(),
            exiting: false,
            turn: 0,
        }
    }

    fn lane(&mut self, channel: Channel) -> &mut Lane {
        &mut self.lanes[channel.index()]
    }

    /// Allows this many deliveries at once on a channel; the spawner's maximum caps it.
    pub fn set_limit(&mut self, channel: Channel, limit: u64) {
        let lane = self.lane(channel);
        lane.limit = usize::try_from(limit).unwrap_or(usize::MAX).min(lane.slots.len());
    }

    /// Deliveries running, and allowed, on a channel.
    #[must_use]
    pub fn load(&self, channel: Channel) -> (usize, usize) {
        let lane = &self.lanes[channel.index()];
        (lane.in_use, lane.limit)
    }

    /// Start nothing new.
    pub fn exit(&mut self) {
        self.exiting = true;
    }

    /// Shall nothing new be started?
    #[must_use]
    pub fn is_exiting(&self) -> bool {
        self.exiting
    }

    /// The channel's spawner is gone: what runs there will never report.
    pub fn close(&mut self, channel: Channel) {
        self.lane(channel).open = false;
    }

    /// Is nothing running that could still report?
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.lanes.iter().all(|lane| !lane.open || lane.in_use == 0)
    }

    /// A sorted message and its files; without any file it is to be finished.
    pub fn known(&mut self, id: MessageId, known: Known, now: u64) {
        for channel in Channel::BOTH {
            if let Some(due) = known.due[channel.index()] {
                self.lane(channel).due.push(Reverse((due, id)));
            }
        }
        if known.due == [None, None] {
            self.done.push(Reverse((now, id)));
        }
    }

    /// Try everything that waits now.
    pub fn hurry(&mut self, now: u64) {
        for lane in &mut self.lanes {
            lane.due = lane.due.drain().map(|Reverse((due, id))| Reverse((due.min(now), id))).collect();
        }
    }

    /// Everything that waits for its next try, to be written down at exit.
    pub fn waiting(&self) -> impl Iterator<Item = (Channel, MessageId, u64)> {
        let of = |c: Channel| self.lanes[c.index()].due.iter().map(move |&Reverse((due, id))| (c, id, due));
        Channel::BOTH.into_iter().flat_map(of)
    }

    /// When there is something to do without any event, in seconds since 1970.
    #[must_use]
    pub fn wake(&self) -> Option<u64> {
        if !self.removals.is_empty() {
            return Some(0);
        }
        let first = |heap: &Heap| heap.peek().map(|&Reverse((due, _))| due);
        let lanes = self.lanes.iter().filter(|l| !self.exiting && l.has_room());
        let lanes = lanes.filter_map(|l| if l.pass.is_some() { Some(0) } else { first(&l.due) });
        let done = first(&self.done).filter(|_| !self.exiting);
        lanes.chain(done).min()
    }

    /// The next thing to do at `now`. Each action is answered before the next one is asked for.
    pub fn next(&mut self, now: u64) -> Option<Action> {
        if let Some((channel, id)) = self.removals.pop_front() {
            return Some(Action::Remove(channel, id));
        }
        if self.exiting {
            return None;
        }
        if let Some(id) = pop_due(&mut self.done, now) {
            return Some(Action::Finish(id));
        }
        // Channels take turns, so that a flood on one does not starve the other.
        self.turn ^= 1;
        let order = [Channel::BOTH[self.turn], Channel::BOTH[self.turn ^ 1]];
        order.into_iter().find_map(|channel| {
            let lane = self.lane(channel);
            if !lane.has_room() {
                return None;
            }
            if lane.pass.is_some() {
                return Some(Action::NextRecipient(channel));
            }
            pop_due(&mut lane.due, now).map(|id| Action::Open(channel, id))
        })
    }

    /// The pass over a message begins; `retry` is when deferred recipients are tried again.
    pub fn opened(&mut self, channel: Channel, id: MessageId, retry: u64, last: bool) {
        let number = self.next_job;
        self.next_job += 1;
        self.jobs.insert(number, Job { id, running: 0, reading: true, deferred: false, retry, last });
        self.lane(channel).pass = Some(number);
    }

    /// A recipient of the open pass: the delivery's number for the spawner, and the delivery.
    /// `None` when there is no pass or no room, which [`Scheduler::next`] does not let happen.
    pub fn recipient(&mut self, channel: Channel, offset: u64) -> Option<(u16, Delivery)> {
        let number = self.lanes[channel.index()].pass?;
        let job = self.jobs.get_mut(&number)?;
        let lane = &mut self.lanes[channel.index()];
        let Reverse(slot) = lane.free.pop()?;
        let delivery = Delivery { id: job.id, offset, log_number: self.next_log_number, last: job.last };
        self.next_log_number += 1;
        lane.slots[usize::from(slot)] = Some(Slot { job: number, delivery });
        lane.in_use += 1;
        job.running += 1;
        Some((slot, delivery))
    }

    /// The open pass has no more recipients.
    pub fn pass_over(&mut self, channel: Channel) {
        self.end_pass(channel, false, None);
    }

    /// The rest of the open pass cannot be read: what was not seen is tried again after a while.
    pub fn pass_broken(&mut self, channel: Channel, now: u64) {
        self.end_pass(channel, true, Some(now + ASIDE));
    }

    fn end_pass(&mut self, channel: Channel, deferred: bool, retry: Option<u64>) {
        let Some(number) = self.lane(channel).pass.take() else { return };
        if let Some(job) = self.jobs.get_mut(&number) {
            job.reading = false;
            job.deferred |= deferred;
            job.retry = retry.unwrap_or(job.retry);
        }
        self.finish_job(channel, number);
    }

    /// The delivery that a report is about; `None` when no such delivery runs.
    #[must_use]
    pub fn delivery(&self, channel: Channel, slot: u16) -> Option<Delivery> {
        Some(self.lanes[channel.index()].slots.get(usize::from(slot))?.as_ref()?.delivery)
    }

    /// A delivery has ended; `deferred` when its recipient has to be tried again.
    pub fn settle(&mut self, channel: Channel, slot: u16, deferred: bool) {
        let lane = self.lane(channel);
        let Some(ended) = lane.slots.get_mut(usize::from(slot)).and_then(Option::take) else { return };
        lane.in_use -= 1;
        lane.free.push(Reverse(slot));
        if let Some(job) = self.jobs.get_mut(&ended.job) {
            job.running -= 1;
            job.deferred |= deferred;
        }
        self.finish_job(channel, ended.job);
    }

    fn finish_job(&mut self, channel: Channel, number: u64) {
        if !self.jobs.get(&number).is_some_and(|job| job.running == 0 && !job.reading) {
            return;
        }
        let Some(job) = self.jobs.remove(&number) else { return };
        if job.deferred {
            self.lane(channel).due.push(Reverse((job.retry, job.id)));
        } else {
            self.removals.push_back((channel, job.id));
        }
    }

    /// A channel file is gone; `other` says whether the message has one on the other channel.
    pub fn removed(&mut self, id: MessageId, other: bool, now: u64) {
        if !other {
            self.done.push(Reverse((now, id)));
        }
    }

    /// The message could not be finished because of a system error: again after a while.
    pub fn finish_later(&mut self, id: MessageId, now: u64) {
        self.done.push(Reverse((now + ASIDE, id)));
    }

    /// A channel's file could not be opened or removed: that channel alone is tried later.
    pub fn channel_trouble(&mut self, channel: Channel, id: MessageId, now: u64) {
        self.lane(channel).due.push(Reverse((now + ASIDE, id)));
    }
}

#[cfg(test)]
#[path = "scheduler_tests.rs"]
mod tests;
