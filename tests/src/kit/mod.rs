//! What tests of every crate share.

mod children;
mod etc;
mod mariadb;
mod source;
mod waits;

pub use children::{Output, Running, run, run_with_input};
pub use etc::Etc;
pub use mariadb::MariaDb;
pub use source::debian_source;
pub use waits::{free_port, until, until_some};

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// How long a test waits for something that should happen at once; generous, since the machine
/// may be busy, and only ever used up when the test fails.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// A temporary directory that other users may enter (0755), removed when dropped.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn root() -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("indimail-test-").tempdir().expect("temporary directory");
    set_mode(dir.path(), 0o755);
    dir
}

/// Sets the permission bits of a path.
///
/// # Panics
/// When that fails.
pub fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// Writes a file and the directories above it.
///
/// # Panics
/// When that fails.
pub fn write(path: impl AsRef<Path>, contents: impl AsRef<[u8]>) {
    let path = path.as_ref();
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).unwrap_or_else(|e| panic!("{}: {e}", parent.display()));
    }
    std::fs::write(path, contents).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// Writes a program (mode 0755) and the directories above it.
///
/// A child does the writing: while this process has the file open, a child that another thread of
/// the test starts at that moment would inherit it, and running the program would fail with "text
/// file busy".
///
/// # Panics
/// When that fails.
#[track_caller]
pub fn write_program(path: impl AsRef<Path>, contents: impl AsRef<[u8]>) {
    let path = path.as_ref();
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).unwrap_or_else(|e| panic!("{}: {e}", parent.display()));
    }
    let mut writer = std::process::Command::new("/bin/sh");
    writer.args(["-c", "rm -f \"$0\" && cat >\"$0\" && chmod 755 \"$0\""]).arg(path);
    run_with_input(&mut writer, contents.as_ref()).ok();
}

/// Copies a program, for users who cannot reach the build directory; as [`write_program`], a child writes.
///
/// # Panics
/// When that fails.
#[track_caller]
pub fn copy_program(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    run(std::process::Command::new("cp").arg(from.as_ref()).arg(to.as_ref())).ok();
}

/// The installed tree that end-to-end tests run: INDIMAIL_STAGE, else `target/stage` of this
/// workspace.
///
/// # Panics
/// When neither is there: `make stage` makes it.
#[must_use]
pub fn stage() -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/stage");
    let tree = std::env::var_os("INDIMAIL_STAGE").map_or(default, PathBuf::from);
    assert!(tree.join("usr/sbin").is_dir(), "no installed tree in {}: run make stage", tree.display());
    tree.canonicalize().expect("path of the staged tree")
}
