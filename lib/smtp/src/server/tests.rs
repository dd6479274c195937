use std::time::Duration;

use super::*;
use proptest::prelude::*;

/// Sender, recipients, text.
type Message = (Vec<u8>, Vec<Vec<u8>>, Vec<u8>);

/// Everything a driver would see, with the world answering from fixed rules.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    replies: String,
    messages: Vec<Message>,
    abandoned: usize,
    delays: Vec<Duration>,
    events: Vec<Event>,
    ending: Option<Ending>,
}

fn world(query: Query, seen: &mut Seen, message: &mut Vec<u8>) -> Answer {
    match query {
        Query::LocalDomain(d) if d == b"down.example" => Answer::Unavailable,
        Query::LocalDomain(d) => {
            if d == b"here.example" {
                Answer::Yes
            } else {
                Answer::No
            }
        }
        Query::Recipient(r) => match r.split(|&b| b == b'@').next().unwrap() {
            b"absent" => Answer::Recipient(RecipientState::Absent),
            b"full" => Answer::Recipient(RecipientState::OverQuota),
            b"off" => Answer::Recipient(RecipientState::Inactive),
            b"unknown" => Answer::Unavailable,
            _ => Answer::Recipient(RecipientState::Exists),
        },
        Query::BadSender(a) => {
            if a == b"bad@x" {
                Answer::Yes
            } else {
                Answer::No
            }
        }
        Query::BadRecipient(_) => Answer::No,
        Query::OwnsSender { user, sender } => {
            if user == sender {
                Answer::Yes
            } else {
                Answer::No
            }
        }
        Query::Authenticate { user, password, .. } => match (&user[..], &password[..]) {
            (_, b"secret") => Answer::Login(Login::Granted { relay: user != b"local" }),
            (b"down", _) => Answer::Unavailable,
            _ => Answer::Login(Login::Wrong),
        },
        Query::PrepareTls => Answer::Yes,
        Query::Open(_) => {
            message.clear();
            Answer::Opened(Additions { date: b"Date: D\n".to_vec(), message_id: b"Message-ID: I\n".to_vec() })
        }
        Query::Commit { sender, recipients } => {
            seen.messages.push((sender, recipients, std::mem::take(message)));
            Answer::Queued { time: 1, qp: 2 }
        }
    }
}

fn run(policy: &Policy, peer: &Peer, pieces: &[&[u8]]) -> Seen {
    let mut session = Session::new(Arc::new(policy.clone()), peer.clone());
    let (mut seen, mut message) = (Seen::default(), Vec::new());
    let mut pieces = pieces.iter();
    loop {
        match session.next_action() {
            Action::Send(bytes) => seen.replies.push_str(&String::from_utf8(bytes).unwrap()),
            Action::Flush => {}
            Action::Read => match pieces.next() {
                Some(piece) => session.feed(piece),
                None => session.end_of_input(),
            },
            Action::Ask(query) => {
                let answer = world(query, &mut seen, &mut message);
                session.answer(answer);
            }
            Action::StartTls => {
                session
                    .answer(Answer::Tls(Some(TlsFacts { version: "TLSv1.3".into(), cipher: String::new() })));
            }
            Action::Write(bytes) => message.extend(bytes),
            Action::Abandon => {
                message.clear();
                seen.abandoned += 1;
            }
            Action::Delay(d) => seen.delays.push(d),
            Action::Log(event) => seen.events.push(event),
            Action::Close(ending) => {
                seen.ending = Some(ending);
                return seen;
            }
        }
    }
}

fn policy() -> Policy {
    Policy {
        greeting: vec![b"mx.example ESMTP".to_vec()],
        auth: AuthPolicy { available: true, plain: true, login: true, only_under_tls: true },
        starttls: true,
        check_recipient: true,
        ..Policy::default()
    }
}

fn talk(policy: &Policy, input: &str) -> Seen {
    run(policy, &Peer::default(), &[input.replace('\n', "\r\n").as_bytes()])
}

/// First words of the replies, without the greeting.
fn codes(seen: &Seen) -> Vec<&str> {
    seen.replies.lines().skip(1).filter(|l| l.as_bytes()[3] == b' ').map(|l| &l[..3]).collect()
}

fn enhanced(seen: &Seen) -> Vec<String> {
    let pick =
        |l: &str| format!("{} {}", &l[..3], l.rsplit_once("(#").map_or("", |p| p.1.trim_end_matches(')')));
    seen.replies.lines().skip(1).filter(|l| l.as_bytes()[3] == b' ').map(pick).collect()
}

#[test]
fn a_message_goes_through() {
    let seen = talk(
        &policy(),
        "EHLO c\nMAIL FROM:<a@b> SIZE=9 BODY=8BITMIME\nRCPT TO:<u@HERE.example>\nDATA\nhi\n..x\n.\nQUIT\n",
    );
    assert_eq!(codes(&seen), ["250", "250", "250", "354", "250", "221"]);
    assert!(seen.replies.contains("250 ok 1 qp 2\r\n"));
    assert_eq!(seen.messages, [(b"a@b".to_vec(), vec![b"u@HERE.example".to_vec()], b"hi\n.x\n".to_vec())]);
    assert_eq!(seen.ending, Some(Ending::Quit));
    assert!(matches!(&seen.events[..], [Event::Accepted(m)] if m.size == 6 && m.helo == b"c"));
}

#[test]
fn the_queue_is_opened_before_354_and_logged_after_250() {
    let policy = policy();
    let mut session = Session::new(Arc::new(policy), Peer::default());
    session.feed(b"HELO c\r\nMAIL FROM:<>\r\nRCPT TO:<u@here.example>\r\nDATA\r\nx\r\n.\r\n");
    let mut order = Vec::new();
    let (mut seen, mut message) = (Seen::default(), Vec::new());
    loop {
        match session.next_action() {
            Action::Ask(query) => {
                order.push(format!("{query:?}").split([' ', '(']).next().unwrap().to_owned());
                let answer = world(query, &mut seen, &mut message);
                session.answer(answer);
            }
            Action::Send(b) => order.push(String::from_utf8_lossy(&b[..3]).into_owned()),
            Action::Flush => order.push("flush".into()),
            Action::Log(_) => order.push("log".into()),
            Action::Write(b) => message.extend(b),
            Action::Read => break,
            other => panic!("{other:?}"),
        }
    }
    let expected = [
        "220",
        "250",
        "250",
        "BadRecipient",
        "LocalDomain",
        "Recipient",
        "250",
        "Open",
        "354",
        "Commit",
        "250",
        "flush",
        "log",
    ];
    assert_eq!(order, expected);
}

#[test]
fn order_of_commands_is_enforced_with_one_reply_each() {
    let seen = talk(
        &policy(),
        "MAIL FROM:<a@b>\nHELO c\nRCPT TO:<u@here.example>\nDATA\nMAIL FROM:<a@b>\nDATA\nDATA x\nRSET x\nRSET\nRCPT TO:<u@here.example>\nNOOP x\nVRFY u\nEXPN x\nXFOO\nHELP\n",
    );
    assert_eq!(
        enhanced(&seen),
        [
            "503 5.5.4",
            "250 ",
            "503 5.5.1",
            "503 5.5.1",
            "250 ",
            "503 5.5.1",
            "501 5.3.2",
            "501 5.3.2",
            "250 ",
            "503 5.5.1",
            "250 ",
            "252 2.7.0",
            "502 5.5.2",
            "502 5.5.1",
            "214 "
        ]
    );
}

#[test]
fn a_transaction_is_dropped_whole() {
    for dropper in ["RSET", "HELO c", "EHLO c", "MAIL FROM:<junk"] {
        let seen =
            talk(&policy(), &format!("HELO c\nMAIL FROM:<a@b>\nRCPT TO:<u@here.example>\n{dropper}\nDATA\n"));
        assert_eq!(enhanced(&seen).last().unwrap(), "503 5.5.1", "{dropper}");
    }
}

#[test]
fn parameters_and_paths() {
    let limited = Policy { size_limit: Some(100), ..policy() };
    let seen = talk(
        &limited,
        "EHLO c\nMAIL FROM:<a@b> SIZE=101\nMAIL FROM:<a@b> BODY=X\nMAIL FROM:<a@b> FOO\nMAIL FROM:<a@b\nMAIL FROM:<a@b> SIZE=100\nRCPT TO:<>\nRCPT TO:<u@here.example> NOTIFY=NEVER\nRCPT TO:<a%b@here.example>\n",
    );
    assert!(seen.replies.contains("250-SIZE 100\r\n"));
    assert_eq!(
        enhanced(&seen)[1..],
        ["552 5.3.4", "501 5.5.4", "555 5.5.4", "555 5.1.3", "250 ", "555 5.1.3", "555 5.5.4", "550 5.7.1"]
    );
}

#[test]
fn three_answers_about_a_recipient_never_mix() {
    let seen = talk(
        &policy(),
        "HELO c\nMAIL FROM:<a@b>\nRCPT TO:<absent@here.example>\nRCPT TO:<off@here.example>\nRCPT TO:<full@here.example>\nRCPT TO:<unknown@here.example>\nRCPT TO:<u@down.example>\nRCPT TO:<u@there.example>\nRCPT TO:<u@here.example>\n",
    );
    assert_eq!(
        enhanced(&seen)[2..],
        ["550 5.1.1", "550 5.2.1", "452 4.2.2", "451 4.3.2", "451 4.3.2", "553 5.7.1", "250 "]
    );
    assert_eq!(seen.delays.len(), 3);
}

#[test]
fn relay_permission_appends_its_text_and_auth_all_asks_for_it() {
    let peer = Peer { relay: Some(b".via".to_vec()), ..Peer::default() };
    let input = b"HELO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<u@there.example>\r\nDATA\r\n.\r\n";
    let seen = run(&policy(), &peer, &[input]);
    assert_eq!(seen.messages[0].1, [b"u@there.example.via"]);
    let all = Policy { auth_all: true, ..policy() };
    let seen = talk(&all, "HELO c\nMAIL FROM:<a@b>\nRCPT TO:<u@here.example>\n");
    assert_eq!(enhanced(&seen).last().unwrap(), "553 5.7.1");
}

#[test]
fn limits_end_what_they_limit() {
    let tight = Policy { max_recipients: Some(1), max_invalid_recipients: Some(2), ..policy() };
    let seen = talk(&tight, "HELO c\nMAIL FROM:<a@b>\nRCPT TO:<u@here.example>\nRCPT TO:<v@here.example>\n");
    assert_eq!(enhanced(&seen).last().unwrap(), "452 4.5.3");
    let bad = "RCPT TO:<absent@here.example>\n".repeat(3);
    let seen = talk(&tight, &format!("HELO c\nMAIL FROM:<a@b>\n{bad}"));
    assert_eq!(enhanced(&seen)[2..], ["550 5.1.1", "421 4.7.1"]);
    let seen = talk(&policy(), &format!("HELO {}\nNOOP\n", "x".repeat(5000)));
    assert_eq!(enhanced(&seen), ["553 5.5.2"]);
    assert_eq!(codes(&talk(&policy(), &"WHAT\n".repeat(200))).len(), 100);
    // A list with many dead recipients is no protocol error.
    let dead = "RCPT TO:<absent@here.example>\n".repeat(200);
    let seen = talk(&policy(), &format!("HELO c\nMAIL FROM:<a@b>\n{dead}RCPT TO:<u@here.example>\n"));
    assert_eq!((codes(&seen).len(), enhanced(&seen).last().unwrap().as_str()), (203, "250 "));
    let seen = talk(&policy(), "HELO c\nMAIL FROM:<>\nRCPT TO:<u@here.example>\nRCPT TO:<v@here.example>\n");
    assert_eq!(enhanced(&seen).last().unwrap(), "553 5.7.1");
}

#[test]
fn big_and_looping_messages_are_read_to_the_end_and_dropped() {
    let small = Policy { size_limit: Some(10), max_hops: 3, ..policy() };
    let envelope = "MAIL FROM:<a@b>\nRCPT TO:<u@here.example>\nDATA\n";
    let seen = talk(&small, &format!("HELO c\n{envelope}0123456789\n.\n{envelope}ok\n.\nQUIT\n"));
    assert_eq!(enhanced(&seen)[3..], ["354 ", "552 5.3.4", "250 ", "250 ", "354 ", "250 ", "221 "]);
    assert_eq!((seen.messages.len(), seen.abandoned), (1, 1));
    let looping = Policy { max_hops: 3, ..policy() };
    let hops = "Received: x\n".repeat(3);
    let seen = talk(&looping, &format!("HELO c\n{envelope}{hops}\nbody\n.\n"));
    assert_eq!(enhanced(&seen).last().unwrap(), "554 5.4.6");
    assert_eq!((seen.messages.len(), seen.abandoned), (0, 1));
}

#[test]
fn bare_lf_closes_and_nothing_is_queued() {
    let input =
        b"HELO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<u@here.example>\r\nDATA\r\nx\n.\r\nMAIL FROM:<evil@x>\r\n";
    let seen = run(&policy(), &Peer::default(), &[input]);
    assert_eq!(enhanced(&seen).last().unwrap(), "451 4.6.0");
    assert_eq!((seen.messages.len(), seen.abandoned, seen.ending), (0, 1, Some(Ending::Dropped)));
}

#[test]
fn a_client_that_vanishes_queues_nothing() {
    let start = "HELO c\nMAIL FROM:<a@b>\nRCPT TO:<u@here.example>\nDATA\n";
    for rest in ["", "half a li", "text\n.", "text\n.\r"] {
        let seen = talk(&policy(), &format!("{start}{rest}"));
        assert_eq!((seen.messages.len(), seen.abandoned), (0, 1), "{rest:?}");
    }
    let mut session = Session::new(Arc::new(policy()), Peer::default());
    session.timed_out();
    let actions: Vec<_> = (0..4).map(|_| session.next_action()).collect();
    assert!(matches!(&actions[1], Action::Send(b) if b.starts_with(b"451 ")));
    assert_eq!(actions[3], Action::Close(Ending::Dropped));
}

#[test]
fn starttls_forgets_everything_and_drops_injected_commands() {
    let open = Policy {
        auth: AuthPolicy { available: true, plain: true, login: true, only_under_tls: false },
        ..policy()
    };
    let seen = run(
        &open,
        &Peer::default(),
        &[
            b"EHLO c\r\nAUTH PLAIN AHUAc2VjcmV0\r\nMAIL FROM:<a@b>\r\nSTARTTLS\r\nRSET\r\nMAIL FROM:<evil@x>\r\n",
            b"MAIL FROM:<a@b>\r\nEHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<u@there.example>\r\nSTARTTLS\r\n",
        ],
    );
    assert_eq!(
        enhanced(&seen),
        ["250 ", "235 2.0.0", "250 ", "220 ", "503 5.5.4", "250 ", "250 ", "553 5.7.1", "502 5.5.1"]
    );
}

#[test]
fn auth_rules() {
    let seen = talk(&policy(), "EHLO c\nAUTH PLAIN AHUAc2VjcmV0\n");
    assert!(!seen.replies.contains("250-AUTH"));
    assert_eq!(enhanced(&seen).last().unwrap(), "538 5.7.11");
    let tls =
        Peer { tls: Some(TlsFacts { version: "TLSv1.3".into(), cipher: String::new() }), ..Peer::default() };
    let ask = |input: &str| run(&policy(), &tls, &[input.replace('\n', "\r\n").as_bytes()]);
    let seen = ask("EHLO c\nAUTH PLAIN\nAHUAc2VjcmV0\nAUTH PLAIN\n");
    assert!(seen.replies.contains("250-AUTH LOGIN PLAIN\r\n"));
    assert!(seen.replies.contains("334 \r\n"));
    assert_eq!(enhanced(&seen)[2..], ["235 2.0.0", "503 5.5.0"]);
    let seen = ask("EHLO c\nAUTH LOGIN\ndQ==\nc2VjcmV0\nMAIL FROM:<a@b>\nRCPT TO:<u@there.example>\n");
    assert!(seen.replies.contains("334 VXNlcm5hbWU6\r\n334 UGFzc3dvcmQ6\r\n"));
    assert_eq!(enhanced(&seen)[3..], ["235 2.0.0", "250 ", "250 "]);
    // An account without relay permission is logged in, and no more.
    let seen = ask("EHLO c\nAUTH LOGIN bG9jYWw=\nc2VjcmV0\nMAIL FROM:<a@b>\nRCPT TO:<u@there.example>\n");
    assert_eq!(enhanced(&seen)[2..], ["235 2.0.0", "250 ", "553 5.7.1"]);
    let seen =
        ask("EHLO c\nAUTH CRAM-MD5\nAUTH PLAIN =\nAUTH LOGIN\n*\nAUTH PLAIN !!\nAUTH PLAIN AGRvd24AeA==\n");
    assert_eq!(
        enhanced(&seen)[1..],
        ["504 5.5.1", "501 5.5.4", "334 ", "501 5.0.0", "501 5.5.4", "454 4.3.0"]
    );
    let seen = ask(&format!("EHLO c\n{}", "AUTH PLAIN AHUAeA==\n".repeat(4)));
    assert_eq!(enhanced(&seen)[1..], ["535 5.7.8", "535 5.7.8", "421 4.7.0"]);
    assert_eq!(seen.delays.len(), 3);
    let seen = ask("EHLO c\nMAIL FROM:<a@b>\nAUTH PLAIN AHUAc2VjcmV0\n");
    assert_eq!(enhanced(&seen).last().unwrap(), "503 5.5.0");
}

#[test]
fn auth_parameter_of_mail_gives_no_identity() {
    let seen = talk(&policy(), "EHLO c\nMAIL FROM:<a@b> AUTH=root@here.example\nRCPT TO:<u@there.example>\n");
    assert_eq!(enhanced(&seen)[1..], ["250 ", "553 5.7.1"]);
}

#[test]
fn submission_needs_tls_login_ownership_and_whole_addresses() {
    let submission = Policy { submission: true, require_auth: true, force_tls: true, ..policy() };
    let seen = talk(&submission, "EHLO c\nAUTH PLAIN AHUAc2VjcmV0\nMAIL FROM:<a@b>\nNOOP\n");
    assert_eq!(enhanced(&seen)[1..], ["530 5.7.0", "530 5.7.0", "250 "]);
    let tls =
        Peer { tls: Some(TlsFacts { version: "TLSv1.3".into(), cipher: String::new() }), ..Peer::default() };
    let login = "EHLO c\nMAIL FROM:<u@b>\nAUTH PLAIN AHVAYgBzZWNyZXQ=\n";
    let input = format!(
        "{login}MAIL FROM:<u>\nMAIL FROM:<v@b>\nMAIL FROM:<u@b>\nRCPT TO:<x>\nRCPT TO:<x@there.example>\nDATA\nSubject: s\n\nbody\n.\nMAIL FROM:<u@b>\nRCPT TO:<x@there.example>\nDATA\nDate: mine\nMessage-Id: <m>\n\nbody\n.\n"
    );
    let seen = run(&submission, &tls, &[input.replace('\n', "\r\n").as_bytes()]);
    assert_eq!(
        enhanced(&seen)[1..9],
        ["530 5.7.0", "235 2.0.0", "554 5.6.2", "553 5.7.1", "250 ", "554 5.6.2", "250 ", "354 "]
    );
    assert_eq!(seen.messages[0].2, b"Subject: s\nDate: D\nMessage-ID: I\n\nbody\n");
    assert_eq!(seen.messages[1].2, b"Date: mine\nMessage-Id: <m>\n\nbody\n");
}

#[test]
fn gates_answer_everything_but_quit_and_help() {
    let gate = Gate {
        greeting: Reply::new(421, "4.3.2", "closed"),
        later: Reply::new(503, "5.5.1", "closed"),
        slow: false,
    };
    let peer = Peer { gate: Some(gate), ..Peer::default() };
    let seen = run(&policy(), &peer, &[b"EHLO c\r\nMAIL FROM:<>\r\nHELP\r\nQUIT\r\n"]);
    assert!(seen.replies.starts_with("421 closed"));
    assert_eq!(codes(&seen), ["503", "503", "214", "221"]);
}

#[test]
fn own_address_literal_is_this_host() {
    let peer = Peer { local_ip: Some("192.0.2.1".parse().unwrap()), ..Peer::default() };
    let here = Policy { local_ip_host: b"here.example".to_vec(), ..policy() };
    let input =
        b"HELO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<u@[192.0.2.1]>\r\nRCPT TO:<u@[192.0.2.2]>\r\nDATA\r\n.\r\n";
    let seen = run(&here, &peer, &[input]);
    assert_eq!(seen.messages[0].1, [b"u@here.example"]);
}

#[test]
fn must_ipv6_literals_are_known_in_every_form() {
    let own = |local: &str, literal: &str| {
        let peer = Peer { local_ip: Some(local.parse().unwrap()), ..Peer::default() };
        let here = Policy { local_ip_host: b"here.example".to_vec(), ..policy() };
        let input = format!("HELO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<u@[{literal}]>\r\n");
        enhanced(&run(&here, &peer, &[input.as_bytes()])).pop().unwrap() == "250 "
    };
    assert!(own("2001:db8::1", "IPv6:2001:db8::1") && own("2001:db8::1", "ipv6:2001:DB8:0::1"));
    assert!(own("192.0.2.1", "IPv6:::ffff:192.0.2.1") && own("192.0.2.1", "192.0.2.1"));
    assert!(
        !own("2001:db8::1", "IPv6:2001:db8::2")
            && !own("2001:db8::1", "IPv6:")
            && !own("2001:db8::1", "IPv6")
    );
}

#[test]
fn log_and_reply_cannot_be_forged_by_the_client() {
    let seen = run(
        &policy(),
        &Peer::default(),
        &[b"X\xff\x01\r250 forged\r\nEHLO a\r250 b\r\nMAIL FROM:<a\0b@c>\r\n"],
    );
    assert_eq!(codes(&seen), ["502", "250", "555"]);
}

/// The state after a piece never depends on where the pieces were cut.
fn cut_everywhere(policy: &Policy, input: &[u8]) {
    let whole = run(policy, &Peer::default(), &[input]);
    let single: Vec<&[u8]> = input.chunks(1).collect();
    assert_eq!(run(policy, &Peer::default(), &single), whole);
    for cut in 0..=input.len() {
        let (a, b) = input.split_at(cut);
        assert_eq!(run(policy, &Peer::default(), &[a, b]), whole, "cut at {cut}");
    }
}

#[test]
fn a_long_dialogue_cut_at_every_byte() {
    let open = Policy {
        auth: AuthPolicy { available: true, plain: true, login: true, only_under_tls: false },
        starttls: false,
        submission: true,
        ..policy()
    };
    let input = "EHLO c\nAUTH LOGIN\ndUBi\nc2VjcmV0\nMAIL FROM:<u@b> SIZE=3\nRCPT TO:<absent@here.example>\nRCPT TO:<v@here.example>\nDATA\nSubject: x\nReceived: y\n\n..\n.a\n.\nRSET\nBAD\nMAIL FROM:<u@b>\nRCPT TO:<w@there.example>\nDATA\n\n.\nQUIT\nNOOP\n";
    cut_everywhere(&open, input.replace('\n', "\r\n").as_bytes());
}

/// One reply group for every command line of a stream of commands without DATA.
fn replies(seen: &Seen) -> usize {
    seen.replies.lines().filter(|l| l.as_bytes().get(3) == Some(&b' ')).count()
}

const WORDS: [&str; 16] = [
    "EHLO c",
    "HELO",
    "MAIL FROM:<a@b>",
    "MAIL FROM:<>",
    "RCPT TO:<u@here.example>",
    "RCPT TO:<absent@here.example>",
    "RCPT TO:<u@there.example>",
    "DATA",
    "text",
    ".",
    "RSET",
    "NOOP",
    "",
    "AUTH LOGIN",
    "dQ==",
    "..",
];

proptest! {
    #[test]
    fn any_bytes_cut_anywhere(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        cut_everywhere(&Policy { starttls: false, ..policy() }, &bytes);
    }

    #[test]
    fn likely_commands_cut_anywhere(words in proptest::collection::vec((0usize..16, 0usize..8), 0..12)) {
        let mut input = Vec::new();
        for (word, ending) in words {
            input.extend_from_slice(WORDS[word].as_bytes());
            input.extend_from_slice(match ending { 0 => b"\n", 1 => b"\r", _ => b"\r\n" });
        }
        let open = Policy {
            auth: AuthPolicy { available: true, plain: true, login: true, only_under_tls: false },
            starttls: false,
            ..policy()
        };
        cut_everywhere(&open, &input);
    }

    #[test]
    fn one_reply_for_every_command(words in proptest::collection::vec(0usize..16, 0..30)) {
        let input: String = words.iter().map(|&w| WORDS[w]).filter(|w| *w != "DATA" && !w.starts_with("AUTH")).map(|w| format!("{w}\r\n")).collect();
        let seen = run(&policy(), &Peer::default(), &[input.as_bytes()]);
        prop_assert_eq!(replies(&seen), input.matches("\r\n").count() + 1);
    }
}
