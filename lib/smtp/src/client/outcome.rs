//! What became of a message.

use crate::reply::Reply;

/// The end of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// This host said nothing final: try the next address.
    NextHost(Vec<u8>),
    /// The handshake failed where TLS was only a wish: connect again without it.
    RetryInClear,
    /// An answer.
    Report(Report),
}

/// An answer about the recipients and the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// One for each recipient that was asked about, in order.
    pub recipients: Vec<Verdict>,
    /// About the message: accepted for the accepted recipients, or refused for all of them.
    pub message: Verdict,
}

/// Class and text of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Class.
    pub class: Class,
    /// The host's words, lines joined with newlines.
    pub text: Vec<u8>,
}

/// Class of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Taken.
    Accepted,
    /// Not now.
    Temporary,
    /// Never.
    Permanent,
}

impl Class {
    /// 5xx never, 4xx not now, otherwise taken.
    #[must_use]
    pub fn of(reply: &Reply) -> Self {
        match reply.code {
            500.. => Self::Permanent,
            400..=499 => Self::Temporary,
            _ => Self::Accepted,
        }
    }
}
