//! Making a Maildir.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::Path;

use unix::durable::{Owner, sync_directory};

/// Makes `path` (whose parent must exist) a Maildir: the directory and `cur`, `new`, `tmp`, with mode
/// 0700 and this owner. What exists already is left as it is.
///
/// # Errors
/// A directory could not be made, given away or forced to the disk.
pub fn make(path: &Path, owner: Owner) -> io::Result<()> {
    directory(path, 0o700, owner)?;
    for sub in ["cur", "new", "tmp"] {
        directory(&path.join(sub), 0o700, owner)?;
    }
    sync_directory(path)?;
    sync_directory(path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}

fn directory(path: &Path, mode: u32, owner: Owner) -> io::Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => return Ok(()),
        Err(e) => return Err(e),
    }
    std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    match owner {
        Some((uid, gid)) => chown(path, Some(uid.as_raw()), Some(gid.as_raw())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_what_is_missing_and_keeps_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("Maildir");
        std::fs::create_dir_all(path.join("new")).unwrap();
        std::fs::write(path.join("new/m"), "x").unwrap();
        make(&path, None).unwrap();
        make(&path, None).unwrap();
        assert!(path.join("cur").is_dir() && path.join("tmp").is_dir() && path.join("new/m").exists());
        assert!(make(&dir.path().join("a/b"), None).is_err());
    }
}
