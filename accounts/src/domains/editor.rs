//! Changes to the domain table and the control files that belong to a domain.
//!
//! One lock (`.lock` beside `assign`) is held over all steps. Each step replaces one file whole and
//! durably, does nothing when its work is done already, and leaves a state that means something:
//!
//! | adding | after the step |
//! |---|---|
//! | `locals` | the domain is not a local one |
//! | `users/assign`, `users/cdb` | the domain exists for lookups |
//! | `virtualdomains` | mail for it is delivered to its accounts |
//! | `rcpthosts` or `morercpthosts` | mail for it is accepted |
//!
//! Removing goes the other way, so that mail is never accepted for a domain that is half there. Running an
//! interrupted change again finishes it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use control::Directory;
use unix::durable::Owner;
use unix::lock::Lock;

use super::control_files as file;
use crate::{Answer, DomainName, Unavailable, UnixIds};

/// So many domains stand in `rcpthosts`; the rest in `morercpthosts`, which is looked up by cdb.
const RCPTHOSTS: usize = 50;
/// A domain table without domains.
const EMPTY: &[u8] = b".\n";
/// How long another editor may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Edits the files of one installation.
#[derive(Debug, Clone)]
pub struct Editor {
    assign_dir: PathBuf,
    control: Directory,
    owner: Owner,
}

impl Editor {
    /// An editor for these directories; `owner` becomes the owner of files that do not exist yet.
    #[must_use]
    pub fn new(assign_dir: &Path, control: &Directory, owner: Owner) -> Self {
        Self { assign_dir: assign_dir.to_owned(), control: control.clone(), owner }
    }

    /// Makes a domain known: lookups, routing and acceptance.
    ///
    /// # Errors
    /// A file cannot be read or written, is damaged, or another editor keeps the lock.
    pub fn add(&self, name: &DomainName, ids: UnixIds, dir: &Path) -> Answer<()> {
        let _lock = self.lock()?;
        self.file("locals", |p| file::remove(p, name.as_bytes(), self.owner))?;
        self.add_assignment(name, ids, dir)?;
        let line = format!("{name}:{name}");
        self.file("virtualdomains", |p| file::add(p, line.as_bytes(), self.owner))?;
        self.accept(name)
    }

    /// Makes a domain unknown again.
    ///
    /// # Errors
    /// As [`Editor::add`].
    pub fn remove(&self, name: &DomainName) -> Answer<()> {
        let _lock = self.lock()?;
        self.stop_accepting(name)?;
        let line = assign::Match::Prefix(format!("{name}-").into_bytes());
        self.edit_assignments(|text| assign::without_line(text, &line))
    }

    /// Stops accepting and routing mail for a domain; it stays in `users/assign`.
    ///
    /// # Errors
    /// As [`Editor::add`].
    pub fn close(&self, name: &DomainName) -> Answer<()> {
        let _lock = self.lock()?;
        self.stop_accepting(name)
    }

    fn stop_accepting(&self, name: &DomainName) -> Answer<()> {
        for list in ["rcpthosts", "chkrcptdomains"] {
            self.file(list, |p| file::remove(p, name.as_bytes(), self.owner))?;
        }
        if self.file("morercpthosts", |p| file::remove(p, name.as_bytes(), self.owner))? {
            self.compile_morercpthosts()?;
        }
        self.file("virtualdomains", |p| file::remove(p, name.as_bytes(), self.owner)).map(|_| ())
    }

    /// Lists a domain in `chkrcptdomains`.
    ///
    /// # Errors
    /// As [`Editor::add`].
    pub fn check_recipients(&self, name: &DomainName) -> Answer<()> {
        let _lock = self.lock()?;
        self.file("chkrcptdomains", |p| file::add(p, name.as_bytes(), self.owner)).map(|_| ())
    }

    fn lock(&self) -> Answer<Lock> {
        let path = self.assign_dir.join(".lock");
        let lock = Lock::exclusive_within(&path, 0o600, PATIENCE)
            .map_err(|e| Unavailable::new(path.display(), e))?;
        lock.ok_or_else(|| Unavailable::new(path.display(), "another program keeps it locked; try again"))
    }

    fn file(&self, name: &str, work: impl FnOnce(&Path) -> io::Result<bool>) -> Answer<bool> {
        self.at(&self.control.file(name), work)
    }

    fn at(&self, path: &Path, work: impl FnOnce(&Path) -> io::Result<bool>) -> Answer<bool> {
        work(path).map_err(|e| Unavailable::new(path.display(), e))
    }

    /// Adds or corrects the domain's line and compiles the table.
    fn add_assignment(&self, name: &DomainName, ids: UnixIds, dir: &Path) -> Answer<()> {
        use std::os::unix::ffi::OsStrExt;
        let name = name.as_bytes();
        let line = assign::Line::of_domain(name, name, ids.uid, ids.gid, dir.as_os_str().as_bytes());
        self.edit_assignments(|text| assign::with_line(text, &line))
    }

    /// A text that is wrong stays as it is: what it lost is not for us to guess.
    fn edit_assignments(&self, edit: impl FnOnce(&[u8]) -> Result<Vec<u8>, assign::TextError>) -> Answer<()> {
        self.at(&self.assign_dir.join("assign"), |path| {
            let old = file::text(path)?;
            let old = if old.is_empty() { EMPTY.to_vec() } else { old };
            let new = edit(&old).map_err(io::Error::other)?;
            if new == EMPTY && !path.exists() { Ok(false) } else { file::put(path, &new, self.owner) }
        })?;
        if !self.assign_dir.join("assign").exists() {
            return Ok(());
        }
        assign::rebuild(&self.assign_dir, self.owner).map_err(|e| Unavailable::new("users/cdb", e))
    }

    fn accept(&self, name: &DomainName) -> Answer<()> {
        let read = |file: &str| {
            let entries = self.control.list(file).map_err(|e| Unavailable::new("control files", e))?;
            Ok(entries.unwrap_or_default())
        };
        let listed = |entries: &[Vec<u8>]| entries.iter().any(|e| e.eq_ignore_ascii_case(name.as_bytes()));
        let (first, more) = (read("rcpthosts")?, read("morercpthosts")?);
        if listed(&first) {
            return Ok(());
        }
        if first.len() < RCPTHOSTS && !listed(&more) {
            return self.file("rcpthosts", |p| file::add(p, name.as_bytes(), self.owner)).map(|_| ());
        }
        self.file("morercpthosts", |p| file::add(p, name.as_bytes(), self.owner))?;
        self.compile_morercpthosts()
    }

    fn compile_morercpthosts(&self) -> Answer<()> {
        let path = self.control.file("morercpthosts.cdb");
        let entries = self.control.list("morercpthosts").map_err(|e| Unavailable::new("control files", e))?;
        let mut builder = cdb::Builder::new();
        for entry in entries.unwrap_or_default() {
            builder.add(&entry.to_ascii_lowercase(), b"").map_err(|e| Unavailable::new(path.display(), e))?;
        }
        builder.replace(&path, 0o644, self.owner).map_err(|e| Unavailable::new(path.display(), e))
    }
}
