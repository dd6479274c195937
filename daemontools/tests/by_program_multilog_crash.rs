//! multilog is killed at each of its system calls; whatever it leaves, the next one puts in order.

mod kit;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use kit::{Kit, text, wait_until};

/// Calls that change a log directory or consume input, and some that stand between them.
const CALLS: [&str; 14] = [
    "openat", "write", "fsync", "rename", "linkat", "unlink", "chmod", "fchmodat", "mkdir", "flock", "tee",
    "splice", "read", "close",
];

/// Enough for several rotations at 4096 bytes.
fn input() -> String {
    (1..=150).map(|n| format!("line {n} {}\n", "x".repeat(50))).collect()
}

/// Finished files and `current`, in the order of time.
fn contents(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|n| n.starts_with('@') || n == "current");
    names.sort();
    names.iter().map(|name| text(dir.join(name))).collect()
}

/// What was written before the kill, each file once, in the order of time; what a processor wrote is left out,
/// unless what it was made from is gone.
fn written(dir: &Path) -> String {
    let mut by_inode = BTreeMap::new();
    let mut order = vec![];
    let mut names: Vec<_> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let finished = names.iter().filter(|n| n.starts_with('@')).cloned();
    let before = if names.iter().any(|n| n == "previous") { "previous" } else { "processed" };
    for name in finished.chain([before.to_owned(), "current".to_owned()]) {
        let path = dir.join(&name);
        let Ok(meta) = fs::metadata(&path) else { continue };
        if by_inode.insert(meta.ino(), ()).is_none() {
            order.push(text(path));
        }
    }
    order.concat()
}

/// Runs until no kill happens any more, for each call; returns how many kills there were.
fn kill_at_each_call(kit: &Kit, script: &[&str], tee: bool) -> u32 {
    let input = input();
    let want: BTreeSet<&str> = input.lines().collect();
    let mut kills = 0;
    let mut states = BTreeSet::new();
    for call in CALLS {
        for nth in 1.. {
            let dir = kit.path("log");
            let _ = fs::remove_dir_all(&dir);
            let (read, write) = unix::fd::pipe().unwrap();
            fs::File::from(write).write_all(input.as_bytes()).unwrap();
            let start = |mut command: Command| {
                command.args(script).arg("./log").stdin(Stdio::from(read.try_clone().unwrap()));
                if !tee {
                    command.env("MULTILOG_NOTEE", "1");
                }
                command.status().unwrap()
            };
            let mut killed = kit.command("/usr/bin/strace".into());
            killed.args([
                "-qq",
                "-o",
                "/dev/null",
                "-e",
                &format!("inject={call}:signal=SIGKILL:when={nth}"),
            ]);
            killed.arg(kit.path("bin/multilog"));
            let first = start(killed);
            let before = written(&dir);
            if let Ok(entries) = fs::read_dir(&dir) {
                let mut names: Vec<_> =
                    entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
                names.retain(|n| !n.starts_with('@'));
                names.sort();
                states.insert(names);
            }
            assert_eq!(start(kit.ours("multilog")).code(), Some(0), "{call} {nth}");
            let after = contents(&dir);
            let what = format!("{script:?}, killed at {call} number {nth}");
            // Nothing that was written is gone, and no file is there twice.
            assert!(after.concat().starts_with(&before), "{what}: {before:?} became {after:?}");
            for entry in fs::read_dir(&dir).unwrap() {
                let links = entry.unwrap().metadata().unwrap().nlink();
                assert_eq!(links, 1, "{what}: a file has two names");
            }
            if tee {
                // Every line is there, whole, whatever was torn.
                let all = after.concat();
                let lines: BTreeSet<&str> = all.lines().collect();
                assert!(
                    want.is_subset(&lines),
                    "{what}: {:?} are missing",
                    want.difference(&lines).collect::<Vec<_>>()
                );
            } else {
                // Nothing was read twice, so nothing is there twice.
                assert!(input.starts_with(&before), "{what}: {before:?}");
                let full: Vec<_> = after.iter().filter(|f| !f.is_empty()).collect();
                assert_eq!(
                    full.len(),
                    full.iter().collect::<BTreeSet<_>>().len(),
                    "{what}: a file is there twice"
                );
            }
            let left: Vec<_> =
                ["previous", "processed", "newstate"].into_iter().filter(|n| dir.join(n).exists()).collect();
            assert!(left.is_empty(), "{what}: {left:?} are left");
            if first.success() {
                break;
            }
            kills += 1;
        }
    }
    println!("{script:?}, tee {tee}: {kills} kills; {} combinations of files beside @*", states.len());
    assert!(states.len() > 3, "{states:?}");
    kills
}

#[test]
fn without_a_processor() {
    let kit = Kit::new();
    let kills = kill_at_each_call(&kit, &["s4096", "n1000"], true);
    assert!(kills > 40, "{kills}");
}

#[test]
fn without_tee() {
    let kit = Kit::new();
    let kills = kill_at_each_call(&kit, &["s4096", "n1000"], false);
    assert!(kills > 40, "{kills}");
    let kills = kill_at_each_call(&kit, &["s4096", "n1000", "!cat"], false);
    assert!(kills > 60, "{kills}");
}

#[test]
fn with_a_processor() {
    let kit = Kit::new();
    let kills = kill_at_each_call(&kit, &["s4096", "n1000", "!cat; cat <&4 >&5; echo >&5"], true);
    assert!(kills > 60, "{kills}");
}

#[test]
fn with_a_processor_in_the_background() {
    let kit = Kit::new();
    let kills = kill_at_each_call(&kit, &["s4096", "n1000", "!!cat"], true);
    assert!(kills > 60, "{kills}");
}

/// With strace as the recorder: what was read is written before the logger waits.
#[test]
fn every_line_is_written_before_the_logger_waits() {
    let kit = Kit::new();
    let trace = kit.path("trace");
    for script in [&["t", "./log"][..], &["-x*", "./log"], &["./log"]] {
        let _ = fs::remove_file(&trace);
        let mut command = kit.command("/usr/bin/strace".into());
        command.args(["-qq", "-o", "trace", "-e", "trace=tee,write,epoll_wait,epoll_pwait"]);
        let mut child =
            command.arg(kit.path("bin/multilog")).args(script).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        for n in 1..=3 {
            stdin.write_all(format!("line {n}\n").as_bytes()).unwrap();
            wait_until("the line", || text(kit.path("log/current")).ends_with(&format!("line {n}\n")));
        }
        drop(stdin);
        assert!(child.wait().unwrap().success());
        let mut unwritten = false;
        for line in text(&trace).lines() {
            if line.starts_with("tee(") {
                unwritten = !line.ends_with("= 0") && !line.contains("= -1");
            } else if line.starts_with("write(") {
                unwritten = false;
            } else if line.starts_with("epoll") {
                assert!(!unwritten, "{script:?}: waits before it writes: {line}");
            }
        }
        assert!(text(&trace).matches("write(").count() >= 3);
    }
}
