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

/// Whoever asks for settings names no domain, host or program, and nothing is done.
#[test]
fn every_table_driven_program_shows_its_settings_and_does_nothing() {
    let tree = stage();
    let dir = root();
    let control = dir.path().join("control");
    for (name, text) in [("me", "mail.x.test\n"), ("locals", "x.test\n"), ("rcpthosts", "x.test\n")] {
        write(control.join(name), text);
    }
    // An ordinary user plays every role himself; nobody has to exist for that.
    std::os::unix::fs::chown(dir.path(), Some(23_456), Some(23_456)).expect("give away");
    let queue = dir.path().join("queue");
    run(as_user(Some(23_456), tree.join("usr/sbin/queue-fix")).arg(&queue)).ok();
    let ask = |program: &Path, operands: &[&str]| {
        let mut command = as_user(Some(23_456), program);
        command.arg("--show-settings").args(operands).env("CONTROLDIR", &control).env("QUEUEDIR", &queue);
        command.envs([
            ("HOST", "x.test"),
            ("SENDER", "s@x.test"),
            ("EXT", "e"),
            ("LOCAL", "e"),
            ("USER", "u"),
        ]);
        run(command.env("DOMAINDIR", dir.path()).current_dir(dir.path()))
    };
    for program in programs(&tree) {
        let name = program.file_name().expect("a name").to_string_lossy().into_owned();
        // No table: the set-id program, and the one that has nothing but its command line.
        if ["qmail-queue", "svctool"].contains(&name.as_str()) {
            continue;
        }
        // These two have no settings but for a question or an instruction.
        let operands: &[&str] = match name.as_str() {
            "inquerytest" => &["-q", "status"],
            "vdelivermail" => &["", "bounce-no-mailbox"],
            _ => &[],
        };
        let output = ask(&program, operands);
        assert!(output.code == 0 && !output.stdout.is_empty(), "{name}: {output:?}");
    }
    let done = dir.path().join("done");
    for operands in ["setuidgid nobody", "softlimit", "envdir .", "pgrphack", "setlock lock", "except"] {
        let (name, operands) = operands.split_once(' ').unwrap_or((operands, ""));
        let program = programs(&tree).into_iter().find(|p| p.ends_with(name)).expect(name);
        let given: Vec<&str> =
            operands.split_ascii_whitespace().chain(["touch", done.to_str().expect("a path")]).collect();
        ask(&program, &given).ok();
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
