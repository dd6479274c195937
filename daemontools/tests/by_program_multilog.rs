//! multilog: no line lost, and the same files as Debian's where the two must agree.

mod kit;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kit::{Kit, Running, text, wait_until};
use nix::sys::signal::Signal;

/// Finished files and `current`, in the order of time.
fn files(dir: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<_> = all
        .filter(|p| {
            let name = p.file_name().unwrap().to_str().unwrap();
            name.starts_with('@') || name == "current"
        })
        .collect();
    files.sort();
    files
}

fn everything(dir: &Path) -> String {
    files(dir).iter().map(text).collect()
}

/// Runs a logger to the end of its input.
fn log(mut command: Command, args: &[&str], input: &[u8]) -> Option<i32> {
    let mut child = command.args(args).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A logger that refuses to start does not read.
    match stdin.write_all(input) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => {}
        other => other.unwrap(),
    }
    drop(stdin);
    child.wait().unwrap().code()
}

fn lines(n: usize) -> Vec<u8> {
    (1..=n).flat_map(|i| format!("line {i} {}\n", "x".repeat(i % 60)).into_bytes()).collect()
}

/// Writes numbered lines into a pipe that outlives its readers, as svscan keeps it.
struct Writer {
    child: Running,
    read: std::os::fd::OwnedFd,
}

impl Writer {
    fn start(kit: &Kit, count: usize) -> Self {
        let (read, write) = unix::fd::pipe().unwrap();
        let mut command = Command::new("/usr/bin/seq");
        command.args(["1", &count.to_string()]).stdout(Stdio::from(write)).current_dir(kit.path(""));
        Self { child: Running::start(&mut command), read }
    }

    fn logger(&self, kit: &Kit, args: &[&str]) -> Running {
        let read = self.read.try_clone().unwrap();
        Running::start(kit.ours("multilog").args(args).stdin(Stdio::from(read)))
    }
}

#[test]
fn no_line_is_lost_when_the_logger_is_killed() {
    const LINES: usize = 2_000_000;
    let kit = Kit::new();
    let mut writer = Writer::start(&kit, LINES);
    let dir = kit.path("log");
    let mut kills = 0u32;
    while writer.child.is_running() {
        let mut logger = writer.logger(&kit, &["s200000", "n1000", "./log"]);
        // At a moment that the size of its file decides, not the clock.
        let size = || fs::metadata(dir.join("current")).map_or(0, |m| m.len());
        let (start, more) = (size(), 20_000 + 7919 * u64::from(kills % 13));
        wait_until("some progress", || size() > start + more || size() < start || !writer.child.is_running());
        logger.kill();
        kills += 1;
    }
    let mut last = writer.logger(&kit, &["s200000", "n1000", "./log"]);
    // It reads to the end once nobody can write any more, that is without our copy of the reading end.
    drop(writer);
    assert_eq!(last.wait(), Some(0));
    assert!(kills >= 3, "{kills}");
    // Every line is there at least once, whole.
    let all = everything(&dir);
    let mut seen = vec![false; LINES + 1];
    let mut total = 0usize;
    for line in all.lines() {
        if let Ok(n) = line.parse::<usize>() {
            seen[n.min(LINES)] = true;
            total += 1;
        }
    }
    let missing: Vec<_> = (1..=LINES).filter(|&n| !seen[n]).collect();
    assert!(
        missing.is_empty(),
        "{} of {LINES} lines are missing after {kills} kills: {:?}",
        missing.len(),
        &missing[..5.min(missing.len())]
    );
    println!("{kills} kills, 0 lines lost, {} written twice", total - LINES);
}

#[test]
fn term_and_alrm_lose_nothing_and_repeat_nothing() {
    const LINES: usize = 2_000_000;
    let kit = Kit::new();
    let mut writer = Writer::start(&kit, LINES);
    let dir = kit.path("log");
    let mut terms = 0;
    while writer.child.is_running() {
        let mut logger = writer.logger(&kit, &["n1000", "./log"]);
        let size = || fs::metadata(dir.join("current")).map_or(0, |m| m.len());
        let start = size();
        wait_until("some progress", || size() != start || !writer.child.is_running());
        logger.signal(Signal::SIGALRM);
        logger.signal(Signal::SIGTERM);
        assert_eq!(logger.wait(), Some(0));
        let mode = fs::metadata(dir.join("current")).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o744, "complete and on the disk");
        terms += 1;
    }
    let mut last = writer.logger(&kit, &["n1000", "./log"]);
    drop(writer);
    assert_eq!(last.wait(), Some(0));
    assert!(terms > 1);
    let want: String = (1..=LINES).map(|n| format!("{n}\n")).collect();
    assert!(everything(&dir) == want, "{terms} times TERM");
}

#[test]
fn files_are_the_input_whoever_wrote_them() {
    let kit = Kit::new();
    let input = lines(3000);
    let args = |dir| ["s8192", "n1000", dir];
    assert_eq!(log(kit.ours("multilog"), &args("./ours"), &input), Some(0));
    assert_eq!(log(kit.debians("multilog"), &args("./debians"), &input), Some(0));
    for dir in ["ours", "debians"] {
        let dir = kit.path(dir);
        assert_eq!(everything(&dir).as_bytes(), input);
        for file in files(&dir) {
            let content = fs::read(&file).unwrap();
            assert!(content.len() <= 8192 && (content.ends_with(b"\n") || content.is_empty()), "{file:?}");
            let name = file.file_name().unwrap().to_str().unwrap();
            assert!(name == "current" || (name.len() == 27 && name.ends_with(".s")), "{name}");
        }
        let mut names: Vec<_> =
            fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|n| !n.starts_with('@'));
        names.sort();
        assert_eq!(names, ["current", "lock", "state"], "{dir:?}");
    }
    // Each goes on with the directory of the other.
    assert_eq!(log(kit.debians("multilog"), &args("./ours"), b"more\n"), Some(0));
    assert_eq!(log(kit.ours("multilog"), &args("./debians"), b"more\n"), Some(0));
    let want = [input.as_slice(), b"more\n"].concat();
    assert_eq!(everything(&kit.path("ours")).as_bytes(), want);
    assert_eq!(everything(&kit.path("debians")).as_bytes(), want);
}

#[test]
fn as_many_files_are_kept_as_debians_keeps() {
    let kit = Kit::new();
    let input = lines(3000);
    for keep in ["n2", "n5"] {
        let (ours, debians) = (format!("./ours-{keep}"), format!("./debians-{keep}"));
        log(kit.ours("multilog"), &["s4096", keep, &ours], &input);
        log(kit.debians("multilog"), &["s4096", keep, &debians], &input);
        assert_eq!(files(&kit.path(&ours)).len(), files(&kit.path(&debians)).len(), "{keep}");
        // What is left is the end of the input.
        assert!(input.ends_with(everything(&kit.path(&ours)).as_bytes()));
    }
}

#[test]
fn the_same_bytes_make_the_same_files_for_any_chunks() {
    let kit = Kit::new();
    let input = lines(2000);
    let mut results = vec![];
    for (n, size) in [37, 700, 65_536].into_iter().enumerate() {
        let dir = format!("./d{n}");
        let mut command = kit.ours("multilog");
        let mut child = command.args(["s8192", "n1000", &dir]).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        input.chunks(size).for_each(|c| stdin.write_all(c).unwrap());
        drop(stdin);
        assert!(child.wait().unwrap().success());
        results.push(files(&kit.path(dir)).iter().map(text).collect::<Vec<_>>());
    }
    assert!(results[0] == results[1] && results[1] == results[2]);
}

#[test]
fn selection_agrees_with_debians() {
    let kit = Kit::new();
    let input = b"host: up\nhost down\n*star\nfatal: disk\n\nwarning: low\nabcabc\nlast without newline";
    for (n, script) in [
        &["-*", "+*: *"][..],
        &["-*down"],
        &["-*", "+fatal*", "+warning*"],
        &["+*", "-*a*c"],
        &["-\\*star"],
        &["-**star"],
        &["-*o*", "+*low"],
        &["-"],
        &["-*b*"],
    ]
    .into_iter()
    .enumerate()
    {
        let (ours, debians) = (format!("./ours{n}"), format!("./debians{n}"));
        let with = |dir| script.iter().copied().chain([dir]).collect::<Vec<_>>();
        log(kit.ours("multilog"), &with(&ours), input);
        log(kit.debians("multilog"), &with(&debians), input);
        assert_eq!(everything(&kit.path(ours)), everything(&kit.path(debians)), "{script:?}");
    }
}

#[test]
fn stderr_and_status_file_agree_with_debians() {
    let kit = Kit::new();
    let input = format!("short\n{}\n", "long".repeat(300));
    let mut results = vec![];
    for mut command in [kit.ours("multilog"), kit.debians("multilog")] {
        let _ = fs::remove_file(kit.path("status"));
        command.stderr(fs::File::create(kit.path("err")).unwrap());
        assert_eq!(log(command, &["e", "=status"], input.as_bytes()), Some(0));
        results.push((text(kit.path("err")), text(kit.path("status"))));
    }
    assert_eq!(results[0], results[1]);
    assert_eq!(results[0].1.len(), 1001);
}

#[test]
fn a_killed_logger_leaves_u_files_and_a_stopped_one_goes_on() {
    let kit = Kit::new();
    let (read, write) = unix::fd::pipe().unwrap();
    let start =
        || Running::start(kit.ours("multilog").arg("./log").stdin(Stdio::from(read.try_clone().unwrap())));
    let current = kit.path("log/current");
    let mut pipe = fs::File::from(write);
    let mut first = start();
    pipe.write_all(b"one\n").unwrap();
    wait_until("the line", || text(&current) == "one\n");
    first.kill();
    let mut second = start();
    pipe.write_all(b"two\n").unwrap();
    wait_until("the next line", || text(&current).ends_with("two\n"));
    let unfinished = files(&kit.path("log")).into_iter().find(|p| p.extension().is_some_and(|e| e == "u"));
    assert_eq!(text(unfinished.expect("a .u file")), "one\n");
    second.signal(Signal::SIGTERM);
    assert_eq!(second.wait(), Some(0));
    let mut third = start();
    pipe.write_all(b"three\n").unwrap();
    wait_until("the last line", || text(&current).ends_with("two\nthree\n"));
    assert_eq!(files(&kit.path("log")).len(), 2, "current was taken up again");
    // A second logger is refused, before it reads anything.
    assert_eq!(log(kit.ours("multilog"), &["./log"], b"x\n"), Some(111));
    drop((pipe, read));
    assert_eq!(third.wait(), Some(0));
}

#[test]
fn signals() {
    let kit = Kit::new();
    let (read, write) = unix::fd::pipe().unwrap();
    let mut pipe = fs::File::from(write);
    let mut logger =
        Running::start(kit.ours("multilog").args(["./all", "+*loud*", "./log"]).stdin(Stdio::from(read)));
    let current = kit.path("log/current");
    pipe.write_all(b"one\n").unwrap();
    wait_until("a line", || text(&current) == "one\n");
    logger.signal(Signal::SIGALRM);
    wait_until("rotation", || text(&current).is_empty() && files(&kit.path("log")).len() == 2);
    // Off: only what a + selects is kept. Switched when the next line comes, so wait for its effect.
    logger.signal(Signal::SIGINT);
    wait_until("switching off", || {
        pipe.write_all(b"quiet\nloud\n").unwrap();
        let before = text(&current).matches("quiet").count();
        wait_until("a loud line", || text(&current).ends_with("loud\n"));
        text(&current).ends_with("loud\nloud\n") && before == text(&current).matches("quiet").count()
    });
    logger.signal(Signal::SIGHUP);
    wait_until("switching on", || {
        pipe.write_all(b"again\n").unwrap();
        text(&current).ends_with("again\n")
    });
    // An unfinished line: TERM leaves it in the pipe for the next logger.
    pipe.write_all(b"unfini").unwrap();
    logger.signal(Signal::SIGTERM);
    assert_eq!(logger.wait(), Some(0));
    assert!(!text(&current).contains("unfini"));
}

#[test]
fn an_unfinished_line_is_written_when_it_does_not_grow() {
    let kit = Kit::new();
    let (read, write) = unix::fd::pipe().unwrap();
    let mut pipe = fs::File::from(write);
    let mut logger = Running::start(kit.ours("multilog").arg("./log").stdin(Stdio::from(read)));
    pipe.write_all(b"prompt: ").unwrap();
    wait_until("the start of the line", || text(kit.path("log/current")) == "prompt: ");
    pipe.write_all(b"answer").unwrap();
    drop(pipe);
    assert_eq!(logger.wait(), Some(0));
    assert_eq!(text(kit.path("log/current")), "prompt: answer\n");
}

#[test]
fn every_way_of_reading_gives_the_same_log() {
    let kit = Kit::new();
    let mut input = lines(500);
    input.extend(b"y".repeat(100_000));
    input.extend(b"\nend");
    fs::write(kit.path("input"), &input).unwrap();
    let want = String::from_utf8([input.as_slice(), b"\n"].concat()).unwrap();
    // A file, a pipe, a pipe consumed before it is written.
    let mut from_file = kit.ours("multilog");
    from_file.arg("./file").stdin(fs::File::open(kit.path("input")).unwrap());
    assert!(from_file.status().unwrap().success());
    log(kit.ours("multilog"), &["./pipe"], &input);
    let mut no_replay = kit.ours("multilog");
    no_replay.env("MULTILOG_NOTEE", "1");
    log(no_replay, &["./notee"], &input);
    for dir in ["file", "pipe", "notee"] {
        assert!(everything(&kit.path(dir)) == want, "{dir}");
    }
}

#[test]
fn a_writer_of_large_pieces_is_not_held_up() {
    // The kernel does not announce bytes that join an unfinished line, as long as one write(2) goes on.
    let kit = Kit::new();
    let line = "z".repeat(100);
    let mut command = kit.command("/bin/sh".into());
    command.args([
        "-c",
        &format!("yes {line} | head -c 15150000 | dd bs=1M iflag=fullblock | bin/multilog ./log"),
    ]);
    assert_eq!(Running::start(&mut command).wait(), Some(0));
    assert!(everything(&kit.path("log")) == format!("{line}\n").repeat(150_000));
}

#[test]
fn a_full_disk_holds_the_input_back_and_loses_nothing() {
    assert!(nix::unistd::geteuid().is_root(), "this test mounts a small file system");
    let kit = Kit::new();
    fs::create_dir(kit.path("small")).unwrap();
    // In a mount namespace of its own: the machine sees nothing of it. The logger is told to write, the disk
    // is full, room is made, and everything is there.
    let script = format!(
        "set -e; mount -t tmpfs -o size=256k none small; head -c 200k /dev/zero > small/fill
        seq 1 40000 | {} ./small/log 2> err & logger=$!
        while ! grep -q 'No space left' err 2>/dev/null; do sleep 0.01; done
        mount -o remount,size=4m none small
        wait $logger; cp small/log/current result",
        kit.path("bin/multilog").display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "/bin/sh", "-c", &script]).current_dir(kit.path("")).stdin(Stdio::null());
    let mut run = Running::start(&mut command);
    assert_eq!(run.wait(), Some(0), "{}", text(kit.path("err")));
    let want: String = (1..=40_000).map(|n| format!("{n}\n")).collect();
    assert!(text(kit.path("result")) == want);
}

#[test]
fn usage() {
    let kit = Kit::new();
    assert_eq!(log(kit.ours("multilog"), &["sx", "./log"], b""), Some(100));
    assert_eq!(
        log(kit.ours("multilog"), &["zzz", "./log"], b"a\n"),
        Some(0),
        "unknown actions are passed over"
    );
    let mut strict = kit.ours("multilog");
    strict.env("MULTILOG_STRICT", "1");
    assert_eq!(log(strict, &["zzz", "./other"], b"a\n"), Some(100));
    assert!(!kit.path("other").exists());
    assert_eq!(log(kit.ours("multilog"), &["/nonexistent/dir"], b""), Some(111));
}
