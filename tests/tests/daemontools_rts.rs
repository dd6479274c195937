//! The regression tests of Debian's daemontools package, fetched as its source package and run unchanged
//! against our programs. Where we answer otherwise on purpose, `tests/data/daemontools-rts.differences`
//! says so, line by line and with the reason; nothing else may differ.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::kit::{root, run, stage, write};

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

/// The machine's own package sources, turned into sources of source packages.
fn source_lists(into: &Path) {
    let system = Path::new("/etc/apt");
    let listed = std::fs::read_dir(system.join("sources.list.d")).into_iter().flatten();
    let files = listed.map(|e| e.expect("entry").path()).chain([system.join("sources.list")]);
    for file in files.filter(|f| f.is_file()) {
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).expect("a list of package sources");
        let line = |line: &str| match line.strip_prefix("deb ") {
            Some(rest) => format!("deb-src {rest}\n"),
            None if line.starts_with("deb-src ") => String::new(),
            None if line.starts_with("Types:") => "Types: deb-src\n".to_owned(),
            None => format!("{line}\n"),
        };
        if name.ends_with(".list") || name.ends_with(".sources") {
            write(into.join(name), text.lines().map(line).collect::<String>());
        }
    }
}

/// Fetches and unpacks the packaging half of a Debian source package; the directory with `debian/` in it.
fn debian_source(package: &str, dir: &Path) -> PathBuf {
    for sub in ["parts", "lists/partial", "cache/archives/partial", "source"] {
        std::fs::create_dir_all(dir.join(sub)).expect("directory");
    }
    source_lists(&dir.join("parts"));
    let source = dir.join("source");
    let apt = |verb: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(["-q", "-o", "Dir::Etc::sourcelist=/dev/null", "-o", "APT::Sandbox::User=root"]);
        for (option, sub) in
            [("Dir::Etc::sourceparts", "parts"), ("Dir::State::lists", "lists"), ("Dir::Cache", "cache")]
        {
            command.arg("-o").arg(format!("{option}={}", dir.join(sub).display()));
        }
        run(command.args(verb).current_dir(&source))
    };
    let update = apt(&["update"]);
    let fetched = apt(&["source", "--download-only", package]);
    assert_eq!(fetched.code, 0, "{update:?}\n{fetched:?}");
    let archive = std::fs::read_dir(&source)
        .expect("source")
        .map(|e| e.expect("entry").path())
        .find(|p| p.to_string_lossy().contains(".debian.tar."))
        .expect("the archive of the packaging");
    let unpacked = run(Command::new("tar").arg("-xf").arg(archive).current_dir(&source));
    assert_eq!(unpacked.code, 0, "{unpacked:?}");
    source
}

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
