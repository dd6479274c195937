//! MySQL and MariaDB. A store has one connection of a shared [`pool`], with a cache of prepared statements.
//!
//! Every wait has a timeout. A connection on which anything unexpected happened is ended; the next
//! question takes another one. The session is strict (a value too long is an error, not a shorter value)
//! and counts matched rows.

mod pool;

use std::fmt::Display;

use mysql::consts::CapabilityFlags;
use mysql::prelude::Queryable;
use mysql::{Conn, OptsBuilder, Params, PooledConn, SslOpts};
use pool::{NoConnection, Pool};

use super::driver::{Row, Sql, SqlError, Value};
use super::table::{Dialect, Table};
use crate::{Answer, MySqlServer, Timeouts, Unavailable};

const DIALECT: Dialect = Dialect {
    changed: "timestamp TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP",
    inserted: "timestamp TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP",
    index_in_table: true,
    table_options: " ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    epoch: "UNIX_TIMESTAMP(timestamp)",
    at: "FROM_UNIXTIME(?)",
    from_nothing: "FROM DUAL",
};

const SESSION: [&str; 2] = [
    "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'",
    "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
];

/// A server, and what the stores of this process use to reach it.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    server: MySqlServer,
    timeouts: Timeouts,
    pool: Pool,
}

impl Shared {
    /// At most `connections` at a time; none yet.
    pub(crate) fn new(server: MySqlServer, timeouts: Timeouts, connections: usize) -> Self {
        let pool = Pool::new(options(&server, timeouts, Some(&server.database)), connections);
        Self { server, timeouts, pool }
    }

    fn take(&self) -> Answer<PooledConn> {
        self.pool.take(self.timeouts.connect).map_err(|why| {
            let why = match why {
                NoConnection::AllInUse(limit) => {
                    format!("all {limit} connections of this program are in use")
                }
                NoConnection::NotInTime => "no connection in time".to_owned(),
                NoConnection::Options(why) => why,
                NoConnection::Failed(e) => explain(&e),
            };
            unavailable(&self.server, why)
        })
    }
}

/// A store's part of a server: a connection, taken on first use.
pub(crate) struct MySql {
    shared: Shared,
    connection: Option<PooledConn>,
    in_transaction: bool,
}

impl MySql {
    pub(crate) fn new(shared: Shared) -> Self {
        Self { shared, connection: None, in_transaction: false }
    }

    fn unavailable(&self, why: impl Display) -> Unavailable {
        unavailable(&self.shared.server, why)
    }

    fn end_connection(&mut self) {
        self.in_transaction = false;
        if let Some(connection) = self.connection.take() {
            pool::discard(connection);
        }
    }

    fn run<T>(
        &mut self,
        work: impl FnOnce(&mut PooledConn) -> Result<T, mysql::Error>,
    ) -> Result<T, SqlError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(self.shared.take()?),
        };
        let error = match work(connection) {
            Ok(value) => return Ok(value),
            Err(e) => e,
        };
        if let mysql::Error::MySqlError(e) = &error {
            let unavailable = self.unavailable(explain(&error));
            match e.code {
                1062 => return Err(SqlError::Duplicate),
                1146 => return Err(SqlError::MissingTable),
                // Deadlock; lock wait timeout.
                1205 | 1213 => return Err(SqlError::Conflict(unavailable)),
                // Shutdown in progress; killed; idle for too long.
                1053 | 1927 | 4031 => {}
                _ => return Err(unavailable.into()),
            }
        }
        self.end_connection();
        let unavailable = self.unavailable(explain(&error));
        // A connection that was idle may have died of age; one that timed out would again.
        Err(if timed_out(&error) { unavailable.into() } else { SqlError::Lost(unavailable) })
    }
}

impl Drop for MySql {
    fn drop(&mut self) {
        // The next store must not find itself in a transaction of this one.
        if self.in_transaction {
            self.end_connection();
        }
    }
}

fn unavailable(server: &MySqlServer, why: impl Display) -> Unavailable {
    Unavailable::new(format!("mysql {}, database {}", server.host.place(), server.database), why)
}

fn timed_out(error: &mysql::Error) -> bool {
    let io = match error {
        mysql::Error::IoError(e) => Some(e),
        mysql::Error::CodecError(e) => {
            std::error::Error::source(e).and_then(|s| s.downcast_ref::<std::io::Error>())
        }
        _ => None,
    };
    io.is_some_and(|e| matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut))
}

fn explain(error: &mysql::Error) -> String {
    match error {
        e if timed_out(e) => "no answer in time".to_owned(),
        mysql::Error::MySqlError(e) => {
            let hint = match e.code {
                1045 => "; check user and password in host.mysql",
                1049 => "; vadddomain and svctool create the database",
                1054 => {
                    "; the table is older than this program: ALTER TABLE indimail ADD scram CHAR(255), and the \
                     same for indibak"
                }
                1142 => "; the user needs SELECT, INSERT, UPDATE, DELETE, CREATE and INDEX on the database",
                _ => "",
            };
            format!("error {}: {}{hint}", e.code, e.message)
        }
        // The text of the whole would be that of a debugger.
        mysql::Error::DriverError(e) => e.to_string(),
        mysql::Error::IoError(e) => e.to_string(),
        e => e.to_string(),
    }
}

fn options(server: &MySqlServer, timeouts: Timeouts, database: Option<&str>) -> OptsBuilder {
    let host = &server.host;
    let password = zeroize::Zeroizing::new(String::from_utf8_lossy(host.password.expose()).into_owned());
    let tls = host.tls.then(|| {
        let options = SslOpts::default();
        match &server.authority {
            Some(path) => options.with_root_cert_path(Some(path.clone())),
            None => options,
        }
    });
    OptsBuilder::new()
        .ip_or_hostname(Some(host.host.clone()))
        .tcp_port(host.port)
        .socket(host.socket.clone())
        // Asked for TCP, the crate would otherwise look for a socket behind our back.
        .prefer_socket(host.socket.is_some())
        .user(Some(host.user.clone()))
        .pass(Some(password.as_str()).filter(|p| !p.is_empty()))
        .db_name(database)
        .ssl_opts(tls)
        .tcp_connect_timeout(Some(timeouts.connect))
        .read_timeout(Some(timeouts.read))
        .write_timeout(Some(timeouts.write))
        .additional_capabilities(CapabilityFlags::CLIENT_FOUND_ROWS)
        .init(SESSION.to_vec())
}

impl Sql for MySql {
    const DIALECT: &'static Dialect = &DIALECT;

    fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>, SqlError> {
        self.run(|c| {
            let rows: Vec<mysql::Row> = c.exec(sql, bound(parameters))?;
            Ok(rows.into_iter().map(|r| Row::new(r.unwrap().into_iter().map(value).collect())).collect())
        })
    }

    fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64, SqlError> {
        self.run(|c| {
            c.exec_drop(sql, bound(parameters))?;
            Ok(c.affected_rows())
        })
    }

    fn begin(&mut self) -> Result<(), SqlError> {
        self.in_transaction = true;
        self.run(|c| c.query_drop("START TRANSACTION"))
    }

    fn commit(&mut self) -> Result<(), SqlError> {
        self.run(|c| c.query_drop("COMMIT"))?;
        self.in_transaction = false;
        Ok(())
    }

    fn rollback(&mut self) {
        // Without a connection there is no transaction.
        if self.connection.as_mut().is_some_and(|c| c.query_drop("ROLLBACK").is_err()) {
            self.end_connection();
        }
        self.in_transaction = false;
    }

    fn create_missing(&mut self, for_writing: bool) -> Answer<()> {
        let answer = self.run(|c| {
            if !for_writing {
                let found: Option<u8> = c.exec_first(
                    "SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ?",
                    (Table::Active.name(),),
                )?;
                if found.is_none() {
                    return Ok(false);
                }
            }
            Table::ALL.iter().flat_map(|t| t.create(&DIALECT)).try_for_each(|sql| c.query_drop(sql))?;
            Ok(true)
        });
        match answer {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.unavailable(format!(
                "table {} is missing; vadddomain and svctool create it, or restore the database",
                Table::Active.name()
            ))),
            Err(SqlError::Unavailable(u) | SqlError::Lost(u) | SqlError::Conflict(u)) => Err(u),
            Err(e) => Err(self.unavailable(format!("cannot create tables: {e:?}"))),
        }
    }

    fn name(&self) -> String {
        format!("mysql {}", self.shared.server.host.place())
    }
}

/// Creates the database and its tables where they are missing.
pub(super) fn create(server: &MySqlServer, timeouts: Timeouts) -> Answer<()> {
    let fail = |e: mysql::Error| unavailable(server, explain(&e));
    let connect = |database| Conn::new(options(server, timeouts, database));
    let mut connection = match connect(Some(&server.database)) {
        Err(mysql::Error::MySqlError(e)) if e.code == 1049 => {
            let mut c = connect(None).map_err(fail)?;
            // Checked to be letters, digits and underscores when it was read.
            c.query_drop(format!("CREATE DATABASE IF NOT EXISTS `{}`", server.database)).map_err(fail)?;
            c.query_drop(format!("USE `{}`", server.database)).map_err(fail)?;
            c
        }
        other => other.map_err(fail)?,
    };
    Table::ALL
        .iter()
        .flat_map(|t| t.create(&DIALECT))
        .try_for_each(|sql| connection.query_drop(sql))
        .map_err(fail)
}

fn bound(parameters: &[Value]) -> Params {
    if parameters.is_empty() {
        return Params::Empty;
    }
    Params::Positional(
        parameters
            .iter()
            .map(|p| match p {
                Value::Null => mysql::Value::NULL,
                Value::Number(n) => mysql::Value::Int(*n),
                Value::Bytes(b) => mysql::Value::Bytes(b.clone()),
            })
            .collect(),
    )
}

fn value(cell: mysql::Value) -> Value {
    match cell {
        mysql::Value::NULL => Value::Null,
        mysql::Value::Int(n) => Value::Number(n),
        mysql::Value::UInt(n) => {
            i64::try_from(n).map_or_else(|_| Value::from(n.to_string().as_str()), Value::Number)
        }
        mysql::Value::Bytes(b) => Value::Bytes(b),
        other => Value::from(other.as_sql(true).as_str()),
    }
}
