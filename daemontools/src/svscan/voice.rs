//! What svscan says about itself.

use std::io::{self, Write};

/// Which messages are wanted; signals switch it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Voice {
    pub(super) verbose: bool,
    pub(super) silent: bool,
}

impl Voice {
    pub(super) fn warn(self, message: &str) {
        if !self.silent {
            say("warning", message);
        }
    }

    pub(super) fn info(self, message: &str) {
        if self.verbose {
            say("info", message);
        }
    }
}

/// Says why svscan ends.
pub(super) fn fatal(message: &str) {
    say("fatal", message);
}

fn say(level: &str, message: &str) {
    // Nobody may be reading; that must not stop the services.
    let _ = writeln!(io::stderr(), "svscan: {level}: {message}");
}
