//! The front with clients of every kind.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lookup::frame::{self, MAX_FRAME};
use lookup::mail::{STATUS_REFUSED, STATUS_TEMPORARY};
use serve::{Answer, Counters, Frame, Front, Handle, Lane, Peer, Service, Settings, Stopped};

/// Frame codes that the test service knows: echo, wait for the gate, panic, malformed, refused.
const ECHO: u8 = 1;
const GATE: u8 = 2;
const PANIC: u8 = 3;
const BAD: u8 = 4;
const WHO: u8 = 5;
const MEMORY: u8 = 7;
const BAD_MEMORY: u8 = 8;

#[derive(Default)]
struct Echo {
    gate: Option<Mutex<Receiver<()>>>,
    at_gate: AtomicUsize,
    workers: AtomicUsize,
    reloads: AtomicUsize,
    status: Mutex<Option<Counters>>,
}

impl Service for Echo {
    type Worker = usize;

    fn worker(&self) -> usize {
        self.workers.fetch_add(1, Ordering::SeqCst)
    }

    fn lane(&self, frame: &Frame<'_>) -> Lane {
        if frame.code == GATE { Lane::Slow } else { Lane::Quick }
    }

    fn at_once(&self, _peer: &Peer, frame: &Frame<'_>) -> Option<Answer> {
        match frame.code {
            MEMORY => Some(Answer::Reply(request(0, b"from memory"))),
            BAD_MEMORY => panic!("a fault of the memory, on purpose"),
            _ => None,
        }
    }

    fn answer(&self, _worker: &mut usize, peer: &Peer, frame: &Frame<'_>) -> Answer {
        let body = match frame.code {
            ECHO => frame.body.to_vec(),
            GATE => {
                self.at_gate.fetch_add(1, Ordering::SeqCst);
                // Ends when the test opens the gate or is over.
                let _ = self.gate.as_ref().unwrap().lock().unwrap().recv();
                frame.body.to_vec()
            }
            WHO => peer.pid.to_string().into_bytes(),
            PANIC => panic!("a worker's fault, on purpose"),
            BAD => return Answer::Malformed,
            _ => return Answer::Refused,
        };
        let mut out = Vec::new();
        frame::append(&mut out, 0, MAX_FRAME, |w| w.bytes(&body)).unwrap();
        Answer::Reply(out)
    }

    fn reload(&self) {
        self.reloads.fetch_add(1, Ordering::SeqCst);
    }

    fn status(&self, counters: &Counters) {
        *self.status.lock().unwrap() = Some(*counters);
    }
}

struct Running {
    _dir: tempfile::TempDir,
    path: PathBuf,
    service: Arc<Echo>,
    settings: Settings,
    handle: Handle,
    gate: Sender<()>,
    thread: Option<JoinHandle<Stopped>>,
}

impl Running {
    fn start(settings: Settings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (gate, wait) = mpsc::channel();
        let service = Arc::new(Echo { gate: Some(Mutex::new(wait)), ..Echo::default() });
        let listener = serve::listener(&path, 0o600).unwrap();
        let front = Front::new(settings.clone(), listener, None, Arc::clone(&service)).unwrap();
        let handle = front.handle();
        let thread = Some(std::thread::spawn(move || front.run().unwrap()));
        Self { _dir: dir, path, service, settings, handle, gate, thread }
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        // A test that would hang fails instead.
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    fn counters(&self) -> Counters {
        self.settings.statistics.read()
    }

    fn stop(mut self) -> Stopped {
        self.handle.stop();
        self.thread.take().unwrap().join().unwrap()
    }
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let limit = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < limit, "waited too long until {what}");
        std::thread::yield_now();
    }
}

fn request(code: u8, text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::append(&mut out, code, MAX_FRAME, |w| w.bytes(text)).unwrap();
    out
}

/// Status and body of the next reply; `None` at the end.
fn reply(stream: &mut UnixStream) -> Option<(u8, Vec<u8>)> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length) {
        Ok(()) => {}
        Err(e) if matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => return None,
        Err(e) => panic!("{e}"),
    }
    let mut rest = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
    stream.read_exact(&mut rest).unwrap();
    Some((rest[1], rest[4..].to_vec()))
}

/// Echo wraps the request's fields in one field.
fn echoed(text: &[u8]) -> Option<(u8, Vec<u8>)> {
    let inner = request(ECHO, text)[8..].to_vec();
    Some((0, request(ECHO, &inner)[8..].to_vec()))
}

fn ask(stream: &mut UnixStream, text: &[u8]) {
    stream.write_all(&request(ECHO, text)).unwrap();
    assert_eq!(reply(stream), echoed(text));
}

#[test]
fn answers_come_in_order_on_one_connection_that_stays() {
    let front = Running::start(Settings { workers: 4, pipeline: 8, ..Settings::default() });
    let mut client = front.connect();
    let burst: Vec<u8> = (0u8..200).flat_map(|n| request(ECHO, &[n])).collect();
    let mut writer = client.try_clone().unwrap();
    let thread = std::thread::spawn(move || writer.write_all(&burst).unwrap());
    for n in 0u8..200 {
        assert_eq!(reply(&mut client), echoed(&[n]));
    }
    thread.join().unwrap();
    assert_eq!(front.stop(), Stopped::Clean);
}

#[test]
fn the_peer_is_known() {
    let front = Running::start(Settings::default());
    let mut client = front.connect();
    client.write_all(&request(WHO, b"")).unwrap();
    let pid = std::process::id().to_string();
    assert_eq!(reply(&mut client).unwrap().1[2..], *pid.as_bytes());
}

#[test]
fn bytes_that_dribble_in_are_a_request_all_the_same() {
    let front = Running::start(Settings::default());
    let mut client = front.connect();
    for byte in request(ECHO, b"slow") {
        client.write_all(&[byte]).unwrap();
    }
    assert_eq!(reply(&mut client), echoed(b"slow"));
}

#[test]
fn a_half_close_still_gets_its_answers() {
    let front = Running::start(Settings { pipeline: 1, ..Settings::default() });
    let mut client = front.connect();
    client.write_all(&[request(ECHO, b"1"), request(ECHO, b"2"), vec![0, 0]].concat()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(reply(&mut client), echoed(b"1"));
    assert_eq!(reply(&mut client), echoed(b"2"));
    assert_eq!(reply(&mut client), None);
}

#[test]
fn oversize_unknown_version_and_malformed_are_refused_and_closed() {
    let front = Running::start(Settings::default());
    let cases = [
        vec![0, 0, 0x10, 1, 1, ECHO, 0, 0],
        vec![0xff; 4],
        vec![0, 0, 0, 4, 9, ECHO, 0, 0],
        vec![0, 0, 0, 0],
        request(BAD, b""),
    ];
    for bytes in &cases {
        let mut client = front.connect();
        client.write_all(bytes).unwrap();
        assert_eq!(reply(&mut client), Some((STATUS_REFUSED, vec![])), "{bytes:?}");
        assert_eq!(reply(&mut client), None);
    }
    assert_eq!(front.counters().malformed, 5);
    // A question that is not for this peer does not end the connection.
    let mut client = front.connect();
    client.write_all(&request(99, b"")).unwrap();
    assert_eq!(reply(&mut client), Some((STATUS_REFUSED, vec![])));
    ask(&mut client, b"goes on");
}

#[test]
fn a_request_that_takes_too_long_is_answered_cannot_tell_and_the_next_in_order() {
    let settings = Settings { workers: 2, request: Duration::from_millis(100), ..Settings::default() };
    let front = Running::start(settings);
    let mut client = front.connect();
    client.write_all(&[request(GATE, b""), request(ECHO, b"next")].concat()).unwrap();
    assert_eq!(reply(&mut client), Some((STATUS_TEMPORARY, vec![])));
    assert_eq!(reply(&mut client), echoed(b"next"));
    assert_eq!(front.counters().expired, 1);
    front.gate.send(()).unwrap();
    ask(&mut client, b"the late answer is dropped");
    assert_eq!(front.stop(), Stopped::Clean);
}

#[test]
fn a_full_queue_sheds_at_once() {
    let settings = Settings { workers: 1, queue: 2, ..Settings::default() };
    let front = Running::start(settings);
    let mut busy = front.connect();
    busy.write_all(&request(GATE, b"")).unwrap();
    until("the worker is busy", || front.service.at_gate.load(Ordering::SeqCst) == 1);
    let mut client = front.connect();
    let burst: Vec<u8> = (0u8..5).flat_map(|n| request(ECHO, &[n])).collect();
    client.write_all(&burst).unwrap();
    until("the rest is shed", || front.counters().shed == 3);
    front.gate.send(()).unwrap();
    for expected in [echoed(&[0]), echoed(&[1])] {
        assert_eq!(reply(&mut client), expected);
    }
    for _ in 0..3 {
        assert_eq!(reply(&mut client), Some((STATUS_TEMPORARY, vec![])));
    }
    assert_eq!(reply(&mut busy).unwrap().0, 0);
}

#[test]
fn slow_requests_delay_only_each_other_and_shed_by_themselves() {
    let settings = Settings { workers: 1, slow_workers: 1, slow_queue: 1, ..Settings::default() };
    let front = Running::start(settings);
    let mut slow: Vec<UnixStream> = (0..3).map(|_| front.connect()).collect();
    slow[0].write_all(&request(GATE, b"0")).unwrap();
    until("the slow worker is busy", || front.service.at_gate.load(Ordering::SeqCst) == 1);
    slow[1].write_all(&request(GATE, b"1")).unwrap();
    until("the next one waits", || front.counters().waiting == 1);
    slow[2].write_all(&request(GATE, b"2")).unwrap();
    assert_eq!(reply(&mut slow[2]), Some((STATUS_TEMPORARY, vec![])));
    ask(&mut front.connect(), b"quick");
    for client in &mut slow[..2] {
        front.gate.send(()).unwrap();
        assert_eq!(reply(client).unwrap().0, 0);
    }
    assert_eq!(front.stop(), Stopped::Clean);
}

#[test]
fn a_panic_costs_one_answer_and_the_worker_gets_a_new_state() {
    let front = Running::start(Settings { workers: 1, ..Settings::default() });
    let mut client = front.connect();
    ask(&mut client, b"before");
    client.write_all(&request(PANIC, b"")).unwrap();
    assert_eq!(reply(&mut client), Some((STATUS_TEMPORARY, vec![])));
    ask(&mut client, b"after");
    assert_eq!(front.service.workers.load(Ordering::SeqCst), 2);
    assert_eq!(front.counters().panics, 1);
}

#[test]
fn answers_from_memory_need_no_worker_and_keep_their_place() {
    let front = Running::start(Settings { workers: 1, ..Settings::default() });
    let mut busy = front.connect();
    busy.write_all(&request(GATE, b"")).unwrap();
    until("the worker is busy", || front.service.at_gate.load(Ordering::SeqCst) == 1);
    let mut client = front.connect();
    client.write_all(&request(MEMORY, b"")).unwrap();
    assert_eq!(reply(&mut client).unwrap().0, 0, "although the only worker is busy");
    client.write_all(&[request(ECHO, b"first"), request(MEMORY, b"")].concat()).unwrap();
    front.gate.send(()).unwrap();
    assert_eq!(reply(&mut client), echoed(b"first"));
    assert_eq!(reply(&mut client).unwrap().1[2..], *b"from memory");
    // A fault there costs nothing but the short cut.
    client.write_all(&request(BAD_MEMORY, b"")).unwrap();
    assert_eq!(reply(&mut client), Some((STATUS_REFUSED, vec![])), "the worker does not know it");
}

#[test]
fn two_thousand_idle_clients_do_not_disturb_anybody() {
    raise_descriptor_limit();
    let front = Running::start(Settings::default());
    let idle: Vec<UnixStream> = (0..2000).map(|_| front.connect()).collect();
    until("all are accepted", || front.counters().connections == 2000);
    let mut client = front.connect();
    for n in 0u8..100 {
        ask(&mut client, &[n]);
    }
    for mut one in idle {
        ask(&mut one, b"not forgotten");
    }
    assert_eq!(front.stop(), Stopped::Clean);
}

#[test]
fn too_many_connections_cost_the_longest_idle_one() {
    let front = Running::start(Settings { connections: 3, ..Settings::default() });
    let mut clients: Vec<UnixStream> = (0..3).map(|_| front.connect()).collect();
    for (n, client) in (0u8..).zip(&mut clients) {
        ask(client, &[n]);
    }
    ask(&mut front.connect(), b"new");
    assert_eq!(reply(&mut clients[0]), None);
    ask(&mut clients[2], b"kept");
}

#[test]
fn when_nobody_is_idle_the_new_connection_is_told_to_come_back() {
    let front = Running::start(Settings { connections: 1, ..Settings::default() });
    let mut busy = front.connect();
    busy.write_all(&request(GATE, b"")).unwrap();
    until("it is busy", || front.counters().requests == 1);
    let mut other = front.connect();
    assert_eq!(reply(&mut other), Some((STATUS_TEMPORARY, vec![])));
    assert_eq!(reply(&mut other), None);
    front.gate.send(()).unwrap();
    assert_eq!(reply(&mut busy).unwrap().0, 0);
}

#[test]
fn idle_and_stuck_connections_are_closed_in_time() {
    let short = Duration::from_millis(50);
    let front = Running::start(Settings { idle: short, transfer: short, ..Settings::default() });
    assert_eq!(reply(&mut front.connect()), None);
    let mut stuck = front.connect();
    stuck.write_all(&[0, 0]).unwrap();
    assert_eq!(reply(&mut stuck), None);
    until("both are gone", || front.counters().connections == 0);
}

#[test]
fn a_client_that_takes_no_replies_is_closed_and_held_to_its_pipeline() {
    let transfer = Duration::from_millis(200);
    let front = Running::start(Settings { transfer, ..Settings::default() });
    let client = front.connect();
    client.set_nonblocking(true).unwrap();
    let big = request(ECHO, &[0; 4000]);
    let sender = std::thread::spawn(move || {
        // Writes without reading until the front has had enough.
        loop {
            match (&client).write_all(&big) {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(_) => break,
            }
        }
    });
    until("it is closed", || front.counters().accepted == 1 && front.counters().connections == 0);
    sender.join().unwrap();
    assert!(front.counters().requests < 2000);
}

#[test]
fn a_client_that_leaves_while_it_waits_is_forgotten() {
    let front = Running::start(Settings { workers: 1, ..Settings::default() });
    let mut client = front.connect();
    client.write_all(&request(GATE, b"")).unwrap();
    until("it is asked", || front.counters().requests == 1);
    drop(client);
    until("it is gone", || front.counters().connections == 0);
    front.gate.send(()).unwrap();
    ask(&mut front.connect(), b"others go on");
}

#[test]
fn stopping_answers_what_was_asked_and_takes_nothing_new() {
    let front = Running::start(Settings::default());
    let mut idle = front.connect();
    ask(&mut idle, b"x");
    let mut busy = front.connect();
    busy.write_all(&request(GATE, b"last")).unwrap();
    until("it is asked", || front.counters().requests == 2);
    front.handle.stop();
    assert_eq!(reply(&mut idle), None);
    until_refused(&front.path);
    front.gate.send(()).unwrap();
    assert_eq!(reply(&mut busy).unwrap().0, 0);
    assert_eq!(front.stop(), Stopped::Clean);
}

#[test]
fn stopping_does_not_wait_for_a_worker_that_hangs() {
    let front = Running::start(Settings { drain: Duration::from_millis(50), ..Settings::default() });
    let mut busy = front.connect();
    busy.write_all(&request(GATE, b"")).unwrap();
    until("it is asked", || front.counters().requests == 1);
    assert_eq!(front.stop(), Stopped::Cut);
}

#[test]
fn reload_and_status_reach_the_service() {
    let front = Running::start(Settings::default());
    ask(&mut front.connect(), b"x");
    front.handle.reload();
    front.handle.status();
    until("both arrived", || {
        front.service.reloads.load(Ordering::SeqCst) == 1 && front.service.status.lock().unwrap().is_some()
    });
    assert_eq!(front.service.status.lock().unwrap().unwrap().requests, 1);
}

#[test]
fn readiness_is_a_newline_on_the_descriptor_that_was_named() {
    let (read, write) = unix::fd::pipe().unwrap();
    let number = std::os::fd::IntoRawFd::into_raw_fd(write);
    let front = Running::start(Settings { ready_descriptor: Some(number), ..Settings::default() });
    let mut text = String::new();
    std::fs::File::from(read).read_to_string(&mut text).unwrap();
    assert_eq!(text, "\n");
    assert_eq!(front.stop(), Stopped::Clean);
}

#[test]
fn the_socket_has_exactly_the_mode_and_a_live_one_is_not_taken_over() {
    use std::os::unix::fs::PermissionsExt;
    let front = Running::start(Settings::default());
    let mode = std::fs::metadata(&front.path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode, 0o600);
    let error = serve::listener(&front.path, 0o600).unwrap_err().to_string();
    assert!(error.contains("another process listens"), "{error}");
}

fn until_refused(path: &Path) {
    until("the listener is closed", || UnixStream::connect(path).is_err());
}

/// Two ends for each of 2000 clients are in this one process.
fn raise_descriptor_limit() {
    unix::host::raise_descriptor_limit(8192).unwrap();
}
