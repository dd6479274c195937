//! The instance's own copy of the installed tree.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use program::Layout;

use super::{Instance, users::MailIds};

/// Copies executables, links and modules from the installation this program belongs to. What an
/// earlier run left is replaced, so that a new build takes effect.
///
/// # Errors
/// The installation is incomplete or a file cannot be copied.
pub fn copy(instance: &Instance, installed: &Layout, ids: &MailIds) -> Result<()> {
    let target = instance.at("usr");
    if target.exists() {
        std::fs::remove_dir_all(&target).with_context(|| target.display().to_string())?;
    }
    for place in ["bin", "sbin", "libexec/indimail"] {
        make_directory(&target.join(place))?;
    }
    let libexec = installed.libexec("");
    let executables = std::fs::read_dir(&libexec).with_context(|| {
        format!("{}: svctool must be installed first (make stage, make install)", libexec.display())
    })?;
    for entry in executables {
        let entry = entry?;
        if !entry.file_type()?.is_file() {
            continue;
        }
        let name = entry.file_name();
        copy_file(&entry.path(), &target.join("libexec/indimail").join(&name), 0o755)?;
        for (program, place) in programs_of(&entry.path(), &instance.at("which-programs"))? {
            let link = target.join(&place).join(&program);
            let to = match place.as_str() {
                "bin" | "sbin" => Path::new("../libexec/indimail").join(&name),
                _ if program.as_str() == name => continue,
                _ => PathBuf::from(&name),
            };
            symlink(&to, &link).with_context(|| link.display().to_string())?;
        }
    }
    let queue = target.join("sbin/qmail-queue");
    copy_file(&installed.sbin("qmail-queue"), &queue, 0o755)?;
    if let Some((uid, gid)) = ids.owner("qmailq", "qmail") {
        std::os::unix::fs::chown(&queue, Some(uid.as_raw()), Some(gid.as_raw()))?;
        set_mode(&queue, 0o6551)?;
    }
    copy_modules(instance, installed)
}

/// The modules go into the layer over the library directory.
fn copy_modules(instance: &Instance, installed: &Layout) -> Result<()> {
    let layer = instance.layer("lib");
    make_directory(&layer.join("security"))?;
    let lib = installed.prefix().join("lib");
    let nss = std::fs::read_dir(&lib)
        .with_context(|| lib.display().to_string())?
        .filter_map(Result::ok)
        .map(|e| e.path().join("libnss_indimail.so.2"))
        .find(|p| p.exists())
        .with_context(|| format!("{}: no libnss_indimail.so.2 in it", lib.display()))?;
    copy_file(&nss, &layer.join("libnss_indimail.so.2"), 0o644)?;
    copy_file(&nss.with_file_name("security/pam_multi.so"), &layer.join("security/pam_multi.so"), 0o644)
}

/// `(name, place)` of the programs in an executable: started under a name that is none of its
/// programs, it prints its table.
fn programs_of(executable: &Path, neutral: &Path) -> Result<Vec<(String, String)>> {
    let _ = std::fs::remove_file(neutral);
    symlink(executable, neutral).with_context(|| neutral.display().to_string())?;
    let output = Command::new(neutral).arg("--list-programs").output();
    std::fs::remove_file(neutral)?;
    let output = output.with_context(|| executable.display().to_string())?;
    ensure!(output.status.success(), "{}: --list-programs failed", executable.display());
    let text = String::from_utf8(output.stdout).context("table of programs")?;
    Ok(text
        .lines()
        .filter_map(|line| {
            let mut fields = line.split('\t');
            Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
        })
        .collect())
}

fn copy_file(from: &Path, to: &Path, mode: u32) -> Result<()> {
    std::fs::copy(from, to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    set_mode(to, mode)
}

/// Makes a directory (and those above it) that everybody may enter.
///
/// # Errors
/// As mkdir(2).
pub fn make_directory(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).with_context(|| path.display().to_string())?;
    set_mode(path, 0o755)
}

/// Sets permission bits.
///
/// # Errors
/// As chmod(2).
pub fn set_mode(path: &Path, mode: u32) -> Result<()> {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode))
        .with_context(|| path.display().to_string())
}
