//! svps: found svscans, reports, and what it stops and starts.

mod kit;

use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};

use kit::{Kit, Running, alive};

fn svscan(kit: &Kit) -> Running {
    let mut command = kit.ours("svscan");
    command.arg("sv").env("DISABLE_RUN", "").env("TERMINATE_SESSION", "");
    Running::start(&mut command)
}

/// svps about the scan directory `sv`.
fn svps(kit: &Kit, options: &[&str]) -> Command {
    let mut command = kit.ours("svps");
    command
        .arg("--servicedir")
        .arg(kit.path("sv"))
        .args(options)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.env("CONTROLDIR", kit.path("control"));
    command
}

fn output(mut command: Command) -> (Option<i32>, String, String) {
    let out = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (out.status.code(), text(out.stdout), text(out.stderr))
}

fn three_services(kit: &Kit) {
    kit.service("sv/up", "exec sleep 1000", Some("exec cat"));
    let down = kit.service("sv/down", "exec sleep 1000", None);
    fs::write(down.join("down"), "").unwrap();
    kit.service("sv/other", "exec sleep 1000", None);
}

#[test]
fn services_and_loggers() {
    let kit = Kit::new();
    three_services(&kit);
    let (code, _, err) = output(svps(&kit, &[]));
    assert_eq!(code, Some(1));
    assert!(err.contains("no svscan is running"), "{err}");
    let svscan = svscan(&kit);
    let (up, other, log) = (kit.wait_up("sv/up"), kit.wait_up("sv/other"), kit.wait_up("sv/up/log"));
    kit.wait_state("sv/down", "down");
    let words = |text: &str| -> Vec<Vec<String>> {
        text.lines().map(|l| l.split_ascii_whitespace().map(str::to_owned).collect()).collect()
    };
    let (code, text, err) = output(svps(&kit, &[]));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let lines = words(&text);
    let here = kit.path("sv").canonicalize().unwrap().display().to_string();
    assert_eq!(lines[0][..5], ["svscan", &here, "pid", &svscan.pid().to_string(), "up"]);
    assert_eq!(lines[1], ["services:", "3"]);
    assert_eq!(lines[2][..2], ["down", "down"]);
    assert_eq!(lines[3][..2], ["other", "up"]);
    assert_eq!(lines[3][4..], ["pid", &other.to_string()]);
    assert_eq!(lines[4][4..], ["pid", &up.to_string()]);
    assert!(!text.contains('\x1b'), "no colours in a file");
    let (_, text, _) = output(svps(&kit, &["--logs", "-d"]));
    assert_eq!(words(&text)[1..].concat()[..4], ["loggers:", "1", "up/log", "up"]);
    assert!(words(&text)[2].ends_with(&["pid".into(), log.to_string()]));
    let (_, text, _) = output(svps(&kit, &["-aj"]));
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["pid"].as_i64(), Some(svscan.pid().into()));
    assert_eq!(value["services"].as_array().unwrap().len(), 4);
    assert_eq!(output(svps(&kit, &["-z"])).0, Some(1));
    assert_eq!(output(svps(&kit, &["-h", "-t"])).0, Some(1));
    // The tree: svscan, its supervises, their services.
    let (_, text, _) = output(svps(&kit, &["--tree"]));
    let indent = |pid: i32| {
        let line = text.lines().find(|l| l.trim_start().starts_with(&format!("{pid} "))).unwrap();
        line.len() - line.trim_start().len()
    };
    assert_eq!((indent(svscan.pid()), indent(up), indent(log)), (2, 6, 6), "{text}");
}

#[test]
fn svscans_are_found_without_being_named() {
    let kit = Kit::new();
    three_services(&kit);
    let svscan = svscan(&kit);
    kit.wait_up("sv/up");
    let (code, text, _) = {
        let mut command = kit.ours("svps");
        command.arg("-j").env("CONTROLDIR", kit.path("control")).stdout(Stdio::piped());
        output(command)
    };
    // Others may run on this host; what they are doing is theirs.
    assert!(code.is_some());
    let objects = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let ours: Vec<_> = objects.filter(|o| o["pid"].as_i64() == Some(svscan.pid().into())).collect();
    assert_eq!(ours.len(), 1);
    assert_eq!(ours[0]["services"].as_array().unwrap().len(), 3);
    // By the control file, too.
    fs::create_dir(kit.path("control")).unwrap();
    fs::write(kit.path("control/servicedir.conf"), format!("{}\n", kit.path("sv").display())).unwrap();
    let mut command = kit.ours("svps");
    command.args(["--show-settings"]).env("CONTROLDIR", kit.path("control")).stdout(Stdio::piped());
    assert!(output(command).1.contains(kit.path("sv").to_str().unwrap()));
}

#[test]
fn what_was_stopped_is_started_again_and_nothing_else() {
    let kit = Kit::new();
    three_services(&kit);
    let svscan = svscan(&kit);
    let before = [kit.wait_up("sv/up"), kit.wait_up("sv/other")];
    kit.wait_state("sv/down", "down");
    assert_eq!(output(svps(&kit, &["--resume"])), (Some(0), String::new(), String::new()), "nothing to do");
    assert_eq!(output(svps(&kit, &["--stop"])).0, Some(0));
    for name in ["sv/up", "sv/other"] {
        kit.wait_state(name, "down");
    }
    assert!(!before.into_iter().any(alive));
    assert_eq!(output(svps(&kit, &["-s"])).0, Some(0), "a second time forgets nothing");
    assert_eq!(output(svps(&kit, &["-r"])).0, Some(0));
    kit.wait_up("sv/up");
    kit.wait_up("sv/other");
    assert_eq!(kit.stat("sv/down")["state"], "down");
    assert!(
        fs::read_dir(kit.path("sv")).unwrap().all(|e| !e
            .unwrap()
            .file_name()
            .to_string_lossy()
            .contains("stopped"))
    );
    // Signals to svscan: a directory is read again, and the end.
    fs::write(kit.path("sv/other/down"), "").unwrap();
    assert_eq!(output(svps(&kit, &["-h"])).0, Some(0));
    kit.wait_state("sv/other", "down");
    let mut svscan = svscan;
    assert_eq!(output(svps(&kit, &["-t"])).0, Some(0));
    assert_eq!(svscan.wait(), Some(0));
}

#[test]
fn on_a_terminal_lines_fit_and_a_pager_shows_what_does_not() {
    let kit = Kit::new();
    three_services(&kit);
    let _svscan = svscan(&kit);
    kit.wait_up("sv/up");
    kit.wait_up("sv/other");
    let shown = |rows: u16, options: &[&str]| {
        let size = nix::pty::Winsize { ws_row: rows, ws_col: 30, ws_xpixel: 0, ws_ypixel: 0 };
        let terminal = nix::pty::openpty(Some(&size), None).unwrap();
        let mut command = svps(&kit, options);
        command.stdout(terminal.slave).env("PAGER", "sed 's/^/paged /'");
        let mut child = command.spawn().unwrap();
        drop(command);
        let mut text = Vec::new();
        // The end of a terminal is an error.
        let _ = fs::File::from(terminal.master).read_to_end(&mut text);
        assert!(child.wait().unwrap().success());
        String::from_utf8(text).unwrap().replace('\r', "")
    };
    let text = shown(40, &[]);
    assert!(text.contains("\x1b[32m    up "), "{text:?}");
    let visible = |line: &str| {
        line.split('\x1b').map(|part| part.split_once('m').map_or(part, |p| p.1)).collect::<String>()
    };
    assert!(!text.contains("paged") && text.lines().count() == 5);
    // In the first piece there is no colour to be cut off.
    for line in text.lines().filter(|l| l.starts_with('\x1b')) {
        assert!(visible(line).chars().count() <= 30, "{line:?}");
    }
    assert!(shown(4, &[]).lines().all(|line| line.starts_with("paged ")));
    assert!(!shown(4, &["-n"]).contains("paged"));
}

#[test]
fn anybody_may_look_at_what_he_can_read() {
    let kit = Kit::new();
    three_services(&kit);
    let _svscan = svscan(&kit);
    kit.wait_up("sv/up");
    assert!(nix::unistd::geteuid().is_root(), "this test needs root");
    // As somebody else; the programs of a test are where only its owner can look, so a copy is made.
    let open = kit.path("");
    let mode = |path: &std::path::Path| {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    mode(&open);
    fs::create_dir(kit.path("alone")).unwrap();
    assert!(
        Command::new("cp")
            .arg(env!("CARGO_BIN_EXE_daemontools"))
            .arg(kit.path("alone/svps"))
            .status()
            .unwrap()
            .success()
    );
    let look = || {
        let mut command = Command::new("/usr/bin/setpriv");
        command.args(["--reuid", "12345", "--regid", "12345", "--clear-groups"]).arg(kit.path("alone/svps"));
        command.arg("--servicedir").arg(kit.path("sv")).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env("CONTROLDIR", kit.path("control"));
        output(command)
    };
    let (code, text, err) = look();
    assert!(text.starts_with("svscan ") && text.contains("services: 3\n"), "{text} {err}");
    // What supervise keeps is for its owner.
    assert!(text.contains("    up     ?\n"), "{text}");
    assert_eq!((code, err.as_str()), (Some(0), ""));
}
