//! What can happen to a server.

use std::time::{Duration, Instant};

use accounts::{Timeouts, create_store, open_store};
use nix::sys::signal::Signal;

use crate::mariadb::{Server, settings};
use crate::suite::{account, address};

#[test]
fn killed_stopped_and_started_again() {
    let mut server = Server::start();
    let mut settings = server.settings("indimail");
    settings.timeouts = Timeouts {
        connect: Duration::from_millis(500),
        read: Duration::from_millis(500),
        write: Duration::from_millis(500),
    };
    let (ann, bob) = (address("ann@example.com"), address("bob@example.com"));

    // No database yet: cannot tell, and asking does not create one.
    let error = open_store(&settings).account(&ann).unwrap_err().to_string();
    assert!(error.contains("1049") && error.contains("vadddomain"), "{error}");
    create_store(&settings, None).unwrap();
    create_store(&settings, None).unwrap();

    let mut store = open_store(&settings);
    store.insert(&account("ann@example.com")).unwrap();

    // Killed in the middle: every question says so, and no answer is made up.
    server.kill();
    for _ in 0..2 {
        assert!(store.account(&ann).is_err());
        assert!(store.account(&bob).is_err());
        assert!(store.insert(&account("bob@example.com")).is_err());
    }
    server.again();
    assert!(store.account(&ann).unwrap().is_some(), "committed rows survive, the same store finds them");
    assert!(store.account(&bob).unwrap().is_none());

    // The server closed an idle connection: made again without a word.
    server
        .sql("SELECT CONCAT('KILL ', id) FROM information_schema.processlist WHERE user='mailtest'")
        .lines()
        .for_each(|kill| drop(server.sql(kill)));
    assert!(store.account(&ann).unwrap().is_some());
    server
        .sql("SELECT CONCAT('KILL ', id) FROM information_schema.processlist WHERE user='mailtest'")
        .lines()
        .for_each(|kill| drop(server.sql(kill)));
    store.insert(&account("carl@example.com")).unwrap();

    // There but silent: an error after the timeout, not later.
    server.signal(Signal::SIGSTOP);
    let start = Instant::now();
    assert!(store.account(&ann).is_err());
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    server.signal(Signal::SIGCONT);
    assert!(store.account(&ann).unwrap().is_some());

    // An old database lacks a table of ours: created when needed. The main table gone: cannot tell.
    server.sql("DROP TABLE indimail.accountids");
    assert!(store.account(&ann).unwrap().is_some());
    server.sql("RENAME TABLE indimail.indimail TO indimail.saved");
    let error = store.account(&ann).unwrap_err().to_string();
    assert!(error.contains("table indimail is missing"), "{error}");
    server.sql("RENAME TABLE indimail.saved TO indimail.indimail");

    // Rows as other tools write them, in a table that compares without regard to case and accents.
    server.sql(
        "ALTER TABLE indimail.indimail CONVERT TO CHARACTER SET latin1 COLLATE latin1_swedish_ci; \
         INSERT INTO indimail.indimail (pw_name, pw_domain, pw_passwd, pw_uid, pw_gid, pw_gecos, pw_dir, pw_shell) \
         VALUES ('old', 'example.com', 'ab', 1, 0, 'Old', '/home/old', 'NOQUOTA'), \
                ('bad', 'example.com', 'ab', 1, 0, 'Bad', '/home/bad', 'a lot')",
    );
    assert_eq!(store.account(&address("old@example.com")).unwrap().unwrap().gecos, "Old");
    let error = store.account(&address("bad@example.com")).unwrap_err().to_string();
    assert!(error.contains("bad@example.com: column pw_shell"), "{error}");
}

#[test]
fn wrong_password_and_dead_port_cannot_tell() {
    let server = Server::start();
    let socket = match &server.settings("x").kind {
        accounts::StoreKind::MySql(s) => s.host.socket.clone().unwrap(),
        accounts::StoreKind::Sqlite(_) => unreachable!(),
    };
    let error = open_store(&settings(&format!("localhost:mailtest:wrong:{socket}"), "x"))
        .account(&address("ann@example.com"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("host.mysql") && !error.contains("wrong"), "{error}");
    // A port that nobody listens on.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let dead = settings(&format!("127.0.0.1:u:secret:{port}"), "x");
    let error = open_store(&dead).ping().unwrap_err().to_string();
    assert!(error.contains(&port.to_string()) && !error.contains("secret"), "{error}");
}
