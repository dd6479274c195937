//! One process for all sessions.
//!
//! ```text
//! listeners ──► Server: rules, limits, proxies ──► Profiles: Settings for a kind of connection
//!                 │ one thread, epoll                     │
//!                 ▼                                       ▼
//!              Connection: Wire (socket, TLS) ◄──► Core: Session, World, Log
//!                                                       │ what may last     ▲
//!                                                       └──► Workers ───────┘
//! ```
//!
//! The session is the same that serves one connection under tcpserver; what a client's variables would
//! be there is worked out here as a value, and has the same effect.

mod admit;
mod connection;
mod core;
mod flow;
mod listeners;
mod options;
mod profiles;
mod server;
mod wire;
mod workers;

use program::{Exit, Invocation, Parsed};
use unix::Signal;
use unix::ids::{self, Roles};
use unix::signals::Signals;

use options::Options;
pub(crate) use options::wanted;

/// Descriptors that are not clients': listeners, signals, lists.
const RESERVE: usize = 40;
/// Descriptors that a thread holds while it hands a message to the queue.
const FOR_A_COMMIT: usize = 3;

/// Serves until it is told to stop.
pub(crate) fn main(invocation: &Invocation, parsed: &Parsed) -> Exit {
    let options = match options::load(invocation, parsed) {
        Ok(options) => options,
        Err(exit) => return exit,
    };
    match run(invocation, options) {
        Ok(()) => Exit::OK,
        Err(what) => {
            invocation.complain("fatal", what);
            Exit::TEMPORARY
        }
    }
}

fn run(invocation: &Invocation, mut options: Options) -> Result<(), String> {
    // Before any thread, so that all of them leave signals to the loop.
    let signals = Signals::listen(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP])
        .map_err(|e| format!("signals: {e}"))?;
    let reserve = RESERVE + 2 * options.questions + FOR_A_COMMIT * options.commits;
    let wanted = u64::try_from(options.connections.saturating_add(reserve)).unwrap_or(u64::MAX);
    let limit = unix::host::raise_descriptor_limit(wanted).map_err(|e| format!("descriptors: {e}"))?;
    let room = usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(reserve).max(16);
    if room < options.connections {
        invocation.complain("warning", format!("only {room} connections: no more descriptors are allowed"));
        options.connections = room;
    }
    let listeners = listeners::open(&options)?;
    become_user(&options)?;
    let mut server = server::Server::new(invocation, &options, listeners, signals)
        .map_err(|e| format!("event loop: {e}"))?;
    server.run().map_err(|e| format!("event loop: {e}"))
}

/// Root binds the ports and is then given up for good. In a private instance everybody is one user.
fn become_user(options: &Options) -> Result<(), String> {
    let groups = |text: &str| ids::group_list(text).map_err(|e| format!("option --groups: {e}"));
    let roles = Roles::for_this_process();
    if options.user.is_none() && roles.is_single_user() {
        return Ok(());
    }
    let (uid, gid) = match &options.user {
        Some(name) => {
            let account = ids::user(name)
                .map_err(|e| format!("option --user: unable to look up user {name}: {e}"))?
                .ok_or_else(|| format!("option --user: unknown user {name}"))?;
            (account.uid, account.gid)
        }
        None => {
            let role = roles.role("qmaild", "nofiles").map_err(|e| e.to_string())?;
            (role.uid, role.gid)
        }
    };
    let all = groups(options.groups.as_deref().unwrap_or("qmail,qcerts"))?;
    unix::privilege::become_user(uid, gid, &all).map_err(|e| format!("cannot give up root: {e}"))
}
