//! Questions to inlookup that do not keep other deliveries waiting.
//!
//! ```text
//! ask ─► Conversation (no I/O) ─► bytes ─► socket ─► bytes ─► Conversation ─► answers by delivery number
//! ```
//!
//! One connection is kept; questions go out as they come and are answered in their order. A daemon
//! that was restarted meanwhile is asked again, once. One that is silent for too long is left alone
//! for a while, so that mail does not wait for it time and again.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use lookup::frame::{MAX_FRAME, Malformed, TooLong, split};
use lookup::mail::{Mailbox, Reply, Request};
use unix::clock::Deadline;
use unix::socket;
use unix::wait::Interest;

/// How long nobody asks after a question was not answered.
const PAUSE: Duration = Duration::from_secs(5);

/// What is known of an address; `Err`: cannot tell.
pub(super) type Told = Result<Option<Mailbox>, CannotTell>;

/// The daemon does not know either, or was not heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CannotTell;

/// A question about an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    /// The delivery that waits for the answer.
    pub(super) number: u16,
    /// Whose mailbox.
    pub(super) address: Vec<u8>,
    /// Asked instead when that one does not exist.
    pub(super) base: Option<Vec<u8>>,
    deadline: Deadline,
    repeated: bool,
}

/// Questions that are out, and the bytes of both directions.
#[derive(Debug, Default)]
struct Conversation {
    asked: VecDeque<Question>,
    output: Vec<u8>,
    input: Vec<u8>,
}

impl Conversation {
    fn ask(&mut self, question: Question) -> Result<(), TooLong> {
        Request::Mailbox(&question.address).encode(&mut self.output)?;
        self.asked.push_back(question);
        Ok(())
    }

    /// Reads the answers in what has come from the daemon. After an error the questions that are
    /// still out will not be answered.
    fn hear(&mut self, bytes: &[u8], told: &mut Vec<(u16, Told)>) -> Result<(), Malformed> {
        self.input.extend_from_slice(bytes);
        let mut used = 0;
        while let Some((frame, length)) = split(&self.input[used..], MAX_FRAME)? {
            // An answer to no question: nobody knows what the following ones are about.
            let question = self.asked.front().ok_or(Malformed::Leftover)?;
            let reply = Reply::decode(&Request::Mailbox(&question.address), &frame)?;
            used += length;
            let Some(question) = self.asked.pop_front() else { break };
            let answer = match (reply, question.base) {
                (Reply::Mailbox(mailbox), _) => Ok(Some(mailbox)),
                (Reply::Absent, Some(address)) => {
                    if self.ask(Question { address, base: None, ..question }).is_ok() {
                        continue;
                    }
                    Err(CannotTell)
                }
                (Reply::Absent, None) => Ok(None),
                _ => Err(CannotTell),
            };
            told.push((question.number, answer));
        }
        self.input.drain(..used);
        Ok(())
    }
}

/// The connection ended.
#[derive(Debug)]
enum Lost {
    /// The daemon went away.
    Closed,
    /// What it says makes no sense.
    Broken,
}

#[derive(Debug)]
struct Line {
    socket: OwnedFd,
    talk: Conversation,
}

impl Line {
    /// Sends and receives what is possible now. What was told before the line was lost counts.
    fn exchange(&mut self, told: &mut Vec<(u16, Told)>) -> Result<(), Lost> {
        let mut piece = [0u8; 4096];
        loop {
            match socket::receive(&self.socket, &mut piece) {
                Ok(0) => return Err(Lost::Closed),
                Ok(n) => self.talk.hear(&piece[..n], told).map_err(|_| Lost::Broken)?,
                Err(e) if is_later(&e) => break,
                Err(_) => return Err(Lost::Closed),
            }
        }
        // An answer may have led to another question.
        self.send()
    }

    fn send(&mut self) -> Result<(), Lost> {
        while !self.talk.output.is_empty() {
            match socket::send_quietly(&self.socket, &self.talk.output) {
                Ok(n) => drop(self.talk.output.drain(..n)),
                Err(e) if is_later(&e) => break,
                Err(_) => return Err(Lost::Closed),
            }
        }
        Ok(())
    }
}

fn is_later(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted)
}

/// The one who asks.
#[derive(Debug)]
pub(super) struct Lookups {
    path: PathBuf,
    patience: Duration,
    line: Option<Line>,
    silent_until: Option<Deadline>,
    answers: BTreeMap<u16, Told>,
}

impl Lookups {
    /// Nothing is opened before the first question; each may take `patience`.
    pub(super) fn new(path: PathBuf, patience: Duration) -> Self {
        Self { path, patience, line: None, silent_until: None, answers: BTreeMap::new() }
    }

    /// Asks on behalf of delivery `number`; false when nobody can be asked now.
    pub(super) fn ask(&mut self, number: u16, address: Vec<u8>, base: Option<Vec<u8>>) -> bool {
        if self.silent_until.is_some_and(|d| !d.passed()) {
            return false;
        }
        let deadline = Deadline::after(self.patience);
        self.put(Question { number, address, base, deadline, repeated: false })
    }

    fn put(&mut self, question: Question) -> bool {
        let mut line = match self.line.take() {
            Some(line) => line,
            // A backlog that is full is as good as silence.
            None => match socket::connect(&self.path, Deadline::after(Duration::ZERO)) {
                Ok(socket) => Line { socket, talk: Conversation::default() },
                Err(_) => {
                    self.pause();
                    return false;
                }
            },
        };
        let asked = line.talk.ask(question).is_ok();
        // A connection that is gone shows when it is read from.
        let _ = line.send();
        self.line = Some(line);
        asked
    }

    fn pause(&mut self) {
        self.silent_until = Some(Deadline::after(PAUSE));
    }

    /// What to wait for.
    pub(super) fn watched(&self) -> Option<(BorrowedFd<'_>, Interest)> {
        let line = self.line.as_ref()?;
        let interest = if line.talk.output.is_empty() { Interest::Read } else { Interest::Both };
        Some((line.socket.as_fd(), interest))
    }

    /// When to look even if nothing came.
    pub(super) fn deadline(&self) -> Option<Deadline> {
        self.line.as_ref()?.talk.asked.iter().map(|q| q.deadline).min()
    }

    /// Takes what has come; the deliveries that can go on.
    pub(super) fn look(&mut self) -> Vec<u16> {
        if let Some(mut line) = self.line.take() {
            let mut told = Vec::new();
            let state = line.exchange(&mut told);
            if told.iter().any(|(_, t)| t.is_err()) {
                self.pause();
            }
            self.answers.extend(told);
            match state {
                Ok(()) if line.talk.asked.iter().any(|q| q.deadline.passed()) => {
                    self.give_up(line.talk.asked);
                }
                Ok(()) => self.line = Some(line),
                Err(Lost::Closed) => self.again(line.talk.asked),
                Err(Lost::Broken) => self.give_up(line.talk.asked),
            }
        }
        self.answers.keys().copied().collect()
    }

    /// The answer for a delivery that [`Lookups::look`] named.
    pub(super) fn take(&mut self, number: u16) -> Told {
        self.answers.remove(&number).unwrap_or(Err(CannotTell))
    }

    fn again(&mut self, asked: VecDeque<Question>) {
        for question in asked {
            let number = question.number;
            if question.repeated || !self.put(Question { repeated: true, ..question }) {
                self.answers.insert(number, Err(CannotTell));
                self.pause();
            }
        }
    }

    fn give_up(&mut self, asked: VecDeque<Question>) {
        self.answers.extend(asked.into_iter().map(|q| (q.number, Err(CannotTell))));
        self.pause();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn question(number: u16, address: &str, base: Option<&str>) -> Question {
        let deadline = Deadline::after(Duration::from_secs(60));
        let base = base.map(Into::into);
        Question { number, address: address.into(), base, deadline, repeated: false }
    }

    fn reply(reply: &Reply) -> Vec<u8> {
        let mut out = Vec::new();
        reply.encode(&mut out).unwrap();
        out
    }

    fn hear(talk: &mut Conversation, bytes: &[u8]) -> Vec<(u16, Told)> {
        let mut told = Vec::new();
        talk.hear(bytes, &mut told).unwrap();
        told
    }

    #[test]
    fn answers_come_in_the_order_of_the_questions_however_they_are_cut() {
        let bytes = [reply(&Reply::Absent), reply(&Reply::Temporary), reply(&Reply::Absent)].concat();
        for cut in 0..=bytes.len() {
            let mut talk = Conversation::default();
            for n in [7, 3, 5] {
                talk.ask(question(n, "a@x", None)).unwrap();
            }
            let mut told = hear(&mut talk, &bytes[..cut]);
            told.extend(hear(&mut talk, &bytes[cut..]));
            assert_eq!(told, [(7, Ok(None)), (3, Err(CannotTell)), (5, Ok(None))]);
        }
    }

    #[test]
    fn the_base_is_asked_for_when_the_address_does_not_exist() {
        let mut talk = Conversation::default();
        talk.ask(question(1, "joe-list@x", Some("joe@x"))).unwrap();
        talk.output.clear();
        assert_eq!(hear(&mut talk, &reply(&Reply::Absent)), []);
        let mut wanted = Vec::new();
        Request::Mailbox(b"joe@x").encode(&mut wanted).unwrap();
        assert_eq!(talk.output, wanted);
        assert_eq!(hear(&mut talk, &reply(&Reply::Absent)), [(1, Ok(None))]);
        assert!(talk.hear(&reply(&Reply::Absent), &mut Vec::new()).is_err(), "nobody asked");
    }

    proptest! {
        /// Whatever the daemon says, each question is answered or still out.
        #[test]
        fn no_question_is_forgotten(
            parts in prop::collection::vec((0usize..4, prop::collection::vec(0u8..9, 0..12)), 0..6),
        ) {
            let mut talk = Conversation::default();
            for n in 0..3 {
                talk.ask(question(n, "a-b@x", Some("a@x"))).unwrap();
            }
            let mut told = Vec::new();
            for (kind, garbage) in parts {
                let bytes = match kind {
                    0 => reply(&Reply::Absent),
                    1 => reply(&Reply::Temporary),
                    2 => reply(&Reply::Yes),
                    _ => garbage,
                };
                if talk.hear(&bytes, &mut told).is_err() {
                    break;
                }
            }
            let mut numbers: Vec<u16> = told.iter().map(|(n, _)| *n).chain(talk.asked.iter().map(|q| q.number)).collect();
            numbers.sort_unstable();
            prop_assert_eq!(numbers, [0, 1, 2]);
        }
    }
}
