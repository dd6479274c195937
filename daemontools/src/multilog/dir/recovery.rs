//! Putting a directory in order in which a multilog was killed, or which is new.

use std::fs;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use tai::Ascending;

use super::finished::{Fate, finish, remove};
use super::{COMPLETE, DirSpec, Error, chmod, error_at};

/// Gives every file that a killed multilog left its final name, and makes an empty `state`.
pub(super) fn recover(spec: &DirSpec, labels: &mut Ascending) -> Result<(), Error> {
    let at = |step, name: &str| error_at(spec, step, name);
    let path = |name: &str| spec.path.join(name);
    for name in ["state", "newstate"] {
        remove(&path(name)).map_err(at("remove", name))?;
    }
    if is_complete(&path("processed")).map_err(at("look at", "processed"))? {
        remove(&path("previous")).map_err(at("remove", "previous"))?;
        finish(spec, "processed", Fate::Safe, labels)?;
    } else {
        remove(&path("processed")).map_err(at("remove", "processed"))?;
        finish(spec, "previous", Fate::Unfinished, labels)?;
    }
    finish(spec, "current", Fate::Unfinished, labels)?;
    let state = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path("state"));
    state.map_err(at("create", "state"))?;
    chmod(&path("state"), spec.mode).map_err(at("chmod", "state"))
}

/// Does it have the owner's x bit?
pub(super) fn is_complete(path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(meta) => Ok(meta.mode() & COMPLETE != 0),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}
