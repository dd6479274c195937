//! setuidgid, envuidgid, envdir, softlimit, setlock, pgrphack, tai64n: against Debian's where the two must agree.

mod kit;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use kit::Kit;

fn piped(command: &mut Command) -> Output {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap()
}

/// Code and output of ours and of Debian's.
fn both(kit: &Kit, program: &str, args: &[&str]) -> [(Option<i32>, String); 2] {
    [kit.ours(program), kit.debians(program)].map(|mut command| {
        let out = piped(command.args(args));
        // The order of variables is nobody's business.
        let text = String::from_utf8(out.stdout).unwrap();
        let mut lines: Vec<_> = text.split_inclusive('\n').collect();
        lines.sort_unstable();
        (out.status.code(), lines.concat())
    })
}

fn same(kit: &Kit, program: &str, args: &[&str]) -> (Option<i32>, String) {
    let [ours, debians] = both(kit, program, args);
    assert_eq!(ours, debians, "{program} {args:?}");
    ours
}

#[test]
fn envdir_agrees_with_debians() {
    let kit = Kit::new();
    let dir = kit.path("env");
    fs::create_dir(&dir).unwrap();
    for (name, content) in [
        ("PLAIN", &b"value\n"[..]),
        ("BLANKS", b"a b \t \nsecond line\n"),
        ("NUL", b"a\0b\n"),
        ("NOEND", b"no newline"),
        ("LONG", &[b'x'; 1000]),
        ("EMPTYLINE", b"\n"),
        ("PATH", b"/bin\n"),
        ("HOME", b""),
        (".hidden", b"never\n"),
        ("UTF", "\u{e9}\n".as_bytes()),
    ] {
        fs::write(dir.join(name), content).unwrap();
    }
    let (code, out) = same(&kit, "envdir", &["env", "/usr/bin/env"]);
    assert_eq!(code, Some(0));
    assert!(out.contains("PLAIN=value\n") && out.contains("EMPTYLINE=\n") && !out.contains("HOME"), "{out}");
}

#[test]
fn envdir_options_and_codes() {
    let kit = Kit::new();
    let dir = kit.path("env");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("A"), "1").unwrap();
    assert_eq!(kit.code("envdir", &["env"]), 100);
    assert_eq!(kit.code("envdir", &["nosuch", "true"]), 111);
    // The original exits 0 here.
    assert_eq!(kit.code("envdir", &["env", "/nonexistent"]), 111);
    let out = |args: &[&str]| String::from_utf8(kit.run("envdir", args).stdout).unwrap();
    assert_eq!(out(&["-c", "env", "/usr/bin/env"]), "A=1\n");
    fs::create_dir(dir.join("SUB")).unwrap();
    assert_eq!(kit.code("envdir", &["env", "/usr/bin/env"]), 111);
    assert!(out(&["-i", "env", "/usr/bin/env"]).contains("A=1\n"));
    let kept = out(&["-w", "env", "/usr/bin/env"]);
    assert!(!kept.contains("A=1") && kept.contains("PATH="), "on a warning the environment stays: {kept}");
    // A new PATH is for the program, not for finding it, unless asked.
    fs::remove_dir(dir.join("SUB")).unwrap();
    fs::write(dir.join("PATH"), "/nonexistent").unwrap();
    assert_eq!(out(&["-c", "env", "env"]), "A=1\nPATH=/nonexistent\n");
    assert_eq!(kit.code("envdir", &["-p", "env", "env"]), 111);
}

#[test]
fn envdir_prefixes_fifos_and_names_that_are_no_text() {
    use std::os::unix::ffi::OsStrExt;
    let kit = Kit::new();
    let dir = kit.path("env");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("A"), "1").unwrap();
    fs::write(dir.join("GONE"), "").unwrap();
    let raw = std::ffi::OsStr::from_bytes(b"RAW\xff");
    fs::write(dir.join(raw), "").unwrap();
    // A FIFO that nobody writes to removes the variable, as an empty file does; it is not waited for.
    nix::unistd::mkfifo(&dir.join("FIFO"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for program in [kit.ours("envdir"), kit.debians("envdir")] {
        let mut command = program;
        command.env(raw, "x").env("FIFO", "x").args(["env", "/usr/bin/env"]);
        let out = String::from_utf8_lossy(&piped(&mut command).stdout).into_owned();
        assert!(out.contains("A=1\n") && !out.contains("RAW") && !out.contains("FIFO"), "{out}");
    }
    fs::remove_file(dir.join(raw)).unwrap();
    let mut command = kit.ours("envdir");
    command.env("X_GONE", "x").env("GONE", "kept").args(["-P", "X_", "env", "/usr/bin/env"]);
    let out = String::from_utf8(piped(&mut command).stdout).unwrap();
    let mut lines: Vec<_> = out.lines().filter(|l| l.contains("GONE") || l.starts_with("X_")).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["GONE=kept", "X_A=1"]);
    assert_eq!(kit.code("envdir", &["-P", "A=", "env", "true"]), 100);
}

#[test]
fn envdir_reads_other_directories_once() {
    let kit = Kit::new();
    let (dir, other) = (kit.path("env"), kit.path("other"));
    fs::create_dir(&dir).unwrap();
    fs::create_dir(&other).unwrap();
    // Each names the other: neither is read twice, and what was named last counts more.
    std::os::unix::fs::symlink("../other", dir.join(".envdir")).unwrap();
    std::os::unix::fs::symlink("../env", other.join(".envdir")).unwrap();
    fs::write(dir.join("A"), "own").unwrap();
    fs::write(other.join("A"), "other").unwrap();
    fs::write(other.join("B"), "other").unwrap();
    fs::write(dir.join(".envfile"), "B=file\n  # c\n C=kept  \nD=no newline").unwrap();
    let out = kit.run("envdir", &["-c", "env", "/usr/bin/env"]).stdout;
    assert_eq!(String::from_utf8(out).unwrap(), "A=own\nB=other\nC=kept  \nD=no newline\n");
}

#[test]
fn envini_sets_what_a_file_with_sections_says() {
    let kit = Kit::new();
    fs::write(kit.path("ini"), "; comment\nA = one two \n[s]\nB=2\nnonsense\n").unwrap();
    let mut command = kit.ours("envini");
    let out = piped(command.args(["-p", "P_", "ini", "/bin/sh", "-c", "echo $P_A,$P_s_B; exit 3"]));
    assert_eq!((out.status.code(), out.stdout.as_slice()), (Some(3), &b"one two,2\n"[..]));
    assert_eq!(kit.code("envini", &["none", "true"]), 111);
    assert_eq!(kit.code("envini", &["ini", "/nonexistent"]), 111);
    assert_eq!(kit.code("envini", &["ini"]), 100);
    assert_eq!(kit.code("envini", &["-p", "=", "ini", "true"]), 100);
    fs::write(kit.path("nul"), "A=1\nB=a\0b\n").unwrap();
    let out = kit.run("envini", &["nul", "true"]);
    assert_eq!(out.status.code(), Some(111));
    assert!(String::from_utf8_lossy(&out.stderr).contains("nul:2: "));
}

#[test]
fn setuser_is_like_a_login() {
    let kit = Kit::new();
    let script = "echo $HOME $SHELL $USER $UID $GID; pwd; id -u; id -g; id -Gn";
    let out = kit.run("setuser", &["daemon", "/bin/sh", "-c", script]);
    let shell = "/usr/sbin/nologin";
    let want = format!("/usr/sbin {shell} daemon 1 1\n/usr/sbin\n1\n1\ndaemon\n");
    assert_eq!(String::from_utf8(out.stdout).unwrap(), want);
    assert_eq!(kit.code("setuser", &["daemon"]), 100);
    for account in ["nosuchuser", ":1:1"] {
        assert_eq!(kit.code("setuser", &[account, "true"]), 111, "{account}");
    }
    // nobody's home does not exist.
    let out = kit.run("setuser", &["nobody", "true"]);
    assert_eq!(out.status.code(), Some(111));
    assert!(String::from_utf8_lossy(&out.stderr).contains("unable to change to /nonexistent"));
}

#[test]
fn setuidgid_agrees_with_debians() {
    let kit = Kit::new();
    assert!(nix::unistd::geteuid().is_root(), "this test needs root");
    for account in ["nobody", "daemon", "root"] {
        let (code, out) = same(&kit, "setuidgid", &[account, "/usr/bin/id"]);
        assert_eq!(code, Some(0));
        assert!(out.contains(account));
    }
    same(&kit, "setuidgid", &["nosuchuser", "id"]);
    same(&kit, "setuidgid", &["nobody"]);
    same(&kit, "setuidgid", &["nobody", "/nonexistent"]);
    same(&kit, "envuidgid", &["daemon", "/bin/sh", "-c", "echo $UID $GID"]);
}

#[test]
fn setuidgid_groups_and_environment() {
    let kit = Kit::new();
    let out = |args: &[&str]| String::from_utf8(kit.run("setuidgid", args).stdout).unwrap();
    assert_eq!(out(&["-g", "mail,12", "nobody", "/usr/bin/id", "-G"]).trim(), "65534 8 12");
    assert_eq!(out(&["-g", "mail,8,12,mail", "nobody", "/usr/bin/id", "-G"]).trim(), "65534 8 12");
    assert_eq!(out(&[":65534:65534:8", "/usr/bin/id", "-G"]).trim(), "65534 8");
    assert_eq!(
        out(&["-e", "daemon", "/bin/sh", "-c", "echo $USER $LOGNAME $HOME"]),
        "daemon daemon /usr/sbin\n"
    );
    assert_eq!(kit.code("setuidgid", &["-g", "nosuchgroup", "nobody", "true"]), 111);
    // An ordinary user gets no groups, and is not left to believe so.
    let ours = kit.path("bin/setuidgid");
    let again = ["nobody", ours.to_str().unwrap(), "-g", "mail", "nobody", "true"];
    assert_eq!(kit.code("setuidgid", &again), 111);
    assert_eq!(kit.code("setuidgid", &["nobody", ours.to_str().unwrap(), "nobody", "true"]), 0);
    // There is no way back to root.
    assert_ne!(
        kit.code("setuidgid", &["nobody", kit.path("bin/setuidgid").to_str().unwrap(), "root", "true"]),
        0
    );
}

#[test]
fn softlimit_agrees_with_debians() {
    let kit = Kit::new();
    let show =
        "ulimit -c; ulimit -d; ulimit -f; ulimit -n; ulimit -s; ulimit -t; ulimit -v; ulimit -l; ulimit -m";
    for args in [
        &["-c", "0"][..],
        &["-d", "100000000"],
        &["-f", "5000000"],
        &["-o", "77"],
        &["-s", "8000000"],
        &["-t", "100"],
        &["-a", "900000000"],
        &["-l", "4096"],
        &["-m", "900000000"],
        &["-r", "900000000"],
        &["-o", "="],
        &["-o", "999999999"],
        &["-p", "5000", "-o", "50"],
    ] {
        let args: Vec<&str> = args.iter().copied().chain(["/bin/sh", "-c", show]).collect();
        let (code, _) = same(&kit, "softlimit", &args);
        assert_eq!(code, Some(0), "{args:?}");
    }
    same(&kit, "softlimit", &["-o", "50"]);
    same(&kit, "softlimit", &["-o", "5", "/nonexistent/program"]);
    assert_eq!(kit.code("softlimit", &["-o", "5x", "true"]), 100);
    let out = kit.run("softlimit", &["-o", "1k", "/bin/sh", "-c", "ulimit -n"]);
    assert_eq!(out.stdout, b"1024\n");
    let with = |variables: &[(&str, &str)], args: &[&str]| {
        let mut command = kit.ours("softlimit");
        let out = piped(command.envs(variables.iter().copied()).args(args));
        (out.status.code(), String::from_utf8(out.stdout).unwrap())
    };
    let variables =
        [("SOFTLIMIT_OPENFILES", "77"), ("SOFTLIMIT_MEMBYTES", "900m"), ("SOFTLIMIT_ALLBYTES", "800m")];
    let show = ["/bin/sh", "-c", "ulimit -n; ulimit -v; ulimit -d"];
    assert_eq!(with(&variables, &show), (Some(0), "77\n819200\n921600\n".to_owned()));
    assert_eq!(with(&variables, &[&["-o", "66"], &show[..]].concat()).1, "66\n819200\n921600\n");
    assert_eq!(with(&[("SOFTLIMIT_PROCS", "x")], &["true"]).0, Some(100));
    assert_eq!(with(&[("SOFTLIMIT_PROCS", "")], &["true"]).0, Some(0));
}

#[test]
fn setlock_and_pgrphack() {
    let kit = Kit::new();
    let lock = kit.path("lock");
    let lock = lock.to_str().unwrap();
    let inner = |options: &[&str]| {
        let ours = kit.path("bin/setlock");
        let mut args = vec![lock, ours.to_str().unwrap()];
        args.extend(options);
        args.extend([lock, "/bin/true"]);
        kit.code("setlock", &args)
    };
    assert_eq!(inner(&["-n"]), 111, "the program holds the lock");
    assert_eq!(inner(&["-nx"]), 0);
    assert_eq!(inner(&["-nxX"]), 111, "the last one counts");
    assert_eq!(kit.code("setlock", &[lock, "/bin/sh", "-c", "exit 5"]), 5);
    assert_eq!(kit.code("setlock", &[lock]), 100);
    assert_eq!(fs::metadata(lock).unwrap().permissions().mode() & 0o777, 0o600);
    // Debian's respects our lock.
    assert_eq!(kit.code("setlock", &[lock, "/usr/bin/setlock", "-n", lock, "/bin/true"]), 111);
    let out = kit.run("pgrphack", &["/bin/sh", "-c", "set -- $(cat /proc/$$/stat); echo $1 $5 $6"]);
    let ids: Vec<_> = std::str::from_utf8(&out.stdout).unwrap().split_whitespace().collect();
    assert!(ids[0] == ids[1] && ids[0] == ids[2], "leader of its group and session: {ids:?}");
}

fn filter(mut command: Command, input: &[u8]) -> (Option<i32>, String) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input).unwrap());
    let out = child.wait_with_output().unwrap();
    writer.join().unwrap();
    (out.status.code(), String::from_utf8(out.stdout).unwrap())
}

#[test]
fn time_labels() {
    let kit = Kit::new();
    let input = b"@4000000037c219bf2ef02e94 mail\nplain\n@4000000037c219bf2ef02e94\nlast";
    for zone in ["UTC", "Asia/Kolkata", "America/New_York"] {
        let run = |mut command: Command| {
            command.env("TZ", zone);
            filter(command, input)
        };
        assert_eq!(run(kit.ours("tai64nlocal")), run(kit.debians("tai64nlocal")), "{zone}");
    }
    // Debian's dies of a segmentation fault here.
    let nonsense = "@notatai\n@4000 x\n@ffffffffffffffffffffffff x\n";
    assert_eq!(filter(kit.ours("tai64nlocal"), nonsense.as_bytes()), (Some(0), nonsense.to_owned()));
    let mut iso = kit.ours("tai64nlocal");
    iso.arg("-ui");
    assert_eq!(filter(iso, b"@4000000037c219bf2ef02e94").1, "1999-08-24T04:04:05.787492500+00:00");
    // What one stamps, the other reads.
    let (code, stamped) = filter(kit.ours("tai64n"), b"a\n\nb");
    assert_eq!(code, Some(0));
    let (_, read) = filter(kit.debians("tai64nlocal"), stamped.as_bytes());
    let texts: Vec<_> = read.split('\n').map(|l| l.split_at(29.min(l.len())).1).collect();
    assert_eq!(texts, [" a", " ", " b"]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let (label, _) = tai::Label::parse(stamped.as_bytes()).unwrap();
    assert!(label.to_unix().unwrap().as_secs().abs_diff(now) < 60);
}

#[test]
fn every_program_describes_itself() {
    let kit = Kit::new();
    let names = kit::programs().into_iter().map(|(name, _)| name).chain(["supervise".to_owned()]);
    for name in names {
        let name = name.as_str();
        let out = kit.run(name, &["--help"]);
        assert_eq!(out.status.code(), Some(0), "{name}");
        assert!(String::from_utf8_lossy(&out.stdout).contains(name), "{name}");
        assert!(String::from_utf8_lossy(&kit.run(name, &["--man"]).stdout).starts_with(".TH "), "{name}");
    }
}
