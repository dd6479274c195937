//! Commits whose outcome nobody knows: the connection ends, or the server fails, in the middle of one.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use accounts::{create_store, open_store};
use e2e::kit::MariaDb;

use crate::mariadb::{over_socket, through, with_user};
use crate::suite::{account, address};

/// What happens to the next commit.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    /// It reaches the server, and the connection ends before the answer.
    CutAfter,
    /// The connection ends before it reaches the server.
    CutBefore,
    /// The server fails.
    Refused,
    Nothing,
}

/// A way to the server that watches for commits.
struct Way {
    port: u16,
    fate: Arc<Mutex<Fate>>,
    commits: Arc<AtomicUsize>,
}

impl Way {
    fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (fate, commits) = (Arc::new(Mutex::new(Fate::Nothing)), Arc::<AtomicUsize>::default());
        let way = Self { port, fate: Arc::clone(&fate), commits: Arc::clone(&commits) };
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = TcpStream::connect(("127.0.0.1", server)).unwrap();
                let (from_server, to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                let (fate, commits) = (Arc::clone(&fate), Arc::clone(&commits));
                std::thread::spawn(move || copy(from_server, to_client));
                std::thread::spawn(move || watch(client, server, &fate, &commits));
            }
        });
        way
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
}

/// Hands packets on to the server, one at a time: three bytes of length, a number, the packet.
fn watch(mut client: TcpStream, mut server: TcpStream, fate: &Mutex<Fate>, commits: &AtomicUsize) {
    loop {
        let mut head = [0; 4];
        if client.read_exact(&mut head).is_err() {
            break;
        }
        let mut packet = vec![0; u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize];
        client.read_exact(&mut packet).unwrap();
        let is_commit = packet == b"\x03COMMIT";
        let fate = if is_commit {
            commits.fetch_add(1, Ordering::SeqCst);
            std::mem::replace(&mut *fate.lock().unwrap(), Fate::Nothing)
        } else {
            Fate::Nothing
        };
        match fate {
            Fate::CutBefore => break,
            Fate::CutAfter => {
                // Nothing of the answer gets through; the server has done its part when it answers.
                client.shutdown(Shutdown::Both).unwrap();
                server.write_all(&head).and_then(|()| server.write_all(&packet)).unwrap();
                return;
            }
            Fate::Refused => {
                // Error 1180, as the server sends it: ER_ERROR_DURING_COMMIT.
                let text = b"\xff\x9c\x04#HY000Got error 28 \"No space left on device\" during COMMIT";
                let length = u8::try_from(text.len()).unwrap();
                client.write_all(&[length, 0, 0, head[3] + 1]).unwrap();
                client.write_all(text).unwrap();
            }
            Fate::Nothing => server.write_all(&head).and_then(|()| server.write_all(&packet)).unwrap(),
        }
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}

#[test]
fn a_commit_without_an_answer_is_said_to_be_that_and_not_tried_again() {
    let server = with_user(MariaDb::start());
    create_store(&over_socket(&server, "indimail"), None).unwrap();
    let way = Way::to(server.port());
    for (name, fate, says) in [
        ("before@example.com", Fate::CutBefore, "it may have been made or not"),
        ("after@example.com", Fate::CutAfter, "it may have been made or not"),
        (
            "refused@example.com",
            Fate::Refused,
            "error 1180: Got error 28 \"No space left on device\" during COMMIT",
        ),
    ] {
        let mut store = open_store(&through(way.port, "indimail"));
        assert!(store.account(&address(name)).unwrap().is_none());
        *way.fate.lock().unwrap() = fate;
        way.commits.store(0, Ordering::SeqCst);
        let error = store.insert(&account(name)).unwrap_err().to_string();
        assert!(error.contains(says) && error.contains("database indimail"), "{error}");
        assert!(
            !error.contains("MySqlError") && !error.contains("pass:word") && !error.contains('{'),
            "{error}"
        );
        assert_eq!(way.commits.load(Ordering::SeqCst), 1, "{name}: it was not sent twice");
        // The next question finds out, over a new connection if need be.
        let there =
            || open_store(&over_socket(&server, "indimail")).account(&address(name)).unwrap().is_some();
        match fate {
            Fate::CutAfter => e2e::kit::until(e2e::kit::PATIENCE, "the server has committed", there),
            _ => assert!(!there(), "{name}"),
        }
        assert_eq!(store.account(&address(name)).unwrap().is_some(), fate == Fate::CutAfter, "{name}");
    }
}
