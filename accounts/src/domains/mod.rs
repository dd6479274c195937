//! Domains: `users/assign` and the `users/cdb` compiled from it.
//!
//! A domain is the line `+DOMAIN-:DOMAIN:UID:GID:DIRECTORY:-::`. An alias domain has a line of its own, whose
//! directory is a symbolic link to the directory of the real one. Changes are made by [`Editor`].

mod control_files;
mod editor;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use assign::Assignments;

use crate::{Answer, DomainName, Unavailable, UnixIds};

pub use editor::Editor;

/// A domain of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// The name that was asked for.
    pub name: DomainName,
    /// The real domain: where its accounts are. Differs from `name` for an alias domain.
    pub real: DomainName,
    /// Its directory (of an alias domain: the link).
    pub dir: PathBuf,
    /// Unix ids that its accounts share.
    pub ids: UnixIds,
}

impl Domain {
    /// Do the limits of the store apply to its accounts (is there a file `.domain_limits`)?
    ///
    /// # Errors
    /// The directory cannot be searched.
    pub fn has_limits(&self) -> Answer<bool> {
        let path = self.dir.join(".domain_limits");
        path.try_exists().map_err(|e| Unavailable::new(path.display(), e))
    }

    /// Is it another name for a real domain?
    #[must_use]
    pub fn is_alias(&self) -> bool {
        self.name != self.real
    }
}

/// Reads the domain table. Every question reads the file that is there now.
#[derive(Debug, Clone)]
pub struct Domains {
    assign_dir: PathBuf,
}

impl Domains {
    /// The table in this directory (ASSIGNDIR).
    #[must_use]
    pub fn new(assign_dir: &Path) -> Self {
        Self { assign_dir: assign_dir.to_owned() }
    }

    /// The domain with this name in any case; a name that is not valid is no domain.
    ///
    /// # Errors
    /// The table or the domain's directory cannot be read, or the table is damaged. A table that does not
    /// exist has no domains.
    pub fn domain(&self, name: &[u8]) -> Answer<Option<Domain>> {
        let Ok(name) = DomainName::parse(name) else {
            return Ok(None);
        };
        let Some(table) = self.open()? else {
            return Ok(None);
        };
        let prefix = [name.as_bytes(), b"-"].concat();
        let line = table.prefix(&prefix).map_err(unavailable)?;
        line.and_then(|line| domain(&line)).transpose()
    }

    /// All domains, in the order of the assign file, alias domains among them.
    ///
    /// # Errors
    /// As [`Domains::domain`].
    pub fn all(&self) -> Answer<Vec<Domain>> {
        let Some(table) = self.open()? else {
            return Ok(Vec::new());
        };
        let mut domains = Vec::new();
        for line in table.lines() {
            domains.extend(domain(&line.map_err(unavailable)?).transpose()?);
        }
        Ok(domains)
    }

    fn open(&self) -> Answer<Option<Assignments>> {
        Assignments::open(&self.assign_dir).map_err(unavailable)
    }
}

fn unavailable(why: assign::Error) -> Unavailable {
    Unavailable::new("domain table", why)
}

/// The domain of a line; `None` when it is not a domain's.
fn domain(line: &assign::Line) -> Option<Answer<Domain>> {
    let name = DomainName::parse(&line.domain()?).ok()?;
    let dir = PathBuf::from(OsStr::from_bytes(&line.entry.home));
    let ids = UnixIds { uid: line.entry.uid, gid: line.entry.gid };
    Some(real_name(&name, &dir).map(|real| Domain { name, real, dir, ids }))
}

/// The last component of what the directory links to, or the name itself when it is no link.
fn real_name(name: &DomainName, dir: &Path) -> Answer<DomainName> {
    let fail =
        |why: &dyn std::fmt::Display| Unavailable::new(format!("domain {name}: {}", dir.display()), why);
    match std::fs::read_link(dir) {
        Ok(target) => {
            let last = target.file_name().unwrap_or_default().as_bytes();
            DomainName::parse(last).map_err(|e| fail(&e))
        }
        // Not a link.
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(name.clone()),
        // A directory that is not there (a file system not mounted) may well be a link: cannot tell.
        Err(e) => Err(fail(&e)),
    }
}
