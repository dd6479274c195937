//! The client of `inlookup`.

use std::path::Path;
use std::time::Duration;

use zeroize::Zeroize as _;

use super::{Counters, Mailbox, Reply, Request, UserStatus, Verdict};
use crate::Key;
use crate::client::{Link, Unavailable};
use crate::frame::{MAX_REQUEST, Malformed, TooLong};

/// Asks `inlookup`.
///
/// The connection is opened by the first question and kept for the next ones; a connection that
/// the daemon closed meanwhile is opened again within the same deadline. Drop the client to close.
#[derive(Debug)]
pub struct Client {
    link: Link,
}

impl Client {
    /// A client of the daemon at `socket`. Each question takes at most `patience` from start to end.
    #[must_use]
    pub fn new(socket: &Path, patience: Duration) -> Self {
        Self { link: Link::new(socket, patience) }
    }

    /// Does this address take mail?
    ///
    /// # Errors
    /// Cannot tell.
    pub fn user(&mut self, address: &[u8]) -> Result<UserStatus, Unavailable> {
        match self.ask(&Request::User(address))? {
            Reply::User(status) => Ok(status),
            other => Err(unexpected(&other)),
        }
    }

    /// The mailbox of this address; `None` when it is neither an account nor an alias.
    ///
    /// # Errors
    /// Cannot tell.
    pub fn mailbox(&mut self, address: &[u8]) -> Result<Option<Mailbox>, Unavailable> {
        match self.ask(&Request::Mailbox(address))? {
            Reply::Mailbox(mailbox) => Ok(Some(mailbox)),
            Reply::Absent => Ok(None),
            other => Err(unexpected(&other)),
        }
    }

    /// As [`Client::mailbox`]; where `extensions` are allowed, `user-anything` that does not exist
    /// is `user`.
    ///
    /// # Errors
    /// Cannot tell.
    pub fn mailbox_or_base(
        &mut self,
        address: &[u8],
        extensions: bool,
    ) -> Result<Option<Mailbox>, Unavailable> {
        let found = self.mailbox(address)?;
        let at = address.iter().rposition(|&b| b == b'@').unwrap_or(address.len());
        let (local, domain) = address.split_at_checked(at).unwrap_or((address, b""));
        let base = local.split(|&b| b == b'-').next().filter(|b| extensions && b.len() < local.len());
        match (found, base) {
            (None, Some(base)) => self.mailbox(&[base, domain].concat()),
            (found, _) => Ok(found),
        }
    }

    /// The real domain behind this one; `None` when it is not ours.
    ///
    /// # Errors
    /// Cannot tell.
    pub fn domain(&mut self, name: &[u8]) -> Result<Option<Vec<u8>>, Unavailable> {
        match self.ask(&Request::Domain(name))? {
            Reply::Domain(real) => Ok(Some(real)),
            Reply::Absent => Ok(None),
            other => Err(unexpected(&other)),
        }
    }

    /// May this address relay from this IP address?
    ///
    /// # Errors
    /// Cannot tell.
    pub fn relay(&mut self, address: &[u8], ip: &[u8]) -> Result<bool, Unavailable> {
        match self.ask(&Request::Relay { address, ip })? {
            Reply::Yes => Ok(true),
            Reply::Absent => Ok(false),
            other => Err(unexpected(&other)),
        }
    }

    /// Is this her password for this service? `remote_host` may be empty.
    ///
    /// # Errors
    /// Cannot tell.
    pub fn authenticate(
        &mut self,
        address: &[u8],
        password: &[u8],
        service: &[u8],
        remote_host: &[u8],
    ) -> Result<Verdict, Unavailable> {
        self.verdict(&Request::Authenticate { address, password, service, remote_host })
    }

    /// May she use this service (no password involved)?
    ///
    /// # Errors
    /// Cannot tell.
    pub fn account(&mut self, address: &[u8], service: &[u8]) -> Result<Verdict, Unavailable> {
        self.verdict(&Request::Account { address, service })
    }

    /// Makes the daemon forget what it has cached.
    ///
    /// # Errors
    /// It did not.
    pub fn flush(&mut self, key: Key<'_>) -> Result<(), Unavailable> {
        match self.ask(&Request::Flush(key))? {
            Reply::Yes => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// The daemon's counters.
    ///
    /// # Errors
    /// Cannot tell.
    pub fn status(&mut self) -> Result<Counters, Unavailable> {
        match self.ask(&Request::Status)? {
            Reply::Status(rows) => Ok(rows),
            other => Err(unexpected(&other)),
        }
    }

    fn verdict(&mut self, request: &Request<'_>) -> Result<Verdict, Unavailable> {
        match self.ask(request)? {
            Reply::Verdict(verdict) => Ok(verdict),
            other => Err(unexpected(&other)),
        }
    }

    fn ask(&mut self, request: &Request<'_>) -> Result<Reply, Unavailable> {
        let mut bytes = Vec::new();
        // At once, so that no copy of a password is left behind when it grows.
        bytes.try_reserve_exact(MAX_REQUEST + 4).map_err(|_| Unavailable::Memory)?;
        let answer = match request.encode(&mut bytes) {
            Ok(()) => self.link.exchange(&bytes, |frame| Reply::decode(request, frame)),
            Err(TooLong) => Err(Unavailable::TooLong),
        };
        bytes.zeroize();
        answer
    }
}

fn unexpected(reply: &Reply) -> Unavailable {
    match reply {
        Reply::Temporary => Unavailable::Backend,
        Reply::Refused => Unavailable::Refused,
        _ => Unavailable::Broken(Malformed::Code),
    }
}
