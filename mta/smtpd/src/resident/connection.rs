//! One client, from the first byte to the last.

use std::sync::Arc;
use std::time::Instant;

use smtp::server::{Peer, Policy, Session};
use unix::Pid;

use super::core::{Core, Pause};
use super::wire::Wire;
use crate::facts::Facts;
use crate::log::Log;
use crate::settings::Settings;
use crate::world::World;

/// A client that has been let in and was not greeted yet.
#[derive(Debug)]
pub(crate) struct Newcomer {
    pub(crate) settings: Arc<Settings>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) facts: Facts,
    pub(crate) log: Log,
}

impl Newcomer {
    /// Begins the session, under TLS or not.
    pub(crate) fn begin(self: Box<Self>, tls: Option<smtp::server::TlsFacts>, number: u32) -> Box<Core> {
        let Self { settings, policy, facts, log } = *self;
        let mut peer = facts.peer.clone();
        if tls.is_some() {
            peer = Peer { tls, ..peer };
        }
        let session = Session::new(policy, peer);
        Box::new(Core::new(session, World::new(settings, facts, number), log))
    }
}

/// Whose handshake it is.
#[derive(Debug)]
pub(crate) enum Shaking {
    /// TLS from the first byte.
    First(Box<Newcomer>),
    /// STARTTLS.
    Session(Box<Core>),
}

/// What a connection waits for.
#[derive(Debug)]
pub(crate) enum Stage {
    /// The header of a proxy; what has come of it.
    Proxy(Vec<u8>),
    /// The end of the pause before the greeting; a client that speaks meanwhile is no mail server.
    Silence(Box<Newcomer>),
    /// Bytes of a handshake.
    Shaking(Shaking),
    /// A worker that looks at them.
    ShakingAway(Shaking),
    /// Bytes from the client.
    Reading(Box<Core>),
    /// Room for bytes to the client; then this.
    Writing(Box<Core>, Pause),
    /// The end of a pause.
    Pausing(Box<Core>),
    /// A worker that has the session.
    Away,
    /// The client's end, so that it can read the last reply; so many bytes may still come.
    Lingering(usize),
    /// Nothing; the connection is closed.
    Over,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) wire: Wire,
    pub(crate) stage: Stage,
    /// Stands for it in the log and the table.
    pub(crate) number: u32,
    /// Which listener it came to.
    pub(crate) listener: usize,
    pub(crate) ends: (std::net::SocketAddr, std::net::SocketAddr),
    /// When what it waits for is given up.
    pub(crate) deadline: Option<Instant>,
    /// The earliest look that is in the timers.
    pub(crate) look: Option<Instant>,
    /// When the whole session must be over.
    pub(crate) last: Instant,
    /// As a program's exit code would be.
    pub(crate) status: u8,
    /// Is it in the table of clients?
    pub(crate) counted: bool,
}

impl Connection {
    /// Its key in the table of clients.
    pub(crate) fn id(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.number & 0x7fff_ffff).unwrap_or(0))
    }
}
