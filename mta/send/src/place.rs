//! Which queue a program of the sending side works on.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use mta_queue::layout::{Queue, Shape};
use program::{Loader, Source, Variable};
use unix::durable::Durability;

/// The queue unless QUEUEDIR says otherwise.
pub const DEFAULT_QUEUE: &str = "/var/indimail/queue";

/// QUEUEDIR, for the tables of programs.
pub const QUEUEDIR: Variable =
    Variable { name: "QUEUEDIR", help: "the queue directory (/var/indimail/queue)" };
/// CONFSPLIT, for the tables of programs.
pub const CONFSPLIT: Variable = Variable {
    name: "CONFSPLIT",
    help: "number of subdirectories of the queue (as found on the disk; at most 151)",
};
/// BIGTODO, for the tables of programs.
pub const BIGTODO: Variable =
    Variable { name: "BIGTODO", help: "1 when todo and intd are split, 0 when not (as found on the disk)" };

/// CONTROLDIR, for the tables of programs.
pub const CONTROLDIR: Variable =
    Variable { name: "CONTROLDIR", help: "directory of control files (/etc/indimail/control)" };
/// USE_FSYNC, for the tables of programs.
pub const USE_FSYNC: Variable =
    Variable { name: "USE_FSYNC", help: "0: do not force files to the disk; conf-fsync overrides" };
/// USE_FDATASYNC, for the tables of programs.
pub const USE_FDATASYNC: Variable =
    Variable { name: "USE_FDATASYNC", help: "1: force out contents only; conf-fdatasync overrides" };
/// USE_SYNCDIR, for the tables of programs.
pub const USE_SYNCDIR: Variable =
    Variable { name: "USE_SYNCDIR", help: "0: do not force directories to the disk; conf-syncdir overrides" };

/// USE_SYNCFS, for the tables of programs.
pub const USE_SYNCFS: Variable = Variable {
    name: "USE_SYNCFS",
    help: "0: force out each file by itself, not the file system for all messages that wait together",
};

/// A queue directory before it has been entered.
#[derive(Debug, Clone)]
pub struct Place {
    directory: PathBuf,
    confsplit: Option<Vec<u8>>,
    bigtodo: Option<Vec<u8>>,
}

impl Place {
    /// From QUEUEDIR, CONFSPLIT and BIGTODO.
    pub fn load(loader: &mut Loader<'_>) -> Self {
        let variable = |name| Source { variable: Some(name), ..Source::default() };
        Self {
            directory: loader.path("queue", variable("QUEUEDIR"), DEFAULT_QUEUE),
            confsplit: loader.bytes("split", variable("CONFSPLIT")),
            bigtodo: loader.bytes("bigtodo", variable("BIGTODO")),
        }
    }

    /// A given directory, whose shape is what its disk shows.
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), confsplit: None, bigtodo: None }
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The last part of the directory's name, which log lines end with.
    #[must_use]
    pub fn short_name(&self) -> Vec<u8> {
        let name = self.directory.file_name().unwrap_or(self.directory.as_os_str());
        name.as_bytes().to_vec()
    }

    /// The queue as seen from outside, with full paths.
    ///
    /// # Errors
    /// Its directories cannot be looked at.
    pub fn look(&self) -> io::Result<Queue> {
        let (split, bigtodo) = (self.confsplit.as_deref(), self.bigtodo.as_deref());
        Ok(Queue::new(&self.directory, Shape::of(&self.directory, split, bigtodo)?))
    }

    /// Makes the directory the current one; paths of the queue are relative to it from then on.
    ///
    /// # Errors
    /// It is missing or closed to us.
    pub fn enter(&self) -> io::Result<Queue> {
        std::env::set_current_dir(&self.directory)?;
        let (split, bigtodo) = (self.confsplit.as_deref(), self.bigtodo.as_deref());
        Ok(Queue::new("", Shape::of(Path::new(""), split, bigtodo)?))
    }
}

/// Where a host name comes from that is the line of `file`, else that of `me`, else a default.
pub(crate) fn host_source(loader: &Loader<'_>, file: &str) -> String {
    let own = if loader.control().file(file).exists() { file } else { "me" };
    loader.source(&[], &[own])
}

/// Durability of a sending program: control files over variables over "everything".
pub fn durability(loader: &mut Loader<'_>) -> Durability {
    let mut switch = |file: &str, variable: &str| {
        let number = loader.control().number(file);
        let from_file = loader.take(number).map(|n| n != 0);
        let from_variable = loader.environment().bytes(variable).filter(|v| !v.is_empty()).map(|v| v != b"0");
        from_file.or(from_variable)
    };
    let durability = Durability::chosen(
        switch("conf-fsync", "USE_FSYNC"),
        switch("conf-fdatasync", "USE_FDATASYNC"),
        switch("conf-syncdir", "USE_SYNCDIR"),
    );
    let source = loader.source(
        &["USE_FSYNC", "USE_FDATASYNC", "USE_SYNCDIR"],
        &["conf-fsync", "conf-fdatasync", "conf-syncdir"],
    );
    loader.show("durability", format!("{durability:?}"), source);
    durability
}

#[cfg(test)]
mod tests {
    use super::*;
    use unix::durable::DataSync;

    #[test]
    fn control_files_override_variables_for_durability() {
        let dir = tempfile::tempdir().unwrap();
        let env = program::Environment::from_iter([
            ("CONTROLDIR", dir.path().to_str().unwrap()),
            ("USE_FSYNC", "0"),
        ]);
        assert_eq!(durability(&mut Loader::new(&env)).data, DataSync::Off);
        std::fs::write(dir.path().join("conf-fsync"), "1\n").unwrap();
        assert_eq!(durability(&mut Loader::new(&env)), Durability::default());
    }

    #[test]
    fn log_lines_name_the_queue_by_the_last_part_of_its_directory() {
        assert_eq!(Place::at("/var/indimail/queue/queue3").short_name(), b"queue3");
    }
}
