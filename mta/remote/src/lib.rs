//! qmail-remote: one message to one remote host.
//!
//! ```text
//! argv, control files ──► Settings ──► route (smtproutes) ──► plan (MX, addresses, own host) ──► targets
//! descriptor 0 ──► Message                                                                        │
//!                     └──────────────► dialogue (smtp::client::Session over TCP, TLS) ◄───────────┘
//!                                             └──► report on descriptor 1, exit code 0
//! ```
//!
//! Every answer has a class: accepted, temporary, permanent. What cannot be told (DNS silent, host
//! away, connection lost) is temporary; accepted means that the host has said so about the whole
//! message. [`dns::Dns`] keeps "no such name" and "cannot tell" apart.
//!
//! Not here: retries (qmail-send), several messages on one connection, DANE, login at a relay.

#![forbid(unsafe_code)]

mod channel;
mod dialogue;
mod message;
pub mod plan;
mod report;
pub mod route;
mod settings;
mod spec;
mod tcpto;
mod tls;

pub use ::dns;

use std::io::Write;
use std::os::unix::ffi::OsStrExt;

use program::{Exit, Invocation, Program};

pub use settings::{Job, Settings};
pub use tcpto::Limits;

/// The program's entry in the executable's table.
pub const PROGRAM: Program = Program { spec: &spec::SPEC, main };

fn main(invocation: &Invocation) -> Exit {
    let operands = match invocation.parse() {
        Ok(parsed) => parsed.operands,
        Err(exit) => return exit,
    };
    let arguments: Vec<&[u8]> = operands.iter().map(|a| a.as_bytes()).collect();
    let settings = match settings::load(invocation) {
        Ok(settings) => settings,
        Err(Exit::OK) => return Exit::OK,
        Err(_) => return tell(&report::trouble(b'Z', "unable to read control files (#4.3.0)")),
    };
    let Some(job) = Job::from_arguments(&arguments) else {
        return tell(&report::trouble(b'D', "qmail-remote was invoked improperly (#5.3.5)"));
    };
    tell(&run(&settings, &job))
}

/// Delivers the message on descriptor 0 and returns the report.
#[must_use]
pub fn run(settings: &Settings, job: &Job) -> Vec<u8> {
    let message = match message::Message::from_standard_input() {
        Ok(message) => message,
        Err(e) => return report::trouble(b'Z', &format!("unable to read the message: {e} (#4.3.0)")),
    };
    if !message.ends_with_newline() {
        return report::trouble(b'D', "the last line of the message is not a whole line (#5.6.2)");
    }
    dialogue::deliver(settings, job, &message)
}

fn tell(report: &[u8]) -> Exit {
    let mut out = std::io::stdout().lock();
    match out.write_all(report).and_then(|()| out.flush()) {
        Ok(()) => Exit::OK,
        Err(_) => Exit::TEMPORARY,
    }
}
