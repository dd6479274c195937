//! qmail-smtpd: SMTP sessions, one on descriptors 0 and 1 or thousands on sockets.
//!
//! ```text
//! control files, variables ──► Settings (process) ──► smtp::server::Policy
//! variables of a client ─────► Facts (connection) ──► smtp::server::Peer
//!                                                      │
//! client ◄──► channel (TLS, deadlines) ◄── driver ─────┤ smtp::server::Session (no I/O)
//! clients ◄─► resident: event loop, workers ───────────┘
//!                                  │
//!                     World: lists, inlookup, the queue
//! ```
//!
//! The session decides everything that is said; [`world::World`] finds out what it asks: control files and
//! their cdb, `inlookup` on its socket, the queue. Nothing is queued unless the client has sent the end of
//! the message and the queue has said so. Which of the two drivers serves a session makes no difference to it.
//!
//! Not here: DNS, SPF, envrules, greylisting.

#![forbid(unsafe_code)]

mod channel;
mod driver;
mod facts;
mod lists;
mod log;
mod lookups;
mod patterns;
mod received;
mod resident;
mod settings;
mod spec;
mod tls;
mod world;

use std::sync::Arc;

use program::{Exit, Invocation, Program};
use smtp::server::{Peer, Session};

use world::World;

/// The program's entry in the executable's table.
pub const PROGRAM: Program = Program { spec: &spec::SPEC, main };

/// Dropped connection, timeout, bad configuration.
const FAILED: Exit = Exit(1);

fn main(invocation: &Invocation) -> Exit {
    let parsed = match invocation.parse() {
        Ok(parsed) if resident::wanted(&parsed) => return resident::main(invocation, &parsed),
        parsed => parsed,
    };
    let loaded = parsed.and_then(|parsed| {
        let (loader, settings) = settings::load(&invocation.environment, &invocation.layout);
        let settings = invocation.finish(loader, settings, FAILED)?;
        let hostname = parsed.operands.first().map(|name| name.as_os_str());
        Ok((settings, facts::Facts::read(&invocation.environment, hostname)))
    });
    match loaded {
        Ok((settings, facts)) => serve_one(settings, facts),
        Err(Exit::OK) => Exit::OK,
        Err(exit) => {
            // Whatever is wrong here, the client shall come back later.
            channel::say_and_forget(b"451 unable to read controls (#4.3.0)\r\n");
            exit
        }
    }
}

/// Serves the client on descriptors 0 and 1.
fn serve_one(settings: settings::Settings, facts: facts::Facts) -> Exit {
    let number = std::process::id();
    let log = log::Log::new(&facts.origin, number);
    let mut channel = match channel::Channel::new(settings.timeout) {
        Ok(channel) => channel,
        Err(e) => {
            log.line(&format!("cannot set up signals: {e}"));
            return FAILED;
        }
    };
    let mut peer = facts.peer.clone();
    if settings.implicit_tls {
        match settings.tls().and_then(|config| channel.start_tls(config)) {
            Ok(facts) => peer = Peer { tls: Some(facts), ..peer },
            Err(e) => {
                log.line(&format!("TLS: {e}"));
                return FAILED;
            }
        }
    }
    let mut session = Session::new(settings.policy.clone(), peer);
    let mut world = World::new(Arc::new(settings), facts, number);
    driver::serve(&mut session, &mut channel, &mut world, &log)
}
