//! qmail-remote and the DNS: a name server of our own on port 53 of a private network, named by a
//! private /etc/resolv.conf.

mod support;

use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};
use std::process::Command;
use std::sync::Arc;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use support::{Host, Place, Script};

const MESSAGE: &[u8] = b"Subject: s\n\nbody\n";

/// Runs `test` in a network and a mount namespace of its own, where /etc/resolv.conf names 127.0.0.1.
/// Namespaces belong to a thread, so the rest of the test program does not notice.
fn privately(test: impl FnOnce() + Send + 'static) {
    let inside = move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("this test needs root");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let resolv = dir.path().join("resolv.conf");
        std::fs::write(&resolv, "nameserver 127.0.0.1\noptions timeout:2 attempts:1\n").unwrap();
        mount(Some(&resolv), "/etc/resolv.conf", None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
        test();
    };
    if let Err(panic) = std::thread::spawn(inside).join() {
        std::panic::resume_unwind(panic);
    }
}

/// What a name has.
#[derive(Clone)]
enum Zone {
    /// Exchangers and addresses.
    Has { mx: Vec<(u16, &'static str)>, ips: Vec<&'static str> },
    /// The server answers SERVFAIL.
    Sick,
}

fn has(mx: &[(u16, &'static str)], ips: &[&'static str]) -> Zone {
    Zone::Has { mx: mx.to_vec(), ips: ips.to_vec() }
}

/// Answers questions on 127.0.0.1:53 from a table; other names do not exist.
fn name_server(zones: BTreeMap<&'static str, Zone>) {
    let socket = UdpSocket::bind("127.0.0.1:53").unwrap();
    let zones = Arc::new(zones);
    std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        loop {
            let (n, peer) = socket.recv_from(&mut buffer).unwrap();
            socket.send_to(&response(&buffer[..n], &zones), peer).unwrap();
        }
    });
}

fn response(query: &[u8], zones: &BTreeMap<&'static str, Zone>) -> Vec<u8> {
    let (mut at, mut labels) = (12, Vec::new());
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(String::from_utf8(query[at + 1..end].to_vec()).unwrap().to_lowercase());
        at = end;
    }
    let kind = u16::from_be_bytes([query[at + 1], query[at + 2]]);
    let question = &query[12..at + 5];
    let (code, answers): (u8, Vec<(u16, Vec<u8>)>) = match zones.get(labels.join(".").as_str()) {
        None => (3, vec![]),
        Some(Zone::Sick) => (2, vec![]),
        Some(Zone::Has { mx, ips }) => match kind {
            15 => {
                (0, mx.iter().map(|(p, host)| (15, [&p.to_be_bytes()[..], &name(host)].concat())).collect())
            }
            1 | 28 => {
                let data = ips.iter().filter_map(|ip| match (ip.parse().unwrap(), kind) {
                    (IpAddr::V4(ip), 1) => Some((1, ip.octets().to_vec())),
                    (IpAddr::V6(ip), 28) => Some((28, ip.octets().to_vec())),
                    _ => None,
                });
                (0, data.collect())
            }
            _ => (0, vec![]),
        },
    };
    let count = u16::try_from(answers.len()).unwrap().to_be_bytes();
    let mut out = [&query[..2], &[0x81, 0x80 | code, 0, 1], &count, &[0; 4], question].concat();
    for (kind, data) in answers {
        out.extend_from_slice(&[0xc0, 12]);
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&[0, 1, 0, 0, 0, 60]);
        out.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
        out.extend_from_slice(&data);
    }
    out
}

fn name(host: &str) -> Vec<u8> {
    let labels = host.split('.').filter(|l| !l.is_empty());
    let mut out: Vec<u8> =
        labels.flat_map(|l| [&[u8::try_from(l.len()).unwrap()], l.as_bytes()].concat()).collect();
    out.push(0);
    out
}

fn world() -> BTreeMap<&'static str, Zone> {
    BTreeMap::from([
        ("d.example", has(&[(20, "b.example"), (10, "a.example")], &[])),
        ("plain.example", has(&[], &["127.0.0.2"])),
        ("six.example", has(&[(10, "six-mx.example")], &[])),
        ("six-mx.example", has(&[], &["::1"])),
        ("null.example", has(&[(0, ".")], &["127.0.0.2"])),
        ("lost.example", has(&[(10, "nowhere.example")], &[])),
        ("empty.example", has(&[], &[])),
        ("loop.example", has(&[(10, "us.example"), (20, "b.example")], &[])),
        ("behind.example", has(&[(10, "a.example"), (20, "us.example"), (30, "b.example")], &[])),
        ("sick.example", Zone::Sick),
        ("half.example", has(&[(10, "sick.example"), (20, "a.example")], &[])),
        ("a.example", has(&[], &["127.0.0.2"])),
        ("b.example", has(&[], &["127.0.0.3"])),
        ("us.example", has(&[], &["127.0.0.1"])),
        ("xn--mnchen-3ya.example", has(&[(1, "a.example")], &[])),
    ])
}

fn place() -> Place {
    let mut place = Place::new();
    place.control("notipme", "127.0.0.2\n127.0.0.3\n::1\n");
    place
}

#[test]
fn mail_exchangers_are_tried_by_preference() {
    privately(|| {
        name_server(world());
        let place = place();
        let send = |domain: &str| place.send_to(MESSAGE, domain, &["x@d.example"]);
        // Nobody listens on port 25 of either.
        send("d.example").is("Z", "(#4.4.1)");
        let second = Host::at("127.0.0.3:25", Script::with(&[]));
        send("d.example").is("rK", "127.0.0.3 accepted");
        let first = Host::at("127.0.0.2:25", Script::with(&[]));
        send("D.Example").is("rK", "127.0.0.2 accepted");
        send("half.example").is("rK", "127.0.0.2 accepted");
        send("plain.example").is("rK", "127.0.0.2 accepted");
        send("m\u{fc}nchen.example").is("rK", "127.0.0.2 accepted");
        send("behind.example").is("rK", "127.0.0.2 accepted");
        assert_eq!(second.verbs().matches("EHLO").count(), 1);
        assert_eq!(first.verbs().matches("EHLO").count(), 5);
        let _six = Host::at("[::1]:25", Script::with(&[]));
        send("six.example").is("rK", "::1 accepted");
    });
}

#[test]
fn a_busy_exchanger_gives_way_to_the_next() {
    privately(|| {
        name_server(world());
        let place = place();
        let _busy = Host::at("127.0.0.2:25", Script::with(&[("GREETING", "421 busy")]));
        let _free = Host::at("127.0.0.3:25", Script::with(&[]));
        place.send_to(MESSAGE, "d.example", &["x@d.example"]).is("rK", "127.0.0.3 accepted");
    });
}

#[test]
fn absent_and_cannot_tell_never_mix() {
    privately(|| {
        name_server(world());
        let place = place();
        let send = |domain: &str| place.send_to(MESSAGE, domain, &["x@d.example"]);
        send("absent.example").is("D", "(#5.1.2)");
        send("sick.example").is("Z", "(#4.4.3)");
        send("empty.example").is("D", "(#5.4.4)");
        send("lost.example").is("D", "(#5.4.4)");
        send("null.example").is("D", "(#5.1.10)");
        send("loop.example").is("D", "(#5.4.6)");
        send("[127.0.0.1]").is("D", "(#5.4.6)");
        send("not a name").is("D", "(#5.1.2)");
    });
}

#[test]
fn without_a_name_server_nothing_is_known() {
    privately(|| {
        place().send_to(MESSAGE, "d.example", &["x@d.example"]).is("Z", "(#4.4.3)");
    });
}
