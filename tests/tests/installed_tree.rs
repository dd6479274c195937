//! What `make install` puts where.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::instance::as_user;
use e2e::kit::{root, run, set_mode, stage, write};

/// Programs that the flows of the system cannot do without.
const NEEDED: [&str; 30] = [
    "vadduser",
    "vadddomain",
    "vdeluser",
    "vdeldomain",
    "vpasswd",
    "vuserinfo",
    "vdominfo",
    "valias",
    "sendmail",
    "qmail-inject",
    "qmail-qread",
    "svstat",
    "svc",
    "svok",
    "setuidgid",
    "envdir",
    "softlimit",
    "svscan",
    "supervise",
    "multilog",
    "tcpserver",
    "qmail-smtpd",
    "qmail-queue",
    "qmail-send",
    "qmail-start",
    "qmail-local",
    "qmail-remote",
    "nssd",
    "inlookup",
    "svctool",
];

fn programs(tree: &Path) -> Vec<PathBuf> {
    ["usr/bin", "usr/sbin"]
        .iter()
        .flat_map(|d| std::fs::read_dir(tree.join(d)).expect("directory of programs"))
        .map(|e| e.expect("entry").path())
        .collect()
}

#[test]
fn programs_and_modules_are_in_their_places() {
    let tree = stage();
    let there = programs(&tree);
    for name in NEEDED {
        assert!(there.iter().any(|p| p.ends_with(name) && p.exists()), "{name}: {there:?}");
    }
    let modules = std::fs::read_dir(tree.join("usr/lib"))
        .expect("usr/lib")
        .map(|e| e.expect("entry").path())
        .find(|p| p.join("libnss_indimail.so.2").exists())
        .expect("the NSS module");
    assert!(modules.join("security/pam_multi.so").exists());
}

#[test]
fn every_program_says_its_version_and_has_a_page() {
    let tree = stage();
    for program in programs(&tree) {
        let name = program.file_name().expect("a name").to_string_lossy().into_owned();
        if name == "qmail-queue" {
            // The set-id program has no options at all.
            continue;
        }
        let output = run(Command::new(&program).arg("--version"));
        assert!(output.code == 0 && output.stdout.starts_with(&name), "{name}: {output:?}");
        let page =
            (1..=8).map(|n| tree.join(format!("usr/share/man/man{n}/{name}.{n}"))).find(|p| p.exists());
        let page = page.unwrap_or_else(|| panic!("no manual page for {name}"));
        assert!(std::fs::read_to_string(page).expect("a page").contains(".SH NAME"), "{name}");
        let completions = tree.join("usr/share/bash-completion/completions");
        assert!(completions.join(&name).exists(), "{name}");
        if name == "multilog" {
            // There, a word that begins with "-" is a pattern.
            continue;
        }
        let unknown = run(Command::new(&program).arg("--no-such-option-at-all"));
        assert!(unknown.code != 0 && !unknown.stderr.is_empty(), "{name}: {unknown:?}");
    }
}

/// Every program by the tables of the executables, and where it is: the program's name, its path.
fn listed(tree: &Path) -> Vec<(String, PathBuf)> {
    let mut all = Vec::new();
    for executable in std::fs::read_dir(tree.join("usr/libexec/indimail")).expect("executables") {
        let executable = executable.expect("entry");
        if executable.file_type().expect("type").is_symlink() {
            continue;
        }
        let list = run(Command::new(executable.path()).arg("--list-programs")).ok();
        for line in list.stdout.lines() {
            let [name, place, _] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let path = tree.join("usr").join(place).join(name);
            assert!(path.exists(), "{name}: {}", path.display());
            all.push((name.to_owned(), path));
        }
    }
    all.sort();
    all
}

/// What a line of `--show-settings` says about a source that is not there: nobody gave an option or operand,
/// and CONTROLDIR is the only variable.
fn untrue(line: &str) -> Option<&str> {
    let source = line.rsplit("  ").next().unwrap_or(line).trim();
    // What comes from no setting at all.
    const FACTS: [&str; 5] =
        ["default", "not given", "process id", "this installation", "variable CONTROLDIR"];
    let holds = |part: &str| {
        let file = part.rsplit_once(':').map_or(part, |(file, _)| file);
        FACTS.contains(&part) || part.starts_with('/') && Path::new(file).exists()
    };
    (!source.split(", ").all(holds)).then_some(source)
}

#[test]
fn claims_about_sources_are_told_apart() {
    for line in ["a  1  default", "dir  x  not given", "b  2  /proc/self/stat", "c  3  /proc/self/stat:12"] {
        assert_eq!(untrue(line), None, "{line}");
    }
    for (line, source) in [
        ("fsync     true  variable NOFSYNC", "variable NOFSYNC"),
        ("limit  40  option -c", "option -c"),
        ("dir  x  operand", "operand"),
        ("me  x  /nonexistent/me", "/nonexistent/me"),
        ("host  x  /proc/self/stat, me", "/proc/self/stat, me"),
    ] {
        assert_eq!(untrue(line), Some(source));
    }
}

/// Whoever asks needs no variables, operands, queue or accounts, and is told no source that is not there.
#[test]
fn every_program_tells_about_itself_in_a_clean_environment() {
    let tree = stage();
    let dir = root();
    let control = dir.path().join("control");
    // What a host cannot have a default for.
    write(control.join("me"), "mail.x.test\n");
    write(control.join("rcpthosts"), "x.test\n");
    // An ordinary user plays every role himself; nobody has to exist for that.
    std::os::unix::fs::chown(dir.path(), Some(23_456), Some(23_456)).expect("give away");
    let ask = |program: &Path, question: &str| {
        let mut command = as_user(Some(23_456), program);
        command.arg(question).env_clear().env("PATH", "/usr/bin:/bin").env("CONTROLDIR", &control);
        run(command.current_dir(dir.path()))
    };
    let mut wrong = Vec::new();
    let all = listed(&tree);
    assert!(NEEDED.iter().all(|n| *n == "qmail-queue" || all.iter().any(|(name, _)| name == n)), "{all:?}");
    for (name, program) in &all {
        for question in ["--help", "--version"] {
            let answer = ask(program, question);
            if answer.code != 0 || !answer.stdout.contains(name.as_str()) {
                wrong.push(format!("{name} {question}: {answer:?}"));
            }
        }
        // It has no settings, only commands.
        if name == "svctool" {
            continue;
        }
        let answer = ask(program, "--show-settings");
        if answer.code != 0 || answer.stdout.is_empty() {
            wrong.push(format!("{name} --show-settings: {answer:?}"));
        }
        let lines = answer.stdout.lines().filter(|l| *l != "no settings");
        wrong.extend(lines.filter_map(|l| Some(format!("{name}: {} in: {l}", untrue(l)?))));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whoever asks for settings names a program, and that is not started.
#[test]
fn showing_settings_does_nothing() {
    let tree = stage();
    let dir = root();
    std::os::unix::fs::chown(dir.path(), Some(23_456), Some(23_456)).expect("give away");
    let done = dir.path().join("done");
    for operands in ["setuidgid nobody", "softlimit", "envdir .", "pgrphack", "setlock lock", "except"] {
        let (name, operands) = operands.split_once(' ').unwrap_or((operands, ""));
        let program = programs(&tree).into_iter().find(|p| p.ends_with(name)).expect(name);
        let mut command = as_user(Some(23_456), program);
        command.arg("--show-settings").args(operands.split_ascii_whitespace()).arg("touch").arg(&done);
        run(command.current_dir(dir.path())).ok();
        assert!(!done.exists(), "{name} --show-settings started the program");
    }
}

#[test]
fn installing_needs_no_root() {
    let dir = root();
    std::os::unix::fs::chown(dir.path(), Some(23_456), Some(23_456)).expect("give away");
    let tree = stage();
    // The staged executables serve as what was built.
    let mut built: Vec<String> = std::fs::read_dir(tree.join("usr/libexec/indimail"))
        .expect("executables")
        .map(|e| e.expect("entry").path())
        .filter(|p| !p.is_symlink())
        .map(|p| p.display().to_string())
        .collect();
    built.push(tree.join("usr/sbin/qmail-queue").display().to_string());
    let list = dir.path().join("list");
    write(&list, built.join("\n") + "\n");
    let script = dir.path().join("scripts/install");
    let original = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/install");
    write(&script, std::fs::read(original).expect("the script"));
    set_mode(&script, 0o755);
    let target = dir.path().join("dest");
    for (name, text) in [
        (
            "x.service",
            "[Service]\nExecStart=/usr/bin/tcpserver 0 25 /usr/sbin/qmail-smtpd\nExecReload=/usr/bin/kill -HUP $MAINPID\n",
        ),
        ("indimail.sysusers", "u x - \"X\" /x /usr/sbin/nologin\n"),
    ] {
        write(dir.path().join("systemd").join(name), text);
    }
    // Whoever installs may keep his files to himself; the tree is for everybody all the same.
    let install = |prefix: &str| {
        let mut command = as_user(Some(23_456), "sh");
        command.args(["-c", "umask 077; exec \"$@\"", "sh"]).arg(&script).arg(&list).arg(&target).arg(prefix);
        run(&mut command)
    };
    let refused = install("opt/mail");
    assert!(refused.code != 0 && refused.stderr.contains("absolute"), "{refused:?}");
    install("/opt/mail").ok();
    // Again, over what is there.
    install("/opt/mail/").ok();
    let closed = run(Command::new("find").arg(&target).args(["-type", "d", "!", "-perm", "0755"])).stdout;
    assert_eq!(closed, "", "directories that others cannot enter");
    let unit = std::fs::read_to_string(target.join("opt/mail/lib/systemd/system/x.service")).expect("a unit");
    assert_eq!(
        unit,
        "[Service]\nExecStart=/opt/mail/bin/tcpserver 0 25 /opt/mail/sbin/qmail-smtpd\nExecReload=/usr/bin/kill -HUP $MAINPID\n",
        "units start the programs of their own prefix"
    );
    let queue = target.join("opt/mail/sbin/qmail-queue");
    let mode = std::fs::metadata(&queue).expect("qmail-queue").permissions().mode();
    assert_eq!(mode & 0o7777, 0o755, "set-id only when root installs and the user exists");
    let link = std::fs::read_link(target.join("opt/mail/sbin/svctool")).expect("a link");
    assert_eq!(link, Path::new("../libexec/indimail/svctool"));
}
