//! qmail-smtpd: one SMTP session on descriptors 0 and 1.
//!
//! ```text
//! environment, control files ──► Settings ──► smtp::server::{Policy, Peer}
//!                                                   │
//! client ◄──► Channel (TLS, deadlines) ◄── driver ──┤ smtp::server::Session (no I/O)
//!                                            │      │
//!                              World: lists, inlookup, the queue
//! ```
//!
//! The session decides everything that is said; [`World`] finds out what it asks: control files and
//! their cdb, `inlookup` on its socket, the queue program. Nothing is queued unless the client has
//! sent the end of the message and the queue program has said so.
//!
//! Not here: DNS, SPF, envrules, greylisting.

#![forbid(unsafe_code)]

mod channel;
mod driver;
mod lists;
mod log;
mod patterns;
mod received;
mod settings;
mod spec;
mod tls;
mod world;

use std::sync::Arc;

use program::{Exit, Invocation, Program};
use smtp::server::{Peer, Session};

pub use settings::Settings;
pub use world::World;

/// The program's entry in the executable's table.
pub const PROGRAM: Program = Program { spec: &spec::SPEC, main };

/// Dropped connection, timeout, bad configuration.
const FAILED: Exit = Exit(1);

fn main(invocation: &Invocation) -> Exit {
    let settings = invocation
        .parse()
        .and_then(|parsed| settings::load(invocation, parsed.operands.first().map(|a| a.as_os_str())));
    match settings {
        Ok(settings) => run(settings),
        Err(Exit::OK) => Exit::OK,
        Err(exit) => {
            // Whatever is wrong here, the client shall come back later.
            channel::say_and_forget(b"451 unable to read controls (#4.3.0)\r\n");
            exit
        }
    }
}

/// Serves the client on descriptors 0 and 1.
#[must_use]
pub fn run(settings: Settings) -> Exit {
    let log = log::Log::new(&settings);
    let mut channel = match channel::Channel::new(settings.timeout) {
        Ok(channel) => channel,
        Err(e) => {
            log.line(&format!("cannot set up signals: {e}"));
            return FAILED;
        }
    };
    let mut peer = settings.peer.clone();
    if settings.implicit_tls {
        match tls::server(&settings.certificate).and_then(|config| channel.start_tls(config)) {
            Ok(facts) => peer = Peer { tls: Some(facts), ..peer },
            Err(e) => {
                log.line(&format!("TLS: {e}"));
                return FAILED;
            }
        }
    }
    let mut session = Session::new(Arc::new(settings.policy.clone()), peer);
    driver::serve(&mut session, &mut channel, &mut World::new(settings), &log)
}
