//! What svps can do beside looking.

use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use unix::Signal;
use unix::process::Handle;

use super::find::{self, Scan};
use crate::fifo;
use crate::state_path::Places;
use crate::status::Want;
use crate::svscan::pid_file;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Hup,
    Term,
    Stop,
    Resume,
}

/// Which services were stopped, one path on a line.
const STOPPED: &str = ".svps-stopped";

pub(super) fn perform(order: Order, scan: &Scan, places: &Places, complain: &mut dyn FnMut(String)) {
    let done = match order {
        Order::Hup => signal(scan, places, Signal::SIGHUP),
        Order::Term => signal(scan, places, Signal::SIGTERM),
        Order::Stop => stop(scan, places, complain),
        Order::Resume => resume(scan, places, complain),
    };
    if let Err(e) = done {
        complain(format!("{}: {e}", scan.dir.display()));
    }
}

/// Sends a signal to the svscan itself, and to nobody who has got its number since.
fn signal(scan: &Scan, places: &Places, signal: Signal) -> io::Result<()> {
    let handle = Handle::open(scan.pid)?;
    let here = [Some(scan.dir.as_path()), places.run()].into_iter().flatten();
    let mut holders = here.map(pid_file::running);
    if !holders.any(|holder| holder.is_ok_and(|holder| holder == Some(scan.pid))) {
        return Err(io::Error::other("svscan has ended"));
    }
    handle.signal(signal)
}

fn stop(scan: &Scan, places: &Places, complain: &mut dyn FnMut(String)) -> io::Result<()> {
    let file = places.run().unwrap_or(&scan.dir).join(STOPPED);
    let mut running = Vec::new();
    for dir in find::directories(&scan.dir, complain) {
        match find::look(&dir, places) {
            Ok(Some(record)) if record.pid.is_some() && record.want != Want::Down => running.push(dir),
            Ok(_) => {}
            Err(e) => complain(format!("{}: {e}", dir.display())),
        }
    }
    // Remembered first: what is stopped and not remembered would stay down.
    let mut remembered = read(&file)?;
    remembered.extend(running.iter().cloned());
    remembered.sort();
    remembered.dedup();
    unix::durable::replace(&file, &stopped_text(&remembered), 0o644, None)?;
    for dir in running {
        if let Err(e) = command(&dir, places, b"d") {
            complain(format!("unable to stop {}: {e}", dir.display()));
        }
    }
    Ok(())
}

fn resume(scan: &Scan, places: &Places, complain: &mut dyn FnMut(String)) -> io::Result<()> {
    let file = places.run().unwrap_or(&scan.dir).join(STOPPED);
    let (ours, mut left): (Vec<_>, Vec<_>) =
        read(&file)?.into_iter().partition(|dir| dir.parent() == Some(&scan.dir));
    for dir in ours {
        if let Err(e) = command(&dir, places, b"u") {
            complain(format!("unable to start {}: {e}", dir.display()));
            if dir.exists() {
                left.push(dir);
            }
        }
    }
    if left.is_empty() {
        return match fs::remove_file(&file) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
    }
    unix::durable::replace(&file, &stopped_text(&left), 0o644, None)
}

fn command(dir: &Path, places: &Places, bytes: &[u8]) -> io::Result<()> {
    match fifo::writer(&places.of_client(dir).join("control"))? {
        Some(mut control) => control.write_all(bytes),
        None => Err(io::Error::other("supervise not running")),
    }
}

fn read(file: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read(file) {
        Ok(text) => Ok(parse_stopped(&text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// The file's contents for these absolute paths; one with a newline in it cannot be remembered.
#[must_use]
pub fn stopped_text(paths: &[PathBuf]) -> Vec<u8> {
    let lines = paths.iter().map(|path| path.as_os_str().as_bytes()).filter(|path| !path.contains(&b'\n'));
    lines.flat_map(|path| [path, b"\n"].concat()).collect()
}

/// The absolute paths in such a file; other lines are passed over.
#[must_use]
pub fn parse_stopped(text: &[u8]) -> Vec<PathBuf> {
    let lines = text.split(|&b| b == b'\n').filter(|line| line.starts_with(b"/") && !line.contains(&0));
    lines.map(|line| PathBuf::from(std::ffi::OsString::from_vec(line.to_vec()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines() {
        assert_eq!(parse_stopped(b"/a\nb\n\n/c d"), [PathBuf::from("/a"), PathBuf::from("/c d")]);
        assert_eq!(stopped_text(&["/a".into(), "/b\nc".into()]), b"/a\n");
    }

    proptest! {
        #[test]
        fn round_trip(names in proptest::collection::vec("[^\0\n]{1,20}", 0..5)) {
            let paths: Vec<PathBuf> = names.iter().map(|name| PathBuf::from(format!("/{name}"))).collect();
            prop_assert_eq!(parse_stopped(&stopped_text(&paths)), paths);
        }
    }
}
