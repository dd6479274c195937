//! The way to the queue service.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use unix::clock::Deadline;

use super::{Outcome, QueueProgram, read_errors, write_all};
use crate::exit::Code;
use crate::injector::variables::OF_A_MESSAGE;
use crate::qmqp;

/// The greatest message that is gathered for the queue service, in bytes; for greater ones the start of a
/// program is a small part of the work.
pub(super) const GATHERED_MAX: usize = 512 * 1024;
/// How long a queue service may take to accept a connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// A message that is gathered, because its length comes before it on the wire.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) socket: PathBuf,
    pub(super) program: QueueProgram,
    pub(super) message: Vec<u8>,
}

impl Gathered {
    /// Sends all of it and waits for the answer; `None` when nothing can have been queued, because nobody
    /// listens or the request did not get through whole. `envelope` is that of the queue program.
    pub(super) fn send(&self, envelope: &[u8], patience: Duration) -> Option<Outcome> {
        let deadline = Deadline::after(patience.min(CONNECT_PATIENCE));
        let socket = unix::socket::connect(&self.socket, deadline).ok()?;
        let mut addresses = envelope.split(|&b| b == 0).filter_map(|record| record.get(1..));
        let sender = addresses.next().unwrap_or_default();
        let of_message = |name: &&str| {
            let found = self.program.environment.iter().find(|(n, _)| n == name);
            found.map(|(n, v)| (n.as_bytes(), v.as_bytes()))
        };
        let variables: Vec<_> = OF_A_MESSAGE.iter().filter_map(of_message).collect();
        let (before, after) = qmqp::encode(&variables, self.message.len(), sender, addresses).ok()?;
        for piece in [&before, &self.message, &after] {
            // Without the last comma it is no request.
            write_all(socket.as_fd(), piece, patience).ok()?;
        }
        // From here on it may be in the queue, whatever happens.
        Some(read_answer(socket.as_fd(), patience).unwrap_or_else(|| Outcome::of(Code::COMMUNICATION)))
    }
}

/// The answer of the queue service; `None` when there is none.
fn read_answer(socket: BorrowedFd<'_>, patience: Duration) -> Option<Outcome> {
    let bytes = read_errors(socket, patience)?;
    let (letter, text) = qmqp::answer(&bytes)?;
    let qp = || {
        let number = text.rsplit(|&b| b == b' ').next()?;
        std::str::from_utf8(number).ok()?.parse().ok()
    };
    Some(match letter {
        b'K' => Outcome::Queued { qp: qp().unwrap_or(0) },
        b'D' => Outcome::Permanent(text.to_vec()),
        _ => Outcome::Temporary(text.to_vec()),
    })
}
