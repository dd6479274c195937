//! Rules in a table of MariaDB.

mod server;

use server::*;

use std::fs;
use std::path::Path;
use std::process::Command;

use e2e::kit::MariaDb;
use nix::sys::signal::Signal;

const TABLE: &str = "CREATE DATABASE rules; CREATE TABLE rules.smtp (port INT NOT NULL, \
    timestamp TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP, \
    iprule VARCHAR(255) NOT NULL, decision CHAR(5) NOT NULL, env TEXT, PRIMARY KEY (port, iprule));";

/// The file of -m and the executable's other name in the kit.
fn configure(kit: &Kit, database: &MariaDb) {
    let executable = Path::new(env!("CARGO_BIN_EXE_tcprules-sql"));
    assert_eq!(executable.parent(), Path::new(env!("CARGO_BIN_EXE_ucspi-tcp")).parent());
    fs::write(kit.path("db.conf"), format!("{}:root::rules:smtp\n", database.socket().display())).unwrap();
}

#[test]
fn a_table_is_followed_through_its_life() {
    let (kit, mut database) = (Kit::new(), MariaDb::start());
    configure(&kit, &database);
    database.sql(TABLE);
    let dir = kit.path("tmp");
    fs::create_dir(&dir).unwrap();
    let program = ["127.0.0.1", "0", "/bin/sh", "-c", "echo \"${A-none}.$B.\""];
    let mut server = kit.server_with(&args(&[&["-m", "./db.conf"], &program[..]].concat()), |c| {
        c.env("TMPDIR", &dir).env("B", "old");
    });
    // A table without rows allows everybody, as an empty database does.
    assert_eq!(server.answer(), "none.old.\n");
    let insert = |rows: &str| {
        database.sql(&format!("INSERT INTO rules.smtp (port, iprule, decision, env) VALUES {rows};"))
    };
    let port = server.port;
    insert(&format!(
        "({port}, '127.', 'allow', 'A=b\\\\,c,!B'), ({port}, '127.0.0.9', 'deny', ''), (1, '127.0.0.1', 'deny', '')"
    ));
    server.signal(Signal::SIGHUP);
    wait_until("the new rows", || server.answer() == "b,c..\n");
    assert_eq!(read_all(server.connect_from("127.0.0.9")), "");
    // A row that makes no sense denies, and is complained about once.
    insert(&format!("({port}, '127.0.0.1', 'maybe', '')"));
    wait_until("no HUP is needed", || server.answer().is_empty());
    kit.wait_log("tcprules-sql: warning: iprule 127.0.0.1: decision is neither allow nor deny; denied\n");
    database.sql("DELETE FROM rules.smtp WHERE iprule = '127.0.0.1';");
    wait_until("the row is gone", || server.answer() == "b,c..\n");
    // Without the database's server, the last rules stay.
    database.kill();
    server.signal(Signal::SIGHUP);
    kit.wait_log("unable to read table smtp: ");
    assert_eq!(server.answer(), "b,c..\n");
    assert!(kit.text("log").contains("; the last rules stay in force"));
    database.launch();
    database.sql(&format!("UPDATE rules.smtp SET env = 'A=new' WHERE port = {port} AND iprule = '127.';"));
    wait_until("it is back", || server.answer() == "new.old.\n");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(), Some(0));
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn without_a_table_nobody_comes_in_unless_x_says_so() {
    let (kit, database) = (Kit::new(), MariaDb::start());
    configure(&kit, &database);
    database.sql("CREATE DATABASE rules;");
    for (options, says) in [(&["-m", "./db.conf"][..], ""), (&["-X", "-m", "./db.conf"], "in\n")] {
        let dir = kit.path("tmp");
        fs::create_dir(&dir).unwrap();
        let server =
            kit.server_with(&args(&[options, &["127.0.0.1", "0", "/bin/echo", "in"]].concat()), |c| {
                c.env("TMPDIR", &dir);
            });
        assert_eq!(server.answer(), says, "{options:?}");
        kit.wait_log("unable to read table smtp: it does not exist; the manual page of tcprules-sql says how to make it");
        // A server that is killed leaves nothing behind either.
        drop(server);
        wait_until("the directory is removed", || fs::read_dir(&dir).unwrap().count() == 0);
        fs::remove_dir(&dir).unwrap();
    }
    let make = |file: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tcprules-sql"));
        command.args([file, "25", "out.cdb"]).current_dir(kit.path(""));
        let out = command.output().unwrap();
        (out.status.code(), String::from_utf8(out.stderr).unwrap())
    };
    assert_eq!(make("./db.conf").0, Some(111));
    database.sql(&TABLE["CREATE DATABASE rules; ".len()..]);
    database
        .sql("INSERT INTO rules.smtp (port, iprule, decision, env) VALUES (25, '10.0.0.0/8', 'deny', NULL);");
    assert_eq!(make("./db.conf"), (Some(0), String::new()));
    let out = kit.command("tcprulescheck").arg("out.cdb").env("TCPREMOTEIP", "10.1.1.1").output().unwrap();
    assert_eq!(String::from_utf8(out.stdout).unwrap(), "rule _00001010:\ndeny connection\n");
    fs::write(kit.path("bad"), "localhost:root:secret\n").unwrap();
    let (code, text) = make("./bad");
    assert!(
        code == Some(100) && text.contains("expected server:user:password") && !text.contains("secret"),
        "{text}"
    );
    assert_eq!(make("./nosuch").0, Some(100));
}
