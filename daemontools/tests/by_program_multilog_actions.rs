//! What multilog can do beyond Debian's: servers, the journal, permissions, compression.

mod kit;

use std::fs;
use std::io::Write;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use kit::{Kit, text};
use unix::Signal;

fn log(mut command: Command, args: &[&str], input: &str) -> Option<i32> {
    let mut child = command.args(args).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait().unwrap().code()
}

fn names(kit: &Kit, dir: &str) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(kit.path(dir)).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn selected_lines_go_to_a_syslog_server() {
    let kit = Kit::new();
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let action = format!("u{}", server.local_addr().unwrap());
    assert_eq!(
        log(kit.ours("multilog"), &["t", "-* debug", &action, "./log"], "<3>bad\ndebug\ngood\n"),
        Some(0)
    );
    for (priority, tail) in [("<27>1 ", " - - bad"), ("<30>1 ", " - - good")] {
        let mut buffer = [0; 2000];
        let n = server.recv(&mut buffer).unwrap();
        let message = std::str::from_utf8(&buffer[..n]).unwrap();
        assert!(message.starts_with(priority) && message.ends_with(tail), "{message}");
        assert_eq!(message.split(' ').nth(3), Some("multilog"), "{message}");
    }
    // Nobody listens: the log goes on.
    drop(server);
    assert_eq!(log(kit.ours("multilog"), &[&action, "./log"], &"more\n".repeat(100)), Some(0));
    assert!(text(kit.path("log/current")).ends_with("more\n"));
    assert_eq!(log(kit.ours("multilog"), &["uhost", "./log"], ""), Some(100));
}

#[test]
fn lines_go_to_the_journal() {
    assert!(nix::unistd::geteuid().is_root(), "this test needs a /run of its own");
    let kit = Kit::new();
    let script = format!(
        "set -e; mount -t tmpfs none /run; mkdir -p /run/systemd/journal
        python3 -c 'import socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(\"/run/systemd/journal/socket\"); open(\"ready\", \"w\")
for n in range(2): open(\"got\", \"ab\").write(s.recv(9000) + b\"--\\n\")' &
        while ! [ -e ready ]; do sleep 0.01; done
        printf '<4>low\\nplain\\n' | {} jmail-log
        wait",
        kit.path("bin/multilog").display()
    );
    let mut command = kit.command("/usr/bin/unshare".into());
    assert!(command.args(["--mount", "/bin/sh", "-c", &script]).status().unwrap().success());
    let want = "PRIORITY=4\nSYSLOG_IDENTIFIER=mail-log\nMESSAGE=low\n--\nPRIORITY=6\nSYSLOG_IDENTIFIER=mail-log\nMESSAGE=plain\n--\n";
    assert_eq!(text(kit.path("got")), want);
}

#[test]
fn files_are_never_readable_for_others_first() {
    let kit = Kit::new();
    // The processor looks at the file it writes to, and at the one that is being filled meanwhile.
    let processor = "!exec 9>&1; stat -Lc %a /proc/self/fd/9 >>../modes; cat";
    let args = ["s4096", "m0640", "wdone", processor, "./log"];
    assert_eq!(log(kit.ours("multilog"), &args, &"a line of text\n".repeat(1000)), Some(0));
    assert!(text(kit.path("modes")).lines().all(|mode| mode == "600"));
    let names = names(&kit, "log");
    assert_eq!(names[names.len() - 3..], ["current", "lock", "state"]);
    assert!(names.len() > 5);
    for name in &names[..names.len() - 3] {
        assert!(name.ends_with(".done"), "{name}");
        let mode = fs::metadata(kit.path("log").join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o740, "{name}");
    }
}

#[test]
fn finished_files_are_compressed_and_limited_in_total() {
    let kit = Kit::new();
    let line = "a line of text, again and again\n";
    assert_eq!(
        log(kit.ours("multilog"), &["s4096", "n100", "z", "ws.gz", "./log"], &line.repeat(1000)),
        Some(0)
    );
    let unpacked = Command::new("/bin/sh")
        .args(["-c", "zcat @*.s.gz; cat current"])
        .current_dir(kit.path("log"))
        .output();
    assert_eq!(String::from_utf8(unpacked.unwrap().stdout).unwrap(), line.repeat(1000));
    assert_eq!(
        log(kit.ours("multilog"), &["s4096", "n100", "R6000", "./small"], &line.repeat(1000)),
        Some(0)
    );
    let finished: Vec<_> = names(&kit, "small").into_iter().filter(|n| n.starts_with('@')).collect();
    let sizes: u64 = finished.iter().map(|n| fs::metadata(kit.path("small").join(n)).unwrap().len()).sum();
    assert!(!finished.is_empty() && sizes <= 6000, "{finished:?} {sizes}");
}

#[test]
fn input_goes_on_while_a_processor_works() {
    let kit = Kit::new();
    let (read, write) = unix::fd::pipe().unwrap();
    let mut pipe = fs::File::from(write);
    let processor = "!!while ! [ -e ../gate ]; do sleep 0.01; done; tr a-z A-Z";
    let mut logger =
        kit::Running::start(kit.ours("multilog").args(["n10", processor, "./log"]).stdin(Stdio::from(read)));
    pipe.write_all(b"first\n").unwrap();
    kit::wait_until("the first line", || text(kit.path("log/current")) == "first\n");
    logger.signal(Signal::SIGALRM);
    kit::wait_until("rotation", || text(kit.path("log/previous")) == "first\n");
    pipe.write_all(b"second\n").unwrap();
    kit::wait_until("the second line", || text(kit.path("log/current")) == "second\n");
    fs::write(kit.path("gate"), "").unwrap();
    // Nothing but the end of the processor tells the logger to go on.
    kit::wait_until("the first file", || names(&kit, "log").iter().any(|n| n.ends_with(".s")));
    drop(pipe);
    assert_eq!(logger.wait(), Some(0));
    let finished = names(&kit, "log").into_iter().find(|n| n.ends_with(".s")).unwrap();
    assert_eq!(text(kit.path("log").join(finished)), "FIRST\n");
}

#[test]
fn a_processor_starts_with_default_signals() {
    let kit = Kit::new();
    let processor = "!grep -E 'Sig(Blk|Ign)' /proc/self/status | grep -o '........$' >../signals; cat";
    assert_eq!(
        log(kit.ours("multilog"), &["s4096", processor, "./log"], &"a line of text\n".repeat(400)),
        Some(0)
    );
    // Signals 1 to 31; the C library has uses of its own for the one after them.
    let signals = text(kit.path("signals"));
    let masks: Vec<_> = signals.lines().map(|l| u32::from_str_radix(l, 16).unwrap() & 0x7fff_ffff).collect();
    assert_eq!(masks, [0, 0]);
}

#[test]
fn unix_times_and_shell_patterns() {
    let kit = Kit::new();
    let args = ["T", "F", "-*[0-9]* [!x]*", "./log"];
    assert_eq!(log(kit.ours("multilog"), &args, "yes\nx\n"), Some(0));
    let kept = text(kit.path("log/current"));
    let (time, rest) = kept.split_once(' ').unwrap();
    assert_eq!(rest, "x\n");
    let (seconds, fraction) = time.split_once('.').unwrap();
    assert!(seconds.parse::<u64>().unwrap() > 1_700_000_000 && fraction.len() == 6, "{kept}");
}

#[test]
fn no_other_module_buffers() {
    // The rule "out before the input waits" holds because there is one place that buffers.
    let mut directories = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let source = text(&path);
            for word in ["BufWriter", "BufReader", "LineWriter"] {
                assert!(!source.contains(word), "{}: {word}", path.display());
            }
        }
    }
}
