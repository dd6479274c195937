//! Where the programs of this installation are.

use std::path::{Path, PathBuf};

/// The PREFIX this executable was installed under.
///
/// It follows from the place of the executable itself (`PREFIX/{bin,sbin,libexec/indimail}`), which
/// the kernel tells, so that an installation can be moved or staged and no variable can redirect it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    prefix: PathBuf,
}

impl Layout {
    /// The layout of the running executable; `/usr` when its place says nothing.
    #[must_use]
    pub fn of_this_process() -> Self {
        unix::host::executable().map_or_else(|_| Self::at("/usr"), |exe| Self::of_executable(&exe))
    }

    /// The layout with this prefix.
    pub fn at(prefix: impl Into<PathBuf>) -> Self {
        Self { prefix: prefix.into() }
    }

    fn of_executable(exe: &Path) -> Self {
        let directory = exe.parent().unwrap_or(Path::new("/"));
        let prefix = match directory.file_name().and_then(|n| n.to_str()) {
            Some("indimail") if directory.parent().is_some_and(|p| p.ends_with("libexec")) => {
                directory.ancestors().nth(2)
            }
            Some("bin" | "sbin") => directory.parent(),
            _ => None,
        };
        Self::at(prefix.unwrap_or(Path::new("/usr")))
    }

    /// PREFIX.
    #[must_use]
    pub fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// PREFIX/bin
    #[must_use]
    pub fn bin(&self, name: &str) -> PathBuf {
        self.prefix.join("bin").join(name)
    }

    /// PREFIX/sbin
    #[must_use]
    pub fn sbin(&self, name: &str) -> PathBuf {
        self.prefix.join("sbin").join(name)
    }

    /// PREFIX/libexec/indimail
    #[must_use]
    pub fn libexec(&self, name: &str) -> PathBuf {
        self.prefix.join("libexec/indimail").join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_follows_from_the_executable() {
        let prefix = |p: &str| Layout::of_executable(Path::new(p)).prefix().to_path_buf();
        assert_eq!(prefix("/opt/x/libexec/indimail/qmail-send"), Path::new("/opt/x"));
        assert_eq!(prefix("/usr/sbin/svctool"), Path::new("/usr"));
        assert_eq!(prefix("/home/me/target/debug/svctool"), Path::new("/usr"));
    }
}
