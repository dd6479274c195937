//! One connection: bytes in, tickets out; answers in, bytes out in the order of the requests.
//!
//! No I/O and no clock in here: the front moves the bytes and says what time it is.

use std::collections::VecDeque;
use std::time::Instant;

use lookup::frame::{self, Malformed};
use lookup::mail::{STATUS_REFUSED, STATUS_TEMPORARY};
use unix::socket::Peer;
use zeroize::{Zeroize as _, Zeroizing};

use crate::{Answer, Settings};

/// Reading stops while this much waits to be taken by the client.
const OUTPUT_LIMIT: usize = 128 * 1024;

/// A reply without fields.
pub(crate) fn bare_reply(status: u8) -> Vec<u8> {
    let mut out = Vec::new();
    // Eight bytes always fit.
    let _ = frame::append(&mut out, status, frame::MAX_FRAME, |_| Ok(()));
    out
}

#[derive(Debug)]
struct Pending {
    sequence: u64,
    deadline: Instant,
    reply: Option<Vec<u8>>,
}

/// The state of one connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) peer: Peer,
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
    pending: VecDeque<Pending>,
    next_sequence: u64,
    /// The client will send nothing more, or nothing more is read from it.
    input_ended: bool,
    /// Since when the frame that has begun is incomplete.
    frame_since: Option<Instant>,
    /// Since when output has been waiting for the client.
    output_since: Option<Instant>,
    idle_since: Instant,
}

/// A request that was read.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) sequence: u64,
    pub(crate) deadline: Instant,
    pub(crate) bytes: Zeroizing<Vec<u8>>,
}

impl Connection {
    pub(crate) fn new(peer: Peer, now: Instant) -> Self {
        Self {
            peer,
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
            pending: VecDeque::new(),
            next_sequence: 0,
            input_ended: false,
            frame_since: None,
            output_since: None,
            idle_since: now,
        }
    }

    /// Bytes from the client.
    pub(crate) fn received(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// The client has closed its side; what it has asked is still answered.
    pub(crate) fn end_of_input(&mut self) {
        self.input_ended = true;
    }

    /// Nothing more is taken from the client; what was taken is still answered.
    pub(crate) fn end_input(&mut self) {
        self.input_ended = true;
        self.input.zeroize();
        self.frame_since = None;
    }

    /// The next complete request, as long as fewer than `pipeline` are on their way.
    pub(crate) fn next_request(
        &mut self,
        settings: &Settings,
        now: Instant,
    ) -> Result<Option<Incoming>, Malformed> {
        if !self.has_room(settings) {
            return Ok(None);
        }
        let Some((_, used)) = frame::split(&self.input, settings.max_request)? else {
            if self.input_ended {
                // Half a frame that will never be whole.
                self.end_input();
                return Ok(None);
            }
            self.frame_since = if self.input.is_empty() { None } else { self.frame_since.or(Some(now)) };
            return Ok(None);
        };
        let bytes = Zeroizing::new(self.input.get(..used).unwrap_or_default().to_vec());
        self.input.get_mut(..used).unwrap_or_default().zeroize();
        self.input.drain(..used);
        self.frame_since = None;
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let deadline = now + settings.request;
        self.pending.push_back(Pending { sequence, deadline, reply: None });
        Ok(Some(Incoming { sequence, deadline, bytes }))
    }

    /// The client sent something that is no request: it is refused, after the answers it still
    /// has to get, and nothing more is read.
    pub(crate) fn refuse_and_end(&mut self, now: Instant) {
        self.end_input();
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.pending.push_back(Pending { sequence, deadline: now, reply: Some(bare_reply(STATUS_REFUSED)) });
        self.flush_ready(now);
    }

    /// The answer to a request; ignored when its time was up before.
    pub(crate) fn answered(&mut self, sequence: u64, answer: Answer, now: Instant) {
        let ended = answer == Answer::Malformed;
        let reply = match answer {
            Answer::Reply(bytes) => bytes,
            Answer::Temporary => bare_reply(STATUS_TEMPORARY),
            Answer::Refused | Answer::Malformed => bare_reply(STATUS_REFUSED),
        };
        if let Some(slot) = self.pending.iter_mut().find(|p| p.sequence == sequence && p.reply.is_none()) {
            slot.reply = Some(reply);
            if ended {
                self.pending.retain(|p| p.sequence <= sequence);
                self.end_input();
            }
        }
        self.flush_ready(now);
    }

    /// Answers "cannot tell" to requests whose time is up; how many there were.
    pub(crate) fn expire(&mut self, now: Instant) -> u64 {
        let mut expired = 0;
        for slot in self.pending.iter_mut().filter(|p| p.reply.is_none() && p.deadline <= now) {
            slot.reply = Some(bare_reply(STATUS_TEMPORARY));
            expired += 1;
        }
        self.flush_ready(now);
        expired
    }

    /// Bytes for the client.
    pub(crate) fn output(&self) -> &[u8] {
        self.output.get(self.sent..).unwrap_or_default()
    }

    /// The client took `n` bytes.
    pub(crate) fn took(&mut self, n: usize, now: Instant) {
        self.sent += n;
        self.output_since = Some(now);
        if self.sent >= self.output.len() {
            self.output.zeroize();
            self.sent = 0;
            self.output_since = None;
            self.idle_since = now;
        }
    }

    /// Should the front read from the client?
    pub(crate) fn wants_input(&self, settings: &Settings) -> bool {
        !self.input_ended && self.has_room(settings)
    }

    /// Nothing asked, nothing begun, nothing to send.
    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.output().is_empty() && self.input.is_empty()
    }

    /// Since when it has been idle.
    pub(crate) fn idle_since(&self) -> Instant {
        self.idle_since
    }

    /// Nothing more will happen here.
    pub(crate) fn is_done(&self) -> bool {
        self.input_ended && self.is_idle()
    }

    /// The time by which something must have happened.
    pub(crate) fn deadline(&self, settings: &Settings) -> Instant {
        let transfer = |since: Option<Instant>| since.map(|s| s + settings.transfer);
        let request = self.pending.iter().filter(|p| p.reply.is_none()).map(|p| p.deadline).min();
        let idle = self.is_idle().then(|| self.idle_since + settings.idle);
        [transfer(self.frame_since), transfer(self.output_since), request, idle]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(self.idle_since + settings.idle)
    }

    /// Is the client too slow, or idle for too long? (Requests that are late are [`Self::expire`]d.)
    pub(crate) fn is_overdue(&self, settings: &Settings, now: Instant) -> bool {
        let late = |since: Option<Instant>| since.is_some_and(|s| s + settings.transfer <= now);
        late(self.frame_since)
            || late(self.output_since)
            || (self.is_idle() && self.idle_since + settings.idle <= now)
    }

    fn has_room(&self, settings: &Settings) -> bool {
        self.pending.len() < settings.pipeline.max(1) && self.output().len() < OUTPUT_LIMIT
    }

    /// Moves replies to the output, up to the first request that has none yet.
    fn flush_ready(&mut self, now: Instant) {
        while let Some(reply) = self.pending.front_mut().and_then(|p| p.reply.take()) {
            self.pending.pop_front();
            self.output.extend_from_slice(&reply);
            self.output_since = self.output_since.or(Some(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn request(code: u8) -> Vec<u8> {
        let mut out = Vec::new();
        frame::append(&mut out, code, 4096, |w| w.bytes(b"x")).unwrap();
        out
    }

    fn connection(now: Instant) -> Connection {
        let (a, _b) = std::os::unix::net::UnixStream::pair().unwrap();
        Connection::new(unix::socket::peer(&a).unwrap(), now)
    }

    #[test]
    fn replies_leave_in_the_order_of_the_requests() {
        let (now, settings) = (Instant::now(), Settings::default());
        let mut c = connection(now);
        c.received(&[request(1), request(2)].concat());
        let first = c.next_request(&settings, now).unwrap().unwrap();
        let second = c.next_request(&settings, now).unwrap().unwrap();
        assert!(c.next_request(&settings, now).unwrap().is_none());
        c.answered(second.sequence, Answer::Reply(b"second".to_vec()), now);
        assert!(c.output().is_empty());
        c.answered(first.sequence, Answer::Reply(b"first".to_vec()), now);
        assert_eq!(c.output(), b"firstsecond");
    }

    #[test]
    fn all_that_was_asked_before_a_half_close_is_answered() {
        let now = Instant::now();
        let settings = Settings { pipeline: 1, ..Settings::default() };
        let mut c = connection(now);
        c.received(&[request(1), request(2), b"half".to_vec()].concat());
        c.end_of_input();
        for _ in 0..2 {
            let r = c.next_request(&settings, now).unwrap().unwrap();
            assert!(c.next_request(&settings, now).unwrap().is_none() && !c.is_done());
            c.answered(r.sequence, Answer::Reply(b"r".to_vec()), now);
        }
        // "half" is no frame length that could be.
        assert!(c.next_request(&settings, now).is_err());
        c.took(2, now);
        c.end_input();
        assert!(c.is_done());
    }

    #[test]
    fn a_request_that_is_late_is_answered_once() {
        let (now, settings) = (Instant::now(), Settings::default());
        let mut c = connection(now);
        c.received(&request(1));
        let late = c.next_request(&settings, now).unwrap().unwrap();
        assert_eq!(c.expire(now), 0);
        assert_eq!(c.expire(late.deadline), 1);
        assert_eq!(c.output(), bare_reply(STATUS_TEMPORARY));
        c.answered(late.sequence, Answer::Reply(b"too late".to_vec()), now);
        assert_eq!(c.output(), bare_reply(STATUS_TEMPORARY));
    }

    #[test]
    fn a_frame_that_has_begun_must_be_completed_in_time() {
        let (now, settings) = (Instant::now(), Settings::default());
        let mut c = connection(now);
        c.received(&request(1)[..3]);
        assert!(c.next_request(&settings, now).unwrap().is_none());
        assert!(!c.is_idle());
        // One more byte does not buy more time.
        c.received(&[8]);
        let later = now + settings.transfer;
        assert!(c.next_request(&settings, later).unwrap().is_none());
        assert_eq!(c.deadline(&settings), later);
        assert!(c.is_overdue(&settings, later));
    }

    #[test]
    fn malformed_input_is_refused_after_what_was_asked_before() {
        let (now, settings) = (Instant::now(), Settings::default());
        let mut c = connection(now);
        c.received(&request(1));
        c.received(&[0xff; 8]);
        let first = c.next_request(&settings, now).unwrap().unwrap();
        assert!(c.next_request(&settings, now).is_err());
        c.refuse_and_end(now);
        assert!(c.output().is_empty() && !c.is_done());
        c.answered(first.sequence, Answer::Reply(b"1".to_vec()), now);
        assert_eq!(c.output(), [b"1".to_vec(), bare_reply(STATUS_REFUSED)].concat());
        let all = c.output().len();
        c.took(all, now);
        assert!(c.is_done());
    }

    #[test]
    fn no_more_than_the_pipeline_is_taken() {
        let now = Instant::now();
        let settings = Settings { pipeline: 2, ..Settings::default() };
        let mut c = connection(now);
        c.received(&request(1).repeat(3));
        assert!(c.next_request(&settings, now).unwrap().is_some());
        assert!(c.next_request(&settings, now).unwrap().is_some());
        assert!(c.next_request(&settings, now).unwrap().is_none());
        assert!(!c.wants_input(&settings));
        assert_eq!(c.expire(now + settings.request + Duration::from_secs(1)), 2);
        assert!(c.next_request(&settings, now).unwrap().is_some());
    }
}
