//! Questions about mail: who exists, where her mail goes, may she relay, is it her.
//!
//! Asked of `inlookup` on its socket (group `qmail` may connect; what is answered depends on who
//! asks). Password hashes never cross this protocol in either direction.

mod client;
pub mod handed;

use unix::{Gid, Uid};

use crate::Key;
use crate::frame::{self, Fields, Frame, MAX_FRAME, MAX_REQUEST, Malformed, TooLong, Writer};

pub use client::Client;

/// Where `inlookup` listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/indimail/inlookup.sock";

/// One question.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// Does this address exist, and does it take mail?
    User(&'a [u8]),
    /// The mailbox of an address.
    Mailbox(&'a [u8]),
    /// Is this domain ours, and which domain is it an alias of?
    Domain(&'a [u8]),
    /// May this address relay from this IP address (it logged in from there a while ago)?
    Relay {
        /// Sender.
        address: &'a [u8],
        /// The client's IP address as text.
        ip: &'a [u8],
    },
    /// Is this her password?
    Authenticate {
        /// Who she says she is.
        address: &'a [u8],
        /// What she typed.
        password: &'a [u8],
        /// Service she logs in to (`imap`, `smtp`, `sshd`, ...).
        service: &'a [u8],
        /// Where she comes from; may be empty.
        remote_host: &'a [u8],
    },
    /// May she use this service at all (the PAM account step; no password involved)?
    Account {
        /// Who.
        address: &'a [u8],
        /// Service.
        service: &'a [u8],
    },
    /// Forget cached answers. For root and the mail system's own user only.
    Flush(Key<'a>),
    /// Counters of the daemon.
    Status,
}

/// Passwords stay out of every log.
impl std::fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (what, about) = match self {
            Self::User(a) => ("user", *a),
            Self::Mailbox(a) => ("mailbox", *a),
            Self::Domain(d) => ("domain", *d),
            Self::Relay { address, .. } => ("relay", *address),
            Self::Authenticate { address, .. } => ("authenticate", *address),
            Self::Account { address, .. } => ("account", *address),
            Self::Flush(_) => ("flush", b"".as_slice()),
            Self::Status => ("status", b"".as_slice()),
        };
        write!(f, "{what} {}", about.escape_ascii())
    }
}

impl<'a> Request<'a> {
    /// Appends the frame of this request.
    ///
    /// # Errors
    /// [`TooLong`]: nothing was appended.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), TooLong> {
        frame::append(out, self.code(), MAX_REQUEST, |w| match *self {
            Self::User(a) | Self::Mailbox(a) | Self::Domain(a) => w.bytes(a),
            Self::Relay { address: a, ip: b } | Self::Account { address: a, service: b } => {
                [a, b].iter().try_for_each(|f| w.bytes(f))
            }
            Self::Authenticate { address, password, service, remote_host } => {
                [address, password, service, remote_host].iter().try_for_each(|f| w.bytes(f))
            }
            Self::Flush(key) => key.put(w),
            Self::Status => Ok(()),
        })
    }

    /// Reads a request.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(frame: &Frame<'a>) -> Result<Self, Malformed> {
        let mut f = frame.fields();
        let request = match frame.code {
            1 => Self::User(f.bytes()?),
            2 => Self::Mailbox(f.bytes()?),
            3 => Self::Domain(f.bytes()?),
            4 => Self::Relay { address: f.bytes()?, ip: f.bytes()? },
            5 => Self::Authenticate {
                address: f.bytes()?,
                password: f.bytes()?,
                service: f.bytes()?,
                remote_host: f.bytes()?,
            },
            6 => Self::Account { address: f.bytes()?, service: f.bytes()? },
            7 => Self::Flush(Key::take(&mut f)?),
            8 => Self::Status,
            _ => return Err(Malformed::Code),
        };
        f.end()?;
        Ok(request)
    }

    fn code(&self) -> u8 {
        match self {
            Self::User(_) => 1,
            Self::Mailbox(_) => 2,
            Self::Domain(_) => 3,
            Self::Relay { .. } => 4,
            Self::Authenticate { .. } => 5,
            Self::Account { .. } => 6,
            Self::Flush(_) => 7,
            Self::Status => 8,
        }
    }
}

/// Does an address take mail?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserStatus {
    /// Yes.
    Found,
    /// There is no such address.
    Absent,
    /// The account exists and is switched off.
    Inactive,
    /// The account exists and is over its quota.
    OverQuota,
    /// It exists as an alias only.
    Alias,
}

/// How much an account may store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quota {
    /// Bytes; `None` without limit.
    pub bytes: Option<u64>,
    /// Messages; `None` without limit.
    pub messages: Option<u64>,
}

/// Everything a program needs to deliver to an account or to run a session for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox {
    /// The real address (`user@real-domain`), also when an alias domain was asked for.
    pub address: Vec<u8>,
    /// Unix user that owns the mail.
    pub uid: Uid,
    /// Its group.
    pub gid: Gid,
    /// Home directory; the mail is in its `Maildir`.
    pub home: Vec<u8>,
    /// Her name.
    pub gecos: Vec<u8>,
    /// Limits.
    pub quota: Quota,
    /// Service flags as stored (the bits of `pw_gid`).
    pub flags: u32,
    /// Is the account switched on?
    pub active: bool,
    /// No account has this name, only [`Self::aliases`]; ids are the domain's, `home` is empty.
    pub alias_only: bool,
    /// Where copies go: addresses, `|command`, `/path/`.
    pub aliases: Vec<Vec<u8>>,
}

impl Mailbox {
    fn put(&self, w: &mut Writer<'_>) -> Result<(), TooLong> {
        w.bytes(&self.address)?;
        w.number(self.uid.as_raw())?;
        w.number(self.gid.as_raw())?;
        w.bytes(&self.home)?;
        w.bytes(&self.gecos)?;
        w.optional_long(self.quota.bytes)?;
        w.optional_long(self.quota.messages)?;
        w.number(self.flags)?;
        w.byte(self.active.into())?;
        w.byte(self.alias_only.into())?;
        self.aliases.iter().try_for_each(|a| w.bytes(a))
    }

    fn take(f: &mut Fields<'_>) -> Result<Self, Malformed> {
        let mut mailbox = Self {
            address: f.bytes()?.to_vec(),
            uid: Uid::from_raw(f.number()?),
            gid: Gid::from_raw(f.number()?),
            home: f.bytes()?.to_vec(),
            gecos: f.bytes()?.to_vec(),
            quota: Quota { bytes: f.optional_long()?, messages: f.optional_long()? },
            flags: f.number()?,
            active: f.flag()?,
            alias_only: f.flag()?,
            aliases: Vec::new(),
        };
        while f.more() {
            mailbox.aliases.push(f.bytes()?.to_vec());
        }
        Ok(mailbox)
    }
}

/// The outcome of a login question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// She may go on. The mailbox comes without aliases, with the flags that are in force.
    Granted(Mailbox),
    /// There is no such account.
    Absent,
    /// Not her password.
    Wrong,
    /// The account is switched off, or this service is not for her.
    Disabled,
    /// The account has expired.
    Expired,
    /// The password has expired: it is right, and must be changed first.
    PasswordExpired,
    /// Too many failures lately; the password was not looked at.
    Later,
}

/// Counters of a daemon: name, value.
pub type Counters = Vec<(Vec<u8>, Vec<u8>)>;

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// To [`Request::Relay`] (yes) and [`Request::Flush`].
    Yes,
    /// There is no such thing; no.
    Absent,
    /// To [`Request::User`].
    User(UserStatus),
    /// To [`Request::Mailbox`].
    Mailbox(Mailbox),
    /// To [`Request::Domain`]: the real domain.
    Domain(Vec<u8>),
    /// To [`Request::Authenticate`] and [`Request::Account`].
    Verdict(Verdict),
    /// To [`Request::Status`].
    Status(Counters),
    /// The daemon cannot tell now.
    Temporary,
    /// The request is malformed or not for this peer.
    Refused,
}

/// Status bytes of replies. 0 to 6 are as in the documentation of the protocol.
mod status {
    pub(super) const OK: u8 = 0;
    pub(super) const ABSENT: u8 = 1;
    pub(super) const INACTIVE: u8 = 2;
    pub(super) const OVER_QUOTA: u8 = 3;
    pub(super) const ALIAS: u8 = 4;
    pub(super) const WRONG: u8 = 7;
    pub(super) const DISABLED: u8 = 8;
    pub(super) const EXPIRED: u8 = 9;
    pub(super) const PASSWORD_EXPIRED: u8 = 10;
    pub(super) const LATER: u8 = 11;
}

/// Status byte for "cannot tell now", the same for every kind of request.
pub const STATUS_TEMPORARY: u8 = 5;
/// Status byte for a request that is malformed or not for this peer.
pub const STATUS_REFUSED: u8 = 6;

impl Reply {
    /// Appends the frame of this reply.
    ///
    /// # Errors
    /// [`TooLong`]: nothing was appended; answer [`Reply::Temporary`] instead.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), TooLong> {
        frame::append(out, self.code(), MAX_FRAME, |w| match self {
            Self::Mailbox(m) | Self::Verdict(Verdict::Granted(m)) => m.put(w),
            Self::Domain(d) => w.bytes(d),
            Self::Status(rows) => rows.iter().try_for_each(|(name, value)| {
                w.bytes(name)?;
                w.bytes(value)
            }),
            Self::Yes | Self::Absent | Self::User(_) | Self::Verdict(_) | Self::Temporary | Self::Refused => {
                Ok(())
            }
        })
    }

    /// Reads the answer to `request`.
    ///
    /// # Errors
    /// It is not an answer to that.
    pub fn decode(request: &Request<'_>, frame: &Frame<'_>) -> Result<Self, Malformed> {
        let mut f = frame.fields();
        let login = matches!(request, Request::Authenticate { .. } | Request::Account { .. });
        let user = matches!(request, Request::User(_));
        let reply = match (frame.code, request) {
            (STATUS_TEMPORARY, _) => Self::Temporary,
            (STATUS_REFUSED, _) => Self::Refused,
            (status::OK, Request::User(_)) => Self::User(UserStatus::Found),
            (status::OK, Request::Mailbox(_)) => Self::Mailbox(Mailbox::take(&mut f)?),
            (status::OK, Request::Domain(_)) => Self::Domain(f.bytes()?.to_vec()),
            (status::OK, Request::Relay { .. } | Request::Flush(_)) => Self::Yes,
            (status::OK, Request::Authenticate { .. } | Request::Account { .. }) => {
                Self::Verdict(Verdict::Granted(Mailbox::take(&mut f)?))
            }
            (status::OK, Request::Status) => Self::Status(counters(&mut f)?),
            (status::ABSENT, _) if login => Self::Verdict(Verdict::Absent),
            (status::ABSENT, _) if user => Self::User(UserStatus::Absent),
            (status::ABSENT, _) => Self::Absent,
            (status::INACTIVE, _) if user => Self::User(UserStatus::Inactive),
            (status::OVER_QUOTA, _) if user => Self::User(UserStatus::OverQuota),
            (status::ALIAS, _) if user => Self::User(UserStatus::Alias),
            (status::WRONG, _) if login => Self::Verdict(Verdict::Wrong),
            (status::DISABLED, _) if login => Self::Verdict(Verdict::Disabled),
            (status::EXPIRED, _) if login => Self::Verdict(Verdict::Expired),
            (status::PASSWORD_EXPIRED, _) if login => Self::Verdict(Verdict::PasswordExpired),
            (status::LATER, _) if login => Self::Verdict(Verdict::Later),
            _ => return Err(Malformed::Code),
        };
        f.end()?;
        Ok(reply)
    }

    fn code(&self) -> u8 {
        match self {
            Self::Yes
            | Self::Mailbox(_)
            | Self::Domain(_)
            | Self::Status(_)
            | Self::User(UserStatus::Found)
            | Self::Verdict(Verdict::Granted(_)) => status::OK,
            Self::Absent | Self::User(UserStatus::Absent) | Self::Verdict(Verdict::Absent) => status::ABSENT,
            Self::User(UserStatus::Inactive) => status::INACTIVE,
            Self::User(UserStatus::OverQuota) => status::OVER_QUOTA,
            Self::User(UserStatus::Alias) => status::ALIAS,
            Self::Verdict(Verdict::Wrong) => status::WRONG,
            Self::Verdict(Verdict::Disabled) => status::DISABLED,
            Self::Verdict(Verdict::Expired) => status::EXPIRED,
            Self::Verdict(Verdict::PasswordExpired) => status::PASSWORD_EXPIRED,
            Self::Verdict(Verdict::Later) => status::LATER,
            Self::Temporary => STATUS_TEMPORARY,
            Self::Refused => STATUS_REFUSED,
        }
    }
}

pub(crate) fn counters(f: &mut Fields<'_>) -> Result<Counters, Malformed> {
    let mut rows = Vec::new();
    while f.more() {
        rows.push((f.bytes()?.to_vec(), f.bytes()?.to_vec()));
    }
    Ok(rows)
}

/// For fuzzing: any bytes as requests and as replies.
pub fn fuzz_frames(bytes: &[u8]) {
    let Ok(Some((frame, _))) = frame::split(bytes, MAX_FRAME) else { return };
    if let Ok(request) = Request::decode(&frame) {
        let mut again = Vec::new();
        if request.encode(&mut again).is_ok() {
            let (frame, _) = frame::split(&again, MAX_FRAME).ok().flatten().unwrap_or((frame, 0));
            assert_eq!(Request::decode(&frame), Ok(request), "what was encoded reads back the same");
        }
    }
    for request in [Request::User(b""), Request::Mailbox(b""), Request::Status, Request::Domain(b"")] {
        let _ = Reply::decode(&request, &frame);
    }
}

#[cfg(test)]
mod tests;
