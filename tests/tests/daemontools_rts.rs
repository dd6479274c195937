//! The regression tests of Debian's daemontools package, fetched as its source package and run unchanged
//! against our programs. Where we answer otherwise on purpose, `tests/data/daemontools-rts.differences`
//! says so, line by line and with the reason; nothing else may differ.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use e2e::kit::{debian_source, root, run, stage, write};

/// What is compared: everything that daemontools installs.
const PROGRAMS: [&str; 17] = [
    "envdir",
    "envuidgid",
    "fghack",
    "multilog",
    "pgrphack",
    "readproctitle",
    "setlock",
    "setuidgid",
    "softlimit",
    "supervise",
    "svc",
    "svok",
    "svscan",
    "svscanboot",
    "svstat",
    "tai64n",
    "tai64nlocal",
];

const DIFFERENCES: &str = include_str!("../data/daemontools-rts.differences");

/// A directory whose programs are found before all others by the scripts.
fn programs_first(dir: &Path) {
    let tree = stage();
    for name in PROGRAMS {
        let places = [tree.join("usr/bin"), tree.join("usr/sbin"), tree.join("usr/libexec/indimail")];
        let program = places.iter().map(|p| p.join(name)).find(|p| p.exists());
        let program = program.unwrap_or_else(|| panic!("{name} is not installed"));
        symlink(program, dir.join(name)).expect("link");
    }
}

/// Numbers that are never twice the same.
fn normalised(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, number) = rest.split_at(at);
        let end = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
        let (digits, after) = number.split_at(end);
        out.push_str(before);
        let changing = before.ends_with("pid ") || after.starts_with(".x seconds");
        out.push_str(if changing { "N" } else { digits });
        rest = after;
    }
    out + rest
}

#[test]
fn debians_regression_tests_of_daemontools_differ_only_where_intended() {
    let dir = root();
    let source = debian_source("daemontools", dir.path());
    let tests = source.join("debian/tests");
    let work = dir.path().join("work");
    std::fs::create_dir(&work).expect("directory");
    programs_first(&work);
    let output = run(Command::new("sh").arg(tests.join("shortrts")).env("AUTOPKGTEST_TMP", &work));
    let produced = std::fs::read_to_string(work.join("shortrts.out")).expect("what the tests printed");
    assert!(produced.contains("--- setlock -nx exits quietly"), "not run to the end: {output:?}\n{produced}");
    let produced: String = produced.lines().map(|l| normalised(l) + "\n").collect();
    write(work.join("produced"), produced);
    let compared =
        run(Command::new("diff").arg("-U0").arg(tests.join("shortrts.exp")).arg(work.join("produced")));
    let found: Vec<_> = compared.stdout.lines().skip(2).filter(|l| !l.starts_with("@@")).collect();
    let intended: Vec<_> = DIFFERENCES.lines().filter(|l| !l.starts_with('#') && !l.is_empty()).collect();
    assert_eq!(found, intended, "differences from Debian's daemontools:\n{}", compared.stdout);
    // Names and numbers of users.
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", work.display());
    let users =
        run(Command::new("sh").arg(tests.join("uidgid")).env("AUTOPKGTEST_TMP", &work).env("PATH", path));
    assert_eq!(users.code, 0, "{users:?}");
}
