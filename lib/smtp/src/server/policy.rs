//! Process scope: what the administrator decided, and what is known of the peer from the start.

use std::net::IpAddr;
use std::time::Duration;

use crate::data::BareLf;
use crate::reply::Reply;

/// Decisions that hold for every connection of a service.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Greeting lines without code; the first one begins with the host's name.
    pub greeting: Vec<Vec<u8>>,
    /// The name that stands for our own address literal in `user@[192.0.2.1]`.
    pub local_ip_host: Vec<u8>,
    /// Largest message in bytes; `None`: no limit.
    pub size_limit: Option<u64>,
    /// Most recipients of one message; `None`: [`super::MAX_RECIPIENTS`].
    pub max_recipients: Option<usize>,
    /// Answer 557 instead of 452 to recipients beyond the limit.
    pub too_many_is_permanent: bool,
    /// A message with this many Received and Delivered-To fields is looping.
    pub max_hops: usize,
    /// Longest command line in bytes, at most [`crate::command::MAX_LINE`].
    pub max_line: usize,
    /// So many invalid recipients end the connection; `None`: any number.
    pub max_invalid_recipients: Option<u32>,
    /// So many failed logins end the connection.
    pub max_auth_failures: u32,
    /// Pause before the answer to a failed login or an invalid recipient.
    pub penalty: Duration,
    /// From this recipient number on, pause this long before each answer.
    pub tarpit: Option<(usize, Duration)>,
    /// STARTTLS is offered.
    pub starttls: bool,
    /// Nothing but EHLO, NOOP, RSET, QUIT, STARTTLS before TLS.
    pub force_tls: bool,
    /// Login methods.
    pub auth: AuthPolicy,
    /// MAIL needs a login.
    pub require_auth: bool,
    /// Recipients need relay permission even when their domain is ours.
    pub auth_all: bool,
    /// Recipients in our domains must exist.
    pub check_recipient: bool,
    /// An account over its quota is refused for good (550), not for now (452).
    pub over_quota_is_permanent: bool,
    /// Line feeds without CR in a message.
    pub bare_lf: BareLf,
    /// MAIL may come without HELO or EHLO.
    pub allow_no_helo: bool,
    /// VRFY is answered with 252.
    pub vrfy: bool,
    /// HELP lists the commands.
    pub help: bool,
    /// SMTPUTF8 is offered.
    pub smtputf8: bool,
    /// This is a message submission service (RFC 6409).
    pub submission: bool,
}

/// Which login methods are offered, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthPolicy {
    /// There is somebody to ask.
    pub available: bool,
    /// PLAIN is offered.
    pub plain: bool,
    /// LOGIN is offered.
    pub login: bool,
    /// Passwords travel under TLS only.
    pub only_under_tls: bool,
}

impl Default for Policy {
    /// The original's defaults where it has them; no TLS, no login.
    fn default() -> Self {
        Self {
            greeting: vec![b"localhost ESMTP".to_vec()],
            local_ip_host: b"localhost".to_vec(),
            size_limit: None,
            max_recipients: None,
            too_many_is_permanent: false,
            max_hops: 100,
            max_line: crate::command::MAX_LINE,
            max_invalid_recipients: None,
            max_auth_failures: 3,
            penalty: Duration::from_secs(5),
            tarpit: None,
            starttls: false,
            force_tls: false,
            auth: AuthPolicy { available: false, plain: true, login: true, only_under_tls: true },
            require_auth: false,
            auth_all: false,
            check_recipient: false,
            over_quota_is_permanent: false,
            bare_lf: BareLf::Refuse,
            allow_no_helo: false,
            vrfy: true,
            help: true,
            smtputf8: false,
            submission: false,
        }
    }
}

/// What is known of the connection before the first byte.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    /// The client's address.
    pub ip: Option<IpAddr>,
    /// Our own address on this connection.
    pub local_ip: Option<IpAddr>,
    /// Relay permission by address, with the text that is appended to recipients.
    pub relay: Option<Vec<u8>>,
    /// TLS that was there before the first byte (SMTPS, or a TLS proxy in front).
    pub tls: Option<TlsFacts>,
    /// This client gets no service.
    pub gate: Option<Gate>,
}

/// A client that is turned away politely, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    /// Said instead of the greeting.
    pub greeting: Reply,
    /// Said to every command but QUIT and HELP.
    pub later: Reply,
    /// Pause before each of those.
    pub slow: bool,
}

/// What TLS came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFacts {
    /// `TLSv1.3`, or what the outside provider says.
    pub version: String,
    /// Cipher suite; empty when not known.
    pub cipher: String,
}
