//! Lines of the log.

use std::io::{self, Write};

use super::settings::Verbosity;

/// Writes what its verbosity lets through.
#[derive(Debug, Clone, Copy)]
pub struct Log(pub Verbosity);

impl Log {
    /// Whatever the verbosity is.
    pub fn always(self, line: &str) {
        // One write for a line, since stderr has no buffer and each one wakes the logger.
        // Nobody may be reading the log; that must not stop the service.
        let _ = io::stderr().write_all(format!("tcpserver: {line}\n").as_bytes());
    }

    /// Something went wrong.
    pub fn error(self, line: &str) {
        if self.0 >= Verbosity::Errors {
            self.always(&format!("warning: {line}"));
        }
    }

    /// A step of a connection.
    pub fn step(self, line: &str) {
        if self.0 >= Verbosity::Status {
            self.always(line);
        }
    }

    /// Why a step was taken.
    pub fn detail(self, line: impl FnOnce() -> String) {
        if self.0 >= Verbosity::Detail {
            self.always(&line());
        }
    }
}
