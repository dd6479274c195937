//! Everything that decides what becomes of a header.

use message::Moment;

/// Where recipients come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecipientsFrom {
    /// Arguments only.
    Arguments,
    /// Header only.
    Header,
    /// Both.
    Both,
    /// Arguments if there are any, else header.
    ArgumentsElseHeader,
}

/// How hosts are completed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hosts {
    /// For addresses without a host.
    pub default_host: Vec<u8>,
    /// For hosts without a dot.
    pub default_domain: Vec<u8>,
    /// For hosts that end in `+`.
    pub plus_domain: Vec<u8>,
}

impl Hosts {
    /// The complete host; domain literals are complete.
    #[must_use]
    pub fn complete(&self, host: Option<&[u8]>) -> Vec<u8> {
        let host = host.unwrap_or(&self.default_host);
        if host.starts_with(b"[") {
            return host.to_vec();
        }
        if let Some(base) = host.strip_suffix(b"+") {
            return [base, b".", &self.plus_domain].concat();
        }
        if host.contains(&b'.') || self.default_domain.is_empty() {
            return host.to_vec();
        }
        [host, b".", &self.default_domain].concat()
    }
}

/// Who sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Local part.
    pub user: Vec<u8>,
    /// Host, to be completed; `None`: the default host.
    pub host: Option<Vec<u8>>,
    /// Full name.
    pub name: Option<Vec<u8>>,
}

/// Everything that decides what becomes of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Where recipients come from.
    pub recipients_from: RecipientsFrom,
    /// Recipients on the command line, each an address list.
    pub arguments: Vec<Vec<u8>>,
    /// Envelope sender given; empty for the null sender.
    pub sender: Option<Vec<u8>>,
    /// A Return-Path field does not give the sender.
    pub ignore_return_path: bool,
    /// Existing From fields are dropped.
    pub drop_from: bool,
    /// Existing Message-ID fields are dropped.
    pub drop_message_id: bool,
    /// A new From has the form `address (name)`.
    pub name_as_comment: bool,
    /// The sender tells recipients apart: `user-@host-@[]`.
    pub verp_recipient: bool,
    /// The sender tells messages apart: `user-SECONDS.PID@host`.
    pub verp_message: bool,
    /// For the envelope.
    pub sender_identity: Identity,
    /// For a new From.
    pub from_identity: Identity,
    /// How hosts are completed.
    pub hosts: Hosts,
    /// Addresses of mailing lists the sender reads: mail to one of them gets a Mail-Followup-To.
    pub own_lists: Vec<Vec<u8>>,
    /// Host of new Message-IDs.
    pub id_host: Vec<u8>,
    /// For a new Date.
    pub now: Moment,
    /// The same, in seconds after 1970 began.
    pub seconds: u64,
    /// For a new Message-ID.
    pub pid: u32,
}
