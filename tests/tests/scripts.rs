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
