//! Real programs that ask libc, with the real module and the real daemon, in a private view of the
//! machine: nothing of the machine's own /etc is touched.

mod house;

use std::io::{Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Stdio;
use std::time::Duration;

use e2e::kit::{self, Etc, Output, run};
use house::scene::{NSSWITCH, Scene, numbers};
use house::{Daemon, module};
use lookup::identity::{Client, Reply, User};
use unix::Signal;

const ANN: &str = "ann@example.org:x:8001:8001:Ann Example:/home/mail/ann:/bin/sh\n";

#[test]
fn getent_by_name_and_id() {
    getent_by_name_and_id_with(&Scene::started());
    getent_by_name_and_id_with(&Scene::mapped());
}

fn getent_by_name_and_id_with((scene, _daemon): &(Scene, Daemon)) {
    for arguments in [
        &["passwd", "ann@example.org"][..],
        &["passwd", "8001"],
        &["-s", "indimail", "passwd", "ann@example.org"],
    ] {
        assert_eq!(scene.getent(arguments).ok().stdout, ANN, "{arguments:?}");
    }
    assert_eq!(scene.getent(&["group", "example.org"]).ok().stdout, "example.org:x:7001:\n");
    assert_eq!(scene.getent(&["group", "7002"]).ok().stdout, "second.example:x:7002:\n");
    assert_eq!(
        scene.getent(&["shadow", "ann@example.org"]).ok().stdout,
        "ann@example.org:*:1:0:99999:0:::\n"
    );
    assert_eq!(
        scene.getent(&["shadow", "off@example.org"]).ok().stdout,
        "off@example.org:*:1:0:99999:0::1:\n"
    );
    for absent in
        [&["passwd", "nobody@example.org"][..], &["passwd", "nobody@else.where"], &["group", "else.where"]]
    {
        assert_eq!(scene.getent(absent).code, 2, "{absent:?}");
    }
    // Local users stay local, and the module alone knows none of them.
    assert!(scene.getent(&["passwd", "root"]).ok().stdout.starts_with("root:x:0:0:"));
    assert_eq!(scene.getent(&["-s", "indimail", "passwd", "root"]).code, 2);
    assert_eq!(scene.getent(&["-s", "indimail", "passwd", "0"]).code, 2);
    assert_eq!(scene.getent(&["-s", "indimail", "group", "qmail"]).code, 2);
}

#[test]
fn id_and_initgroups() {
    id_and_initgroups_with(&Scene::started());
    id_and_initgroups_with(&Scene::mapped());
}

fn id_and_initgroups_with((scene, _daemon): &(Scene, Daemon)) {
    let id = run(scene.etc.command("id").arg("ann@example.org")).ok().stdout;
    assert!(id.starts_with("uid=8001(ann@example.org) gid=8001"), "{id}");
    assert!(id.contains("7001(example.org)"), "{id}");
    let groups = scene.getent(&["initgroups", "ann@example.org"]).ok().stdout;
    assert!(groups.trim_end().ends_with("7001"), "{groups}");
    let root = run(scene.etc.command("id").arg("root")).ok().stdout;
    assert!(root.starts_with("uid=0(root) gid=0(root)"), "{root}");
}

#[test]
fn root_lists_everybody_and_others_only_what_is_local() {
    root_lists_everybody_and_others_only_what_is_local_with(&Scene::started());
    root_lists_everybody_and_others_only_what_is_local_with(&Scene::mapped());
}

fn root_lists_everybody_and_others_only_what_is_local_with((scene, _daemon): &(Scene, Daemon)) {
    let ours = |out: &Output| out.stdout.lines().filter(|l| l.contains('@')).count();
    assert_eq!(ours(&scene.getent(&["passwd"]).ok()), 4);
    assert_eq!(ours(&scene.getent(&["shadow"]).ok()), 4);
    let groups = scene.getent(&["group"]).ok().stdout;
    assert!(groups.contains("\nexample.org:x:7001:\nsecond.example:x:7002:\n"), "{groups}");
    let as_nobody = |arguments: &[&str]| {
        let drop = ["--reuid=65534", "--regid=65534", "--clear-groups", "getent"];
        run(scene.etc.command("setpriv").args(drop).args(arguments))
    };
    let listed = as_nobody(&["passwd"]).ok();
    assert_eq!(ours(&listed), 0);
    assert!(listed.stdout.starts_with("root:"));
    assert_eq!(as_nobody(&["passwd", "ann@example.org"]).ok().stdout, ANN);
    assert_eq!(as_nobody(&["shadow", "ann@example.org"]).code, 2);
}

#[test]
fn a_large_base_is_listed_whole() {
    let scene = Scene::new();
    scene.more_accounts();
    let _daemon = scene.house.start(&[]);
    let listed = scene.getent(&["passwd"]).ok().stdout;
    assert_eq!(listed.lines().filter(|l| l.contains('@')).count(), 604);
}

#[test]
fn programs_of_every_kind() {
    programs_of_every_kind_with(&Scene::started());
    programs_of_every_kind_with(&Scene::mapped());
}

fn programs_of_every_kind_with((scene, _daemon): &(Scene, Daemon)) {
    let ann = "ann@example.org";
    for arguments in [
        &["contract", "up", ann][..],
        &["sweep", ann],
        &["sweep", "cam@second.example"],
        &["walk", ann],
        &["descriptors", ann],
        &["signals", ann],
        &["threads", ann],
        &["short", ann],
        &["forks", ann],
        &["storm", ann],
        &["atexit", ann],
        &["few", ann],
        &["many", ann],
    ] {
        let out = scene.consumer(arguments);
        assert_eq!(out.code, 0, "{arguments:?}: {}", out.stderr);
    }
    for mask in ["0", "1", "2", "3", "4", "5", "6", "7"] {
        let out = scene.consumer(&["closed", mask, ann]);
        assert_eq!(out.code, 0, "{mask}: {}", out.stderr);
    }
}

#[test]
fn without_memory_the_program_is_told_and_lives() {
    let (scene, _daemon) = Scene::started();
    for (accounts, step) in [(4, "1"), (604, "401")] {
        let out = scene.consumer(&["nomemory", step, "ann@example.org"]);
        assert_eq!(out.code, 0, "{}", out.stderr);
        let [calls, got, late] = numbers(out.stdout.trim_end());
        assert!(calls < 40, "a look-up asks for memory {calls} times");
        assert!(got == accounts && late > 0, "no record of a walk is lost: {out:?}");
        if accounts == 4 {
            scene.more_accounts();
        }
    }
}

#[test]
fn the_environment_is_not_looked_at() {
    let (scene, _daemon) = Scene::started();
    let mut command = scene.etc.command(&scene.consumer);
    command.args(["name", "ann@example.org"]).env("NSSD_SOCKET", "/nonexistent");
    command.env("BROKEN", std::ffi::OsString::from_vec(b"\xff".to_vec()));
    assert!(run(&mut command).ok().stdout.starts_with("0 1 "));
    // But for the unit that is being started as the daemon.
    command = scene.etc.command(&scene.consumer);
    command.args(["name", "ann@example.org"]).env("SYSTEMD_ACTIVATION_UNIT", "indimail-nssd.service");
    assert!(run(&mut command).ok().stdout.starts_with("0 0 "));
}

#[test]
fn a_set_user_id_program_asks_the_configured_daemon() {
    a_set_user_id_program_asks_the_configured_daemon_with(&Scene::started());
    a_set_user_id_program_asks_the_configured_daemon_with(&Scene::mapped());
}

fn a_set_user_id_program_asks_the_configured_daemon_with((scene, _daemon): &(Scene, Daemon)) {
    let copy = scene.house.at("set-id");
    e2e::kit::copy_program(&scene.consumer, &copy);
    kit::set_mode(&copy, 0o4755);
    let drop = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let mut command = scene.etc.command("setpriv");
    command.args(drop).arg(&copy).args(["name", "ann@example.org"]).env("NSSD_SOCKET", "/nonexistent");
    command.env("SYSTEMD_ACTIVATION_UNIT", "indimail-nssd.service");
    assert!(run(&mut command).ok().stdout.starts_with("0 1 "), "no variable counts in a set-id program");
}

#[test]
fn a_socket_path_that_no_socket_can_have_is_nobody_to_ask() {
    let scene = Scene::new();
    for length in [107, 108, 109, 300, 5000] {
        let path = format!("/{}", "s".repeat(length));
        let etc = Etc::with_mail_users()
            .file("nsswitch.conf", NSSWITCH)
            .file("indimail/lookup.conf", format!("nssd_socket {path}\n"))
            .library(&module(), "libnss_indimail.so.2");
        let out = run(etc.command(&scene.consumer).args(["name", "ann@example.org"])).ok();
        assert!(out.stdout.starts_with("11 0 "), "{length}: {out:?}");
    }
}

#[test]
fn a_configuration_that_others_can_write_is_not_believed() {
    let (scene, _daemon) = Scene::started();
    let path = scene.house.at("lookup.conf");
    std::fs::write(&path, format!("nssd_socket {}\n", scene.house.socket().display())).unwrap();
    let etc = Etc::with_mail_users()
        .file("nsswitch.conf", NSSWITCH)
        .library(&module(), "libnss_indimail.so.2")
        .bind(&path, "/etc/indimail/lookup.conf");
    let asked = || run(etc.command(&scene.consumer).args(["name", "ann@example.org"])).ok().stdout;
    assert!(asked().starts_with("0 1 "));
    kit::set_mode(&path, 0o666);
    assert!(asked().starts_with("11 0 "), "the usual socket is not there: try again");
}

#[test]
fn without_a_daemon_the_answer_is_prompt_temporary_and_local_users_are_there() {
    let scene = Scene::new();
    for _ in 0..2 {
        // First without a socket, then with one that nobody listens on.
        let [[rc, found, milliseconds]] = scene.asked(&["name", "ann@example.org"])[..] else { panic!() };
        assert_eq!((rc, found), (11, 0), "EAGAIN, so that mail is deferred and not bounced");
        assert!(milliseconds < 500, "{milliseconds}");
        assert_eq!(scene.consumer(&["contract", "away", "ann@example.org"]).ok().code, 0);
        assert!(scene.getent(&["passwd", "root"]).ok().stdout.starts_with("root:"));
        let listed = scene.getent(&["passwd"]);
        assert!(listed.stdout.starts_with("root:") && !listed.stdout.contains('@'));
        let daemon = scene.house.start(&[]);
        assert_eq!(scene.getent(&["passwd", "ann@example.org"]).ok().stdout, ANN);
        daemon.signal(Signal::SIGKILL);
    }
}

#[test]
fn a_stopped_daemon_costs_a_second_once_and_nothing_when_it_goes_on() {
    let (scene, daemon) = Scene::started();
    daemon.signal(Signal::SIGSTOP);
    let asked = scene.asked(&["twice", "ann@example.org"]);
    assert_eq!((asked[0][0], asked[0][1]), (11, 0));
    assert!((900..3000).contains(&asked[0][2]), "one deadline, about a second: {asked:?}");
    assert_eq!((asked[1][0], asked[1][1]), (11, 0));
    assert!(asked[1][2] < 500, "the next one does not wait again: {asked:?}");
    assert_eq!(scene.consumer(&["contract", "late", "ann@example.org"]).ok().code, 0);
    daemon.signal(Signal::SIGCONT);
    assert_eq!(scene.asked(&["name", "ann@example.org"])[0][..2], [0, 1]);
}

#[test]
fn a_program_that_was_kept_waiting_finds_the_daemon_again() {
    let (scene, daemon) = Scene::started();
    daemon.signal(Signal::SIGSTOP);
    let mut asking = scene.etc.command(&scene.consumer);
    asking.args(["until", "ann@example.org"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut asking = asking.spawn().unwrap();
    // It says so when it was kept waiting for the first time.
    let mut out = std::io::BufReader::new(asking.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    assert_eq!(line, "waited\n");
    daemon.signal(Signal::SIGCONT);
    // Not "requests": the question for this counter is one itself.
    kit::until(kit::PATIENCE, "the program asks again", || daemon.counter("hits") > 20);
    asking.stdin.take().unwrap().write_all(b"\n").unwrap();
    line.clear();
    out.read_to_string(&mut line).unwrap();
    assert!(asking.wait().unwrap().success());
    let [right, no, later] = numbers(line.trim_end());
    assert!(right > 0 && no == 0 && later > 0, "right, no, later: {line}");
}

#[test]
fn a_store_that_is_away_is_temporary_for_everybody() {
    let scene = Scene::new();
    scene.house.configure("positive_ttl 0\nnegative_ttl 0\n");
    let _daemon = scene.house.start(&[]);
    scene.house.break_store();
    assert_eq!(scene.asked(&["name", "ann@example.org"])[0][..2], [11, 0]);
    assert_eq!(scene.asked(&["name", "nobody@example.org"])[0][..2], [11, 0]);
    scene.house.mend_store();
    assert_eq!(scene.asked(&["name", "ann@example.org"])[0][..2], [0, 1]);
}

#[test]
fn restarts_under_load_never_turn_an_account_into_nobody() {
    let (scene, mut daemon) = Scene::started();
    let mut asking = scene.etc.command(&scene.consumer);
    asking.args(["until", "ann@example.org"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut asking = asking.spawn().unwrap();
    for _ in 0..10 {
        daemon.signal(Signal::SIGKILL);
        daemon.process.wait_within(kit::PATIENCE);
        daemon = scene.house.start(&[]);
        // Not "requests": the question for this counter is one itself.
        kit::until(kit::PATIENCE, "the program asks the new daemon", || daemon.counter("hits") > 20);
    }
    asking.stdin.take().unwrap().write_all(b"\n").unwrap();
    let mut out = String::new();
    asking.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert!(asking.wait().unwrap().success());
    let [right, no, _later] = numbers(out.trim_end().trim_start_matches("waited\n"));
    assert!(right > 100 && no == 0, "right, no, later: {out}");
}

/// A daemon from hell: the program that asks stays whole, learns "try again", and waits for one deadline at most.
#[test]
fn whatever_listens_there_the_program_goes_on() {
    type Hell = fn(UnixStream);
    let cases: [(&str, Hell); 7] = [
        ("closes at once", drop),
        ("reads and closes", |mut s| drop(s.read(&mut [0; 4096]))),
        ("size bomb", |mut s| drop(s.write_all(&[0xff; 64]))),
        ("garbage", |mut s| drop(s.write_all(&[7; 4096]))),
        ("another version", |mut s| drop(s.write_all(&[0, 0, 0, 4, 9, 0, 0, 0]))),
        ("a record cut short", |mut s| drop(s.write_all(&[0, 0, 0, 8, 1, 0, 0, 0, 0, 200, b'a', b'b']))),
        ("dribbles for ever", |mut s| {
            drop(s.write_all(&[0, 0, 0x80, 0]));
            while s.write_all(&[1]).is_ok() {
                unix::wait::pause(Duration::from_millis(20));
            }
        }),
    ];
    let scene = Scene::new();
    for (what, hell) in cases {
        drop(std::fs::remove_file(scene.house.socket()));
        let listener = UnixListener::bind(scene.house.socket()).unwrap();
        std::thread::spawn(move || listener.incoming().flatten().for_each(hell));
        let [[rc, found, milliseconds]] = scene.asked(&["name", "ann@example.org"])[..] else {
            panic!("{what}")
        };
        assert_eq!((rc, found), (11, 0), "{what}");
        assert!(milliseconds < 3000, "{what}: {milliseconds}");
        assert!(scene.getent(&["passwd", "root"]).ok().stdout.starts_with("root:"), "{what}");
        assert_eq!(scene.consumer(&["signals", "root"]).code, 0, "{what}");
    }
    // A full backlog that nobody empties.
    drop(std::fs::remove_file(scene.house.socket()));
    let listener = UnixListener::bind(scene.house.socket()).unwrap();
    let mut waiting = Vec::new();
    let soon = || unix::clock::Deadline::after(Duration::from_millis(1));
    while let Ok(fd) = unix::socket::connect(&scene.house.socket(), soon()) {
        waiting.push(fd);
    }
    let asked = scene.asked(&["twice", "ann@example.org"]);
    assert_eq!(asked.iter().map(|a| [a[0], a[1]]).collect::<Vec<_>>(), [[11, 0], [11, 0]]);
    assert!(asked[0][2] < 3000 && asked[1][2] < 500, "{asked:?}");
    drop(listener);
}

/// A record that the daemon must not send: root, and bytes that would break a line of passwd.
#[test]
fn a_lying_daemon_makes_nobody_root() {
    let scene = Scene::new();
    let liar = |user: User| {
        drop(std::fs::remove_file(scene.house.socket()));
        let listener = UnixListener::bind(scene.house.socket()).unwrap();
        let mut reply = Vec::new();
        Reply::User(user).encode(&mut reply).unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                drop(stream.read(&mut [0; 4096]));
                drop(stream.write_all(&reply));
            }
        });
        scene.getent(&["passwd", "ann@example.org"])
    };
    let user = |uid: u32, gecos: &[u8]| User {
        name: b"ann@example.org".to_vec(),
        uid,
        gid: 1000,
        gecos: gecos.to_vec(),
        home: b"/".to_vec(),
        shell: b"/bin/sh".to_vec(),
    };
    assert_eq!(liar(user(4711, b"fine")).code, 0);
    assert_eq!(liar(user(0, b"root")).code, 2);
    for gecos in [&b"a:0:0"[..], b"a\nroot2::0:0::/:", b"a\0b"] {
        assert_ne!(liar(user(4711, gecos)).code, 0);
    }
}

/// The daemon's own process is told by the module at once, also when its machine lists the module first.
#[test]
fn the_daemon_does_not_wait_for_itself() {
    let scene = Scene::new();
    let first = "passwd: indimail files\ngroup: indimail files\nshadow: indimail files\n";
    let etc = Etc::with_mail_users()
        .file("nsswitch.conf", first)
        .file("indimail/lookup.conf", format!("nssd_socket {}\n", scene.house.socket().display()))
        .library(&module(), "libnss_indimail.so.2");
    let inside = scene.house.command(&[]);
    let mut command = etc.command(inside.get_program());
    command.envs(inside.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let log = std::fs::File::create(scene.house.at("log")).unwrap();
    let running = kit::Running::start(command.stdin(Stdio::null()).stderr(log));
    let mut client = Client::new(&scene.house.socket(), Duration::from_secs(20));
    kit::until(kit::PATIENCE, "nssd answers", || client.status().is_ok());
    assert!(client.user(b"ann@example.org").unwrap().is_some());
    assert!(running.stop().success());
}
