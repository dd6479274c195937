//! State below `/run`: making the place, and clearing away what an earlier supervise has left in the
//! service directory.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use super::state_dir::{Error, KEPT, NAMES, make_directory};
use crate::state_path::Place;

/// Makes the directory that stands for the service directory, which is the current one.
///
/// # Errors
/// It cannot be made.
pub(super) fn make_place(place: &Place) -> Result<(), Error> {
    let Some(relocated) = &place.relocated else { return Ok(()) };
    let at = |path: &Path, source| Error::Io { path: path.to_owned(), source };
    if let Some(parent) = relocated.parent()
        && !parent.is_dir()
    {
        // A logger that is first: its parent's supervise would have made it.
        copy_directory("..", parent).map_err(|e| at(parent, e))?;
    }
    copy_directory(".", relocated).map_err(|e| at(relocated, e))?;
    make_directory(&place.state).map_err(|e| at(&place.state, e))
}

/// A directory with mode and, as far as it can be given away, owner and group of another one.
fn copy_directory(of: &str, path: &Path) -> io::Result<()> {
    let wanted = fs::metadata(of)?;
    match fs::create_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    let found = fs::metadata(path)?;
    if (found.uid(), found.gid()) != (wanted.uid(), wanted.gid()) {
        match chown(path, Some(wanted.uid()), Some(wanted.gid())) {
            // Who is not root cannot give away; where services are somebody else's (an image of a container
            // run by any user), the place is his own.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied && !nix::unistd::geteuid().is_root() => {}
            other => other?,
        }
    }
    if found.mode() != wanted.mode() {
        fs::set_permissions(path, fs::Permissions::from_mode(wanted.mode() & 0o7777))?;
    }
    Ok(())
}

/// Removes state from the service directory, which is the current one, when it is kept elsewhere; says
/// what could not be removed. What tells about a running service is taken along.
///
/// # Errors
/// A supervise runs on the state that is there.
pub(super) fn clear(place: &Place) -> Result<Vec<String>, Error> {
    let mut left = Vec::new();
    if place.relocated.is_none() {
        return Ok(left);
    }
    let own = Path::new("supervise");
    if is_plain_directory(own) {
        let lock = lock_of(own).map_err(|()| Error::Busy(own.join("lock")))?;
        for name in KEPT {
            let (from, to) = (own.join(name), place.state.join(name));
            if from.exists() && !to.exists() {
                // Copied for the case that a service still runs; without it there is just one to start.
                let _ = fs::copy(from, to);
            }
        }
        left.extend(remove(own).err());
        drop(lock);
    }
    // One that runs there removes it when it is started again.
    let log = PathBuf::from("log/supervise");
    if is_plain_directory(&log) && lock_of(&log).is_ok() {
        left.extend(remove(&log).err());
    }
    Ok(left)
}

fn is_plain_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|m| m.is_dir())
}

/// The lock of a state directory, as far as there is one to take.
fn lock_of(state: &Path) -> Result<Option<File>, ()> {
    let Ok(file) = File::open(state.join("lock")) else { return Ok(None) };
    match file.try_lock() {
        Err(fs::TryLockError::WouldBlock) => Err(()),
        _ => Ok(Some(file)),
    }
}

fn remove(state: &Path) -> Result<(), String> {
    let removed = NAMES
        .iter()
        .map(|name| fs::remove_file(state.join(name)))
        .filter(|r| !matches!(r, Err(e) if e.kind() == io::ErrorKind::NotFound))
        .chain(std::iter::once_with(|| fs::remove_dir(state)));
    for result in removed {
        match result {
            // A service directory that cannot be changed is what /run is for.
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied
                ) =>
            {
                return Ok(());
            }
            Err(e) => return Err(format!("unable to remove old state in {}: {e}", state.display())),
            Ok(()) => {}
        }
    }
    Ok(())
}
