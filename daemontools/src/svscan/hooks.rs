//! Programs of the scan directory that svscan runs at its own start and end, and the code it ends with.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use unix::child::Launch;

/// What INITCMD asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InitCommand {
    /// `.svscan/run`, if it can be executed.
    OwnRun,
    /// A command for the shell.
    Shell(OsString),
}

const RUN: &str = ".svscan/run";
const SHUTDOWN: &str = ".svscan/shutdown";
const EXIT_CODE: &str = ".svscan/exitcode";

impl InitCommand {
    /// From the value of the variable.
    #[must_use]
    pub fn from_variable(value: &OsStr) -> Self {
        if value.is_empty() { Self::OwnRun } else { Self::Shell(value.to_owned()) }
    }

    /// What to start, if there is anything.
    pub(super) fn launch(&self) -> Option<Launch> {
        match self {
            Self::OwnRun => is_executable(RUN).then(|| through_shell(OsStr::new(RUN))),
            Self::Shell(command) => Some(through_shell(command)),
        }
    }
}

/// The program to be run before everything is stopped, if there is one.
pub(super) fn shutdown() -> Option<Launch> {
    is_executable(SHUTDOWN).then(|| through_shell(OsStr::new(SHUTDOWN)))
}

/// Forgets the code that the run before this one ended with.
pub(super) fn forget_exit_code() {
    // Where it cannot be removed it could not have been written either.
    let _ = fs::remove_file(EXIT_CODE);
}

/// The code that a service wants svscan to end with; `Ok(None)` when none was written.
///
/// # Errors
/// It cannot be read, or holds no number from 0 to 255.
pub(super) fn exit_code() -> io::Result<Option<u8>> {
    match fs::read(EXIT_CODE) {
        Ok(text) => parse_exit_code(&text)
            .map(Some)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "expected a number from 0 to 255")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// A decimal number from 0 to 255 in the first line, blanks around it dropped.
#[must_use]
pub fn parse_exit_code(text: &[u8]) -> Option<u8> {
    let line = text.split(|&b| b == b'\n').next()?.trim_ascii();
    let digits = line.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(line).ok().filter(|_| digits)?.parse().ok()
}

fn is_executable(path: impl AsRef<Path>) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn through_shell(command: &OsStr) -> Launch {
    Launch::new("/bin/sh").args([OsStr::new("-c"), command])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn exit_codes() {
        for (text, code) in [
            (&b"0\n"[..], Some(0)),
            (b"255", Some(255)),
            (b" 7 \nrest", Some(7)),
            (b"256\n", None),
            (b"", None),
            (b"-1", None),
            (b"+1", None),
            (b"x\n", None),
        ] {
            assert_eq!(parse_exit_code(text), code, "{}", text.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn any_code_round_trips_and_nothing_panics(code: u8, junk: Vec<u8>) {
            prop_assert_eq!(parse_exit_code(format!("{code}\n").as_bytes()), Some(code));
            let _ = parse_exit_code(&junk);
        }
    }
}
