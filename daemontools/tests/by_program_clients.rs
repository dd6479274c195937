//! svc, svstat, svok and svup: exit codes and waits.

mod kit;

use std::fs;

use kit::{Kit, Running, alive, text, trapping, wait_for, wait_until};

#[test]
fn codes_of_svc() {
    let kit = Kit::new();
    kit.service("idle", "exec sleep 1000", None);
    assert_eq!(kit.code("svc", &["-Z", "idle"]), 100);
    assert_eq!(kit.code("svc", &["-u"]), 100);
    assert_eq!(kit.code("svc", &["-T", "x", "idle"]), 100);
    assert_eq!(kit.code("svc", &["-u", "nosuch"]), 1);
    let out = kit.run("svc", &["-u", "idle"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&out.stderr).contains("supervise not running"));
    // The first failure counts, and the others are tried.
    kit.service("a", "exec sleep 1000", None);
    let _supervise = kit.supervise("a");
    let pid = kit.wait_up("a");
    assert_eq!(kit.code("svc", &["-d", "nosuch", "idle", "a"]), 1);
    kit.wait_state("a", "down");
    assert!(!alive(pid));
}

#[test]
fn waits() {
    let kit = Kit::new();
    let run = trapping("trap 'touch told; sleep 0.3; exit 0' TERM; : > ready");
    let dir = kit.service("slow", &run, None);
    kit.service("a", "exec sleep 1000", None);
    let _supervises = [kit.supervise("slow"), kit.supervise("a")];
    wait_until("the trap", || dir.join("ready").exists());
    let pid = kit.wait_up("slow");
    // The original says "ok" while the service is still stopping.
    let out = kit.run("svc", &["-dW", "slow"]);
    assert_eq!(out.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&out.stderr), "waiting for slow to be down ... ok\n");
    assert!(!alive(pid) && dir.join("told").exists());
    // Both directions, several services.
    assert_eq!(kit.code("svc", &["-u", "-w", "slow", "a"]), 0);
    assert!(kit.pid("slow").is_some() && kit.pid("a").is_some());
    let before = kit.pid("a");
    assert_eq!(kit.code("svc", &["-r", "-w", "a"]), 0);
    assert_ne!(kit.pid("a"), before, "-w after -r waits for the new one");
    assert_eq!(kit.code("svc", &["-w", "-T", "30", "a"]), 0, "without a command it only waits");
    let out = kit.run("svc", &["-W", "-T", "0", "a"]);
    assert_eq!(out.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&out.stderr).ends_with("timed out\n"));
    assert_eq!(kit.code("svc", &["-dx", "-W", "a"]), 0);
    assert_eq!(kit.code("svok", &["a"]), 100, "with -x it waits for supervise");
}

#[test]
fn codes_of_svok_and_svup() {
    let kit = Kit::new();
    let dir = kit.service("a", "exec sleep 1000", None);
    for program in ["svok", "svup"] {
        assert_eq!(kit.code(program, &[]), 100);
        assert_eq!(kit.code(program, &["nosuch"]), 100);
        assert_eq!(kit.code(program, &["a"]), 100);
    }
    fs::write(dir.join("down"), "").unwrap();
    let _supervise = kit.supervise("a");
    wait_until("supervise", || kit.code("svok", &["a"]) == 0);
    assert_eq!(kit.code("svup", &["a"]), 100);
    kit.code("svc", &["-u", "a"]);
    wait_until("the service", || kit.code("svup", &["a"]) == 0);
}

#[test]
fn codes_and_lines_of_svstat() {
    let kit = Kit::new();
    let dir = kit.service("a", "exec sleep 1000", None);
    assert_eq!(kit.code("svstat", &["nosuch"]), 111);
    let out = kit.run("svstat", &["a"]);
    assert_eq!((out.status.code(), out.stdout.as_slice()), (Some(2), &b"a: supervise not running\n"[..]));
    let _supervise = kit.supervise("a");
    let pid = kit.wait_up("a");
    let line = || String::from_utf8(kit.run("svstat", &["a"]).stdout).unwrap();
    assert!(line().starts_with("a: up ") && line().ends_with(&format!(" seconds pid {pid}\n")), "{}", line());
    let digits = line().split(['.', ' ']).nth(3).unwrap().len();
    assert_eq!(digits, 9, "nanoseconds have nine digits: {}", line());
    kit.code("svc", &["-p", "a"]);
    wait_until("paused", || kit.code("svstat", &["a"]) == 3);
    kit.code("svc", &["-c", "a"]);
    wait_until("up", || kit.code("svstat", &["a"]) == 0);
    assert_eq!(kit.code("svstat", &["a", "nosuch"]), 111, "the last one counts");
    assert_eq!(kit.code("svstat", &["nosuch", "a"]), 0);
    kit.code("svc", &["-d", "a"]);
    wait_until("down", || kit.code("svstat", &["a"]) == 1);
    assert!(line().contains("normally up spid "), "{}", line());
    fs::write(dir.join("supervise/status"), "short").unwrap();
    assert_eq!(kit.code("svstat", &["a"]), 100);
    assert_eq!(kit.stat("a")["state"], "unknown");
}

#[test]
fn every_letter_arrives_as_its_signal() {
    let kit = Kit::new();
    let traps: String = ["HUP", "ALRM", "INT", "TERM", "QUIT", "USR1", "USR2", "ABRT"]
        .iter()
        .map(|s| format!("trap 'echo {s} >> got' {s}\n"))
        .collect();
    let dir = kit.service("a", &trapping(&format!("{traps}: > ready")), None);
    // As a background job of a shell: what the shell ignores, its programs would ignore as well.
    let mut shell = kit.command("/bin/sh".into());
    shell.args(["-c", "trap '' HUP INT QUIT TERM USR1; exec bin/supervise a"]);
    let _supervise = Running::start(&mut shell);
    wait_until("the traps", || dir.join("ready").exists());
    for (n, (letter, name)) in [
        ("-h", "HUP"),
        ("-a", "ALRM"),
        ("-i", "INT"),
        ("-t", "TERM"),
        ("-q", "QUIT"),
        ("-1", "USR1"),
        ("-2", "USR2"),
        ("-b", "ABRT"),
        ("-U", "USR1"),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(kit.code("svc", &[letter, "a"]), 0, "{letter}");
        let got = wait_for(name, || text(dir.join("got")).lines().nth(n).map(str::to_owned));
        assert_eq!(got, name, "{letter}");
    }
    let pid = kit.wait_up("a");
    kit.code("svc", &["-k", "a"]);
    wait_until("a restart", || kit.pid("a").is_some_and(|p| p != pid));
    // It does not die of TERM.
    assert_eq!(kit.code("svc", &["-dkx", "-W", "a"]), 0);
}
