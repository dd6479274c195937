//! SMTP without I/O: grammar, and both sides of a session as state machines.
//!
//! ```text
//! bytes from the peer ──► server::Session / client::Session ──► Actions for a driver
//!                            ▲ answers (lookups, queue, TLS)      Send, Read, Ask, StartTls, Close
//! ```
//!
//! A session owns its buffers and states and nothing else: no descriptor, clock, name or file. A
//! driver asks it for the next action, does it, and feeds back bytes or answers; the same session
//! runs on descriptors 0 and 1 under tcpserver, in an event loop, or in a test that cuts its input
//! at every byte.
//!
//! Grammar: [`command`] (what a client says), [`address`] (paths and quoting), [`parameter`]
//! (ESMTP parameters), [`reply`] (what a server says), [`data`] (the end of a message, dots, bare
//! line feeds), [`header`] (what the transport must know about a header), [`dot`] (a message as a
//! client sends it).
//!
//! Invariants of the server side: one reply for every command; end of data is CR LF `.` CR LF and
//! nothing else; a transaction is one value that is dropped whole; "cannot tell" never becomes
//! "no" and never "yes".

#![forbid(unsafe_code)]

pub mod address;
pub mod client;
pub mod command;
pub mod data;
pub mod dot;
pub mod header;
pub mod parameter;
pub mod reply;
pub mod server;
