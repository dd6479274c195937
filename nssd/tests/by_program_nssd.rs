//! The daemon itself, on a store of its own.

mod house;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use e2e::kit::{self, run};
use house::{House, furnished, ids};
use lookup::identity::{Map, Reply, Request};
use lookup::{Key, Unavailable};
use unix::Signal;

#[test]
fn users_groups_and_shadow_from_a_real_store() {
    let house = furnished();
    let daemon = house.start(&[]);
    let mut client = daemon.client();
    let ann = client.user(b"ann@example.org").unwrap().unwrap();
    assert_eq!((ann.uid, ann.gid, ann.gecos.as_slice()), (8001, 8001, &b"Ann Example"[..]));
    assert_eq!((ann.home.as_slice(), ann.shell.as_slice()), (&b"/home/mail/ann"[..], &b"/bin/sh"[..]));
    let bob = client.user(b"bob@example.org").unwrap().unwrap();
    assert_eq!((bob.uid, bob.gid), (7001, 7001));
    assert_eq!(client.user(b"off@example.org").unwrap().unwrap().shell, b"/usr/sbin/nologin");
    assert_eq!(client.user(b"nobody@example.org"), Ok(None));
    let Reply::Group(group) = client.ask(&Request::GroupById(7002)).unwrap() else { panic!() };
    assert_eq!(group.name, b"second.example");
    assert_eq!(client.ask(&Request::GroupsOf(b"ann@example.org")), Ok(Reply::Groups(vec![7001])));
    let Reply::Shadow(shadow) = client.ask(&Request::ShadowByName(b"ann@example.org")).unwrap() else {
        panic!()
    };
    assert_eq!(shadow.password, b"*");
    let Reply::Users(page) = client.ask(&Request::Page { map: Map::Passwd, cursor: b"" }).unwrap() else {
        panic!()
    };
    assert_eq!(page.records.len(), 4);
}

#[test]
fn hashes_leave_only_when_the_configuration_says_so() {
    let house = furnished();
    house.configure("shadow_hashes yes\n");
    let daemon = house.start(&[]);
    let Reply::Shadow(shadow) = daemon.client().ask(&Request::ShadowByName(b"ann@example.org")).unwrap()
    else {
        panic!()
    };
    assert_eq!(shadow.password, b"$6$salt$hash");
    let Reply::Shadow(shadow) = daemon.client().ask(&Request::ShadowByName(b"bob@example.org")).unwrap()
    else {
        panic!()
    };
    assert_eq!(shadow.password, b"*");
}

#[test]
fn the_socket_is_for_everybody_and_a_second_daemon_is_refused() {
    let house = furnished();
    let _daemon = house.start(&[]);
    assert_eq!(std::fs::metadata(house.socket()).unwrap().permissions().mode() & 0o777, 0o666);
    let second = run(&mut house.command(&[]));
    assert_eq!(second.code, 1);
    assert!(second.stderr.contains("another process listens"), "{}", second.stderr);
}

#[test]
fn a_store_that_is_away_is_no_reason_to_say_no() {
    let house = furnished();
    house.configure("positive_ttl 0\nnegative_ttl 0\n");
    let daemon = house.start(&[]);
    let mut client = daemon.client();
    assert!(client.user(b"ann@example.org").unwrap().is_some());
    house.break_store();
    daemon.signal(Signal::SIGHUP);
    daemon.until_logged("configuration read again");
    assert_eq!(client.user(b"ann@example.org"), Err(Unavailable::Backend));
    assert_eq!(client.user(b"nobody@example.org"), Err(Unavailable::Backend));
    assert!(daemon.log().contains("warning: "), "{}", daemon.log());
    house.mend_store();
    assert!(client.user(b"ann@example.org").unwrap().is_some(), "it comes back by itself");
}

#[test]
fn answers_are_remembered_until_a_flush_or_a_reload() {
    let house = furnished();
    let daemon = house.start(&[]);
    let mut client = daemon.client();
    assert!(client.user(b"ann@example.org").unwrap().is_some());
    assert!(client.user(b"new@example.org").unwrap().is_none());
    house.remove("ann@example.org");
    house.account("new@example.org", None, |_| {});
    assert!(client.user(b"ann@example.org").unwrap().is_some(), "remembered");
    assert!(client.user(b"new@example.org").unwrap().is_none(), "remembered");
    client.flush(Key::Address(b"ann@example.org")).unwrap();
    assert!(client.user(b"ann@example.org").unwrap().is_none());
    daemon.signal(Signal::SIGHUP);
    daemon.until_logged("answers forgotten");
    assert!(client.user(b"new@example.org").unwrap().is_some());
}

#[test]
fn a_reload_takes_new_rules_and_a_broken_file_keeps_the_old_ones() {
    let house = furnished();
    let daemon = house.start(&[]);
    let mut client = daemon.client();
    let shell =
        |client: &mut lookup::identity::Client| client.user(b"bob@example.org").unwrap().unwrap().shell;
    assert_eq!(shell(&mut client), b"/bin/sh");
    house.configure("shell /bin/bash\nminimum_uid 7500\n");
    daemon.signal(Signal::SIGHUP);
    daemon.until_logged("configuration read again");
    assert_eq!(client.user(b"bob@example.org"), Ok(None), "7001 is below the floor now");
    assert_eq!(client.user(b"ann@example.org").unwrap().unwrap().shell, b"/bin/bash");
    house.configure("shell relative\n");
    daemon.signal(Signal::SIGHUP);
    daemon.until_logged("configuration not changed");
    assert_eq!(client.user(b"ann@example.org").unwrap().unwrap().shell, b"/bin/bash");
}

#[test]
fn signals_status_and_a_clean_end() {
    let house = furnished();
    let mut daemon = house.start(&["-d", "debug"]);
    daemon.client().user(b"ann@example.org").unwrap();
    daemon.signal(Signal::SIGUSR1);
    daemon.until_logged("notice: connections ");
    assert!(daemon.log().contains("ann@example.org"), "debug names the question");
    assert!(daemon.counter("requests") > 0);
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.process.wait_within(kit::PATIENCE).success());
    assert!(daemon.log().ends_with("nssd: notice: stopped\n"), "{}", daemon.log());
    // The next one takes the place over.
    let again = house.start(&[]);
    assert!(again.client().user(b"ann@example.org").unwrap().is_some());
}

#[test]
fn readiness_is_a_newline() {
    use std::io::Read;
    let house = furnished();
    let (mut read, write) = std::io::pipe().unwrap();
    let mut command = house.command(&[]);
    // The pipe's end becomes descriptor 0, and is passed on as 9.
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "exec 9>&0 0</dev/null; exec \"$0\""]).arg(command.get_program());
    shell.env_clear().envs(command.get_envs().filter_map(|(k, v)| Some((k, v?)))).env("READY_FD", "9");
    shell.stdin(write).stderr(Stdio::null());
    command = shell;
    let running = kit::Running::start(&mut command);
    drop(command);
    let mut text = String::new();
    read.read_to_string(&mut text).unwrap();
    assert_eq!(text, "\n");
    assert!(running.stop().success());
}

/// What the service manager is told, one datagram each.
struct Manager {
    socket: UnixDatagram,
}

impl Manager {
    fn new(house: &House) -> Self {
        let socket = UnixDatagram::bind(house.at("notify")).unwrap();
        socket.set_read_timeout(Some(kit::PATIENCE)).unwrap();
        Self { socket }
    }

    /// Waits until this word is told; others are passed over.
    fn until_told(&self, word: &str) {
        let mut buffer = [0; 4096];
        loop {
            let n = self.socket.recv(&mut buffer).unwrap_or_else(|e| panic!("{word}: {e}"));
            if String::from_utf8_lossy(&buffer[..n]).lines().any(|l| l == word) {
                return;
            }
        }
    }
}

#[test]
fn the_service_manager_is_told_and_the_watchdog_fed() {
    let house = furnished();
    let manager = Manager::new(&house);
    let mut command = house.command(&[]);
    command.env("NOTIFY_SOCKET", house.at("notify")).env("WATCHDOG_USEC", "100000").stderr(Stdio::null());
    let mut daemon = kit::Running::start(&mut command);
    manager.until_told("READY=1");
    for _ in 0..3 {
        manager.until_told("WATCHDOG=1");
    }
    daemon.signal(Signal::SIGHUP);
    manager.until_told("RELOADING=1");
    manager.until_told("READY=1");
    daemon.signal(Signal::SIGTERM);
    manager.until_told("STOPPING=1");
    assert!(daemon.wait_within(kit::PATIENCE).success());
}

#[test]
fn a_socket_that_the_service_manager_made_is_used() {
    let house = furnished();
    let elsewhere = house.at("run/passed.sock");
    let mut activate = Command::new("systemd-socket-activate");
    activate.arg("--listen").arg(&elsewhere);
    let inside = house.command(&[]);
    for (name, value) in inside.get_envs() {
        let mut setting = name.to_owned();
        setting.push("=");
        setting.push(value.unwrap());
        activate.arg("--setenv").arg(setting);
    }
    activate.arg(inside.get_program()).stdin(Stdio::null()).stderr(Stdio::null());
    let running = kit::Running::start(&mut activate);
    let mut client = lookup::identity::Client::new(&elsewhere, kit::PATIENCE);
    kit::until(kit::PATIENCE, "the passed socket answers", || client.user(b"ann@example.org").is_ok());
    assert!(client.user(b"ann@example.org").unwrap().is_some());
    assert!(!house.socket().exists(), "its own place stays free");
    assert!(running.stop().success());
}

#[test]
fn a_database_that_hangs_costs_one_connection_and_is_never_a_no() {
    let house = furnished();
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    // Connections are accepted and never greeted.
    let connections = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = std::sync::Arc::clone(&connections);
    std::thread::spawn(move || server.incoming().flatten().for_each(|s| kept.lock().unwrap().push(s)));
    std::fs::write(house.at("control/accountstore"), "mysql:\n").unwrap();
    std::fs::write(house.at("control/host.mysql"), format!("127.0.0.1:u:p:{port}\n")).unwrap();
    kit::set_mode(&house.at("control/host.mysql"), 0o640);
    house.configure("timeout 500\n");
    let daemon = house.start(&[]);
    let mut client = daemon.client();
    assert_eq!(client.user(b"ann@example.org"), Err(Unavailable::Backend));
    kit::until(kit::PATIENCE, "the worker gave up", || daemon.log().contains("warning: "));
    let after_first = connections.lock().unwrap().len();
    for n in 0..20 {
        assert_eq!(client.user(format!("u{n}@example.org").as_bytes()), Err(Unavailable::Backend));
    }
    let after_all = connections.lock().unwrap().len();
    assert!(after_all <= after_first + 5, "{after_first} connections, then {after_all}");
    // Domains are a file and are there all the same.
    assert!(matches!(client.ask(&Request::GroupByName(b"example.org")), Ok(Reply::Group(_))));
}

/// Idle clients lose their connection before a new one goes without an answer.
#[test]
fn a_daemon_without_descriptors_makes_room() {
    let house = furnished();
    house.configure("threads 1\n");
    let inside = house.command(&[]);
    let mut limited = Command::new("/bin/sh");
    limited.args(["-c", "ulimit -n 64; exec \"$0\""]).arg(inside.get_program());
    limited.env_clear().envs(inside.get_envs().filter_map(|(k, v)| Some((k, v?)))).stderr(Stdio::null());
    let running = kit::Running::start(&mut limited);
    let mut client = lookup::identity::Client::new(&house.socket(), kit::PATIENCE);
    kit::until(kit::PATIENCE, "nssd answers", || client.status().is_ok());
    let soon = || unix::clock::Deadline::after(kit::PATIENCE);
    let idle: Vec<_> = (0..100).map(|_| unix::socket::connect(&house.socket(), soon()).unwrap()).collect();
    for _ in 0..20 {
        let mut one = lookup::identity::Client::new(&house.socket(), kit::PATIENCE);
        assert!(one.user(b"ann@example.org").unwrap().is_some());
    }
    drop(idle);
    assert!(running.stop().success());
}

#[test]
fn configuration_faults_name_file_line_and_remedy() {
    let house = House::new();
    house.configure(
        "# fine\nshell bin/sh\nthreads 900\nenumeration some\nshadow_hashes maybe\nminimum_uid -1\n",
    );
    let out = run(&mut house.command(&["--check-config"]));
    assert_eq!(out.code, 1);
    let file = house.at("nssd.conf").display().to_string();
    for line in [
        ":2: shell bin/sh: expected an absolute path of at most 128 bytes",
        ":3: threads 900: expected a number from 1 to 64",
        ":4: enumeration some: expected off, root or all",
        ":5: shadow_hashes maybe: expected yes or no",
        ":6: minimum_uid -1: expected a number from 0 to 4294967295",
    ] {
        assert!(out.stderr.contains(&format!("nssd: fatal: {file}{line}")), "{line} not in {}", out.stderr);
    }
    house.configure("getpwnam SELECT \\\n 1\nspeed 9\n");
    let out = run(&mut house.command(&["--check-config"]));
    assert_eq!(out.code, 0, "{}", out.stderr);
    assert!(
        out.stderr.contains(&format!("nssd: warning: {file}:1: getpwnam: no longer used")),
        "{}",
        out.stderr
    );
    assert!(out.stderr.contains(&format!("nssd: warning: {file}:3: speed: unknown key")), "{}", out.stderr);
}

#[test]
fn a_named_file_must_exist_and_the_usual_one_need_not() {
    let house = House::new();
    assert_eq!(run(&mut house.command(&["--check-config"])).code, 0);
    let missing = house.at("other.conf").display().to_string();
    let out = run(&mut house.command(&["-f", &missing, "--check-config"]));
    assert_eq!(out.code, 1);
    assert!(out.stderr.contains(&missing), "{}", out.stderr);
    assert_eq!(run(&mut house.command(&["-x"])).code, 2);
    assert_eq!(run(&mut house.command(&["-d", "loud", "--check-config"])).code, 1);
}

/// As the original's installation makes it.
const ORIGINAL: &str = "getpwnam    SELECT pw_name,'x',555,555,pw_gecos,pw_dir,pw_shell \\
            FROM indimail \\
            WHERE pw_name='%1$s' and pw_domain='%2$s' \\
            LIMIT 1
getspnam    SELECT pw_name,pw_passwd,'1','0','99999','0','0','-1','0' FROM indimail WHERE pw_name='%1$s'
getpwent    SELECT pw_name,'x',555,555,pw_gecos,pw_dir,pw_shell FROM indimail LIMIT 100
host        localhost
database    indimail
username    indimail
password    hidden-word
socket      /run/mysqld/mysqld.sock
pidfile     /run/indimail/pwdlookup/nssd.pid
threads     5
timeout     -1
facility    daemon
priority    info
";

#[test]
fn the_original_s_file_is_taken_with_a_warning_for_each_line_that_has_no_meaning_any_more() {
    let house = House::new();
    house.configure(ORIGINAL);
    let out = run(&mut house.command(&["--check-config"]));
    assert_eq!(out.code, 0, "{}", out.stderr);
    let file = house.at("nssd.conf").display().to_string();
    for place in [1, 5, 6, 7, 8, 9, 10, 11, 12, 14, 15, 16] {
        assert!(out.stderr.contains(&format!("warning: {file}:{place}: ")), "{place}: {}", out.stderr);
    }
    assert_eq!(out.stderr.lines().count(), 12, "{}", out.stderr);
    assert!(!out.stderr.contains("hidden-word"), "{}", out.stderr);
    // A wait without an end, or none at all, is not what it asks for any more.
    for former in ["-1", "0"] {
        house.configure(&format!("timeout {former}\n"));
        let out = run(&mut house.command(&["--show-settings"])).ok();
        assert!(
            out.stdout
                .lines()
                .any(|l| l.starts_with("timeout  800 ") || l.starts_with("timeout ") && l.contains(" 800 ")),
            "{}",
            out.stdout
        );
    }
}

#[test]
fn settings_show_where_they_come_from() {
    let house = House::new();
    let out = run(&mut house.command(&["--show-settings"])).ok();
    let value = |key: &str| {
        let line = out.stdout.lines().find(|l| l.split_whitespace().next() == Some(key));
        line.unwrap_or_default().split_whitespace().nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!((value("positive_ttl"), value("negative_ttl")), ("300".to_owned(), "20".to_owned()));
    assert_eq!((value("minimum_uid"), value("shadow_hashes")), ("500".to_owned(), "no".to_owned()));
    house.configure("shell /bin/sh\n");
    let out = run(&mut house.command(&["--show-settings"])).ok();
    assert!(
        out.stdout.lines().any(|l| l.starts_with("shell") && l.ends_with("nssd.conf:1")),
        "{}",
        out.stdout
    );
    assert!(
        out.stdout.lines().any(|l| l.starts_with("minimum_uid") && l.ends_with("default")),
        "{}",
        out.stdout
    );
}

/// Asks in the protocol's own bytes and prints code and reply status of each request.
const ASK: &str = r#"
import socket, struct, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
stream = connection.makefile("rwb")
for code, fields in [(1, [b"ann@example.org"]), (5, [b"ann@example.org"]), (7, [b""]), (8, [b""]), (9, [b""]),
                     (10, [b"\0", b""]), (11, [])]:
    body = b"".join(struct.pack(">H", len(f)) + f for f in fields)
    stream.write(struct.pack(">IBBH", 4 + len(body), 1, code, 0) + body)
    stream.flush()
    length, version, status, flags = struct.unpack(">IBBH", stream.read(8))
    reply = stream.read(length - 4)
    print(code, version, status, len(reply))
"#;

#[test]
fn an_ordinary_user_gets_no_shadow_no_list_no_flush_and_no_status() {
    let house = furnished();
    let _daemon = house.start(&[]);
    let ask = |uid: u32| {
        let mut python = Command::new("python3");
        python.args(["-c", ASK]).arg(house.socket()).uid(uid).gid(uid).current_dir("/");
        let lines = run(&mut python).ok().stdout;
        let of = |line: &str| line.split(' ').map(|n| n.parse().unwrap()).collect::<Vec<usize>>();
        lines.lines().map(of).collect::<Vec<_>>()
    };
    let refused = |code| vec![code, 1, 6, 0];
    // An empty last page is one empty field.
    let empty = |code| vec![code, 1, 0, 2];
    let nobody = ask(65_534);
    assert_eq!(nobody[0][..3], [1, 1, 0], "a public record is for everybody");
    assert_eq!(nobody[1..], [refused(5), empty(7), empty(8), refused(9), refused(10), refused(11)]);
    let root = ask(0);
    assert!(root.iter().all(|line| line[2] == 0), "{root:?}");
    assert!(root[2][3] > 100 && root[4][3] > 100, "root gets the lists: {root:?}");
}

/// `nobody` is a local user of every machine, with an id above the floor.
#[test]
fn nobody_s_id_is_given_to_no_account_unless_that_is_wanted() {
    let nobody = unix::ids::user("nobody").unwrap().unwrap();
    let house = House::new();
    house.domain("example.org", ids(7001, 7001));
    house.account("ann@example.org", Some(ids(nobody.uid.as_raw(), 7001)), |_| {});
    let daemon = house.start(&[]);
    assert_eq!(daemon.client().user(b"ann@example.org"), Ok(None));
    daemon.until_logged("that of a local user");
    house.configure("local_ids allow\n");
    daemon.signal(Signal::SIGHUP);
    daemon.until_logged("configuration read again");
    assert!(daemon.client().user(b"ann@example.org").unwrap().is_some());
}

#[test]
fn hostile_rows_do_not_reach_anybody() {
    let house = House::new();
    house.domain("low.example", ids(100, 100));
    house.domain("root.example", ids(0, 0));
    house.domain("example.org", ids(7001, 7001));
    house.account("a@low.example", None, |_| {});
    house.account("b@root.example", None, |_| {});
    house.account("c@example.org", Some(ids(0, 0)), |_| {});
    house.account("d@example.org", None, |_| {});
    let daemon = house.start(&[]);
    let mut client = daemon.client();
    for name in ["a@low.example", "b@root.example", "c@example.org"] {
        assert_eq!(client.user(name.as_bytes()), Ok(None), "{name}");
    }
    let Reply::Users(page) = client.ask(&Request::Page { map: Map::Passwd, cursor: b"" }).unwrap() else {
        panic!()
    };
    let names: Vec<_> = page.records.iter().map(|r| r.name.clone()).collect();
    assert_eq!(names, [b"d@example.org".to_vec()]);
    let Reply::GroupPage(page) = client.ask(&Request::Page { map: Map::Group, cursor: b"" }).unwrap() else {
        panic!()
    };
    assert_eq!(page.records.len(), 1);
    assert!(daemon.log().contains("below minimum_uid"), "{}", daemon.log());
}
