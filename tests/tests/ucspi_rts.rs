//! The regression tests of the original ucspi-tcp and those of its Debian package, fetched as its source package and
//! run unchanged against our programs. Where we answer otherwise on purpose, `tests/data/ucspi-rts.differences` says so, line by line and with
//! the reason; nothing else may differ.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use e2e::kit::{copy_program, debian_source, root, run, set_mode, stage, write};

/// Executables, and which of their programs the tests start.
const PROGRAMS: [(&str, &[&str]); 4] = [
    (
        "ucspi-tcp",
        &[
            "addcr",
            "argv0",
            "delcr",
            "fixcrio",
            "mconnect",
            "recordio",
            "tcpcat",
            "tcpclient",
            "tcp-env",
            "tcprules",
            "tcprulescheck",
            "tcpserver",
        ],
    ),
    ("ucspi-dns", &["rblsmtpd"]),
    ("daemontools", &["svc"]),
    ("supervise", &[]),
];

const DIFFERENCES: &str = include_str!("../data/ucspi-rts.differences");

/// The last test prints the log of tcpserver, whose lines have another form here and tests of their own.
const LOG: &str = "--- tcpserver -1v prints proper messages";

/// The tests must not be run by root, who may not be able to reach the staged tree's programs: copies.
fn programs(into: &Path) {
    for (executable, names) in PROGRAMS {
        copy_program(stage().join("usr/libexec/indimail").join(executable), into.join(executable));
        for name in names {
            symlink(executable, into.join(name)).expect("link");
        }
    }
}

/// What is expected or was printed, up to the log, without what the resolver says about its trouble.
fn compared(text: &str) -> String {
    let known = |line: &str| match line.split_once("unable to ask a list: ") {
        Some((before, _)) => format!("{before}unable to ask a list: WHY\n"),
        None => format!("{line}\n"),
    };
    text.lines().take_while(|line| *line != LOG).map(known).collect()
}

#[test]
fn the_originals_regression_tests_of_ucspi_tcp_differ_only_where_intended() {
    let dir = root();
    let source = debian_source("ucspi-tcp", dir.path());
    let entries = std::fs::read_dir(&source).expect("source").map(|e| e.expect("entry").path());
    let tests = entries.into_iter().find(|p| p.join("rts.tests").exists()).expect("the tests");
    let (bin, work) = (dir.path().join("bin"), dir.path().join("work"));
    for directory in [&bin, &work] {
        std::fs::create_dir(directory).expect("directory");
    }
    set_mode(&work, 0o777);
    programs(&bin);
    // Their ports are fixed, so they get a network of their own; no name server is reached from it.
    let script = "ip link set lo up && exec setpriv --reuid=61234 --regid=61234 --clear-groups \
        env - PATH=\"$1\" sh \"$2/rts.tests\" 2>&1 | cat -v";
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display());
    let printed = run(Command::new("unshare")
        .args(["-n", "sh", "-c", script, "rts", &path])
        .arg(&tests)
        .current_dir(&work));
    assert!(printed.stdout.contains(LOG), "not run to the end: {printed:?}");
    let expected = std::fs::read_to_string(tests.join("rts.exp")).expect("what is expected");
    write(work.join("expected"), compared(&expected));
    write(work.join("printed"), compared(&printed.stdout));
    let diff = run(Command::new("diff").arg("-U0").args(["expected", "printed"]).current_dir(&work));
    let found: Vec<_> = diff.stdout.lines().skip(2).filter(|l| !l.starts_with("@@")).collect();
    let intended: Vec<_> = DIFFERENCES.lines().filter(|l| !l.starts_with('#') && !l.is_empty()).collect();
    assert_eq!(found, intended, "differences from the original:\n{}", diff.stdout);
}

#[test]
fn debians_own_tests_of_ucspi_tcp_pass() {
    let dir = root();
    let source = debian_source("ucspi-tcp", dir.path());
    // They look for tcpcat only where it is installed: there, for them alone, are our programs.
    let script = "ip link set lo up && cd \"$1\" && \
        for p in tcpserver tcpclient tcpcat; do mount --bind \"$2\" /usr/bin/$p || exit 9; done && \
        exec env PYTHONPATH=debian/tests/python \
        /usr/bin/python3 -B -u -m ucspi_tcp_test -d /usr/bin -p tcp -i \"$3\"";
    let executable = stage().join("usr/libexec/indimail/ucspi-tcp");
    for family in ["4", "6"] {
        let done = run(Command::new("unshare")
            .args(["-n", "-m", "sh", "-c", script, "tests"])
            .args([&source, &executable])
            .arg(family));
        assert!(done.code == 0 && done.stdout.contains("The tests for tcp passed"), "IPv{family}: {done:?}");
    }
}
