//! qmail-lworker as it runs, asked as qmail-lspawn asks it; qmail-local beside it is the judge.

mod support;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, Stdio};

use e2e::kit;
use lookup::mail::{Mailbox, Quota, handed};
use mta_queue::worker_protocol::{Answer, MESSAGE_MAX, Request, Role};
use support::{Tree, USER, files, text};
use unix::passing;
use unix::{Gid, Uid};

const MESSAGE: &str = "Subject: hello\n\nbody\n";

struct Worker {
    socket: Option<OwnedFd>,
    child: Child,
}

impl Worker {
    fn start(mut command: Command) -> Self {
        let (ours, theirs) = passing::pair().unwrap();
        let child = command.stdin(Stdio::from(theirs)).spawn().unwrap();
        drop(command);
        let worker = Self { socket: Some(ours), child };
        assert_eq!(worker.answer(), Some(Answer::Hello));
        worker
    }

    fn of(tree: &Tree) -> Self {
        Self::start(tree.command("qmail-lworker"))
    }

    fn ask(&self, request: &Request, message: &File) {
        let bytes = request.encode().unwrap();
        passing::send_now(self.socket.as_ref().unwrap(), &bytes, Some(message.as_fd())).unwrap();
    }

    /// `None`: it has ended.
    fn answer(&self) -> Option<Answer> {
        let mut buffer = vec![0; MESSAGE_MAX];
        let got = passing::receive(self.socket.as_ref().unwrap(), &mut buffer, true).unwrap();
        (got.length > 0).then(|| Answer::decode(&buffer[..got.length]).unwrap())
    }

    fn deliver(&self, tree: &Tree, request: &Request) -> Answer {
        self.ask(request, &message(tree, MESSAGE));
        self.answer().unwrap()
    }

    /// No more requests; its exit code.
    fn end(mut self) -> Option<i32> {
        self.socket = None;
        self.child.wait().unwrap().code()
    }
}

fn message(tree: &Tree, text: &str) -> File {
    let path = tree.at("message");
    kit::write(&path, text);
    File::open(path).unwrap()
}

/// joe-EXT@x.y in the user's home, with the default of [`Tree::local`].
fn request(tree: &Tree, number: u16, ext: &str) -> Request {
    let home = tree.at("home").display().to_string();
    let (dash, local) = if ext.is_empty() { ("", "joe".to_owned()) } else { ("-", format!("joe-{ext}")) };
    let operands = ["joe", &home, &local, dash, ext, "x.y", "s@t", "./Mailbox", ""];
    let operands = operands.map(|o| o.as_bytes().to_vec()).to_vec();
    Request { number, role: Role::Local, operands, variables: Vec::new() }
}

/// Messages in all Maildirs of the home, without what differs from one delivery to the next.
fn delivered(tree: &Tree) -> Vec<String> {
    let mut all = Vec::new();
    for maildir in ["home/Maildir", "home/other", "home/joe/Maildir"] {
        let new = tree.at(maildir).join("new");
        for file in if new.exists() { files(&new) } else { Vec::new() } {
            let lines: Vec<String> =
                text(&file).lines().filter(|l| !l.starts_with("Received:")).map(str::to_owned).collect();
            let lines: Vec<_> = lines.into_iter().filter(|l| !l.starts_with("  by ")).collect();
            all.push(format!("{maildir}\n{}", lines.join("\n")));
            std::fs::remove_file(file).unwrap();
        }
        assert!(!tree.at(maildir).exists() || files(tree.at(maildir).join("tmp")).is_empty());
    }
    all.sort();
    all
}

/// What the worker says and does is what qmail-local prints and does.
#[track_caller]
fn same(tree: &Tree, worker: &Worker, ext: &str, variables: &[(&str, &[u8])]) -> (u8, String) {
    let variables = variables.iter().map(|(n, v)| (n.as_bytes().to_vec(), v.to_vec()));
    let request = Request { variables: variables.collect(), ..request(tree, 7, ext) };
    let answer = worker.deliver(tree, &request);
    let by_worker = delivered(tree);
    let out = tree.local_with(ext, MESSAGE, |command| {
        let os = std::ffi::OsStr::from_bytes;
        command.envs(request.variables.iter().map(|(n, v)| (os(n), os(v))));
    });
    assert_eq!(out.stderr, "");
    let Answer::Ended { number: 7, code, text } = answer else { panic!("{ext}: {answer:?}") };
    let text = String::from_utf8(text).unwrap();
    assert_eq!((i32::from(code), &text), (out.code, &out.stdout), "{ext}");
    assert_eq!(by_worker, delivered(tree), "{ext}");
    (code, text)
}

#[test]
fn maildirs_are_delivered_to_as_by_qmail_local() {
    let tree = Tree::new();
    tree.maildir("home/Maildir");
    tree.maildir("home/other");
    let other = tree.at("home/other").display().to_string();
    for (name, lines, mode) in [
        ("one", "./Maildir/\n".to_owned(), 0o600),
        ("two", format!("# both\n./Maildir/\n?end\n./never/\n:end\n{other}/\n"), 0o600),
        ("missing", "./Maildir/\n./nowhere/\n".to_owned(), 0o600),
        ("open", "./Maildir/\n".to_owned(), 0o602),
        ("blank", " \n./Maildir/\n".to_owned(), 0o600),
        ("comment", "#\n".to_owned(), 0o600),
    ] {
        tree.home_file(&format!(".qmail-{name}"), &lines, mode);
    }
    tree.home_file(".qmail-one-owner", "", 0o600);
    std::os::unix::fs::symlink(".qmail-loop", tree.at("home/.qmail-loop")).unwrap();
    let worker = Worker::of(&tree);
    assert_eq!(same(&tree, &worker, "one", &[]), (0, "did 1+0+0\n".to_owned()));
    assert_eq!(same(&tree, &worker, "two", &[]).1, "did 2+0+0\n");
    for (ext, code, word) in [
        ("missing", 111, "nowhere"),
        ("open", 111, "writable for others"),
        ("blank", 111, "first line is blank"),
        ("loop", 111, "./.qmail-loop"),
        ("comment", 0, "did 0+0+0"),
        ("unknown", 100, "no mailbox here by that name. (#5.1.1)"),
    ] {
        let (got, text) = same(&tree, &worker, ext, &[]);
        let words = word.split_once(". ").unwrap_or((word, ""));
        assert!(got == code && text.contains(words.0) && text.contains(words.1), "{ext}: {got} {text}");
    }
    let (code, text) = same(&tree, &worker, "one", &[("LOCALDOMAINS", b"1")]);
    assert!(code == 100 && text.contains("#5.7.1"), "{text}");
    same(&tree, &worker, "one", &[("QQEH", b"X-E: 1\n"), ("SANITIZE_ENV", b"")]);
    for mode in [0o702, 0o1700] {
        kit::set_mode(&tree.at("home"), mode);
        assert_eq!(same(&tree, &worker, "one", &[]).0, 111, "{mode:o}");
    }
    kit::set_mode(&tree.at("home"), 0o700);
    // It has read control files anew for each message.
    kit::write(tree.at("control/conf-patrn"), "7777");
    assert_eq!(worker.deliver(&tree, &request(&tree, 7, "one")), Answer::NeedsProgram(7));
    std::fs::remove_file(tree.at("control/conf-patrn")).unwrap();
    same(&tree, &worker, "one", &[]);
    assert_eq!(worker.end(), Some(0));
}

#[test]
fn what_needs_a_program_is_handed_back_untouched() {
    let tree = Tree::new();
    tree.maildir("home/Maildir");
    let vdelivermail = tree.at("usr/sbin/vdelivermail").display().to_string();
    let worker = Worker::of(&tree);
    for (number, lines) in [
        "./Maildir/\n|true\n".to_owned(),
        "./Maildir/\na@b\n".to_owned(),
        "&a@b\n".to_owned(),
        "./Maildir/\n./box\n".to_owned(),
        "?x test -f y\n./Maildir/\n:x\n".to_owned(),
        "%vars\n./Maildir/\n".to_owned(),
        "./Maildir/\n+list\n./Maildir/\n".to_owned(),
        format!("./Maildir/\n| {vdelivermail} '' bounce-no-mailbox\n"),
        format!("| {vdelivermail} '' bounce-no-mailbox\n./Maildir/\n"),
        format!("| {vdelivermail} '' nonsense\n"),
        format!("| {vdelivermail} '' bounce-no-mailbox\n"),
    ]
    .into_iter()
    .enumerate()
    {
        let number = u16::try_from(number).unwrap();
        tree.home_file(".qmail-x", &lines, 0o600);
        assert_eq!(
            worker.deliver(&tree, &request(&tree, number, "x")),
            Answer::NeedsProgram(number),
            "{lines}"
        );
        assert!(delivered(&tree).is_empty() && !tree.at("home/box").exists(), "{lines}");
    }
    assert!(tree.sent().is_empty());
    // The default is an mbox file.
    assert_eq!(worker.deliver(&tree, &request(&tree, 9, "")), Answer::NeedsProgram(9));
    assert_eq!(worker.end(), Some(0));
}

#[test]
fn accounts_get_their_mail_and_their_refusals() {
    let tree = Tree::new();
    let vdelivermail = tree.at("usr/sbin/vdelivermail").display().to_string();
    tree.home_file(".qmail-default", &format!("| {vdelivermail} '' bounce-no-mailbox\n"), 0o600);
    let joe = Mailbox {
        address: b"joe@x.y".to_vec(),
        uid: Uid::from_raw(USER),
        gid: Gid::from_raw(USER),
        home: tree.at("home/joe").as_os_str().as_bytes().to_vec(),
        gecos: b"Joe".to_vec(),
        quota: Quota::default(),
        flags: 0,
        active: true,
        alias_only: false,
        aliases: Vec::new(),
    };
    let worker = Worker::of(&tree);
    let with = |mailbox: Option<&Mailbox>, more: &[(&str, &[u8])]| {
        let answer = handed::hand(b"joe@x.y", mailbox).unwrap();
        let variables = [&[(handed::VARIABLE, &answer[..])], more].concat();
        same(&tree, &worker, "Joe", &variables)
    };
    assert_eq!(with(Some(&joe), &[]), (0, "did 0+0+1\n".to_owned()));
    assert_eq!(files(tree.at("home/joe/Maildir/new")).len(), 0, "both copies were looked at and taken away");
    let (code, text) = with(None, &[]);
    assert!(code == 100 && text.contains("#5.1.5"), "{text}");
    assert_eq!(with(None, &[("DISCARD_BOUNCE", b"1")]), (0, "did 0+0+1\n".to_owned()));
    let (code, text) = with(Some(&Mailbox { active: false, ..joe.clone() }), &[]);
    assert!(code == 100 && text.contains("inactive"), "{text}");
    let full = Mailbox { quota: Quota { bytes: Some(5), messages: None }, ..joe.clone() };
    let (code, text) = with(Some(&full), &[("OVERQUOTA_MAILSIZE", b"1")]);
    assert!(code == 100 && text.contains("#5.2.2"), "{text}");
    let counted = Mailbox { quota: Quota { bytes: Some(100_000), messages: None }, ..joe.clone() };
    assert_eq!(with(Some(&counted), &[]).0, 0);
    let (code, text) = with(Some(&Mailbox { uid: Uid::from_raw(USER + 1), ..joe.clone() }), &[]);
    assert!(code == 111 && text.contains("belongs to user"), "{text}");

    // In the place of qmail-local, for an account with a user of its own.
    let answer = handed::hand(b"joe@x.y", Some(&joe)).unwrap();
    let variables = vec![(handed::VARIABLE.as_bytes().to_vec(), answer)];
    let own = Request { role: Role::Account, variables, ..request(&tree, 3, "Joe") };
    let text = b"did 0+0+1\n".to_vec();
    assert_eq!(worker.deliver(&tree, &own), Answer::Ended { number: 3, code: 0, text });
    let got = delivered(&tree).concat();
    assert!(got.contains("Delivered-To: joe-Joe@x.y") && got.contains("Subject: hello"), "{got}");
    // A program tells about full mailboxes; an alias leads elsewhere.
    for (mailbox, variable) in [
        (&full, ("OVERQUOTA_CMD", "/bin/true")),
        (&Mailbox { aliases: vec![b"a@b".to_vec()], ..joe.clone() }, ("A", "b")),
    ] {
        let answer = handed::hand(b"joe@x.y", Some(mailbox)).unwrap();
        let variables = [(handed::VARIABLE, &answer[..]), (variable.0, variable.1.as_bytes())];
        let variables = variables.map(|(n, v)| (n.as_bytes().to_vec(), v.to_vec())).to_vec();
        let more = vec![(b"OVERQUOTA_MAILSIZE".to_vec(), b"1".to_vec())];
        let request = Request { variables: [variables, more].concat(), ..request(&tree, 4, "Joe") };
        assert_eq!(worker.deliver(&tree, &request), Answer::NeedsProgram(4));
        assert!(delivered(&tree).is_empty());
    }
    assert_eq!(worker.end(), Some(0));
}

/// Each in a directory of its own, and each with its own message, however many there are.
#[test]
fn deliveries_at_the_same_time_do_not_mix() {
    let tree = Tree::new();
    let worker = Worker::of(&tree);
    let homes: Vec<String> = (0..10).map(|n| format!("h{n}")).collect();
    for home in &homes {
        tree.give(home);
        tree.maildir(&format!("{home}/Maildir"));
    }
    let mut wanted = BTreeMap::new();
    for number in 0..100u16 {
        let home = &homes[usize::from(number) % homes.len()];
        let mut request = request(&tree, number, "");
        request.operands[1] = tree.at(home).as_os_str().as_bytes().to_vec();
        request.operands[7] = b"./Maildir/".to_vec();
        request.operands[8] = format!("X-Number: {number}\n").into_bytes();
        let path = tree.at(format!("m{number}"));
        kit::write(&path, format!("Subject: {number}\n\n"));
        worker.ask(&request, &File::open(path).unwrap());
        wanted.insert(number, home);
    }
    for _ in 0..100 {
        let Some(Answer::Ended { number, code: 0, text }) = worker.answer() else { panic!("no success") };
        assert_eq!(text, b"did 1+0+0\n");
        let home = wanted.remove(&number).expect("one answer each");
        let new = files(tree.at(home).join("Maildir/new"));
        let line = format!("X-Number: {number}\nSubject: {number}\n");
        assert_eq!(new.iter().filter(|f| support::text(f).contains(&line)).count(), 1);
    }
    for home in &homes {
        assert_eq!(files(tree.at(home).join("Maildir/new")).len(), 10);
        assert_eq!(files(tree.at(home).join("Maildir/tmp")).len(), 0);
    }
    assert_eq!(worker.end(), Some(0));
}

#[test]
fn root_and_strangers_are_refused() {
    let tree = Tree::new();
    let program = tree.at("usr/libexec/indimail/qmail-lworker");
    let (_ours, theirs) = passing::pair().unwrap();
    let out = Command::new(&program).stdin(Stdio::from(theirs)).output().unwrap();
    assert_eq!(out.status.code(), Some(111));
    assert!(String::from_utf8_lossy(&out.stderr).contains("as root"));
    let out = tree.command("qmail-lworker").stdin(Stdio::null()).output().unwrap();
    assert_eq!(out.status.code(), Some(111));
    assert!(String::from_utf8_lossy(&out.stderr).contains("qmail-lspawn"));
}
