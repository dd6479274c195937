//! Disabling a service (a dot in front of its name, and it is stopped) and enabling it again.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use unix::clock::Deadline;

use crate::fifo;
use crate::state_path::Places;

/// How long the end or the start of a supervise is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// Renamed, but its supervise is still there, or not yet.
    StillWaiting,
}

/// The names of a service that is enabled and disabled, whichever was given.
///
/// # Errors
/// The path has no name.
pub(super) fn both_names(service: &Path) -> io::Result<(PathBuf, PathBuf)> {
    let name = service.file_name().ok_or_else(|| io::Error::other("expected the name of a service"))?;
    let bytes = name.as_encoded_bytes();
    let plain = match bytes.strip_prefix(b".") {
        Some(plain) => std::os::unix::ffi::OsStringExt::from_vec(plain.to_vec()),
        None => name.to_owned(),
    };
    if plain.is_empty() || bytes == b".svscan" {
        return Err(io::Error::other("that is no service"));
    }
    let mut dotted = OsString::from(".");
    dotted.push(&plain);
    Ok((service.with_file_name(plain), service.with_file_name(dotted)))
}

/// Renames the service and stops it, then its logger.
///
/// # Errors
/// It is not there, or disabled already.
pub(super) fn disable(service: &Path, places: &Places) -> io::Result<Outcome> {
    let (enabled, disabled) = both_names(service)?;
    refuse(&disabled)?;
    // Opened under the old name: they stay the same, wherever the state moves.
    let control = |dir: &Path| fifo::writer(&places.of_client(dir).join("control"));
    let (main, log) = (control(&enabled)?, control(&enabled.join("log"))?);
    fs::rename(&enabled, &disabled)?;
    let deadline = Deadline::after(PATIENCE);
    let is_gone = |below: &str| -> io::Result<bool> {
        let both = [&enabled, &disabled].map(|dir| places.of_client(&dir.join(below)).join("ok"));
        Ok(fifo::writer(&both[0])?.is_none() && fifo::writer(&both[1])?.is_none())
    };
    if !(tell(main)? && wait(deadline, || is_gone(""))?) {
        return Ok(Outcome::StillWaiting);
    }
    // svscan lets it read to the end; without a svscan nobody else will tell it.
    let ended = wait(Deadline::after(PATIENCE / 5), || is_gone("log"))?;
    let ended = ended || tell(log)? && wait(deadline, || is_gone("log"))?;
    Ok(if ended { Outcome::Done } else { Outcome::StillWaiting })
}

/// Renames the service back and waits until its supervise runs.
///
/// # Errors
/// It is not there, or enabled already.
pub(super) fn enable(service: &Path, places: &Places) -> io::Result<Outcome> {
    let (enabled, disabled) = both_names(service)?;
    refuse(&enabled)?;
    fs::rename(&disabled, &enabled)?;
    let runs = || fifo::writer(&places.of_client(&enabled).join("ok")).map(|writer| writer.is_some());
    Ok(if wait(Deadline::after(PATIENCE), runs)? { Outcome::Done } else { Outcome::StillWaiting })
}

fn refuse(there: &Path) -> io::Result<()> {
    match fs::symlink_metadata(there) {
        Ok(_) => Err(io::Error::other(format!("{} is there already", there.display()))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

/// Stop and exit. One that is gone meanwhile is what was wanted.
fn tell(control: Option<File>) -> io::Result<bool> {
    let Some(mut control) = control else { return Ok(true) };
    match control.write_all(b"dx") {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(e),
        _ => Ok(true),
    }
}

fn wait(deadline: Deadline, mut holds: impl FnMut() -> io::Result<bool>) -> io::Result<bool> {
    loop {
        if holds()? {
            return Ok(true);
        }
        if deadline.passed() {
            return Ok(false);
        }
        unix::wait::pause(LOOK_AGAIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let names = |path: &str| both_names(Path::new(path)).ok();
        let both = Some((PathBuf::from("/s/a"), PathBuf::from("/s/.a")));
        assert_eq!(names("/s/a"), both);
        assert_eq!(names("/s/.a"), both);
        assert_eq!(names("/s/.svscan"), None);
        assert_eq!(names("/"), None);
    }
}
