//! Stores that share the connections of one pool.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use accounts::{StorePool, StoreSettings, create_store};
use e2e::kit::MariaDb;
use nix::sys::signal::Signal;

use crate::mariadb::{over_socket, with_user};
use crate::suite::{account, address};

const LIMIT: usize = 3;

fn pooled(server: &MariaDb, connect: Duration) -> StoreSettings {
    let mut settings = over_socket(server, "indimail");
    create_store(&settings, None).unwrap();
    settings.connections = LIMIT;
    settings.timeouts.connect = connect;
    settings
}

fn status(server: &MariaDb, name: &str) -> u64 {
    let row = server.sql(&format!("SHOW GLOBAL STATUS LIKE '{name}'"));
    row.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn connections(server: &MariaDb) -> String {
    server
        .sql("SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'mailtest'")
        .trim()
        .to_owned()
}

#[test]
fn together_they_keep_the_limit_and_every_worker_its_statements() {
    let server = with_user(MariaDb::start());
    let pool = StorePool::new(&pooled(&server, e2e::kit::PATIENCE));
    pool.open().insert(&account("ann@example.com")).unwrap();
    let ann = address("ann@example.com");

    // The server itself refuses one more.
    server.sql(&format!("ALTER USER 'mailtest'@'%' WITH MAX_USER_CONNECTIONS {LIMIT}"));
    let before = status(&server, "Com_stmt_prepare");
    let (start, held, end) = (Barrier::new(LIMIT), Barrier::new(LIMIT + 1), Barrier::new(LIMIT + 1));
    std::thread::scope(|scope| {
        for _ in 0..LIMIT {
            scope.spawn(|| {
                let mut store = pool.open();
                start.wait();
                for _ in 0..200 {
                    assert!(store.account(&ann).unwrap().is_some());
                    assert!(store.aliases(&ann).unwrap().is_empty());
                }
                held.wait();
                end.wait();
            });
        }
        held.wait();
        assert_eq!(connections(&server), LIMIT.to_string());
        // Two statements of each worker, once; nothing for the other 199 questions.
        let prepared = status(&server, "Com_stmt_prepare") - before;
        assert_eq!(prepared, 2 * u64::try_from(LIMIT).unwrap());
        end.wait();
    });

    // Many more stores than connections, each for one question: they wait for each other, and use what
    // the others left, statements and all.
    let made = status(&server, "Connections");
    std::thread::scope(|scope| {
        for _ in 0..4 * LIMIT {
            scope.spawn(|| (0..20).for_each(|_| assert!(pool.open().account(&ann).unwrap().is_some())));
        }
    });
    assert_eq!(connections(&server), LIMIT.to_string());
    assert_eq!(status(&server, "Com_stmt_prepare") - before, 2 * u64::try_from(LIMIT).unwrap());
    // Those of the test's own client: two statuses and the count.
    assert_eq!(status(&server, "Connections") - made, 3);
    drop(pool);
    e2e::kit::until(e2e::kit::PATIENCE, "the pool's connections end with it", || connections(&server) == "0");
}

#[test]
fn one_too_many_cannot_tell_and_lost_connections_make_room() {
    let server = with_user(MariaDb::start());
    let mut settings = pooled(&server, Duration::from_millis(700));
    settings.timeouts.read = Duration::from_millis(700);
    let pool = StorePool::new(&settings);
    let ann = address("ann@example.com");
    let mut stores: Vec<_> = (0..LIMIT).map(|_| pool.open()).collect();
    stores[0].insert(&account("ann@example.com")).unwrap();
    let ask = |stores: &mut Vec<Box<dyn accounts::AccountStore>>| {
        stores.iter_mut().for_each(|s| assert!(s.account(&ann).unwrap().is_some()));
    };
    ask(&mut stores);
    let mut more = pool.open();
    let error = more.account(&ann).unwrap_err().to_string();
    assert!(error.contains("all 3 connections of this program are in use"), "{error}");
    drop(stores.pop());
    assert!(more.account(&ann).unwrap().is_some());
    stores.push(more);

    // Lost and ended connections count no longer, however often it happens.
    for _ in 0..LIMIT {
        server
            .sql("SELECT CONCAT('KILL ', id) FROM information_schema.processlist WHERE user = 'mailtest'")
            .lines()
            .for_each(|kill| drop(server.sql(kill)));
        ask(&mut stores);
        server.signal(Signal::SIGSTOP);
        // All at once: nobody waits for the others' connections.
        let start = Instant::now();
        for _ in 0..2 {
            std::thread::scope(|scope| {
                for store in &mut stores {
                    scope.spawn(|| assert!(store.account(&ann).is_err()));
                }
            });
        }
        assert!(start.elapsed() < e2e::kit::PATIENCE, "{:?}", start.elapsed());
        server.signal(Signal::SIGCONT);
        ask(&mut stores);
    }
    e2e::kit::until(e2e::kit::PATIENCE, "only the last connections are left", || {
        connections(&server) == LIMIT.to_string()
    });
}
