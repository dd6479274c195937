//! What can happen to a server.

use std::time::{Duration, Instant};

use accounts::{Timeouts, create_store, open_store};
use e2e::kit::MariaDb;
use nix::sys::signal::Signal;

use crate::mariadb::{over_socket, over_tcp, settings, with_user};
use crate::suite::{account, address};

#[test]
fn killed_stopped_and_started_again() {
    let mut server = with_user(MariaDb::start());
    let mut settings = over_socket(&server, "indimail");
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
    server.launch();
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

    // There but silent: an error after the timeout.
    server.signal(Signal::SIGSTOP);
    let start = Instant::now();
    let error = store.account(&ann).unwrap_err().to_string();
    assert!(error.contains("no answer in time"), "{error}");
    // Far more than the timeout, for a busy machine; without one it would be for ever.
    assert!(start.elapsed() < e2e::kit::PATIENCE, "{:?}", start.elapsed());
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
                ('a%b', 'example.com', 'ab', 1, 0, 'Odd', '/home/odd', 'NOQUOTA'), \
                ('a c', 'example.com', 'ab', 1, 0, 'Odd', '/home/odd', 'NOQUOTA')",
    );
    let names = |store: &mut Box<dyn accounts::AccountStore>, limit| {
        let page = store.list(None, None, limit).unwrap();
        page.iter().map(|a| a.address.local().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&mut store, 1), ["ann"], "names that no address can have are passed over");
    assert_eq!(names(&mut store, 9), ["ann", "carl", "old"]);
    server.sql(
        "INSERT INTO indimail.indimail VALUES \
         ('bad', 'example.com', 'ab', 1, 0, 'Bad', '/home/bad', 'a lot', NULL, NOW())",
    );
    assert_eq!(store.account(&address("old@example.com")).unwrap().unwrap().gecos, "Old");
    // A column without a value is an empty one.
    server.sql(
        "ALTER TABLE indimail.indimail MODIFY pw_uid INT NULL, MODIFY pw_gid INT NULL, MODIFY pw_dir CHAR(156) NULL, \
         MODIFY pw_shell CHAR(30) NULL, MODIFY pw_gecos CHAR(48) NULL, MODIFY pw_passwd CHAR(128) NULL; \
         INSERT INTO indimail.indimail (pw_name, pw_domain) VALUES ('null', 'example.com')",
    );
    let null = store.account(&address("null@example.com")).unwrap().unwrap();
    assert_eq!((null.flags.bits(), null.quota), (0, accounts::Quota::NONE));
    assert!(null.home.as_os_str().is_empty() && null.gecos.is_empty() && null.password.expose().is_empty());
    assert!(!accounts::password::verify(null.combined_password().expose(), b"").unwrap());

    let error = store.account(&address("bad@example.com")).unwrap_err().to_string();
    assert!(error.contains("bad@example.com: column pw_shell"), "{error}");

    // A table from before SCRAM: the remedy is named.
    server.sql("ALTER TABLE indimail.indibak DROP COLUMN scram");
    let error = store.account(&ann).unwrap_err().to_string();
    assert!(error.contains("ADD scram"), "{error}");
}

#[test]
fn wrong_password_and_dead_port_cannot_tell() {
    let server = with_user(MariaDb::start());
    let line = format!("localhost:mailtest:wrong:{}", server.socket().display());
    let error =
        open_store(&settings(&line, "x")).account(&address("ann@example.com")).unwrap_err().to_string();
    assert!(error.contains("host.mysql") && !error.contains("wrong"), "{error}");
    // A port that nobody listens on.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let dead = settings(&format!("127.0.0.1:u:secret:{port}"), "x");
    let error = open_store(&dead).ping().unwrap_err().to_string();
    assert!(error.contains(&port.to_string()) && !error.contains("secret"), "{error}");
}

#[test]
fn over_tcp_with_and_without_tls() {
    let authority = Authority::new();
    let server = with_user(MariaDb::start_with(|dir| {
        let (certificate, key) = authority.issue("127.0.0.1");
        let write = |name: &str, text: String| {
            std::fs::write(dir.join(name), text).unwrap();
            dir.join(name).display().to_string()
        };
        vec![
            format!("--ssl-cert={}", write("cert.pem", certificate)),
            format!("--ssl-key={}", write("key.pem", key)),
        ]
    }));
    server.sql("ALTER USER 'mailtest'@'%' REQUIRE SSL");
    let file = |authority: &Authority, name: &str| {
        let path = server.directory().join(name);
        std::fs::write(&path, authority.certificate.pem()).unwrap();
        path
    };
    let ask = |tls, authority| {
        let mut settings = over_tcp(&server, "tls", tls);
        if let accounts::StoreKind::MySql(s) = &mut settings.kind {
            s.authority = authority;
        }
        create_store(&settings, None)?;
        open_store(&settings).ping()
    };
    ask("ssl", Some(file(&authority, "ca.pem"))).unwrap();
    assert!(ask("nossl", None).is_err(), "the server insists on TLS");
    assert!(ask("ssl", None).is_err(), "a certificate of an authority nobody trusts");
    assert!(ask("ssl", Some(file(&Authority::new(), "other.pem"))).is_err(), "of another authority");
    server.sql("ALTER USER 'mailtest'@'%' REQUIRE NONE");
    ask("nossl", None).unwrap();
}

struct Authority {
    certificate: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        Self { certificate, issuer: rcgen::Issuer::new(parameters, key) }
    }

    fn issue(&self, name: &str) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let parameters = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        (parameters.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}
