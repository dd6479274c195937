//! Settings for the servers of the tests.

use accounts::{HostMysql, MySqlServer, StoreKind, StoreSettings, Timeouts};
use e2e::kit::MariaDb;

const USER: &str = "mailtest";
const PASSWORD: &str = "a pass:word";

/// Adds the user that [`over_socket`] and [`over_tcp`] log in as.
pub(crate) fn with_user(server: MariaDb) -> MariaDb {
    server.sql(&format!(
        "CREATE USER '{USER}'@'%' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON *.* TO '{USER}'@'%'"
    ));
    server
}

pub(crate) fn over_socket(server: &MariaDb, database: &str) -> StoreSettings {
    settings(&format!("localhost:{USER}:{PASSWORD}:{}", server.socket().display()), database)
}

pub(crate) fn over_tcp(server: &MariaDb, database: &str, tls: &str) -> StoreSettings {
    settings(&format!("127.0.0.1:{USER}:{PASSWORD}:{}:{tls}", server.port()), database)
}

/// Over TCP, through another port than the server's.
pub(crate) fn through(port: u16, database: &str) -> StoreSettings {
    settings(&format!("127.0.0.1:{USER}:{PASSWORD}:{port}:nossl"), database)
}

pub(crate) fn settings(line: &str, database: &str) -> StoreSettings {
    let server = MySqlServer {
        host: HostMysql::parse(line.as_bytes()).unwrap(),
        database: database.to_owned(),
        authority: None,
    };
    StoreSettings { kind: StoreKind::MySql(server), timeouts: Timeouts::default(), connections: 1 }
}
