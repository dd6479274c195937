//! Becoming another program.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use unix::Errno;
use unix::child::Launch;

use crate::{Environment, Exit, Invocation};

/// Where programs are looked for when PATH is not set.
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";

/// The fixed words of the daemontools family for errors that scripts compare.
#[must_use]
pub fn phrase(error: &io::Error) -> String {
    let known = match number(error) {
        Some(Errno::ENOENT) => "file does not exist",
        Some(Errno::EACCES) => "access denied",
        Some(Errno::ENXIO) => "device not configured",
        Some(Errno::EAGAIN) => "temporary failure",
        Some(Errno::EPERM) => "permission denied",
        Some(Errno::ELOOP) => "symbolic link loop",
        Some(Errno::ECONNREFUSED) => "connection refused",
        Some(Errno::EADDRNOTAVAIL) => "address not available",
        Some(Errno::EADDRINUSE) => "address already used",
        Some(Errno::ENETUNREACH) => "network unreachable",
        _ => return error.to_string(),
    };
    known.to_owned()
}

fn number(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw)
}

/// The places where `program` may be, in order: itself when it has a slash, else every element of PATH.
fn candidates(program: &OsStr, path: Option<&OsStr>) -> Vec<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        return vec![PathBuf::from(program)];
    }
    let path = path.map_or(DEFAULT_PATH, OsStrExt::as_bytes);
    let element = |e: &[u8]| Path::new(OsStr::from_bytes(if e.is_empty() { b"." } else { e })).join(program);
    path.split(|&b| b == b':').map(element).collect()
}

/// Replaces this process by `argv`, found through `path`; returns only on failure.
///
/// Places where there is no such file, or none that may be executed, are passed over; any other
/// error ends the search.
#[must_use]
pub fn replace(argv: &[OsString], environment: &Environment, path: Option<&OsStr>) -> io::Error {
    replace_with(argv, environment, path, Ok)
}

/// As [`replace`], for a program that is to have more than arguments and an environment: `prepare` completes each launch.
#[must_use]
pub fn replace_with(
    argv: &[OsString],
    environment: &Environment,
    path: Option<&OsStr>,
    prepare: impl Fn(Launch) -> io::Result<Launch>,
) -> io::Error {
    let mut remembered = io::Error::from(Errno::ENOENT);
    let Some((program, args)) = argv.split_first() else { return remembered };
    if program.is_empty() {
        return remembered;
    }
    for candidate in candidates(program, path) {
        let launch = Launch::new(candidate).arg0(program).args(args).env_exactly(environment.to_vec());
        let error = match prepare(launch) {
            Ok(launch) => launch.replace(),
            Err(e) => return e,
        };
        match number(&error) {
            Some(Errno::ENOENT) => {}
            Some(Errno::EACCES | Errno::EPERM | Errno::EISDIR) => remembered = error,
            _ => return error,
        }
    }
    remembered
}

/// The file to start for another program of this executable: its installed link, by which lists of
/// processes know it, else the executable itself, which goes by the name it is started under.
#[must_use]
pub fn sibling(installed: &Path) -> PathBuf {
    let Ok(executable) = unix::host::executable() else { return installed.to_owned() };
    let is_ours = installed.canonicalize().is_ok_and(|target| target == executable);
    if is_ours { installed.to_owned() } else { executable }
}

/// Ends an invocation by becoming `argv` with this environment, PATH included.
#[must_use]
pub fn become_program(invocation: &Invocation, argv: &[OsString], environment: &Environment) -> Exit {
    let error = replace(argv, environment, environment.get("PATH"));
    cannot_run(invocation, argv, &error)
}

/// Reports that the program at the end of the chain could not be started.
#[must_use]
pub fn cannot_run(invocation: &Invocation, argv: &[OsString], error: &io::Error) -> Exit {
    let name = argv.first().map_or(&b""[..], |a| a.as_bytes()).escape_ascii();
    invocation.complain("fatal", format_args!("unable to run {name}: {}", phrase(error)));
    Exit::TEMPORARY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_order() {
        let list = |program: &str, path: Option<&str>| {
            candidates(OsStr::new(program), path.map(OsStr::new))
                .iter()
                .map(|p| p.to_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(list("./x", Some("/a")), ["./x"]);
        assert_eq!(list("x", Some("/a::/b")), ["/a/x", "./x", "/b/x"]);
        assert_eq!(list("x", None), ["/bin/x", "/usr/bin/x"]);
    }
}
