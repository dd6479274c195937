//! Questions about users and groups, asked of `nssd`.
//!
//! Everybody may ask for public records; shadow records are for root. Records that come from the
//! daemon are fit for passwd files: no NUL, colon or newline in any field ([`is_clean`]).

use std::path::Path;
use std::time::Duration;

use crate::Key;
use crate::client::{Link, Unavailable};
use crate::frame::{self, Fields, Frame, MAX_FRAME, MAX_REQUEST, Malformed, TooLong};
use crate::mail::{Counters, STATUS_REFUSED, STATUS_TEMPORARY, counters};

mod records;

pub use records::{Group, Page, Record, Shadow, User, is_clean};

/// Where `nssd` listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/indimail/nssd.sock";

/// The three maps that can be walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Map {
    /// Users.
    Passwd,
    /// Groups.
    Group,
    /// Password ageing; root only.
    Shadow,
}

/// One question.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// A user by name.
    UserByName(&'a [u8]),
    /// A user by uid.
    UserById(u32),
    /// A group by name.
    GroupByName(&'a [u8]),
    /// A group by gid.
    GroupById(u32),
    /// A shadow record by name; root only.
    ShadowByName(&'a [u8]),
    /// The groups of a user, beside her primary one.
    GroupsOf(&'a [u8]),
    /// Records of a map after `cursor`, in the daemon's order; the first page has an empty cursor.
    Page {
        /// Which map.
        map: Map,
        /// What the page before returned.
        cursor: &'a [u8],
    },
    /// Forget cached answers. For root and the mail system's own user only.
    Flush(Key<'a>),
    /// Counters of the daemon.
    Status,
}

/// For logs: names as text, escaped.
impl std::fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (what, name) = match *self {
            Self::UserById(id) => return write!(f, "user {id}"),
            Self::GroupById(id) => return write!(f, "group {id}"),
            Self::Page { map, cursor: [] } => return write!(f, "first of {map:?}"),
            Self::UserByName(name) => ("user", name),
            Self::GroupByName(name) => ("group", name),
            Self::ShadowByName(name) => ("shadow", name),
            Self::GroupsOf(name) => ("groups of", name),
            Self::Page { cursor, .. } => ("list after", cursor),
            Self::Flush(Key::All) => ("flush", b"all".as_slice()),
            Self::Flush(Key::Address(name) | Key::Domain(name)) => ("flush", name),
            Self::Status => ("status", b"".as_slice()),
        };
        write!(f, "{what} {}", name.escape_ascii())
    }
}

impl<'a> Request<'a> {
    /// Appends the frame of this request.
    ///
    /// # Errors
    /// [`TooLong`]: nothing was appended.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), TooLong> {
        frame::append(out, self.code(), MAX_REQUEST, |w| match *self {
            Self::UserByName(name)
            | Self::GroupByName(name)
            | Self::ShadowByName(name)
            | Self::GroupsOf(name)
            | Self::Page { cursor: name, .. } => w.bytes(name),
            Self::UserById(id) | Self::GroupById(id) => w.number(id),
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
            1 => Self::UserByName(f.bytes()?),
            2 => Self::UserById(f.number()?),
            3 => Self::GroupByName(f.bytes()?),
            4 => Self::GroupById(f.number()?),
            5 => Self::ShadowByName(f.bytes()?),
            6 => Self::GroupsOf(f.bytes()?),
            7 => Self::Page { map: Map::Passwd, cursor: f.bytes()? },
            8 => Self::Page { map: Map::Group, cursor: f.bytes()? },
            9 => Self::Page { map: Map::Shadow, cursor: f.bytes()? },
            10 => Self::Flush(Key::take(&mut f)?),
            11 => Self::Status,
            _ => return Err(Malformed::Code),
        };
        f.end()?;
        Ok(request)
    }

    fn code(&self) -> u8 {
        match self {
            Self::UserByName(_) => 1,
            Self::UserById(_) => 2,
            Self::GroupByName(_) => 3,
            Self::GroupById(_) => 4,
            Self::ShadowByName(_) => 5,
            Self::GroupsOf(_) => 6,
            Self::Page { map: Map::Passwd, .. } => 7,
            Self::Page { map: Map::Group, .. } => 8,
            Self::Page { map: Map::Shadow, .. } => 9,
            Self::Flush(_) => 10,
            Self::Status => 11,
        }
    }
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// There is no such record.
    Absent,
    /// To [`Request::UserByName`] and [`Request::UserById`].
    User(User),
    /// To [`Request::GroupByName`] and [`Request::GroupById`].
    Group(Group),
    /// To [`Request::ShadowByName`].
    Shadow(Shadow),
    /// To [`Request::GroupsOf`]: group ids.
    Groups(Vec<u32>),
    /// To [`Request::Page`] of users.
    Users(Page<User>),
    /// To [`Request::Page`] of groups.
    GroupPage(Page<Group>),
    /// To [`Request::Page`] of shadow records.
    Shadows(Page<Shadow>),
    /// To [`Request::Flush`].
    Done,
    /// To [`Request::Status`].
    Status(Counters),
    /// The daemon cannot tell now.
    Temporary,
    /// The request is malformed or not for this peer.
    Refused,
}

const OK: u8 = 0;
const ABSENT: u8 = 1;

impl Reply {
    /// Appends the frame of this reply.
    ///
    /// # Errors
    /// [`TooLong`]: nothing was appended; answer [`Reply::Temporary`] instead.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), TooLong> {
        let code = match self {
            Self::Absent => ABSENT,
            Self::Temporary => STATUS_TEMPORARY,
            Self::Refused => STATUS_REFUSED,
            _ => OK,
        };
        frame::append(out, code, MAX_FRAME, |w| match self {
            Self::User(r) => r.put(w),
            Self::Group(r) => r.put(w),
            Self::Shadow(r) => r.put(w),
            Self::Groups(ids) => ids.iter().try_for_each(|id| w.number(*id)),
            Self::Users(page) => page.put(w),
            Self::GroupPage(page) => page.put(w),
            Self::Shadows(page) => page.put(w),
            Self::Status(rows) => rows.iter().try_for_each(|(name, value)| {
                w.bytes(name)?;
                w.bytes(value)
            }),
            Self::Absent | Self::Done | Self::Temporary | Self::Refused => Ok(()),
        })
    }

    /// Reads the answer to `request`.
    ///
    /// # Errors
    /// It is not an answer to that.
    pub fn decode(request: &Request<'_>, frame: &Frame<'_>) -> Result<Self, Malformed> {
        let mut f = frame.fields();
        let reply = match frame.code {
            ABSENT => Self::Absent,
            STATUS_TEMPORARY => Self::Temporary,
            STATUS_REFUSED => Self::Refused,
            OK => match request {
                Request::UserByName(_) | Request::UserById(_) => Self::User(User::take(&mut f)?),
                Request::GroupByName(_) | Request::GroupById(_) => Self::Group(Group::take(&mut f)?),
                Request::ShadowByName(_) => Self::Shadow(Shadow::take(&mut f)?),
                Request::GroupsOf(_) => Self::Groups(ids(&mut f)?),
                Request::Page { map: Map::Passwd, .. } => Self::Users(Page::take(&mut f)?),
                Request::Page { map: Map::Group, .. } => Self::GroupPage(Page::take(&mut f)?),
                Request::Page { map: Map::Shadow, .. } => Self::Shadows(Page::take(&mut f)?),
                Request::Flush(_) => Self::Done,
                Request::Status => Self::Status(counters(&mut f)?),
            },
            _ => return Err(Malformed::Code),
        };
        f.end()?;
        Ok(reply)
    }
}

fn ids(f: &mut Fields<'_>) -> Result<Vec<u32>, Malformed> {
    let mut ids = Vec::new();
    while f.more() {
        ids.push(f.number()?);
    }
    Ok(ids)
}

/// Asks `nssd`, for programs (the module has its own way, which keeps nothing between calls).
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

    /// Asks anything.
    ///
    /// # Errors
    /// Cannot tell; [`Reply::Temporary`] and [`Reply::Refused`] come as errors.
    pub fn ask(&mut self, request: &Request<'_>) -> Result<Reply, Unavailable> {
        let mut bytes = Vec::new();
        request.encode(&mut bytes).map_err(|TooLong| Unavailable::TooLong)?;
        match self.link.exchange(&bytes, |frame| Reply::decode(request, frame))? {
            Reply::Temporary => Err(Unavailable::Backend),
            Reply::Refused => Err(Unavailable::Refused),
            reply => Ok(reply),
        }
    }

    /// A user by name.
    ///
    /// # Errors
    /// Cannot tell.
    pub fn user(&mut self, name: &[u8]) -> Result<Option<User>, Unavailable> {
        match self.ask(&Request::UserByName(name))? {
            Reply::User(user) => Ok(Some(user)),
            Reply::Absent => Ok(None),
            _ => Err(Unavailable::Broken(Malformed::Code)),
        }
    }

    /// Makes the daemon forget what it has cached.
    ///
    /// # Errors
    /// It did not.
    pub fn flush(&mut self, key: Key<'_>) -> Result<(), Unavailable> {
        match self.ask(&Request::Flush(key))? {
            Reply::Done => Ok(()),
            _ => Err(Unavailable::Broken(Malformed::Code)),
        }
    }

    /// The daemon's counters.
    ///
    /// # Errors
    /// Cannot tell.
    pub fn status(&mut self) -> Result<Counters, Unavailable> {
        match self.ask(&Request::Status)? {
            Reply::Status(rows) => Ok(rows),
            _ => Err(Unavailable::Broken(Malformed::Code)),
        }
    }
}

/// For fuzzing: any bytes as requests and as replies.
pub fn fuzz_frames(bytes: &[u8]) {
    let Ok(Some((frame, _))) = frame::split(bytes, MAX_FRAME) else { return };
    let _ = Request::decode(&frame);
    for map in [Map::Passwd, Map::Group, Map::Shadow] {
        let _ = Reply::decode(&Request::Page { map, cursor: b"" }, &frame);
    }
    for request in
        [Request::UserById(0), Request::GroupById(0), Request::ShadowByName(b""), Request::GroupsOf(b"")]
    {
        let _ = Reply::decode(&request, &frame);
    }
}

#[cfg(test)]
mod tests;
