//! What the module decides, with a scripted application and a scripted daemon: every question it
//! asks is one event, in order.

use std::collections::VecDeque;

use pam::constants::PamResultCode as Code;
use pam_multi::arguments::Arguments;
use pam_multi::decision::{self, Answer, Backend, Flags, Host, Level, Secret, Unavailable};

/// The application, libpam and the daemon; `events` is what happened.
#[derive(Default)]
struct Script {
    user: &'static [u8],
    earlier: Option<&'static [u8]>,
    replies: VecDeque<Result<&'static [u8], Code>>,
    answers: VecDeque<Result<Answer, Unavailable>>,
    events: Vec<String>,
}

/// Two views of one script, so that host and daemon can write one list of events.
struct Side<'a>(&'a std::cell::RefCell<Script>);

impl Side<'_> {
    fn event(&self, text: String) {
        self.0.borrow_mut().events.push(text);
    }
}

impl Host for Side<'_> {
    fn user(&mut self) -> Result<Vec<u8>, Code> {
        Ok(self.0.borrow().user.to_vec())
    }
    fn earlier_password(&mut self) -> Option<Secret> {
        self.0.borrow().earlier.map(|p| Secret::new(p.to_vec()))
    }
    fn prompt(&mut self) -> Result<Secret, Code> {
        self.event("prompt".to_owned());
        let reply = self.0.borrow_mut().replies.pop_front().expect("an unexpected prompt");
        reply.map(|p| Secret::new(p.to_vec()))
    }
    fn keep_password(&mut self, password: &Secret) -> Result<(), Code> {
        self.event(format!("keep {}", password.escape_ascii()));
        Ok(())
    }
    fn service(&mut self) -> Vec<u8> {
        b"sshd".to_vec()
    }
    fn remote_host(&mut self) -> Vec<u8> {
        b"192.0.2.1".to_vec()
    }
    fn delay_failure(&mut self, microseconds: u32) {
        self.event(format!("delay {microseconds}"));
    }
    fn log(&mut self, level: Level, text: &str) {
        self.event(format!("log {level:?} {text}"));
    }
}

impl Backend for Side<'_> {
    fn authenticate(
        &mut self,
        login: &[u8],
        p: &Secret,
        service: &[u8],
        rhost: &[u8],
    ) -> Result<Answer, Unavailable> {
        let all = [login, p, service, rhost].map(|b| b.escape_ascii().to_string()).join(" ");
        self.event(format!("ask {all}"));
        self.0.borrow_mut().answers.pop_front().expect("an unexpected question")
    }
    fn account(&mut self, login: &[u8], service: &[u8]) -> Result<Answer, Unavailable> {
        self.event(format!("account {} {}", login.escape_ascii(), service.escape_ascii()));
        self.0.borrow_mut().answers.pop_front().expect("an unexpected question")
    }
}

fn jane() -> Script {
    Script { user: b"jane@example.com", ..Script::default() }
}

fn arguments(text: &str) -> Arguments {
    let words: Vec<&[u8]> = text.split_ascii_whitespace().map(str::as_bytes).collect();
    Arguments::read(&words).unwrap()
}

fn authenticate(script: Script, text: &str) -> (Code, Vec<String>) {
    with_flags(script, text, Flags::default())
}

fn with_flags(script: Script, text: &str, flags: Flags) -> (Code, Vec<String>) {
    let cell = std::cell::RefCell::new(script);
    let code = decision::authenticate(&mut Side(&cell), &mut Side(&cell), &arguments(text), flags);
    (code, cell.into_inner().events)
}

fn account(script: Script, text: &str) -> (Code, Vec<String>) {
    let cell = std::cell::RefCell::new(script);
    let code = decision::account(&mut Side(&cell), &mut Side(&cell), &arguments(text));
    (code, cell.into_inner().events)
}

fn away() -> Result<Answer, Unavailable> {
    Err(Unavailable("/run/x: connection refused".to_owned()))
}

#[test]
fn a_right_password_is_asked_for_kept_and_checked() {
    let script =
        Script { replies: [Ok(&b"secret"[..])].into(), answers: [Ok(Answer::Granted)].into(), ..jane() };
    let (code, events) = authenticate(script, "pam-multi");
    assert_eq!(code, Code::PAM_SUCCESS);
    assert_eq!(
        events,
        ["delay 2000000", "prompt", "keep secret", "ask jane@example.com secret sshd 192.0.2.1"]
    );
}

#[test]
fn each_answer_has_its_code_in_each_phase() {
    let rows = [
        (Ok(Answer::Granted), Code::PAM_SUCCESS, Code::PAM_SUCCESS),
        (Ok(Answer::Absent), Code::PAM_USER_UNKNOWN, Code::PAM_USER_UNKNOWN),
        (Ok(Answer::Wrong), Code::PAM_AUTH_ERR, Code::PAM_AUTH_ERR),
        (Ok(Answer::Disabled), Code::PAM_PERM_DENIED, Code::PAM_PERM_DENIED),
        (Ok(Answer::Expired), Code::PAM_ACCT_EXPIRED, Code::PAM_ACCT_EXPIRED),
        (Ok(Answer::PasswordExpired), Code::PAM_SUCCESS, Code::PAM_NEW_AUTHTOK_REQD),
        (Ok(Answer::Later), Code::PAM_MAXTRIES, Code::PAM_MAXTRIES),
        (away(), Code::PAM_AUTHINFO_UNAVAIL, Code::PAM_AUTHINFO_UNAVAIL),
    ];
    for (answer, at_authenticate, at_account) in rows {
        let script = Script { earlier: Some(b"x"), answers: [answer.clone()].into(), ..jane() };
        assert_eq!(authenticate(script, "").0, at_authenticate, "{answer:?}");
        let script = Script { answers: [answer.clone()].into(), ..jane() };
        assert_eq!(account(script, "").0, at_account, "{answer:?}");
    }
}

#[test]
fn a_name_without_a_domain_is_unknown_before_any_question() {
    for user in [&b"root"[..], b""] {
        let (code, events) = authenticate(Script { user, ..Script::default() }, "");
        assert_eq!((code, events.len()), (Code::PAM_USER_UNKNOWN, 0));
        assert_eq!(account(Script { user, ..Script::default() }, "").0, Code::PAM_USER_UNKNOWN);
    }
}

#[test]
fn a_default_domain_completes_a_bare_name_only() {
    let script = |user| Script { user, answers: [Ok(Answer::Granted)].into(), ..Script::default() };
    let (_, events) = account(script(b"jane"), "domain=Example.com service=pop3");
    assert_eq!(events, ["account jane@example.com pop3"]);
    let (_, events) = account(script(b"jane@other.org"), "domain=example.com -i imap");
    assert_eq!(events, ["account jane@other.org imap"]);
    assert_eq!(account(script(b""), "domain=example.com").0, Code::PAM_USER_UNKNOWN);
}

#[test]
fn names_of_any_length_and_bytes_are_asked_about_or_unknown() {
    let long: &'static [u8] = vec![b'a'; 400].leak();
    let mut with_at = long.to_vec();
    with_at.push(b'@');
    assert_eq!(account(Script { user: with_at.leak(), ..Script::default() }, "").0, Code::PAM_USER_UNKNOWN);
    let script = Script { user: b"\xff'; drop@x", answers: [Ok(Answer::Absent)].into(), ..Script::default() };
    assert_eq!(account(script, "").1, [r"account \xff\'; drop@x sshd"]);
}

#[test]
fn the_earlier_password_is_used_by_the_rules_of_the_stack() {
    // By default it is final; with try_first_pass a wrong one leads to a question.
    let script = || Script {
        earlier: Some(b"old"),
        answers: [Ok(Answer::Wrong), Ok(Answer::Granted)].into(),
        ..jane()
    };
    assert_eq!(authenticate(script(), "").0, Code::PAM_AUTH_ERR);
    assert_eq!(authenticate(script(), "use_first_pass").0, Code::PAM_AUTH_ERR);
    let (code, events) =
        authenticate(Script { replies: [Ok(&b"new"[..])].into(), ..script() }, "try_first_pass nodelay");
    assert_eq!(code, Code::PAM_SUCCESS);
    assert_eq!(
        events.iter().map(String::as_str).filter(|e| !e.starts_with("log")).collect::<Vec<_>>(),
        [
            "ask jane@example.com old sshd 192.0.2.1",
            "prompt",
            "keep new",
            "ask jane@example.com new sshd 192.0.2.1"
        ]
    );
    // Only a wrong password does: an unknown user or a silent daemon is not asked twice.
    for answer in [Ok(Answer::Absent), Ok(Answer::Disabled), away()] {
        let script = Script { earlier: Some(b"old"), answers: [answer].into(), ..jane() };
        assert_ne!(authenticate(script, "try_first_pass").0, Code::PAM_AUTH_ERR);
    }
    // use_first_pass never asks.
    let (code, events) = authenticate(jane(), "use_first_pass nodelay");
    assert_eq!((code, events.len()), (Code::PAM_AUTH_ERR, 0));
}

#[test]
fn a_cancelled_question_is_no_failed_password() {
    for (reply, expected) in [
        (Code::PAM_CONV_ERR, Code::PAM_CONV_ERR),
        (Code::PAM_CONV_AGAIN, Code::PAM_INCOMPLETE),
        (Code::PAM_BUF_ERR, Code::PAM_BUF_ERR),
    ] {
        let (code, events) = authenticate(Script { replies: [Err(reply)].into(), ..jane() }, "nodelay");
        assert_eq!((code, &events[..]), (expected, &["prompt".to_owned()][..]));
    }
}

#[test]
fn an_empty_password_needs_nullok_and_the_applications_consent() {
    let empty = |answers: &[Answer]| Script {
        replies: [Ok(&b""[..])].into(),
        answers: answers.iter().map(|&a| Ok(a)).collect(),
        ..jane()
    };
    assert_eq!(authenticate(empty(&[]), "").0, Code::PAM_AUTH_ERR);
    let strict = Flags { disallow_empty: true };
    assert_eq!(with_flags(empty(&[]), "nullok", strict).0, Code::PAM_AUTH_ERR);
    assert_eq!(authenticate(empty(&[Answer::Granted]), "nullok").0, Code::PAM_SUCCESS);
}

#[test]
fn a_password_past_512_bytes_is_refused_here() {
    let password =
        |n: usize, answers| Script { replies: [Ok(&*vec![b'x'; n].leak())].into(), answers, ..jane() };
    let (code, events) = authenticate(password(513, VecDeque::new()), "nodelay");
    assert_eq!(code, Code::PAM_AUTH_ERR);
    assert_eq!(events, ["prompt", "log Notice password of jane@example.com is longer than 512 bytes"]);
    assert_eq!(authenticate(password(512, [Ok(Answer::Granted)].into()), "").0, Code::PAM_SUCCESS);
}

#[test]
fn passwords_never_reach_the_log() {
    for answer in [Ok(Answer::Wrong), Ok(Answer::Disabled), Ok(Answer::Later), Ok(Answer::Granted), away()] {
        let script = Script { earlier: Some(b"hunter2"), answers: [answer].into(), ..jane() };
        let (_, events) = authenticate(script, "debug");
        let logged: Vec<_> = events.iter().filter(|e| e.starts_with("log")).collect();
        assert!(!logged.is_empty() && logged.iter().all(|l| !l.contains("hunter2")), "{events:?}");
    }
}

#[test]
fn passwords_are_changed_elsewhere() {
    let cell = std::cell::RefCell::new(jane());
    assert_eq!(decision::change_password(&mut Side(&cell), &arguments("")), Code::PAM_AUTHTOK_ERR);
    assert!(cell.borrow().events[0].contains("vpasswd"));
    let cell = std::cell::RefCell::new(Script { user: b"root", ..Script::default() });
    assert_eq!(decision::change_password(&mut Side(&cell), &arguments("")), Code::PAM_USER_UNKNOWN);
}
