//! The private view: a mount namespace in which our users, NSS and PAM configuration and modules
//! lie over the machine's, and nowhere else.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::Instance;

/// How much of a private view this process can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Root: a mount namespace.
    Mounts,
    /// An ordinary user: a user namespace that maps only this user, and a mount namespace in it.
    UserAndMounts,
    /// None: the kernel does not allow it.
    None,
}

/// Puts this process (and all it will start) into the private view of `instance`.
///
/// # Errors
/// A mount failed. Without permission to make namespaces at all the answer is [`Kind::None`].
pub fn enter(instance: &Instance) -> Result<Kind> {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let kind = if uid.is_root() { Kind::Mounts } else { Kind::UserAndMounts };
    let flags = match kind {
        Kind::Mounts | Kind::None => CloneFlags::CLONE_NEWNS,
        Kind::UserAndMounts => CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS,
    };
    if unshare(flags).is_err() {
        return Ok(Kind::None);
    }
    if kind == Kind::UserAndMounts {
        let map = |file: &str, text: String| {
            std::fs::write(format!("/proc/self/{file}"), text).with_context(|| format!("/proc/self/{file}"))
        };
        map("setgroups", "deny".into())?;
        map("uid_map", format!("{uid} {uid} 1"))?;
        map("gid_map", format!("{gid} {gid} 1"))?;
    }
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).context("make mounts private")?;
    match lay_out(instance, kind) {
        // What could be mounted does no harm; the caller is told that it is not the whole.
        Err(_) if kind == Kind::UserAndMounts => Ok(Kind::None),
        Err(e) => Err(e),
        Ok(()) => Ok(kind),
    }
}

fn lay_out(instance: &Instance, kind: Kind) -> Result<()> {
    open_parents(instance)?;
    overlay(&instance.layer("etc"), Path::new("/etc"))?;
    bind(&instance.at("etc/indimail"), Path::new("/etc/indimail"))?;
    if let Some(libraries) = library_directory() {
        overlay(&instance.layer("lib"), &libraries)?;
    }
    if kind == Kind::UserAndMounts { default_sockets(instance) } else { Ok(()) }
}

/// The modules read the places of the sockets from a file of root. An ordinary user cannot make
/// one, so the sockets are shown at their default place: /run is replaced by a directory of links
/// to what it holds, and `indimail`.
fn default_sockets(instance: &Instance) -> Result<()> {
    let run = Path::new("/run");
    let kept = instance.layer("run");
    mount(Some(run), &kept, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .with_context(|| format!("show {} at {}", run.display(), kept.display()))?;
    mount(Some("tmpfs"), run, Some("tmpfs"), MsFlags::empty(), Some("mode=755")).context("mount on /run")?;
    for entry in std::fs::read_dir(&kept)?.filter_map(std::result::Result::ok) {
        if entry.file_name() != "indimail" {
            std::os::unix::fs::symlink(entry.path(), run.join(entry.file_name()))?;
        }
    }
    std::fs::create_dir(run.join("indimail"))?;
    bind(&instance.at("run/indimail"), &run.join("indimail"))
}

/// The mail users must be able to walk to the instance. A parent directory that is closed to them
/// (`/root`, a temporary directory made 0700) is covered, in this view only, by itself with mode
/// 0755, and the instance is put back into its place.
fn open_parents(instance: &Instance) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    for parent in closed_parents(instance.dir())? {
        let real = File::open(instance.dir()).with_context(|| instance.dir().display().to_string())?;
        let top = instance.layer("open");
        mount(Some("tmpfs"), &top, Some("tmpfs"), MsFlags::empty(), Some("mode=755,size=4k"))
            .with_context(|| format!("mount on {}", top.display()))?;
        // The merged directory takes its mode from the upper of the two.
        overlay(&top, &parent)?;
        // The descriptor still means the directory below the new mount.
        let source = PathBuf::from(format!("/proc/self/fd/{}", real.as_raw_fd()));
        bind(&source, instance.dir())?;
    }
    Ok(())
}

/// Parents of `dir` that others may not search, from the top down.
///
/// # Errors
/// One of them cannot be looked at.
pub fn closed_parents(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut closed = Vec::new();
    for parent in dir.ancestors().skip(1) {
        let meta = std::fs::metadata(parent).with_context(|| parent.display().to_string())?;
        if meta.permissions().mode() & 0o001 == 0 {
            closed.push(parent.to_path_buf());
        }
    }
    closed.reverse();
    Ok(closed)
}

/// Lays `layer` over `target`; the merged directory cannot be written.
fn overlay(layer: &Path, target: &Path) -> Result<()> {
    let options = format!("lowerdir={}:{}", layer.display(), target.display());
    mount(Some("overlay"), target, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .with_context(|| format!("lay {} over {}", layer.display(), target.display()))
}

fn bind(source: &Path, target: &Path) -> Result<()> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .with_context(|| format!("show {} at {}", source.display(), target.display()))
}

/// Where this machine keeps its shared libraries: where the C library of this process came from.
#[must_use]
pub fn library_directory() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines()
        .filter_map(|l| l.split_whitespace().nth(5))
        .map(Path::new)
        .find(|p| p.file_name().is_some_and(|n| n == "libc.so.6"))
        .and_then(Path::parent)
        .and_then(|p| p.canonicalize().ok())
}

/// Files of the machine's /etc that are mounts of their own (a container's resolv.conf): an
/// overlay would show what lies below them, so they are copied into the layer.
///
/// # Errors
/// One of them cannot be copied.
pub fn copy_mounted_files(layer: &Path) -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
    for path in mounts.lines().filter_map(|l| l.split(' ').nth(4)).map(Path::new) {
        if let (Ok(below), true) = (path.strip_prefix("/etc"), path.is_file()) {
            let copy = layer.join(below);
            if let Some(parent) = copy.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::copy(path, &copy).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_parents_are_found_from_the_top() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("a/b"));
        std::fs::create_dir_all(b.join("c")).unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::set_permissions(&b, PermissionsExt::from_mode(0o700)).unwrap();
        std::fs::set_permissions(&a, PermissionsExt::from_mode(0o750)).unwrap();
        assert_eq!(closed_parents(&b.join("c")).unwrap(), [a, b]);
    }

    #[test]
    fn the_c_library_is_found() {
        assert!(library_directory().unwrap().join("libc.so.6").exists());
    }
}
