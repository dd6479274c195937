//! SQLite: one file.
//!
//! The file is in WAL mode: readers never wait for a writer, writers wait for each other up to the
//! read timeout. `synchronous=FULL`: a change is on disk when its commit returns. The file is made by
//! [`create`] only. A store whose file is missing cannot tell, and a file that another one was renamed
//! over is opened again.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, ToSql};

use super::driver::{Row, Sql, SqlError, Value};
use super::table::{Dialect, Table};
use crate::{Answer, Timeouts, Unavailable};

/// Version of the tables, in `PRAGMA user_version`.
const SCHEMA: i64 = 1;

const DIALECT: Dialect = Dialect {
    changed: "timestamp INTEGER NOT NULL DEFAULT (unixepoch())",
    inserted: "timestamp INTEGER NOT NULL DEFAULT (unixepoch())",
    index_in_table: false,
    table_options: "",
    epoch: "timestamp",
    at: "?",
    from_nothing: "",
};

/// An SQLite file, opened on first use.
pub(crate) struct Sqlite {
    path: PathBuf,
    timeouts: Timeouts,
    open: Option<Open>,
}

struct Open {
    connection: Connection,
    /// Device and inode of the file that is open.
    file: (u64, u64),
}

impl Sqlite {
    pub(crate) fn new(path: PathBuf, timeouts: Timeouts) -> Self {
        Self { path, timeouts, open: None }
    }

    fn unavailable(&self, why: impl std::fmt::Display) -> Unavailable {
        Unavailable::new(self.path.display(), why)
    }

    /// The connection, to the file that has the name now.
    fn connection(&mut self) -> Result<&Connection, SqlError> {
        let file = match std::fs::metadata(&self.path) {
            Ok(m) => (m.dev(), m.ino()),
            Err(e) => {
                self.open = None;
                let hint = if e.kind() == std::io::ErrorKind::NotFound {
                    "; vadddomain and svctool create it, or restore it from a backup"
                } else {
                    "; it must be readable and writable for user or group indimail"
                };
                return Err(self.unavailable(format!("{e}{hint}")).into());
            }
        };
        if self.open.as_ref().is_some_and(|o| o.file != file) {
            self.open = None;
        }
        if self.open.is_none() {
            let connection = connect(&self.path, self.timeouts).map_err(|e| self.explain(&e))?;
            let version: i64 = connection
                .query_row("PRAGMA user_version", [], |r| r.get(0))
                .map_err(|e| self.explain(&e))?;
            if version != SCHEMA {
                return Err(self
                    .unavailable(format!(
                        "schema version {version}, expected {SCHEMA}; it was not made by this version"
                    ))
                    .into());
            }
            self.open = Some(Open { connection, file });
        }
        match &self.open {
            Some(open) => Ok(&open.connection),
            None => Err(self.unavailable("not open").into()),
        }
    }

    /// Turns what SQLite says into an answer; a connection in doubt is given up.
    fn explain(&self, error: &rusqlite::Error) -> SqlError {
        let code = error.sqlite_error_code();
        let hint = match code {
            Some(ErrorCode::ConstraintViolation) => return SqlError::Duplicate,
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                "; the file is damaged: stop the mail services and restore it from a backup, or save what \
                 can be read with: sqlite3 FILE .recover"
            }
            Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly | ErrorCode::CannotOpen) => {
                "; file and directory must be readable and writable for user or group indimail"
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "; another process keeps it locked",
            Some(ErrorCode::DiskFull) => "; make room on its file system",
            _ => "",
        };
        self.unavailable(format!("{error}{hint}")).into()
    }

    fn run<T>(
        &mut self,
        work: impl FnOnce(&Connection) -> Result<T, rusqlite::Error>,
    ) -> Result<T, SqlError> {
        match work(self.connection()?) {
            Ok(value) => Ok(value),
            Err(e) => Err(self.explain(&e)),
        }
    }
}

impl Sql for Sqlite {
    const DIALECT: &'static Dialect = &DIALECT;

    fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>, SqlError> {
        self.run(|c| {
            let mut statement = c.prepare(sql)?;
            let columns = statement.column_count();
            let mut rows = statement.query(rusqlite::params_from_iter(parameters))?;
            let mut all = Vec::new();
            while let Some(row) = rows.next()? {
                let cells: Result<_, _> = (0..columns).map(|i| row.get_ref(i).map(value)).collect();
                all.push(Row::new(cells?));
            }
            Ok(all)
        })
    }

    fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64, SqlError> {
        self.run(|c| c.prepare(sql)?.execute(rusqlite::params_from_iter(parameters)).map(|n| n as u64))
    }

    fn begin(&mut self) -> Result<(), SqlError> {
        // A transaction that will write takes the write lock at once: upgrading later can fail.
        self.run(|c| c.execute_batch("BEGIN IMMEDIATE"))
    }

    fn commit(&mut self) -> Result<(), SqlError> {
        self.run(|c| c.execute_batch("COMMIT"))
    }

    fn rollback(&mut self) {
        if self.run(|c| c.execute_batch("ROLLBACK")).is_err() {
            self.open = None;
        }
    }

    fn create_missing(&mut self, _for_writing: bool) -> Answer<()> {
        Err(self.unavailable("a table is missing; restore the file from a backup"))
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

fn connect(path: &Path, timeouts: Timeouts) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(timeouts.read)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(connection)
}

/// Makes the file and its tables where they are missing.
pub(super) fn create(path: &Path, timeouts: Timeouts, owner: unix::durable::Owner) -> Answer<()> {
    let fail = |e: &dyn std::fmt::Display| Unavailable::new(path.display(), e);
    let mode = 0o660;
    match unix::durable::write_new(path, b"", mode, owner) {
        Ok(()) => unix::durable::Durability::default().sync_parent(path).map_err(|e| fail(&e))?,
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(fail(&e)),
    }
    let store = Sqlite::new(path.to_owned(), timeouts);
    let build = || -> Result<(), rusqlite::Error> {
        let connection = connect(path, timeouts)?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |r| r.get(0))?;
        if version != 0 {
            return Ok(());
        }
        connection.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(()))?;
        let statements: Vec<String> = Table::ALL.iter().flat_map(|t| t.create(&DIALECT)).collect();
        connection.execute_batch(&format!(
            "BEGIN IMMEDIATE;\n{};\nPRAGMA user_version={SCHEMA};\nCOMMIT;",
            statements.join(";\n")
        ))
    };
    build().map_err(|e| match store.explain(&e) {
        SqlError::Unavailable(u) => u,
        other => fail(&format!("{other:?}")),
    })
}

fn value(cell: ValueRef<'_>) -> Value {
    match cell {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(n) => Value::Number(n),
        // No column holds fractions; a hand-made one reads as its text.
        ValueRef::Real(r) => Value::Bytes(r.to_string().into_bytes()),
        ValueRef::Text(b) | ValueRef::Blob(b) => Value::Bytes(b.to_vec()),
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Number(n) => ValueRef::Integer(*n),
            Self::Bytes(b) => ValueRef::Text(b),
        }))
    }
}
