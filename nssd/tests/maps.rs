//! The map: what programs see of it while it changes, grows old, is damaged or replaced.

mod house;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Stdio};

use e2e::kit;
use house::scene::{Scene, numbers};
use house::{Daemon, ids};
use lookup::Key;
use unix::Signal;

const ANN: &str = "ann@example.org";

fn map_of(scene: &Scene) -> PathBuf {
    scene.house.at("run/nssd.map")
}

/// A program that runs on.
struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Running {
    fn start(scene: &Scene, arguments: &[&str]) -> Self {
        let mut command = scene.etc.command(&scene.consumer);
        let mut child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn poke(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    fn end(mut self) -> String {
        drop(self.child.stdin.take());
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        assert!(self.child.wait().unwrap().success());
        rest
    }
}

/// Whether the program was answered without the daemon.
fn asked_nobody(daemon: &Daemon, work: impl FnOnce()) -> bool {
    let count = || daemon.counter("hits") + daemon.counter("misses");
    let before = count();
    work();
    count() == before
}

#[test]
fn what_the_map_knows_is_answered_without_the_daemon_and_shadow_is_not_in_it() {
    let (scene, daemon) = Scene::mapped();
    let public = || {
        for arguments in [["passwd", ANN], ["passwd", "8001"], ["group", "example.org"], ["group", "7002"]] {
            scene.getent(&arguments).ok();
        }
        for arguments in [["passwd", "nobody@example.org"], ["passwd", "4711"], ["group", "else.where"]] {
            assert_eq!(scene.getent(&arguments).code, 2);
        }
        scene.getent(&["initgroups", ANN]).ok();
    };
    assert!(asked_nobody(&daemon, public));
    assert!(!asked_nobody(&daemon, || drop(scene.getent(&["shadow", ANN]).ok())));
    let bytes = fs::read(map_of(&scene)).unwrap();
    assert!(bytes.windows(ANN.len()).any(|w| w == ANN.as_bytes()));
    assert!(!bytes.windows(4).any(|w| w == b"hash"), "no password hash leaves");
    let meta = fs::metadata(map_of(&scene)).unwrap();
    assert_eq!(meta.permissions().mode() & 0o7777, 0o644);
}

#[test]
fn a_change_that_is_announced_is_seen_by_a_running_program_and_the_map_stays_the_same_file() {
    let (scene, daemon) = Scene::mapped();
    let file = fs::metadata(map_of(&scene)).unwrap().ino();
    let mut program = Running::start(&scene, &["watch", "new@example.org"]);
    assert_eq!(program.line(), "no");
    let tell = || daemon.client().flush(Key::Address(b"new@example.org")).unwrap();
    for _ in 0..3 {
        scene.house.account("new@example.org", Some(ids(8100, 8100)), |_| {});
        tell();
        assert_eq!(program.line(), "yes");
        assert_eq!(scene.getent(&["passwd", "8100"]).code, 0);
        scene.house.remove("new@example.org");
        tell();
        assert_eq!(program.line(), "no");
        assert_eq!(scene.getent(&["passwd", "8100"]).code, 2);
    }
    assert_eq!(program.end(), "");
    assert_eq!(fs::metadata(map_of(&scene)).unwrap().ino(), file);
    assert_eq!(daemon.counter("map_changes"), 6);
}

#[test]
fn a_change_that_nobody_announced_is_seen_after_a_refresh() {
    let scene = Scene::with("");
    scene.house.configure("shell /bin/sh\nmap_refresh 5\n");
    let daemon = scene.house.start(&[]);
    daemon.until_mapped();
    scene.house.remove("cam@second.example");
    scene.house.account("new@example.org", None, |_| {});
    kit::until(kit::PATIENCE, "the refresh", || scene.getent(&["passwd", "new@example.org"]).code == 0);
    kit::until(kit::PATIENCE, "the refresh", || scene.getent(&["passwd", "cam@second.example"]).code == 2);
    assert!(asked_nobody(&daemon, || drop(scene.getent(&["passwd", "new@example.org"]).ok())));
}

#[test]
fn a_new_domain_is_seen_at_once_and_the_next_map_has_it() {
    let (scene, daemon) = Scene::mapped();
    let mut program = Running::start(&scene, &["watch", "dan@third.example"]);
    assert_eq!(program.line(), "no");
    scene.house.domain("third.example", ids(7003, 7003));
    scene.house.account("dan@third.example", None, |_| {});
    daemon.client().flush(Key::Domain(b"third.example")).unwrap();
    assert_eq!(program.line(), "yes");
    daemon.until_mapped();
    assert_eq!(program.end(), "");
    assert!(asked_nobody(&daemon, || drop(scene.getent(&["group", "third.example"]).ok())));
}

#[test]
fn without_the_daemon_and_the_store_known_users_are_found_and_others_are_no_certain_no() {
    let (scene, daemon) = Scene::mapped();
    let crowd = Running::start(&scene, &["crowd", ANN]);
    daemon.signal(Signal::SIGKILL);
    scene.house.break_store();
    assert_eq!(scene.asked(&["name", ANN])[0][..2], [0, 1]);
    // The daemon's last sign of life is believed for a moment.
    kit::until(kit::PATIENCE, "a no does not count", || {
        scene.asked(&["name", "nobody@example.org"])[0][..2] == [11, 0]
    });
    assert_eq!(scene.asked(&["name", ANN])[0][..2], [0, 1]);
    let [right, no, later] = numbers(crowd.end().trim_end());
    assert!(right > 0 && no == 0 && later == 0, "right {right} no {no} later {later}");
}

#[test]
fn maps_are_replaced_under_sixteen_threads_and_children() {
    let (scene, daemon) = Scene::mapped();
    let mut crowd = Running::start(&scene, &["crowd", ANN]);
    for _ in 0..30 {
        let before = daemon.counter("map_generation");
        daemon.signal(Signal::SIGHUP);
        crowd.poke();
        kit::until(kit::PATIENCE, "a new map", || daemon.counter("map_generation") > before);
        daemon.until_mapped();
    }
    let maps = fs::read_to_string(format!("/proc/{}/maps", crowd.child.id())).unwrap();
    let mapped = maps.lines().filter(|l| l.contains("nssd.map")).count();
    assert!(mapped <= 8, "old maps are left: {maps}");
    let [right, no, later] = numbers(crowd.end().trim_end());
    assert!(right > 100 && no == 0 && later == 0, "right {right} no {no} later {later}");
}

#[test]
fn a_restarted_daemon_takes_over() {
    let (scene, daemon) = Scene::mapped();
    let mut program = Running::start(&scene, &["watch", "new@example.org"]);
    assert_eq!(program.line(), "no");
    drop(daemon);
    let daemon = scene.house.start(&[]);
    daemon.until_mapped();
    scene.house.account("new@example.org", None, |_| {});
    daemon.client().flush(Key::Address(b"new@example.org")).unwrap();
    // In between a "no" may not have counted.
    while program.line() != "yes" {}
    program.end();
}

#[test]
fn files_that_are_no_maps_or_not_to_be_trusted_are_passed_over() {
    let (scene, daemon) = Scene::mapped();
    let path = map_of(&scene);
    let good = fs::read(&path).unwrap();
    let mut program = Running::start(&scene, &["watch", ANN]);
    assert_eq!(program.line(), "yes");
    let replace = |bytes: &[u8], mode: u32, owner: u32| {
        let new = scene.house.at("run/x");
        fs::write(&new, bytes).unwrap();
        std::os::unix::fs::chown(&new, Some(owner), None).unwrap();
        kit::set_mode(&new, mode);
        fs::rename(&new, &path).unwrap();
    };
    // The map says otherwise than the store, so that it shows when it was believed.
    let at = good.windows(11).position(|w| w == b"Ann Example").unwrap();
    let mut garbled = good.clone();
    garbled[at] = b'E';
    let asks = || {
        !asked_nobody(&daemon, || {
            let out = scene.getent(&["passwd", ANN]).ok().stdout;
            assert!(out.contains(":Ann Example:"), "{out}");
        })
    };
    for bytes in [&b""[..], b"x", &good[..8], &good[..4096], &good[..good.len() - 8], &[0xff; 8192], &garbled]
    {
        replace(bytes, 0o644, 0);
        assert!(asks(), "{} bytes", bytes.len());
    }
    replace(&good, 0o664, 0);
    assert!(asks(), "others can write it");
    replace(&good, 0o644, 4711);
    assert!(asks(), "anybody's");
    fs::rename(&path, scene.house.at("run/y")).unwrap();
    symlink(scene.house.at("run/y"), &path).unwrap();
    assert!(asks(), "a link");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(asks(), "a directory");
    assert_eq!(program.end(), "", "who had the good one kept it");
}
