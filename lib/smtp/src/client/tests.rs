use super::*;

fn job(tls: Tls) -> Job {
    Job {
        helo: b"me.example".to_vec(),
        sender: b"a b@c".to_vec(),
        recipients: vec![b"x@d".to_vec(), b"y@d".to_vec()],
        size: 7,
        body: Body::EightBit,
        tls,
    }
}

/// Plays a script: `S:` lines are fed, `C:` lines must be said, `TLS+`/`TLS-`, `MSG`, `LOST`; `|` is a line end.
fn play(tls: Tls, script: &str) -> Outcome {
    let mut session = Session::new(job(tls));
    let mut said: VecDeque<String> = VecDeque::new();
    let drive = |session: &mut Session, said: &mut VecDeque<String>| loop {
        match session.next_action() {
            Action::Send(bytes) => {
                said.extend(String::from_utf8(bytes).unwrap().split_terminator("\r\n").map(str::to_owned));
            }
            other => return other,
        }
    };
    let mut action = drive(&mut session, &mut said);
    for line in script.lines().map(str::trim).filter(|l| !l.is_empty()) {
        if let Some(text) = line.strip_prefix("C: ") {
            assert_eq!(said.pop_front().as_deref(), Some(text), "{action:?}");
        } else if let Some(text) = line.strip_prefix("S: ") {
            assert_eq!((&action, said.len()), (&Action::Read, 0), "before {line}");
            session.feed(format!("{text}\r\n").replace('|', "\r\n").as_bytes());
        } else {
            match line {
                "TLS+" | "TLS-" => {
                    assert_eq!(action, Action::StartTls);
                    session.tls(line == "TLS+");
                }
                "MSG" => {
                    assert_eq!(action, Action::SendMessage);
                    session.message_sent();
                }
                "LOST" => session.lost(),
                other => panic!("bad script line {other}"),
            }
        }
        if !matches!(action, Action::Done(_)) && !line.starts_with("C: ") {
            action = drive(&mut session, &mut said);
        }
    }
    assert!(said.is_empty(), "said more: {said:?}");
    match action {
        Action::Done(outcome) => outcome,
        other => panic!("not done: {other:?}"),
    }
}

fn report(outcome: Outcome) -> (Vec<Class>, Class, String) {
    match outcome {
        Outcome::Report(r) => (
            r.recipients.iter().map(|v| v.class).collect(),
            r.message.class,
            String::from_utf8(r.message.text).unwrap(),
        ),
        other => panic!("{other:?}"),
    }
}

use Class::{Accepted, Permanent, Temporary};

#[test]
fn pipelined_dialogue_with_every_extension() {
    let outcome = play(
        Tls::IfOffered,
        "S: 220 hi
         C: EHLO me.example
         S: 250-mx|250-PIPELINING|250-8BITMIME|250-STARTTLS|250 SIZE 1000
         C: STARTTLS
         S: 220 go
         TLS+
         C: EHLO me.example
         S: 250-mx|250-PIPELINING|250-8BITMIME|250 SIZE 1000
         C: MAIL FROM:<\"a b\"@c> SIZE=7 BODY=8BITMIME
         C: RCPT TO:<x@d>
         C: RCPT TO:<y@d>
         S: 250 ok|250 ok|550 no y
         C: DATA
         S: 354 go
         MSG
         S: 250 ok 1 qp 2
         C: QUIT",
    );
    assert_eq!(report(outcome), (vec![Accepted, Permanent], Accepted, "250 ok 1 qp 2".into()));
}

#[test]
fn old_host_gets_helo_and_one_command_at_a_time() {
    let outcome = play(
        Tls::IfOffered,
        "S: 220 hi
         C: EHLO me.example
         S: 502 what
         C: HELO me.example
         S: 250 mx
         C: MAIL FROM:<\"a b\"@c>
         S: 250 ok
         C: RCPT TO:<x@d>
         S: 451 later
         C: RCPT TO:<y@d>
         S: 550 no
         C: QUIT",
    );
    assert_eq!(report(outcome), (vec![Temporary, Permanent], Permanent, "giving up".into()));
}

#[test]
fn classification_by_state() {
    let hello = "S: 220 hi\nC: EHLO me.example\nS: 250 mx\n";
    let mail = format!("{hello}C: MAIL FROM:<\"a b\"@c>\n");
    let data =
        format!("{mail}S: 250 ok\nC: RCPT TO:<x@d>\nS: 250 ok\nC: RCPT TO:<y@d>\nS: 250 ok\nC: DATA\n");
    let class = |script: &str| report(play(Tls::Never, script)).1;
    assert_eq!(class("S: 554 go away\nC: QUIT"), Permanent);
    assert_eq!(class("S: 220 hi\nC: EHLO me.example\nS: 421 busy\nC: QUIT"), Temporary);
    assert_eq!(
        class("S: 220 hi\nC: EHLO me.example\nS: 500 x\nC: HELO me.example\nS: 550 x\nC: QUIT"),
        Permanent
    );
    assert_eq!(class(&format!("{mail}S: 450 x\nC: QUIT")), Temporary);
    assert_eq!(class(&format!("{mail}S: 553-x|553 y\nC: QUIT")), Permanent);
    assert_eq!(class(&format!("{mail}LOST")), Temporary);
    assert_eq!(class(&format!("{mail}S: nonsense")), Temporary);
    assert_eq!(class(&format!("{data}S: 451 x\nC: QUIT")), Temporary);
    assert_eq!(class(&format!("{data}S: 554 x\nC: QUIT")), Permanent);
    // Only 354 opens the message and only 2xx closes it.
    assert_eq!(class(&format!("{data}S: 250 x")), Temporary);
    assert_eq!(class(&format!("{data}S: 354 x\nMSG\nS: 354 x")), Temporary);
    assert_eq!(class(&format!("{data}S: 354 x\nMSG\nS: 554 x\nC: QUIT")), Permanent);
    let lost = report(play(Tls::Never, &format!("{data}S: 354 x\nMSG\nLOST")));
    assert_eq!(lost.1, Temporary);
    assert!(lost.2.contains("Possible duplicate"), "{}", lost.2);
}

#[test]
fn hosts_that_say_nothing_useful_are_passed_over() {
    assert!(matches!(play(Tls::Never, "S: 421 busy\nC: QUIT"), Outcome::NextHost(_)));
    assert!(matches!(play(Tls::Never, "LOST"), Outcome::NextHost(_)));
    assert!(matches!(play(Tls::Never, "S: SSH-2.0"), Outcome::NextHost(_)));
}

#[test]
fn tls_that_fails_is_retried_in_clear_only_when_it_was_a_wish() {
    let start = "S: 220 hi\nC: EHLO me.example\nS: 250-mx|250 STARTTLS\nC: STARTTLS\nS: 220 go\nTLS-";
    assert_eq!(play(Tls::IfOffered, start), Outcome::RetryInClear);
    assert_eq!(report(play(Tls::Required, start)).1, Temporary);
    let none = "S: 220 hi\nC: EHLO me.example\nS: 250 mx\nC: QUIT";
    assert_eq!(report(play(Tls::Required, none)).1, Temporary);
}

#[test]
fn what_was_offered_before_tls_does_not_count_after_it() {
    let outcome = play(
        Tls::IfOffered,
        "S: 220 hi
         C: EHLO me.example
         S: 250-mx|250-SIZE 5|250 STARTTLS
         C: STARTTLS
         S: 220 go|250 injected
         TLS+
         C: EHLO me.example
         S: 250 mx
         C: MAIL FROM:<\"a b\"@c>
         S: 550 no
         C: QUIT",
    );
    assert_eq!(report(outcome).1, Permanent);
}

#[test]
fn utf8_addresses_need_the_extension() {
    let mut session = Session::new(Job { recipients: vec!["ü@d".into()], ..job(Tls::Never) });
    session.feed(b"220 hi\r\n250 mx\r\n");
    let mut last = session.next_action();
    while !matches!(last, Action::Done(_)) {
        last = session.next_action();
    }
    assert!(format!("{last:?}").contains("Permanent"));
}
