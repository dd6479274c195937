//! The files in systemd/, read by the programs of systemd itself (no running systemd is needed).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd")
}

fn names(suffixes: &[&str]) -> Vec<String> {
    let all = fs::read_dir(source()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = all.filter(|n| suffixes.iter().any(|s| n.ends_with(s))).collect();
    names.sort();
    assert!(!names.is_empty());
    names
}

fn run(program: &str, args: &[&str]) -> Output {
    Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program} must be installed: {e}"))
}

/// A root directory with the files where installation puts them.
fn staged() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let at = |p: &str| root.path().join(p);
    for dir in
        ["etc", "usr/lib/systemd/system", "usr/lib/sysusers.d", "usr/lib/tmpfiles.d", "usr/sbin", "usr/bin"]
    {
        fs::create_dir_all(at(dir)).unwrap();
    }
    for name in names(&[".service", ".socket", ".target"]) {
        fs::copy(source().join(&name), at("usr/lib/systemd/system").join(&name)).unwrap();
    }
    for kind in ["sysusers", "tmpfiles"] {
        fs::copy(source().join(format!("indimail.{kind}")), at(&format!("usr/lib/{kind}.d/indimail.conf")))
            .unwrap();
    }
    root
}

#[test]
fn units_are_understood_without_a_remark() {
    let root = staged();
    // The units that every unit stands on.
    for entry in fs::read_dir("/lib/systemd/system").unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name.ends_with(".target") && fs::metadata(entry.path()).unwrap().is_file() {
            fs::copy(entry.path(), root.path().join("usr/lib/systemd/system").join(name)).unwrap();
        }
    }
    let units = names(&[".service", ".socket", ".target"]);
    for unit in &units {
        for line in fs::read_to_string(source().join(unit)).unwrap().lines() {
            let Some(command) = ["ExecStart=", "ExecReload="].iter().find_map(|k| line.strip_prefix(k))
            else {
                continue;
            };
            // "+": with all rights, whatever the unit's bounds.
            let command = command.trim_start_matches('+');
            let program = root.path().join(command.split(' ').next().unwrap().trim_start_matches('/'));
            assert!(command.starts_with("/usr/"), "{unit}: {line}");
            fs::write(&program, "#!/bin/sh\n").unwrap();
            fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        }
    }
    let root_option = format!("--root={}", root.path().display());
    let mut args = vec![root_option.as_str(), "verify", "--man=no"];
    args.extend(units.iter().map(String::as_str));
    let out = run("systemd-analyze", &args);
    // Unknown keys and bad values are remarks only, with code 0.
    assert_eq!((String::from_utf8_lossy(&out.stderr).as_ref(), out.status.code()), ("", Some(0)));
}

#[test]
fn units_are_hardened() {
    // Tenths of the exposure level of systemd-analyze.
    let worst = [
        ("indimail-nssd.service", 5),
        ("indimail-inlookup.service", 8),
        ("indimail-queue.service", 8),
        ("indimail-smtpd.service", 40),
        ("indimail-submission.service", 40),
        ("indimail-send.service", 42),
        ("indimail-svscan.service", 42),
    ];
    assert_eq!(worst.len(), names(&[".service"]).len(), "every service has its bound");
    for (unit, threshold) in worst {
        let path = source().join(unit);
        let threshold = format!("--threshold={threshold}");
        let out = run("systemd-analyze", &["security", "--offline=true", &threshold, path.to_str().unwrap()]);
        let text = String::from_utf8_lossy(&out.stdout);
        assert_eq!(out.status.code(), Some(0), "{unit}: {}", text.lines().last().unwrap_or_default());
    }
}

#[test]
fn users_and_directories() {
    let root = staged();
    let option = format!("--root={}", root.path().display());
    for (program, extra) in [("systemd-sysusers", None), ("systemd-tmpfiles", Some("--create"))] {
        let args: Vec<&str> = [Some(option.as_str()), extra].into_iter().flatten().collect();
        let out = run(program, &args);
        assert!(out.status.success(), "{program}: {}", String::from_utf8_lossy(&out.stderr));
    }
    let read = |file: &str| fs::read_to_string(root.path().join(file)).unwrap();
    let (passwd, group) = (read("etc/passwd"), read("etc/group"));
    let row = |text: &str, name: &str| -> Vec<String> {
        let line =
            text.lines().find(|l| l.split(':').next() == Some(name)).unwrap_or_else(|| panic!("no {name}"));
        line.split(':').map(str::to_owned).collect()
    };
    for (user, primary, shell) in [
        ("alias", "nofiles", "/usr/sbin/nologin"),
        ("qmaild", "nofiles", "/usr/sbin/nologin"),
        ("qmaill", "nofiles", "/usr/sbin/nologin"),
        ("qmailp", "nofiles", "/usr/sbin/nologin"),
        ("qmailq", "qmail", "/usr/sbin/nologin"),
        ("qmailr", "qmail", "/usr/sbin/nologin"),
        ("qmails", "qmail", "/usr/sbin/nologin"),
        ("qscand", "qscand", "/usr/sbin/nologin"),
        ("indimail", "indimail", "/bin/sh"),
    ] {
        let user = row(&passwd, user);
        assert_eq!(
            (user[3].as_str(), user[6].as_str()),
            (row(&group, primary)[2].as_str(), shell),
            "{user:?}"
        );
    }
    assert_eq!(row(&passwd, "indimail")[2], "555");
    assert_eq!(row(&group, "qcerts")[3], "qmaild,qmailr,qmails");
    assert_eq!(row(&group, "qmail")[3], "qscand");
    let mode = |dir: &str| fs::metadata(root.path().join(dir)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode("run/indimail"), 0o2755);
    assert_eq!(mode("run/svscan"), 0o755);
    assert_eq!(mode("etc/indimail/certs"), 0o750);
    assert_eq!(mode("home/mail"), 0o755);
}
