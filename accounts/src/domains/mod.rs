//! Domains: `users/assign` and the `users/cdb` compiled from it.
//!
//! A domain is the line `+DOMAIN-:DOMAIN:UID:GID:DIRECTORY:-::`. An alias domain has a line of its own, whose
//! directory is a symbolic link to the directory of the real one. Changes are made by [`Editor`].

mod control_files;
mod editor;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

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
    cdb: PathBuf,
}

impl Domains {
    /// The table in this directory (ASSIGNDIR).
    #[must_use]
    pub fn new(assign_dir: &Path) -> Self {
        Self { cdb: assign_dir.join("cdb") }
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
        let key = [b"!", name.as_bytes(), b"-"].concat();
        match table.get(&key).map_err(|e| self.unavailable(e))? {
            None => Ok(None),
            Some(value) => self.read(name, &value),
        }
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
        for record in table.records() {
            let record = record.map_err(|e| self.unavailable(e))?;
            let name = record.key.strip_prefix(b"!").and_then(|k| k.strip_suffix(b"-"));
            if let Some(Ok(name)) = name.map(DomainName::parse) {
                domains.extend(self.read(name, &record.value)?);
            }
        }
        Ok(domains)
    }

    fn open(&self) -> Answer<Option<cdb::Reader>> {
        cdb::Reader::open(&self.cdb).map_err(|e| self.unavailable(e))
    }

    fn unavailable(&self, why: impl std::fmt::Display) -> Unavailable {
        Unavailable::new(self.cdb.display(), why)
    }

    /// A prefix that ends in `-` is a domain when nothing comes before the user name; `None` for others.
    fn read(&self, name: DomainName, value: &[u8]) -> Answer<Option<Domain>> {
        let entry = assign::Entry::decode(value)
            .ok_or_else(|| self.unavailable(format!("the record of {name} makes no sense")))?;
        if entry.dash != b"-" || !entry.ext.is_empty() {
            return Ok(None);
        }
        let dir = PathBuf::from(OsStr::from_bytes(&entry.home));
        let real = real_name(&name, &dir)?;
        Ok(Some(Domain { name, real, dir, ids: UnixIds { uid: entry.uid, gid: entry.gid } }))
    }
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
