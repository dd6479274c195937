//! What tcpserver leaves to an executable of its own, so that plain connections do not carry it: TLS.

use std::ffi::OsString;
use std::path::Path;

use program::Environment;

use super::log::Log;

/// A connection in a process of its own, on descriptors 0 and 1, that is to be served through TLS.
#[derive(Debug)]
pub struct Conversation<'a> {
    /// The program and its arguments.
    pub command: &'a [OsString],
    /// The program's file, when it was found in PATH.
    pub path: Option<&'a Path>,
    /// The program's variables; those of TLS are added.
    pub environment: Environment,
    /// Sent first.
    pub banner: Option<&'a [u8]>,
    /// For errors.
    pub log: Log,
    /// The client's address, as it is logged.
    pub shown: &'a str,
}

/// Speaks TLS.
pub trait Secure {
    /// Reads certificates and keys again; connections that are open go on.
    ///
    /// # Errors
    /// What is wrong with which file; the old ones stay in force.
    fn reload(&mut self) -> Result<(), String>;

    /// Called now and then between connections.
    fn refresh(&mut self);

    /// Serves one connection to its end; the exit code of the process.
    fn serve(&self, conversation: Conversation<'_>) -> u8;
}
