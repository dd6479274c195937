//! supervise killed at every one of its system calls: the next one takes over, there is no twin, and
//! what is in the state directory can be read.

mod kit;

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use daemontools::client;
use daemontools::status::Want;
use kit::{Kit, Running, alive, text, wait_for, wait_until};

/// What supervise asks the system for in a life: start, up, restart, stop, exit. Calls that only look
/// at memory or at the clock leave nothing different behind than the call before.
const CALLS: [&str; 22] = [
    "openat",
    "close",
    "read",
    "write",
    "pwrite64",
    "ftruncate",
    "mkdir",
    "mknodat,mknod",
    "flock",
    "fcntl",
    "clone,clone3,fork,vfork",
    "wait4",
    "kill",
    "poll,ppoll",
    "signalfd4",
    "chdir",
    "getcwd",
    "pidfd_open",
    "pipe2",
    "unlink",
    "exit_group",
    "statx,newfstatat",
];

fn pid_of(state: &Path) -> Option<u32> {
    client::record(state).ok().and_then(|r| r.pid)
}

/// Sends commands without waiting; nobody may be there to read them.
fn tell(state: &Path, commands: &[u8]) {
    let control =
        fs::OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(state.join("control"));
    if let Ok(mut control) = control {
        let _ = control.write_all(commands);
    }
}

/// Leads a supervise that may be killed at any time through its life; says whether it reached the end.
fn live(supervise: &mut Running, state: &Path) -> bool {
    let first = wait_for("it to run or to be killed", || {
        let running = supervise.is_running();
        pid_of(state).filter(|_| running).map(Some).or((!running).then_some(None))
    });
    let Some(first) = first else { return false };
    tell(state, b"r");
    wait_until("a restart", || !supervise.is_running() || pid_of(state).is_some_and(|p| p != first));
    tell(state, b"dx");
    supervise.wait() == Some(0)
}

fn instances(dir: &Path) -> Vec<i32> {
    text(dir.join("pids")).lines().filter_map(|l| l.parse().ok()).filter(|&p| alive(p)).collect()
}

/// Kills at every call of these kinds; how many kills there were.
fn kill_at_every(calls: &[&str], lock: bool) -> usize {
    let kit = Kit::new();
    let dir = kit.service("a", "echo $$ >> pids; exec sleep 1000", None);
    fs::write(dir.join("backoff"), "1 1 1\n").unwrap();
    if lock {
        fs::write(dir.join("lock-fd"), "9\n").unwrap();
        fs::write(dir.join("notify-socket"), "").unwrap();
    }
    let state = dir.join("supervise");
    let mut killed = 0;
    for call in calls {
        for nth in 1.. {
            let at = format!("{call} {nth}");
            let mut command = kit.command("/usr/bin/strace".into());
            command.args([
                "-qq",
                "-o",
                "/dev/null",
                "-e",
                &format!("inject={call}:signal=SIGKILL:when={nth}"),
            ]);
            let mut supervise = Running::start(command.arg(kit.path("bin/supervise")).arg("a"));
            let complete = live(&mut supervise, &state);
            supervise.wait();
            // A start that is still between fork and exec keeps the lock until it has recorded itself.
            let mut next = wait_for("the next supervise", || {
                let mut next = kit.supervise("a");
                wait_until("it to run or to give up", || {
                    !next.is_running() || client::is_running(&state).unwrap_or(false)
                });
                next.is_running().then_some(next)
            });
            // It may have found a stop that it has to complete.
            tell(&state, b"u");
            wait_until("the service", || {
                let record = client::record(&state).unwrap();
                let living = instances(&dir);
                assert!(living.len() <= 1, "{at}: twins {living:?}");
                let pid = record.pid.and_then(|p| i32::try_from(p).ok());
                record.want == Want::Up && pid.is_some_and(|p| living == [p])
            });
            tell(&state, b"dx");
            assert_eq!(next.wait(), Some(0), "{at}");
            assert_eq!(client::record(&state).unwrap().pid, None, "{at}");
            assert_eq!(instances(&dir), [0; 0], "{at}");
            fs::remove_file(dir.join("pids")).unwrap();
            if complete {
                break;
            }
            killed += 1;
            // The first start has more to make than the later ones.
            if nth % 2 == 0 {
                fs::remove_dir_all(&state).unwrap();
            }
        }
    }
    println!("killed {killed} times");
    killed
}

#[test]
fn killed_at_every_system_call_of_one_half() {
    assert!(kill_at_every(&CALLS[..3], false) > 60);
}

#[test]
fn killed_at_every_system_call_of_the_other_half() {
    assert!(kill_at_every(&CALLS[3..], false) > 60);
}

#[test]
fn killed_at_every_change_while_the_service_has_a_lock_and_a_socket() {
    let calls = [
        "write,pwrite64",
        "ftruncate",
        "flock",
        "clone,clone3,fork,vfork",
        "kill",
        "wait4",
        "socket,bind,setsockopt",
        "chmod,fchmod,fchmodat",
        "unlink",
    ];
    assert!(kill_at_every(&calls, true) > 30);
}

/// Calls that may fail once at any time, each with an error that it has in real life.
const FAILURES: [(&str, &str); 12] = [
    ("openat", "EMFILE"),
    ("openat", "EACCES"),
    ("read", "EIO"),
    ("pwrite64", "ENOSPC"),
    ("write", "EAGAIN"),
    ("mkdir", "ENOSPC"),
    ("mknodat,mknod", "ENOSPC"),
    ("flock", "ENOLCK"),
    ("statx,newfstatat", "EACCES"),
    ("poll,ppoll", "ENOMEM"),
    ("pidfd_open", "EMFILE"),
    ("fcntl", "EMFILE"),
];

#[test]
fn one_failing_call_is_said_at_the_start_or_survived() {
    let kit = Kit::new();
    let dir = kit.service("a", "echo $$ >> pids; exec sleep 1000", None);
    fs::write(dir.join("backoff"), "1 1 1\n").unwrap();
    fs::write(dir.join("notify-socket"), "").unwrap();
    fs::write(dir.join("lock-fd"), "9\n").unwrap();
    let state = dir.join("supervise");
    let (mut said, mut survived) = (0, 0);
    for (call, error) in FAILURES {
        for nth in 1.. {
            let at = format!("{call} {error} {nth}");
            let trace = kit.path("trace");
            let mut command = kit.command("/usr/bin/strace".into());
            command.arg("-qq").arg("-o").arg(&trace);
            command.args(["-e", &format!("inject={call}:error={error}:when={nth}")]);
            let err = fs::File::create(kit.path("err")).unwrap();
            command.arg(kit.path("bin/supervise")).arg("a").stderr(err);
            let mut supervise = Running::start(&mut command);
            let complete = live(&mut supervise, &state);
            let code = supervise.wait();
            let injected = text(&trace).contains("(INJECTED)");
            assert_eq!(instances(&dir), [0; 0], "{at}: nothing is left running");
            let err = text(kit.path("err"));
            if complete {
                survived += 1;
            } else {
                // 127: the dynamic loader was hit, which is before anything of ours.
                assert!(matches!(code, Some(100 | 111 | 127)), "{at}: {code:?}: {err}");
                assert!(!err.is_empty(), "{at}: something is said");
                said += 1;
            }
            let _ = fs::remove_file(dir.join("pids"));
            if nth % 2 == 0 {
                let _ = fs::remove_dir_all(&state);
            }
            if !injected {
                break;
            }
        }
    }
    println!("{said} ended it at the start, {survived} did not matter");
    assert!(said > 20 && survived > 50, "{said} {survived}");
}
