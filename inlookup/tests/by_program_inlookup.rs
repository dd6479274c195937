//! `inlookup` and `inquerytest` as programs: a real store, a real socket, the mail users.

mod site;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;

use accounts::ServiceFlags;
use e2e::kit::{self, PATIENCE, until};
use lookup::mail::Request;
use nix::sys::signal::Signal;
use site::Site;

fn password(text: &str) -> Vec<u8> {
    format!("{text}\nwhat follows does not count").into_bytes()
}

#[test]
fn each_question_has_its_answer_and_exit_code() {
    let mut site = Site::new(|etc, _| etc);
    site.add("off", |a| a.active = false);
    site.add("full", |a| a.flags = ServiceFlags::BOUNCE_MAIL);
    site.add("nopop", |a| a.flags = ServiceFlags::NO_POP);
    let sales = accounts::Address::parse(b"sales@example.com").unwrap();
    site.store().add_alias(&sales, b"&jane@example.com").unwrap();
    let jane = accounts::Address::parse(b"jane@example.com").unwrap();
    let now = i64::try_from(unix::clock::unix_seconds()).unwrap();
    site.store().open_relay(&jane, "192.0.2.1", now).unwrap();
    site.store().open_relay(&jane, "192.0.2.9", now - 7200).unwrap();
    site.start();
    for (arguments, first_line, code) in [
        (&["-q", "1", "jane@example.com"][..], "found", 0),
        (&["-q", "user", "Jane@Alias.Example"], "found", 0),
        (&["-q", "1", "off@example.com"], "inactive", 0),
        (&["-q", "1", "full@example.com"], "over quota", 0),
        (&["-q", "1", "sales@alias.example"], "alias", 0),
        (&["-q", "1", "nobody@example.com"], "absent", 1),
        (&["-q", "1", "jane@elsewhere.org"], "absent", 1),
        (&["-q", "2", "jane@example.com", "192.0.2.1"], "allowed", 0),
        (&["-q", "2", "jane@alias.example", "192.0.2.1"], "allowed", 0),
        (&["-q", "2", "jane@example.com", "192.0.2.9"], "not allowed", 1),
        (&["-q", "2", "nobody@example.com", "192.0.2.1"], "not allowed", 1),
        (&["-q", "3", "nobody@example.com"], "absent", 1),
        (&["-q", "5", "jane@example.com"], "absent", 1),
        (&["-q", "account", "jane@example.com"], "granted", 0),
        (&["-q", "account", "off@example.com"], "disabled", 1),
        (&["-q", "account", "--service", "pop3", "nopop@example.com"], "disabled", 1),
        (&["-q", "flush", "jane@example.com"], "done", 0),
        (&["-q", "flush", "example.com"], "done", 0),
        (&["-q", "flush"], "done", 0),
    ] {
        let out = site.ask(arguments);
        assert_eq!(
            (out.stdout.lines().next(), out.code),
            (Some(first_line), code),
            "{arguments:?} {}",
            out.stderr
        );
    }
    assert_eq!(site.ask(&["-q", "7", "alias.example"]).ok().stdout, "found\ndomain example.com\n");
    assert_eq!(site.ask(&["-q", "7", "elsewhere.org"]).code, 1);
    assert_eq!(site.ask(&["-q", "5", "sales@example.com"]).ok().stdout, "found\naliases &jane@example.com\n");
    let json = site.ask(&["-q", "3", "--json", "jane@alias.example"]).ok().stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["address"], "jane@example.com");
    assert_eq!(json["uid"], site.indimail().0.to_string());
    assert_eq!(json["home"], site.at("home/jane").to_str().unwrap());
    assert_eq!(json["aliases"], serde_json::json!([]));
    for (address, given, service, first_line, code) in [
        ("jane@example.com", "secret", "imap", "granted", 0),
        ("jane@alias.example", "secret", "sshd", "granted", 0),
        ("jane@example.com", "wrong", "imap", "wrong", 1),
        ("nobody@example.com", "secret", "imap", "absent", 1),
        ("off@example.com", "secret", "imap", "disabled", 1),
        ("off@example.com", "wrong", "imap", "wrong", 1),
        ("nopop@example.com", "secret", "pop3", "disabled", 1),
        ("nopop@example.com", "secret", "imap", "granted", 0),
    ] {
        let out = site.ask_with(&["-q", "8", "--service", service, address, "192.0.2.7"], &password(given));
        assert_eq!(
            (out.stdout.lines().next(), out.code),
            (Some(first_line), code),
            "{address} {given} {service}"
        );
        assert!(!out.stdout.contains("$6$"));
    }
    let log = site.log();
    assert!(log.contains("login: jane@example.com from 192.0.2.7 for imap: wrong password"), "{log}");
    assert!(!log.contains("secret") && !log.contains("$6$"), "{log}");
    assert_eq!(site.stop(), Some(0));
}

#[test]
fn the_password_may_come_on_any_descriptor() {
    let site = Site::running();
    site.ask(&["-q", "user", "jane@example.com"]).ok();
    let mut command = Command::new("sh");
    command.args(["-c", r#"exec "$0" -q 8 --password-fd 7 jane@example.com 7<"$1""#]);
    std::fs::write(site.at("password"), "secret").unwrap();
    command.arg(site.at("inquerytest")).arg(site.at("password")).env("INLOOKUP_SOCKET", site.socket());
    assert!(kit::run(&mut command).ok().stdout.starts_with("granted\n"));
    let closed = site.ask(&["-q", "8", "--password-fd", "7", "jane@example.com"]);
    assert_eq!(closed.code, 2);
    assert!(closed.stderr.contains("descriptor 7"), "{}", closed.stderr);
}

#[test]
fn wrong_usage_is_named() {
    let site = Site::new(|etc, _| etc);
    for (arguments, expected) in [
        (&["jane@example.com"][..], "option -q is missing"),
        (&["-q", "4", "jane@example.com"], "option -q: 4: expected"),
        (&["-q", "1"], "user needs an address"),
        (&["-q", "2", "jane@example.com"], "relay needs an address and an ip"),
        (&["-q", "1", "-t", "0", "jane@example.com"], "option -t: 0: expected a number from 1 to 600"),
        (&["-q", "1", "a", "b", "c"], "unexpected operand"),
    ] {
        let out = site.ask(arguments);
        assert_eq!(out.code, 2, "{arguments:?}");
        assert!(out.stderr.contains(expected), "{arguments:?}: {}", out.stderr);
    }
    let out = site.ask(&["-q", "1", "jane@example.com"]);
    assert_eq!(out.code, 75, "no daemon is no answer");
    assert!(out.stderr.contains("is the daemon running?"), "{}", out.stderr);
    let mut command = site.daemon_command();
    command.args(["-i", "0"]).env("INLOOKUP_TTL", "long").env("INLOOKUP_FAILURES", "-1");
    let out = kit::run(&mut command);
    assert_eq!(out.code, 1);
    for expected in ["option -i: 0:", "variable INLOOKUP_TTL: long:", "variable INLOOKUP_FAILURES: -1:"] {
        assert!(out.stderr.contains(expected), "{}", out.stderr);
    }
    assert_eq!(kit::run(site.daemon_command().arg("operand")).code, 2);
    std::fs::write(site.at("control/accountstore"), "postgres:\n").unwrap();
    let out = kit::run(&mut site.daemon_command());
    assert_eq!(out.code, 1);
    assert!(out.stderr.contains("accountstore:1: "), "{}", out.stderr);
}

#[test]
fn the_daemon_gives_root_up_and_its_socket_to_the_mail_system() {
    let site = Site::running();
    let (uid, gid) = site.indimail();
    let qmail = site.etc.gid("qmail");
    assert_eq!(site.owner_of(&site.socket()), (uid, qmail, 0o660));
    let status = std::fs::read_to_string(format!("/proc/{}/status", site.pid())).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap();
        line.split_whitespace().map(|n| n.parse::<u32>().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(field("Uid:"), [uid; 4]);
    assert_eq!(field("Gid:"), [gid; 4]);
    assert_eq!(field("Groups:"), [qmail]);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", site.pid())).unwrap();
    let core = limits.lines().find(|l| l.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    // Not even another process of indimail may look at the passwords in its memory.
    let mut peek = Command::new("setpriv");
    peek.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}")).args([
        "--clear-groups",
        "--",
        "head",
        "-c1",
    ]);
    let out = kit::run(peek.arg(format!("/proc/{}/mem", site.pid())));
    assert!(out.stderr.contains("Permission denied"), "{}", out.stderr);
}

#[test]
fn who_may_ask_what() {
    let site = Site::running();
    let (etc, qmail) = (&site.etc, site.etc.gid("qmail"));
    let nofiles = etc.gid("nofiles");
    let look = ["-q", "3", "jane@example.com"];
    let login = ["-q", "8", "jane@example.com"];
    let manage = ["-q", "status"];
    let codes = |uid: u32, gid: u32, groups: &[u32]| {
        [&look[..], &login, &manage].map(|q| site.ask_as(uid, gid, groups, q, b"secret").code)
    };
    assert_eq!(codes(0, 0, &[]), [0, 0, 0]);
    assert_eq!(codes(etc.uid("indimail"), etc.gid("indimail"), &[]), [0, 0, 0]);
    assert_eq!(codes(etc.uid("qmaild"), nofiles, &[qmail]), [0, 0, 75], "qmaild");
    assert_eq!(codes(etc.uid("qmails"), qmail, &[]), [0, 0, 75], "qmails");
    // Somebody who was let in through the group may check passwords and nothing else.
    assert_eq!(codes(61_234, 61_234, &[qmail]), [75, 0, 75], "a guest");
    // Who is not in the group does not reach the socket.
    assert_eq!(codes(61_234, 61_234, &[]), [75, 75, 75], "a stranger");
    assert!(site.log().contains("warning: refused: status: uid 61234 may not ask"), "{}", site.log());
}

#[test]
fn a_store_that_is_away_is_no_answer_and_what_is_remembered_goes_on() {
    let mut site = Site::running();
    site.ask(&["-q", "1", "jane@example.com"]).ok();
    let (file, aside) = (site.at("var/accounts.sqlite"), site.at("var/aside"));
    std::fs::rename(&file, &aside).unwrap();
    assert_eq!(site.ask(&["-q", "1", "jane@example.com"]).ok().stdout, "found\n");
    for arguments in [
        &["-q", "1", "joe@example.com"][..],
        &["-q", "3", "joe@example.com"],
        &["-q", "8", "jane@example.com"],
    ] {
        let out = site.ask_with(arguments, b"secret");
        assert_eq!(out.code, 75, "{arguments:?}: {}", out.stdout);
    }
    // A domain that is not ours needs no store to be known as that.
    assert_eq!(site.ask(&["-q", "1", "jane@elsewhere.org"]).code, 1);
    assert!(site.log().contains("warning: cannot tell: "), "{}", site.log());
    std::fs::rename(&aside, &file).unwrap();
    assert_eq!(site.ask(&["-q", "1", "joe@example.com"]).code, 1);
    assert_eq!(site.ask_with(&["-q", "8", "jane@example.com"], b"secret").code, 0);
    // A domain table that cannot be read is no answer either.
    std::fs::write(site.at("assign/cdb"), b"damaged").unwrap();
    assert_eq!(site.ask(&["-q", "7", "example.com"]).code, 75);
    assert_eq!(site.stop(), Some(0));
}

#[test]
fn changes_count_when_the_tools_tell_or_the_daemon_is_told_to_reload() {
    let site = Site::running();
    let user = |address: &str| site.ask(&["-q", "1", address]).stdout;
    assert_eq!((user("jane@example.com"), user("new@example.com")), ("found\n".into(), "absent\n".into()));
    site.add("new", |_| {});
    assert_eq!(user("new@example.com"), "absent\n");
    site.ask(&["-q", "flush", "new@example.com"]).ok();
    assert_eq!(user("new@example.com"), "found\n");
    site.store().delete(&accounts::Address::parse(b"new@example.com").unwrap()).unwrap();
    assert_eq!(user("new@example.com"), "found\n");
    site.signal(Signal::SIGHUP);
    until(PATIENCE, "the reload is logged", || site.log().contains("status: reloaded"));
    assert_eq!(user("new@example.com"), "absent\n");
    // A reload with settings that make no sense keeps the old ones.
    std::fs::write(site.at("control/accountstore"), "postgres:\n").unwrap();
    site.signal(Signal::SIGHUP);
    until(PATIENCE, "the refusal is logged", || site.log().contains("the old settings stay"));
    assert_eq!(user("jane@example.com"), "found\n");
    // Another store counts from the next question on.
    std::fs::write(site.at("control/accountstore"), "sqlite:/nonexistent\n").unwrap();
    site.signal(Signal::SIGHUP);
    until(PATIENCE, "the reload is logged", || site.log().contains("accounts in sqlite:/nonexistent"));
    assert_eq!(site.ask(&["-q", "1", "jane@example.com"]).code, 75);
}

#[test]
fn a_password_changed_behind_its_back_counts_at_once() {
    let site = Site::running();
    let login = |given: &str| site.ask_with(&["-q", "8", "jane@example.com"], given.as_bytes()).code;
    assert_eq!((login("secret"), login("changed")), (0, 1));
    let jane = accounts::Address::parse(b"jane@example.com").unwrap();
    let mut account = site.store().account(&jane).unwrap().unwrap();
    account.password = accounts::password::create(accounts::password::Scheme::Yescrypt, b"changed").unwrap();
    site.store().update(&account).unwrap();
    assert_eq!((login("secret"), login("changed")), (1, 0));
}

#[test]
fn every_scheme_is_checked_and_nothing_else_gets_in() {
    use accounts::password::{Scheme, create};
    let mut site = Site::new(|etc, _| etc);
    site.variables = vec![("INLOOKUP_FAILURES", "0".into())];
    let schemes = [
        ("des", Scheme::Des),
        ("md5", Scheme::Md5),
        ("sha256", Scheme::Sha256),
        ("sha512", Scheme::Sha512),
        ("yescrypt", Scheme::Yescrypt),
        ("bcrypt", Scheme::Bcrypt),
        ("argon", Scheme::Argon2id),
    ];
    for (local, scheme) in schemes {
        site.add(local, |a| a.password = create(scheme, b"secret").unwrap());
    }
    site.add("scram", |a| a.scram = Some(b"{CRAM}secret".as_slice().into()));
    site.start();
    let login = |address: &str, given: &[u8]| site.ask_with(&["-q", "8", address], given).code;
    for local in schemes.iter().map(|s| s.0).chain(["scram"]) {
        let address = format!("{local}@example.com");
        assert_eq!((login(&address, b"secret"), login(&address, b"Secret")), (0, 1), "{local}");
    }
    for address in [
        "' or '1'='1@example.com",
        "jane'--@example.com",
        "%@example.com",
        "jane@example.com' or 'a'='a",
        "../jane@example.com",
    ] {
        assert_eq!(login(address, b"secret"), 1, "{address}");
        assert_eq!(site.ask(&["-q", "1", address]).code, 1, "{address}");
    }
    assert_eq!(login("jane@example.com", &[b'x'; 600]), 1);
}

#[test]
fn logins_are_noted_and_open_the_relay_when_wanted() {
    let mut site = Site::new(|etc, _| etc);
    site.variables = vec![("OPEN_SMTP", "1".into())];
    site.start();
    let login = |service: &str, given: &[u8]| {
        site.ask_with(&["-q", "8", "--service", service, "jane@alias.example", "192.0.2.1"], given).code
    };
    let relay = || site.ask(&["-q", "2", "jane@example.com", "192.0.2.1"]).code;
    let jane = accounts::Address::parse(b"jane@example.com").unwrap();
    let services = || {
        let mut all: Vec<_> = site.store().events(&jane).unwrap();
        all.sort_by(|a, b| a.service.as_str().cmp(b.service.as_str()));
        all.into_iter().map(|e| format!("{} {}", e.service.as_str(), e.remote_ip)).collect::<Vec<_>>()
    };
    let before = services();
    assert_eq!((login("imap", b"wrong"), login("sshd", b"secret")), (1, 0));
    until(PATIENCE, "the login is noted", || services().contains(&"sshd 192.0.2.1".to_owned()));
    assert_eq!((services().len(), relay()), (before.len() + 1, 1));
    assert_eq!(login("imap", b"secret"), 0);
    until(PATIENCE, "the relay is open", || relay() == 0);
    assert!(services().contains(&"imap 192.0.2.1".to_owned()));
}

#[test]
fn signals_and_restarts() {
    let mut site = Site::running();
    site.ask(&["-q", "1", "jane@example.com"]).ok();
    site.signal(Signal::SIGUSR1);
    until(PATIENCE, "the status line", || site.log().contains("status: uptime"));
    assert!(site.log().contains(" user 1 mailbox 0 "), "{}", site.log());
    // A second daemon does not take a living socket over.
    let out = kit::run(&mut site.daemon_command());
    assert_eq!(out.code, 1);
    assert!(out.stderr.contains("another process listens"), "{}", out.stderr);
    // A killed one leaves its socket file behind; the next one starts all the same.
    site.kill();
    assert!(site.socket().exists());
    assert_eq!(site.ask(&["-q", "1", "jane@example.com"]).code, 75);
    site.start();
    site.ask(&["-q", "1", "jane@example.com"]).ok();
    assert_eq!(site.stop(), Some(0));
    site.start();
    site.signal(Signal::SIGINT);
    assert_eq!(site.stop(), Some(0));
}

#[test]
fn what_is_no_request_is_refused_and_ends_the_connection() {
    let site = Site::running();
    for bytes in [
        &[0, 0, 0x10, 1, 1, 1, 0, 0][..],
        b"\0\0\0\x04\x09\x01\0\0",
        b"\0\0\0\x04\x01\xc8\0\0",
        b"\0\0\0\x06\x01\x01\0\0\0\x05",
        b"USER jane\r\n",
    ] {
        let mut stream = UnixStream::connect(site.socket()).unwrap();
        stream.write_all(bytes).unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).unwrap();
        assert_eq!(reply, [0, 0, 0, 4, 1, lookup::mail::STATUS_REFUSED, 0, 0], "{bytes:?}");
    }
    site.ask(&["-q", "1", "jane@example.com"]).ok();
}

#[test]
fn a_flood_of_logins_leaves_lookups_alone() {
    let mut site = Site::new(|etc, _| etc);
    site.options = vec!["-a", "1", "-i", "1"];
    site.variables = vec![("INLOOKUP_FAILURES", "0".into()), ("INLOOKUP_HOST_FAILURES", "0".into())];
    // Bcrypt at cost 12 takes about a quarter of a second.
    site.add("slow", |a| {
        a.password = accounts::password::create(accounts::password::Scheme::Bcrypt, b"secret").unwrap();
    });
    site.start();
    let mut flood: Vec<UnixStream> = (0..12)
        .map(|_| {
            let mut stream = UnixStream::connect(site.socket()).unwrap();
            let mut bytes = Vec::new();
            let login = Request::Authenticate {
                address: b"slow@example.com",
                password: b"wrong",
                service: b"imap",
                remote_host: b"192.0.2.1",
            };
            login.encode(&mut bytes).unwrap();
            stream.write_all(&bytes).unwrap();
            stream
        })
        .collect();
    let mut client = lookup::mail::Client::new(&site.socket(), PATIENCE);
    for n in 0..20 {
        assert!(client.mailbox(b"jane@example.com").unwrap().is_some());
        assert_eq!(client.mailbox(format!("u{n}@example.com").as_bytes()), Ok(None));
    }
    // All of that was answered while logins were still waiting their turn.
    let status = client.status().unwrap();
    let (_, waiting) = status.iter().find(|(name, _)| name == b"waiting").unwrap();
    assert_ne!(waiting, b"0", "{status:?}");
    for stream in &mut flood {
        let mut reply = [0; 8];
        stream.read_exact(&mut reply).unwrap();
    }
}

#[test]
fn guessing_is_answered_later_without_an_answer_about_the_password() {
    let mut site = Site::new(|etc, _| etc);
    site.variables = vec![("INLOOKUP_FAILURES", "3".into())];
    site.start();
    let login = |given: &str| site.ask_with(&["-q", "8", "jane@example.com", "192.0.2.1"], given.as_bytes());
    for _ in 0..3 {
        assert_eq!(login("guess").stdout, "wrong\n");
    }
    assert_eq!((login("guess").stdout, login("secret").stdout), ("later\n".into(), "later\n".into()));
    site.signal(Signal::SIGHUP);
    until(PATIENCE, "the failures are forgotten", || login("secret").code == 0);
}

#[test]
fn a_database_server_may_go_hang_and_come_back() {
    let mut db = kit::MariaDb::start();
    db.sql("create database indimail; create user mail identified by 'pass-word'; grant all on indimail.* to mail;");
    let mut site = Site::new(|etc, _| etc);
    let line = format!("localhost:mail:pass-word:{}\n", db.socket().display());
    std::fs::write(site.at("control/host.mysql"), line).unwrap();
    kit::set_mode(&site.at("control/host.mysql"), 0o640);
    std::os::unix::fs::chown(site.at("control/host.mysql"), Some(0), Some(site.etc.gid("qmail"))).unwrap();
    std::fs::write(site.at("control/accountstore"), "mysql:\n").unwrap();
    std::fs::write(site.at("control/timeoutread"), "2\n").unwrap();
    let control = control::Directory::new(site.at("control"));
    let settings = accounts::StoreSettings::load(&control, &site.at("var")).unwrap();
    accounts::create_store(&settings, None).unwrap();
    let jane =
        accounts::Account::new(accounts::Address::parse(b"jane@example.com").unwrap(), "/home/jane".into());
    accounts::open_store(&settings).insert(&jane).unwrap();
    site.options = vec!["-i", "2", "-a", "1"];
    site.variables = vec![("INLOOKUP_TTL", "0".into()), ("INLOOKUP_NEGATIVE_TTL", "0".into())];
    site.start();
    assert!(!site.log().contains("pass-word"), "{}", site.log());
    let ask = || site.ask(&["-q", "1", "-t", "20", "jane@example.com"]);
    // Many questions, few connections: each worker keeps its own.
    let before: u64 = connections(&db);
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let socket = site.socket();
            std::thread::spawn(move || {
                let mut client = lookup::mail::Client::new(&socket, PATIENCE);
                for _ in 0..250 {
                    assert_eq!(client.user(b"jane@example.com"), Ok(lookup::mail::UserStatus::Found));
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    // The client that counts is one of them, each time.
    let used = connections(&db) - before - 1;
    assert!(used <= 3, "{used} connections for 1000 questions");
    // Killed: cannot tell. Back again: as before, without a restart of ours.
    db.kill();
    assert_eq!(ask().code, 75);
    db.launch();
    until(PATIENCE, "it answers again", || ask().code == 0);
    // Hanging: one question finds out, the next ones are told at once.
    db.signal(Signal::SIGSTOP);
    assert_eq!(ask().code, 75);
    let out = site.ask(&["-q", "1", "-t", "20", "other@example.com"]);
    let log = site.log();
    db.signal(Signal::SIGCONT);
    assert!(out.stderr.contains("cannot tell now"), "{}", out.stderr);
    assert!(log.contains("warning: cannot tell: "), "{log}");
    until(PATIENCE, "it answers again", || ask().code == 0);
    assert_eq!(site.stop(), Some(0));
}

fn connections(db: &kit::MariaDb) -> u64 {
    let row = db.sql("show global status like 'Connections'");
    row.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn every_variable_of_the_help_text_is_looked_at() {
    let mut site = Site::new(|etc, _| etc);
    site.options.clear();
    let help = kit::run(site.daemon_command().arg("--help")).ok().stdout;
    let rows = help.lines().skip_while(|l| !l.starts_with("variables:")).skip(1);
    let rows = rows.take_while(|l| l.starts_with(' ') || l.is_empty());
    let names: Vec<&str> = rows
        .filter(|l| l.starts_with("  ") && !l.starts_with("    "))
        .filter_map(|l| l.split_whitespace().next())
        .collect();
    assert!(names.len() > 12, "{names:?}");
    for name in names {
        // Those are not shown under their own names.
        if ["CONTROLDIR", "SYSCONFDIR", "NOTIFY_SOCKET"].contains(&name) {
            continue;
        }
        let shown = kit::run(site.daemon_command().arg("--show-settings").env(name, "7")).ok().stdout;
        assert!(shown.contains(&format!("variable {name}\n")), "{name}: {shown}");
    }
}
