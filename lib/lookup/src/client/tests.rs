//! The client against daemons that misbehave.

use super::*;
use crate::mail::{Client, Reply, UserStatus};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Instant;

struct Fake {
    _dir: tempfile::TempDir,
    path: PathBuf,
    listener: UnixListener,
}

fn fake() -> Fake {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    Fake { _dir: dir, path, listener }
}

fn found() -> Vec<u8> {
    let mut out = Vec::new();
    Reply::User(UserStatus::Found).encode(&mut out).unwrap();
    out
}

fn read_request(stream: &mut UnixStream) {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut rest = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
    stream.read_exact(&mut rest).unwrap();
}

const SHORT: Duration = Duration::from_millis(150);
const LONG: Duration = Duration::from_secs(20);

#[test]
fn each_way_to_be_away_has_its_own_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    assert_eq!(Client::new(&path, LONG).user(b"a@b"), Err(Unavailable::Missing));
    drop(UnixListener::bind(&path).unwrap());
    assert_eq!(Client::new(&path, LONG).user(b"a@b"), Err(Unavailable::NotListening));
}

#[test]
fn a_silent_daemon_costs_the_patience_once() {
    let daemon = fake();
    let start = Instant::now();
    assert_eq!(Client::new(&daemon.path, SHORT).user(b"a@b"), Err(Unavailable::TimedOut));
    assert!(start.elapsed() >= SHORT);
}

#[test]
fn a_dribbling_daemon_gets_no_more_time_than_a_silent_one() {
    let daemon = fake();
    let thread = std::thread::spawn(move || {
        let mut stream = daemon.listener.accept().unwrap().0;
        read_request(&mut stream);
        // A reply that promises 1000 bytes and sends one at a time until the client gives up.
        stream.write_all(&1000u32.to_be_bytes()).unwrap();
        while stream.write_all(&[1]).is_ok() {
            unix::wait::pause(Duration::from_millis(10));
        }
    });
    assert_eq!(Client::new(&daemon.path, SHORT).user(b"a@b"), Err(Unavailable::TimedOut));
    thread.join().unwrap();
}

#[test]
fn a_full_backlog_is_waited_for_and_no_longer_than_allowed() {
    let daemon = fake();
    let mut waiting = Vec::new();
    while let Ok(fd) = socket::connect(&daemon.path, Deadline::after(Duration::from_millis(1))) {
        waiting.push(fd);
    }
    assert_eq!(Client::new(&daemon.path, SHORT).user(b"a@b"), Err(Unavailable::TimedOut));
}

#[test]
fn an_early_close_is_an_error_at_once() {
    let daemon = fake();
    let thread = std::thread::spawn(move || drop(daemon.listener.accept().unwrap()));
    assert_eq!(Client::new(&daemon.path, LONG).user(b"a@b"), Err(Unavailable::Closed));
    thread.join().unwrap();
}

#[test]
fn a_size_bomb_is_refused_before_memory_is_taken() {
    let daemon = fake();
    let thread = std::thread::spawn(move || {
        let mut stream = daemon.listener.accept().unwrap().0;
        read_request(&mut stream);
        stream.write_all(&[0xff; 8]).unwrap();
    });
    assert_eq!(Client::new(&daemon.path, LONG).user(b"a@b"), Err(Unavailable::Broken(Malformed::Length)));
    thread.join().unwrap();
}

#[test]
fn a_connection_is_kept_and_replaced_after_a_restart() {
    let daemon = fake();
    let thread = std::thread::spawn(move || {
        for questions in [3, 1] {
            let mut stream = daemon.listener.accept().unwrap().0;
            for _ in 0..questions {
                read_request(&mut stream);
                stream.write_all(&found()).unwrap();
            }
        }
    });
    let mut client = Client::new(&daemon.path, LONG);
    for _ in 0..4 {
        assert_eq!(client.user(b"a@b"), Ok(UserStatus::Found));
    }
    thread.join().unwrap();
}

#[test]
fn the_descriptor_closes_on_exec() {
    let daemon = fake();
    let connection = Connection::dial(&daemon.path, Deadline::after(LONG)).unwrap();
    let link = format!("/proc/self/fdinfo/{}", std::os::fd::AsRawFd::as_raw_fd(&connection.socket));
    let flags = std::fs::read_to_string(link).unwrap();
    let flags = flags.lines().find_map(|l| l.strip_prefix("flags:")).unwrap().trim().to_owned();
    assert_ne!(u32::from_str_radix(&flags, 8).unwrap() & 0o2_000_000, 0, "O_CLOEXEC in {flags}");
    assert_eq!(connection.peer().unwrap().pid, i32::try_from(std::process::id()).unwrap());
}
