//! What a session asks of the world, what it hears, and what it reports.

use std::time::Duration;

use zeroize::Zeroizing;

use super::TlsFacts;
use crate::reply::Reply;

/// The next thing for the driver to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Queue these bytes for the client. They must be on their way before the driver waits for
    /// anything: before `Read`, `Delay`, `StartTls`, `Flush` and `Close`.
    Send(Vec<u8>),
    /// Send what is queued now.
    Flush,
    /// Read from the client and call [`super::Session::feed`] (or one of the endings).
    Read,
    /// Find this out and call [`super::Session::answer`].
    Ask(Query),
    /// Send what is queued, shake hands and call [`super::Session::answer`] with
    /// [`Answer::Tls`]; bytes that came before the handshake are gone.
    StartTls,
    /// The next bytes of the message that [`Query::Open`] opened.
    Write(Vec<u8>),
    /// Drop that message; nothing of it may be queued.
    Abandon,
    /// Send what is queued, then pause.
    Delay(Duration),
    /// Write this to the log.
    Log(Event),
    /// The session is over.
    Close(Ending),
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// QUIT.
    Quit,
    /// The client went away, was too slow, or was cut off.
    Dropped,
}

/// A question that needs files, daemons or the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// Do we take mail for this domain? Yes, No or Unavailable.
    LocalDomain(Vec<u8>),
    /// Does this mailbox of ours exist? Recipient or Unavailable.
    Recipient(Vec<u8>),
    /// Is this sender refused by a list? Yes, No or Unavailable.
    BadSender(Vec<u8>),
    /// Is this recipient refused by a list? Yes, No or Unavailable.
    BadRecipient(Vec<u8>),
    /// May this user send with this address? Yes, No or Unavailable.
    OwnsSender {
        /// Who is logged in.
        user: Vec<u8>,
        /// The address in MAIL.
        sender: Vec<u8>,
    },
    /// Is this the password? Login or Unavailable.
    Authenticate {
        /// Login name as the client gave it.
        user: Vec<u8>,
        /// Password.
        password: Zeroizing<Vec<u8>>,
        /// Mechanism.
        method: Method,
    },
    /// Can TLS be started (certificate and key are there and usable)? Yes or Unavailable.
    PrepareTls,
    /// Open a message in the queue and write the Received field. Opened or Unavailable.
    Open(Trace),
    /// Close the message and hand the envelope over. Queued, Refused or Unavailable.
    Commit {
        /// Envelope sender.
        sender: Vec<u8>,
        /// Envelope recipients, in order.
        recipients: Vec<Vec<u8>>,
    },
}

/// What the world answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Yes.
    Yes,
    /// No.
    No,
    /// What is known of a mailbox.
    Recipient(RecipientState),
    /// What became of a login.
    Login(Login),
    /// The message is open.
    Opened(Additions),
    /// The message is in the queue: seconds since 1970 and the number in `qp`.
    Queued {
        /// Seconds since 1970.
        time: u64,
        /// Process number of the queue program.
        qp: u64,
    },
    /// The queue does not take it; the reply says why.
    Refused(Reply),
    /// TLS is up, or the handshake failed.
    Tls(Option<TlsFacts>),
    /// Cannot tell.
    Unavailable,
}

impl Answer {
    /// [`Answer::Yes`] or [`Answer::No`].
    #[must_use]
    pub fn from_bool(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

/// What is known of a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecipientState {
    /// It exists, directly or as an alias, or nobody checks it.
    Exists,
    /// There is none.
    Absent,
    /// It is disabled.
    Inactive,
    /// It is full.
    OverQuota,
}

/// What became of a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// Right. `relay` says whether this account may send to other hosts.
    Granted {
        /// Relay permission.
        relay: bool,
    },
    /// Wrong name or password.
    Wrong,
    /// The account may not log in here.
    Disabled,
}

/// Login mechanisms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// LOGIN
    Login,
    /// PLAIN (RFC 4616)
    Plain,
}

impl Method {
    /// Its name on the wire and in logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Login => "LOGIN",
            Self::Plain => "PLAIN",
        }
    }
}

/// Header fields that a submission service adds when they are missing; whole lines ending with LF.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Additions {
    /// `Date: ...`
    pub date: Vec<u8>,
    /// `Message-ID: ...`
    pub message_id: Vec<u8>,
}

/// How the message came: what the Received field tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The name in HELO or EHLO, if there was one.
    pub helo: Option<Vec<u8>>,
    /// `SMTP`, `ESMTPSA`, ... (RFC 3848, RFC 6531).
    pub protocol: &'static str,
    /// TLS of the connection.
    pub tls: Option<TlsFacts>,
    /// Who is logged in.
    pub user: Option<Vec<u8>>,
}

/// Envelope and circumstances of a message, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// The name in HELO or EHLO.
    pub helo: Vec<u8>,
    /// Envelope sender.
    pub sender: Vec<u8>,
    /// Recipients; whether each is in one of our domains.
    pub recipients: Vec<(Vec<u8>, bool)>,
    /// Who is logged in, and by which method.
    pub user: Option<(Vec<u8>, Method)>,
    /// Bytes stored.
    pub size: u64,
    /// TLS of the connection.
    pub tls: Option<TlsFacts>,
}

/// Something for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The message is queued.
    Accepted(Box<Mail>),
    /// The queue did not take the message.
    QueueTrouble(Box<Mail>, Reply),
    /// The message is larger than allowed.
    TooBig(Box<Mail>),
    /// The message loops.
    Looping(Box<Mail>),
    /// A recipient elsewhere, without relay permission.
    InvalidRelay {
        /// Envelope sender.
        sender: Vec<u8>,
        /// The recipient.
        recipient: Vec<u8>,
    },
    /// A recipient here that cannot get mail.
    InvalidRecipient {
        /// Envelope sender.
        sender: Vec<u8>,
        /// The recipient.
        recipient: Vec<u8>,
        /// Why.
        state: RecipientState,
    },
    /// A sender or recipient that a list or rule refuses.
    Refused {
        /// What was refused: `sender`, `recipient`, `masquerade`.
        what: &'static str,
        /// The address.
        address: Vec<u8>,
    },
    /// A login that failed.
    AuthFailed {
        /// Login name.
        user: Vec<u8>,
        /// Mechanism.
        method: Method,
        /// Why.
        why: &'static str,
    },
    /// TLS is up.
    TlsStarted(TlsFacts),
    /// A lone line feed in a message.
    BareLf,
    /// The connection is cut: line too long, too many errors, too slow, service ends.
    Cut(&'static str),
    /// A lookup had no answer.
    Unavailable(&'static str),
}
