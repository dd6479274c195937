//! The module in a real libpam: a small C application, service files in a directory of their own,
//! and a daemon that behaves or misbehaves as each test wants.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use lookup::frame::{self, MAX_FRAME};
use lookup::mail::{Mailbox, Quota, Reply, Request, Verdict};

/// PAM codes (security/_pam_types.h).
const SUCCESS: i32 = 0;
const SERVICE_ERR: i32 = 3;
const PERM_DENIED: i32 = 6;
const AUTH_ERR: i32 = 7;
const AUTHINFO_UNAVAIL: i32 = 9;
const USER_UNKNOWN: i32 = 10;
const MAXTRIES: i32 = 11;
const NEW_AUTHTOK_REQD: i32 = 12;
const ACCT_EXPIRED: i32 = 13;
const CONV_ERR: i32 = 19;
const AUTHTOK_ERR: i32 = 20;

/// The module as cargo built it, beside the test's own executable.
fn module() -> PathBuf {
    let own = std::env::current_exe().expect("path of this test");
    let module = own.with_file_name("libpam_multi.so");
    assert!(module.is_file(), "{} is not built", module.display());
    module
}

/// The C application, compiled once.
fn client() -> &'static Path {
    static CLIENT: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = CLIENT.get_or_init(|| {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("client");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/client.c");
        let made = Command::new("gcc")
            .args(["-Wall", "-Werror", "-o"])
            .arg(&path)
            .arg(source)
            .args(["-lpam", "-pthread"])
            .status();
        assert!(made.expect("gcc").success());
        (dir, path)
    });
    path
}

/// One service, its stack and where its daemon listens.
struct Stack {
    dir: tempfile::TempDir,
}

impl Stack {
    /// `lines` are a service file in which MODULE and SOCKET stand for the paths.
    fn new(lines: &str) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let text = lines
            .replace("MODULE", module().to_str().unwrap())
            .replace("SOCKET", &format!("socket={} timeout=1000 nodelay", dir.path().join("s").display()));
        std::fs::write(dir.path().join("indimail-try"), text).unwrap();
        Self { dir }
    }

    /// The module alone in all four stacks.
    fn alone(arguments: &str) -> Self {
        let line = |kind| format!("{kind} required MODULE SOCKET {arguments}\n");
        Self::new(&["auth", "account", "session", "password"].map(line).concat())
    }

    /// Answers with `serve`, one call for each connection.
    fn daemon(&self, mut serve: impl FnMut(UnixStream) + Send + 'static) {
        let listener = UnixListener::bind(self.dir.path().join("s")).unwrap();
        std::thread::spawn(move || listener.incoming().for_each(|c| serve(c.unwrap())));
    }

    /// Answers each question with what `answer` says.
    fn answers(&self, answer: impl Fn(&Request<'_>) -> Reply + Send + 'static) {
        self.daemon(move |stream| answer_all(stream, &answer));
    }

    fn run(&self, user: &str, operations: &[&str]) -> Vec<(String, String)> {
        let mut command = Command::new(client());
        command.arg(self.dir.path()).arg("indimail-try").arg(user).args(operations);
        finish(command)
    }

    /// The codes of the operations that have one.
    fn codes(&self, user: &str, operations: &[&str]) -> Vec<i32> {
        self.run(user, operations).into_iter().map(|(_, n)| n.parse().unwrap()).collect()
    }
}

/// Runs the application with its output on descriptor 9 and reads the lines.
fn finish(mut command: Command) -> Vec<(String, String)> {
    let (reader, writer) = unix::fd::pipe().unwrap();
    let at_nine = unix::fd::duplicate_above(&writer, 100).unwrap();
    let raw = std::os::fd::AsRawFd::as_raw_fd(&at_nine);
    // SAFETY: dup2 is async-signal-safe, and both numbers are plain integers.
    unsafe {
        command.pre_exec(
            move || if libc::dup2(raw, 9) == 9 { Ok(()) } else { Err(std::io::Error::last_os_error()) },
        );
    }
    let said = unix::fd::pipe().unwrap();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said.1);
    let mut child = command.spawn().unwrap();
    // The command keeps its own copies of what the child has.
    drop((command, writer, at_nine));
    let mut text = String::new();
    std::fs::File::from(reader).read_to_string(&mut text).unwrap();
    let status = child.wait().unwrap();
    let mut said_text = String::new();
    std::fs::File::from(said.0).read_to_string(&mut said_text).unwrap();
    assert!(status.success(), "{status}: {text}{said_text}");
    assert_eq!(said_text, "", "the module says nothing in its host");
    text.lines().map(|l| l.split_once(' ').unwrap()).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
}

fn answer_all(mut stream: UnixStream, answer: &dyn Fn(&Request<'_>) -> Reply) {
    while let Some(bytes) = whole_frame(&mut stream) {
        let (frame, _) = frame::split(&bytes, MAX_FRAME).unwrap().unwrap();
        let mut out = Vec::new();
        answer(&Request::decode(&frame).unwrap()).encode(&mut out).unwrap();
        stream.write_all(&out).unwrap();
    }
}

fn whole_frame(stream: &mut UnixStream) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 4];
    stream.read_exact(&mut bytes).ok()?;
    let length = usize::try_from(u32::from_be_bytes(bytes[..4].try_into().unwrap())).unwrap();
    bytes.resize(4 + length, 0);
    stream.read_exact(&mut bytes[4..]).ok()?;
    Some(bytes)
}

fn bytes(text: &[u8]) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(text)
}

fn mailbox() -> Mailbox {
    Mailbox {
        address: b"jane@example.com".to_vec(),
        uid: unix::Uid::from_raw(60_000),
        gid: unix::Gid::from_raw(60_000),
        home: b"/home/mail/jane".to_vec(),
        gecos: b"Jane".to_vec(),
        quota: Quota::default(),
        flags: 0,
        active: true,
        alias_only: false,
        aliases: Vec::new(),
    }
}

/// A small directory: the local part says what becomes of a login with the password `secret`.
fn directory(request: &Request<'_>) -> Reply {
    let (address, password) = match *request {
        Request::Authenticate { address, password, .. } => (address, Some(password)),
        Request::Account { address, .. } => (address, None),
        _ => return Reply::Refused,
    };
    Reply::Verdict(match address.split(|&b| b == b'@').next().unwrap() {
        b"nobody" => Verdict::Absent,
        b"locked" => Verdict::Later,
        b"away" => return Reply::Temporary,
        _ if password.is_some_and(|p| p != b"secret") => Verdict::Wrong,
        b"disabled" => Verdict::Disabled,
        b"expired" => Verdict::Expired,
        b"stale" => Verdict::PasswordExpired,
        _ => Verdict::Granted(mailbox()),
    })
}

#[test]
fn each_outcome_has_its_number_in_each_phase() {
    let stack = Stack::alone("");
    stack.answers(directory);
    for (user, password, auth, account) in [
        ("jane@example.com", "secret", SUCCESS, SUCCESS),
        ("jane@example.com", "wrong", AUTH_ERR, SUCCESS),
        ("nobody@example.com", "secret", USER_UNKNOWN, USER_UNKNOWN),
        ("disabled@example.com", "secret", PERM_DENIED, PERM_DENIED),
        ("disabled@example.com", "wrong", AUTH_ERR, PERM_DENIED),
        ("expired@example.com", "secret", ACCT_EXPIRED, ACCT_EXPIRED),
        ("stale@example.com", "secret", SUCCESS, NEW_AUTHTOK_REQD),
        ("locked@example.com", "secret", MAXTRIES, MAXTRIES),
        ("away@example.com", "secret", AUTHINFO_UNAVAIL, AUTHINFO_UNAVAIL),
        ("root", "secret", USER_UNKNOWN, USER_UNKNOWN),
    ] {
        let codes = stack.codes(user, &[&format!("password={password}"), "auth", "acct"]);
        assert_eq!(codes, [auth, account], "{user} {password}");
    }
}

#[test]
fn the_module_alone_carries_a_whole_session() {
    let stack = Stack::alone("");
    stack.answers(directory);
    let all =
        stack.run("jane@example.com", &["password=secret", "auth", "acct", "cred", "open", "close", "user"]);
    let text: Vec<String> = all.into_iter().map(|(a, b)| format!("{a} {b}")).collect();
    // The user's name stays as it was; setcred and the session do not spoil the stack.
    assert_eq!(text, ["auth 0", "acct 0", "cred 0", "open 0", "close 0", "user jane@example.com"]);
}

#[test]
fn passwords_are_not_changed_here() {
    let stack = Stack::alone("");
    stack.answers(directory);
    assert_eq!(stack.codes("jane@example.com", &["passwd"]), [AUTHTOK_ERR]);
    assert_eq!(stack.codes("root", &["passwd"]), [USER_UNKNOWN]);
}

#[test]
fn names_without_a_domain_fall_through_to_the_next_module() {
    let stack = Stack::new("auth sufficient MODULE SOCKET\nauth required pam_permit.so\n");
    stack.answers(|_| panic!("nobody was to be asked"));
    assert_eq!(stack.codes("root", &["auth"]), [SUCCESS]);
    let stack = Stack::alone("domain=example.com");
    stack.answers(|request| match request {
        Request::Authenticate { address: b"jane@example.com", .. } => directory(request),
        other => panic!("{other:?}"),
    });
    assert_eq!(stack.codes("jane", &["password=secret", "auth"]), [SUCCESS]);
}

#[test]
fn a_prompted_password_is_there_for_the_next_module() {
    // The first instance asks and is told "unknown" by its domain; the second must not ask again.
    let stack = Stack::new(
        "auth optional MODULE SOCKET service=first\nauth required MODULE SOCKET use_first_pass service=second\n",
    );
    stack.answers(|request| match request {
        Request::Authenticate { service: b"first", .. } => Reply::Verdict(Verdict::Absent),
        _ => directory(request),
    });
    assert_eq!(stack.codes("jane@example.com", &["password=secret", "auth"]), [SUCCESS]);
    // With nothing kept, use_first_pass has nothing to check and asks nobody.
    assert_eq!(
        Stack::alone("use_first_pass").codes("jane@example.com", &["password=secret", "auth"]),
        [AUTH_ERR]
    );
    // try_first_pass asks once more after a wrong one.
    let stack = Stack::new("auth optional MODULE SOCKET\nauth required MODULE SOCKET try_first_pass\n");
    stack.answers(directory);
    assert_eq!(stack.codes("jane@example.com", &["password=wrong", "password=secret", "auth"]), [SUCCESS]);
}

#[test]
fn the_remote_host_and_the_service_are_passed_on() {
    let stack = Stack::alone("");
    stack.answers(|request| match request {
        Request::Authenticate { service: b"indimail-try", remote_host: b"192.0.2.7", .. } => {
            directory(request)
        }
        other => panic!("{other:?}"),
    });
    assert_eq!(stack.codes("jane@example.com", &["rhost=192.0.2.7", "password=secret", "auth"]), [SUCCESS]);
    let stack = Stack::alone("pam-multi");
    stack.answers(directory);
    assert_eq!(
        stack.codes("jane@example.com", &["password=secret", "auth"]),
        [SERVICE_ERR],
        "the stand-in comes first"
    );
}

#[test]
fn what_the_module_cannot_honour_is_a_service_error() {
    for arguments in ["-m [select 1]", "-c true", "-s /usr/lib/iauth.so", "shiny"] {
        let stack = Stack::alone(arguments);
        let codes = stack.codes("jane@example.com", &["password=secret", "auth", "acct", "passwd"]);
        assert_eq!(codes, [SERVICE_ERR; 3], "{arguments}");
    }
}

#[test]
fn empty_long_and_missing_passwords_reach_nobody() {
    let stack = Stack::alone("");
    stack.answers(|_| panic!("nobody was to be asked"));
    let long = format!("password={}", "x".repeat(513));
    assert_eq!(stack.codes("jane@example.com", &["password=", "auth"]), [AUTH_ERR]);
    // libpam itself may refuse a reply of that size before the module does.
    let [code] = stack.codes("jane@example.com", &[&long, "auth"])[..] else { panic!("one code") };
    assert!([AUTH_ERR, CONV_ERR].contains(&code), "{code}");
    assert_eq!(stack.codes("jane@example.com", &["auth"]), [CONV_ERR]);
    let stack = Stack::alone("nullok");
    stack.answers(|_| Reply::Verdict(Verdict::Granted(mailbox())));
    assert_eq!(
        stack.codes("jane@example.com", &["password=", "auth", "password=", "nonull"]),
        [SUCCESS, AUTH_ERR]
    );
}

#[test]
fn a_daemon_that_is_away_is_no_answer() {
    let stack = Stack::alone("");
    let ask = ["password=secret", "auth", "acct"];
    assert_eq!(stack.codes("jane@example.com", &ask), [AUTHINFO_UNAVAIL; 2], "no socket");
    drop(UnixListener::bind(stack.dir.path().join("s")).unwrap());
    assert_eq!(stack.codes("jane@example.com", &ask), [AUTHINFO_UNAVAIL; 2], "nobody listens");
}

#[test]
fn daemons_that_misbehave_are_no_answer_and_cost_one_deadline() {
    type Fault = fn(UnixStream);
    let silent: Fault = |stream| std::mem::forget(stream);
    let closes: Fault = drop;
    let half: Fault = |mut stream| {
        whole_frame(&mut stream);
        stream.write_all(&[0, 0, 0, 9, 1]).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        std::mem::forget(stream);
    };
    let garbage: Fault = |mut stream| {
        whole_frame(&mut stream);
        let _ = stream.write_all(&[0xff; 4096]);
    };
    let dribbles: Fault = |mut stream| {
        std::thread::spawn(move || {
            whole_frame(&mut stream);
            stream.write_all(&[0, 0, 0x80, 0]).unwrap();
            while stream.write_all(&[1]).is_ok() {
                unix::wait::pause(Duration::from_millis(20));
            }
        });
    };
    // An answer to another question must not pass for one to this.
    let confused: Fault = |mut stream| {
        whole_frame(&mut stream);
        let mut out = Vec::new();
        Reply::Yes.encode(&mut out).unwrap();
        let _ = stream.write_all(&out);
    };
    for (name, fault) in [
        ("silent", silent),
        ("closes", closes),
        ("half", half),
        ("garbage", garbage),
        ("dribbles", dribbles),
        ("confused", confused),
    ] {
        let stack = Stack::alone("");
        stack.daemon(fault);
        let start = Instant::now();
        let codes = stack.codes("jane@example.com", &["password=secret", "auth"]);
        assert_eq!(codes, [AUTHINFO_UNAVAIL], "{name}");
        // The deadline is one second; the bound leaves room for a busy machine, not for a second try.
        assert!(start.elapsed() < Duration::from_secs(10), "{name}: {:?}", start.elapsed());
    }
}

#[test]
fn closed_standard_descriptors_and_many_rounds_leak_nothing() {
    let stack = Stack::alone("");
    stack.answers(directory);
    for closed in [&["close0"][..], &["close0", "close1"], &["close0", "close1", "close2"], &["close2"]] {
        let mut operations = closed.to_vec();
        operations.extend(["password=secret", "descriptors", "again=300", "descriptors"]);
        let lines = stack.run("jane@example.com", &operations);
        assert_eq!(lines[1].1, "0", "{lines:?}");
        assert_eq!(lines[0], lines[2], "descriptors before and after");
    }
}

#[test]
fn loading_and_unloading_a_thousand_times_keeps_memory_where_it_was() {
    let stack = Stack::alone("");
    stack.answers(directory);
    let lines =
        stack.run("jane@example.com", &["password=secret", "again=100", "memory", "again=1000", "memory"]);
    assert_eq!((lines[0].1.as_str(), lines[2].1.as_str()), ("0", "0"));
    let kib = |n: usize| lines[n].1.parse::<i64>().unwrap();
    assert!(kib(3) - kib(1) < 1024, "{} KiB, then {} KiB", kib(1), kib(3));
}

#[test]
fn without_memory_a_login_is_not_decided_and_the_host_lives() {
    let stack = Stack::alone("");
    stack.answers(directory);
    let lines = stack.run("jane@example.com", &["scarce"]);
    let numbers: Vec<i32> = lines[0].1.split(' ').map(|n| n.parse().unwrap()).collect();
    assert_eq!(numbers[0], SUCCESS, "with memory again: {lines:?}");
    assert!(numbers[1] >= 0, "{lines:?}");
    let stack = Stack::alone("");
    stack.answers(|_| Reply::Verdict(Verdict::Disabled));
    let lines = stack.run("jane@example.com", &["scarce"]);
    let numbers: Vec<i32> = lines[0].1.split(' ').map(|n| n.parse().unwrap()).collect();
    assert!(numbers[0] == PERM_DENIED && numbers[1] > 0, "never let in for want of memory: {lines:?}");
}

#[test]
fn threads_and_signals_do_not_disturb_it() {
    let stack = Stack::alone("");
    stack.answers(directory);
    let lines = stack.run("jane@example.com", &["password=secret", "alarms", "again=100", "descriptors"]);
    assert_eq!(lines[0].1, "0");
    let stack = Stack::alone("");
    stack.daemon(|stream| {
        std::thread::spawn(move || answer_all(stream, &directory));
    });
    let lines =
        stack.run("jane@example.com", &["password=secret", "descriptors", "parallel=8", "descriptors"]);
    assert_eq!((lines[1].1.as_str(), &lines[0]), ("0", &lines[2]));
}

#[test]
fn the_library_shows_its_six_entries_and_needs_nothing_unusual() {
    let lines = |program: &str, arguments: &[&str]| {
        let out = Command::new(program).args(arguments).arg(module()).output().unwrap();
        assert!(out.status.success(), "{program}");
        String::from_utf8(out.stdout).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let symbols: Vec<String> = lines("nm", &["-D", "--defined-only", "--format=posix"])
        .iter()
        .map(|l| l.split(' ').next().unwrap().to_owned())
        .collect();
    let entries = ["acct_mgmt", "authenticate", "chauthtok", "close_session", "open_session", "setcred"];
    assert_eq!(symbols, entries.map(|e| format!("pam_sm_{e}")));
    for needed in lines("readelf", &["-d"]).iter().filter(|l| l.contains("(NEEDED)")) {
        let known = ["libpam.so.0", "libgcc_s.so.1", "libc.so.6", "ld-linux"];
        assert!(known.iter().any(|k| needed.contains(k)), "{needed}");
    }
}

#[test]
fn a_hostile_environment_and_odd_names_change_nothing() {
    let stack = Stack::alone("");
    stack.answers(directory);
    let mut command = Command::new(client());
    command.arg(stack.dir.path()).args(["indimail-try", "jane@example.com", "password=secret", "auth"]);
    command.env("INLOOKUP_SOCKET", "/nonexistent").env("AUTHSERVICE", "imap").env("X", bytes(b"\xff"));
    assert_eq!(finish(command), [("auth".to_owned(), "0".to_owned())]);
    let mut command = Command::new(client());
    // Not UTF-8: pam-bindings' own get_user would call this a system error.
    command
        .arg(stack.dir.path())
        .arg("indimail-try")
        .arg(bytes(b"nobody@\xff\xfe"))
        .args(["password=secret", "auth"]);
    assert_eq!(finish(command), [("auth".to_owned(), USER_UNKNOWN.to_string())]);
}
