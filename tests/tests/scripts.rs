//! The scripts behind make.

use std::path::Path;
use std::process::Command;

use e2e::instance::as_user;
use e2e::kit::{root, run, set_mode, write};

fn script(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts").join(name)
}

/// Missing packages that an ordinary user cannot install: the exact command is named.
#[test]
fn prepare_names_the_command_when_it_cannot_install() {
    let dir = root();
    for (stub, text) in [("dpkg-query", "#!/bin/sh\nexit 1\n"), ("cargo", "#!/bin/sh\n")] {
        write(dir.path().join(stub), text);
        set_mode(&dir.path().join(stub), 0o755);
    }
    for file in ["scripts/prepare", "scripts/packages.txt", "tests/packages.txt"] {
        let original = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
        write(dir.path().join(file), std::fs::read(original).expect("the file"));
    }
    let copy = dir.path().join("scripts/prepare");
    set_mode(&copy, 0o755);
    let path = format!("{}:/usr/bin:/bin", dir.path().display());
    let output = run(as_user(Some(23_456), &copy).arg("build").env("PATH", path));
    assert_eq!(output.code, 1);
    assert!(output.stderr.contains("as root run: apt-get install -y"), "{}", output.stderr);
    assert!(output.stderr.contains("libpam0g-dev"), "{}", output.stderr);
}

#[test]
fn prepare_without_rust_says_so() {
    let output =
        run(Command::new("/bin/sh").arg(script("prepare")).arg("build").env("PATH", "/usr/bin:/bin"));
    assert_eq!(output.code, 1);
    assert!(output.stderr.contains("no cargo in PATH"), "{}", output.stderr);
}

#[test]
fn scripts_refuse_wrong_usage() {
    for name in ["prepare", "install"] {
        let output = run(Command::new("/bin/sh").arg(script(name)).arg("nonsense"));
        assert_eq!(output.code, 2, "{name}: {}", output.stderr);
        assert!(output.stderr.starts_with("usage: "), "{name}: {}", output.stderr);
    }
}

/// A copy of the scripts whose cargo, make and dpkg-query are stubs; `cargo` is the body of one.
fn check_with(cargo: &str) -> e2e::kit::Output {
    let dir = root();
    let stubs = [("cargo", cargo), ("make", "exit 0"), ("dpkg-query", "printf 'ii '")];
    for (stub, body) in stubs {
        let path = dir.path().join("bin").join(stub);
        write(&path, format!("#!/bin/sh\n{body}\n"));
        set_mode(&path, 0o755);
    }
    for file in ["scripts/check", "scripts/prepare", "scripts/packages.txt", "tests/packages.txt"] {
        let original = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
        let copy = dir.path().join(file);
        write(&copy, std::fs::read(original).expect("the file"));
        set_mode(&copy, 0o755);
    }
    let path = format!("{}:/usr/bin:/bin", dir.path().join("bin").display());
    run(Command::new(dir.path().join("scripts/check")).env("PATH", path))
}

#[test]
fn check_sums_up_and_goes_on_after_a_failure() {
    let good = "[ \"$1\" != test ] || echo 'test result: ok. 5 passed; 0 failed; 0 ignored'";
    let output = check_with(good).ok();
    let last = output.stdout.lines().last().expect("a last line");
    assert!(last.starts_with("10 passed, 0 failed ("), "{}", output.stdout);

    let bad =
        "case \"$1\" in test) echo 'test result: FAILED. 4 passed; 1 failed; 0 ignored'; exit 101;; esac";
    let output = check_with(bad);
    assert_eq!(output.code, 1, "{}", output.stdout);
    let last = output.stdout.lines().last().expect("a last line");
    assert!(last.starts_with("8 passed, 2 failed ("), "{}", output.stdout);
    assert!(output.stdout.contains("failed steps: unit end-to-end"), "{}", output.stdout);
    assert!(output.stdout.contains("== fmt: ok"), "{}", output.stdout);
}
