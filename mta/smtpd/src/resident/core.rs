//! One session between two waits: it goes on until something must be waited for, and says for what.

use std::time::Duration;

use smtp::server::{Action, Answer, Ending, Query, Session};

use crate::log::Log;
use crate::lookups::Lookups;
use crate::world::World;

/// Which workers take what may last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Lists in files, system users, questions to the lookup daemon.
    Lookup,
    /// Passwords: their check is slow by design, and must not delay other questions.
    Login,
    /// The queue.
    Queue,
    /// TLS handshakes.
    Handshake,
}

/// What a session waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pause {
    /// Bytes from the client.
    Read,
    /// What is in `out` must be on its way first.
    Flush,
    /// A worker.
    Lane(Lane),
    /// A handshake, after what is in `out`.
    StartTls,
    /// Time, after what is in `out`.
    Delay(Duration),
    /// Nothing any more.
    Close(Ending),
}

/// Who moves a session on.
pub(crate) enum Site<'a> {
    /// The event loop, which must not wait.
    Loop,
    /// A worker of this lane.
    Worker(Lane, &'a mut Lookups),
}

/// What a session has asked for and did not get yet.
#[derive(Debug)]
enum Work {
    Ask(Query),
    Write(Vec<u8>),
    Abandon,
}

/// A session and what it needs, wherever it is.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) session: Session,
    pub(crate) world: World,
    pub(crate) log: Log,
    /// For the client.
    pub(crate) out: Vec<u8>,
    work: Option<Work>,
}

impl Core {
    pub(crate) fn new(session: Session, world: World, log: Log) -> Self {
        Self { session, world, log, out: Vec::new(), work: None }
    }

    /// Goes on until something must be waited for.
    pub(crate) fn advance(&mut self, mut site: Site<'_>) -> Pause {
        loop {
            if let Some(work) = self.work.take() {
                if let Err((work, lane)) = self.do_work(work, &mut site) {
                    self.work = Some(work);
                    return Pause::Lane(lane);
                }
                continue;
            }
            match self.session.next_action() {
                Action::Send(bytes) => self.out.extend_from_slice(&bytes),
                Action::Flush if self.out.is_empty() => {}
                Action::Flush => return Pause::Flush,
                Action::Read => return Pause::Read,
                Action::StartTls => return Pause::StartTls,
                Action::Delay(time) => return Pause::Delay(time),
                Action::Close(ending) => return Pause::Close(ending),
                Action::Log(event) => self.log.event(&event),
                Action::Ask(query) => self.work = Some(Work::Ask(query)),
                Action::Write(bytes) => self.work = Some(Work::Write(bytes)),
                Action::Abandon => self.work = Some(Work::Abandon),
            }
        }
    }

    /// Leaves the question that waits for a worker without an answer.
    pub(crate) fn give_up(&mut self) {
        match self.work.take() {
            Some(Work::Ask(_)) => self.session.answer(Answer::Unavailable),
            other => self.work = other,
        }
    }

    fn do_work(&mut self, work: Work, site: &mut Site<'_>) -> Result<(), (Work, Lane)> {
        let in_queue_lane = matches!(site, Site::Worker(Lane::Queue, _));
        match work {
            Work::Ask(query) => {
                let answer = match site {
                    Site::Worker(lane, lookups) if *lane == lane_of(&query) => {
                        self.world.answer(query, lookups, &self.log)
                    }
                    _ => self.world.answer_at_once(query, &self.log).map_err(|query| {
                        let lane = lane_of(&query);
                        (Work::Ask(query), lane)
                    })?,
                };
                self.session.answer(answer);
            }
            Work::Write(bytes) if in_queue_lane || self.world.takes_at_once(bytes.len()) => {
                self.world.write(&bytes);
            }
            Work::Abandon if in_queue_lane || self.world.takes_at_once(0) => self.world.abandon(),
            other => return Err((other, Lane::Queue)),
        }
        Ok(())
    }
}

fn lane_of(query: &Query) -> Lane {
    match query {
        Query::Authenticate { .. } => Lane::Login,
        Query::Open(_) | Query::Commit { .. } => Lane::Queue,
        Query::LocalDomain(_)
        | Query::Recipient(_)
        | Query::BadSender(_)
        | Query::BadRecipient(_)
        | Query::OwnsSender { .. }
        | Query::PrepareTls => Lane::Lookup,
    }
}
