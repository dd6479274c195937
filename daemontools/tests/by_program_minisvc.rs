//! minisvc: what it makes is what svscan and its friends take.

mod kit;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use kit::{Kit, Running, alive, script, text, wait_for, wait_until};
use nix::sys::signal::Signal;

fn command(kit: &Kit, args: &[&str]) -> Command {
    let mut command = kit.ours("minisvc");
    command.arg("--servicedir").arg(kit.path("sv")).args(args);
    command.env("CONTROLDIR", kit.path("control")).env("SYSCONFDIR", kit.path("etc")).env("DISABLE_RUN", "");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn minisvc(kit: &Kit, args: &[&str]) -> Output {
    command(kit, args).output().unwrap()
}

fn done(kit: &Kit, args: &[&str]) -> String {
    let out = minisvc(kit, args);
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// The message of a command that is refused.
fn refused(kit: &Kit, args: &[&str]) -> String {
    let out = minisvc(kit, args);
    assert_eq!(out.status.code(), Some(1), "{args:?}");
    String::from_utf8(out.stderr).unwrap()
}

fn set_up(kit: &Kit, more: &[&str]) {
    // The logger may run as somebody else.
    fs::set_permissions(kit.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    let logs = kit.path("logs");
    done(kit, &[&["--svscanlog", "--scanint=60", "--logdir", logs.to_str().unwrap()], more].concat());
    let path = format!("PATH={}:/usr/bin:/bin", kit.path("bin").display());
    done(kit, &["--service=.svscan", "--set-variable", &path, "--set-variable=DISABLE_RUN=1"]);
}

fn boot(kit: &Kit) -> Running {
    Running::start(kit.ours("svscanboot").arg(kit.path("sv")))
}

#[test]
fn a_scan_directory_that_svscanboot_starts() {
    let kit = Kit::new();
    set_up(&kit, &["--initcmd=echo \"it's $SCANINTERVAL\" > ../init"]);
    let variables = kit.path("sv/.svscan/variables");
    assert_eq!(fs::metadata(&variables).unwrap().permissions().mode() & 0o7777, 0o500);
    assert_eq!(text(variables.join(".envdir")), format!("{}\n", kit.path("control/global_vars").display()));
    let options = text(variables.join(".options"));
    assert!(options.starts_with("minisvc --servicedir ") && options.contains(" --scanint=60 "), "{options}");
    assert_eq!(text(variables.join("SCANINTERVAL")), "60\n");
    assert_eq!(text(variables.join("AUTOSCAN")), "1\n");
    fs::write(kit.path("control/global_vars/EVERYWHERE"), "yes\n").unwrap();
    kit.service("sv/a", "echo EVERYWHERE=$EVERYWHERE; exec sleep 1000", None);
    let mut svscan = boot(&kit);
    wait_until("INITCMD", || text(kit.path("init")) == "it's 60\n");
    let pid = kit.wait_up("sv/a");
    wait_until("the log", || text(kit.path("logs/svscan/current")).contains("EVERYWHERE=yes\n"));
    let line = text(kit.path("logs/svscan/current"));
    assert!(line.starts_with("@4000"), "{line}");
    svscan.signal(Signal::SIGTERM);
    assert_eq!(svscan.wait(), Some(0));
    assert!(!alive(pid));
}

#[test]
fn services_are_disabled_and_enabled() {
    let kit = Kit::new();
    set_up(&kit, &[]);
    fs::create_dir(kit.path("log-a")).unwrap();
    let log = format!("exec {} {}", kit.path("bin/multilog").display(), kit.path("log-a").display());
    kit.service("sv/a", &kit::trapping("trap 'echo last words; exit 0' TERM; echo up"), Some(&log));
    let _svscan = boot(&kit);
    wait_until("the service", || text(kit.path("log-a/current")).starts_with("up\n"));
    let pids = [kit.wait_up("sv/a"), kit.wait_up("sv/a/log")];
    done(&kit, &["--rmsvc", "a"]);
    assert!(kit.path("sv/.a").is_dir() && !kit.path("sv/a").exists());
    assert!(!pids.into_iter().any(alive));
    assert_eq!(text(kit.path("log-a/current")), "up\nlast words\n");
    assert!(refused(&kit, &["--rmsvc", "a"]).contains("is there already"));
    assert!(refused(&kit, &["--rmsvc", "nosuch"]).contains("No such file"));
    done(&kit, &["--ensvc", "a"]);
    kit.wait_up("sv/a");
    kit.wait_up("sv/a/log");
    assert!(refused(&kit, &["--ensvc", kit.path("sv/a").to_str().unwrap()]).contains("is there already"));
    assert!(refused(&kit, &["--rmsvc", ".svscan"]).contains("no service"));
}

#[test]
fn without_a_svscan_both_are_told() {
    let kit = Kit::new();
    kit.service("sv/a", "exec sleep 1000", Some("exec sleep 1000"));
    let supervise = |dir: &str, name: &str| {
        let mut command = kit.ours("supervise");
        Running::start(command.arg(name).current_dir(kit.path(dir)))
    };
    let mut both = [supervise("sv", "a"), supervise("sv/a", "log")];
    kit.wait_up("sv/a");
    kit.wait_up("sv/a/log");
    done(&kit, &["--rmsvc", "a"]);
    assert_eq!(both.each_mut().map(Running::wait), [Some(0); 2]);
    assert!(refused(&kit, &["--ensvc", "a"]).contains("does svscan run?"));
    assert!(kit.path("sv/a").is_dir(), "renamed all the same");
}

#[test]
fn variables_are_changed_printed_and_kept() {
    let kit = Kit::new();
    kit.service("sv/a", "exit 0", None);
    kit.service("sv/b", "exit 0", None);
    let of_a = |args: &[&str]| done(&kit, &[&["--service=a"], args].concat());
    of_a(&["--set-variable=A=one two", "--set-variable=B=2", "--unset-variable=HOME"]);
    assert_eq!(of_a(&["--print-variables"]), "A=one two\nB=2\nHOME\n");
    of_a(&["--modify-variable=A=1", "--remove-variable=B"]);
    assert_eq!(of_a(&["--print-variables"]), "A=1\nHOME\n");
    assert!(refused(&kit, &["--service=a", "--modify-variable=C=1"]).contains("no variable C"));
    assert!(refused(&kit, &["--service=a", "--remove-variable=B"]).contains("no variable B"));
    refused(&kit, &["--service=nosuch", "--set-variable=A=1"]);
    assert!(!kit.path("sv/nosuch").exists());
    // The program that reads them agrees.
    let out = kit.run("envdir", &["-c", "sv/a/variables", "/usr/bin/env"]);
    assert_eq!(String::from_utf8(out.stdout).unwrap(), "A=1\n");
    let file = kit.path("exported");
    of_a(&["--export-variables", file.to_str().unwrap()]);
    done(&kit, &["--service=b", "--import-variables", file.to_str().unwrap()]);
    assert_eq!(done(&kit, &["--dumpconfig"]), "[a]\nA=1\nHOME\n[b]\nA=1\nHOME\n");
    let json = done(&kit, &["--dumpconfig", "--json"]);
    let first: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!(first, serde_json::json!({ "service": "a", "variables": { "A": "1", "HOME": null } }));
    fs::write(&file, "A=1\n=x\n").unwrap();
    assert!(
        refused(&kit, &["--service=b", "--import-variables", file.to_str().unwrap()])
            .contains("exported:2: ")
    );
    done(&kit, &["--save-all-variables"]);
    of_a(&["--set-variable=A=changed"]);
    done(&kit, &["--service=b", "--set-variable=A=changed"]);
    of_a(&["--restore-variables"]);
    assert_eq!(done(&kit, &["--dumpconfig"]), "[a]\nA=1\nHOME\n[b]\nA=changed\nHOME\n");
    done(&kit, &["--restore-all-variables"]);
    assert_eq!(done(&kit, &["--dumpconfig"]), "[a]\nA=1\nHOME\n[b]\nA=1\nHOME\n");
}

#[test]
fn what_was_made_is_made_again() {
    let kit = Kit::new();
    set_up(&kit, &["--initcmd=a 'b' $c"]);
    let run = kit.path("sv/.svscan/run");
    let made = text(&run);
    let spoil = || fs::write(&run, "changed").unwrap();
    let options = text(kit.path("sv/.svscan/variables/.options"));
    for args in [&["--refreshsvc=.svscan"][..], &["--refreshsvc=all"]] {
        spoil();
        fs::remove_dir_all(kit.path("sv/.svscan/variables")).unwrap();
        fs::create_dir(kit.path("sv/.svscan/variables")).unwrap();
        fs::write(kit.path("sv/.svscan/variables/.options"), &options).unwrap();
        done(&kit, args);
        assert_eq!(text(&run), made);
        assert_eq!(text(kit.path("sv/.svscan/variables/INITCMD")), "a 'b' $c\n");
        assert_eq!(text(kit.path("sv/.svscan/variables/.options")), options);
    }
    done(&kit, &["--autorefresh=0 .svscan"]);
    spoil();
    done(&kit, &["--refreshsvc=all"]);
    assert!(refused(&kit, &["--refreshsvc=.svscan"]).contains("--force"));
    assert_eq!(text(&run), "changed");
    done(&kit, &["--refreshsvc=.svscan", "--force"]);
    assert_eq!(text(&run), made);
    done(&kit, &["--autorefresh=1 .svscan"]);
    // Made by somebody else, or not a command that makes something.
    kit.service("sv/a", "exit 0", None);
    done(&kit, &["--service=a", "--set-variable=A=1"]);
    for (line, why) in [
        ("svctool --smtp=25\n", "refresh it with svctool"),
        ("minisvc --refreshsvc=all\n", "not a command that makes a service"),
        ("minisvc $(id)\n", "not a command line of ours"),
    ] {
        fs::write(kit.path("sv/a/variables/.options"), line).unwrap();
        assert!(refused(&kit, &["--refreshsvc=a"]).contains(why), "{line}");
    }
    assert!(refused(&kit, &["--refreshsvc=all"]).contains("1 services were not refreshed"));
}

#[test]
fn the_init_of_the_host_is_told() {
    let kit = Kit::new();
    fs::create_dir(kit.path("stub")).unwrap();
    script(&kit.path("stub/systemctl"), "echo \"$@\" >> told; [ ! -e broken ]");
    let switch = |option: &str| {
        let path = format!("{}:/usr/bin:/bin", kit.path("stub").display());
        command(&kit, &[option]).env("PATH", path).output().unwrap().status.code()
    };
    assert_eq!(switch("--enable-service"), Some(0));
    assert_eq!(switch("--disable-service"), Some(0));
    assert_eq!(text(kit.path("told")), "enable indimail-svscan.service\ndisable indimail-svscan.service\n");
    fs::write(kit.path("broken"), "").unwrap();
    assert_eq!(switch("--enable-service"), Some(1));
}

#[test]
fn resolvconf_follows_its_file() {
    let kit = Kit::new();
    fs::create_dir(kit.path("etc")).unwrap();
    set_up(&kit, &["--resolvconf", "--down"]);
    let dir = kit.path("sv/resolvconf");
    assert!(dir.join("down").exists() && !kit.path("sv/.resolvconf.new").exists());
    fs::write(kit.path("etc/resolv.conf"), "nameserver 192.0.2.1\n").unwrap();
    // A mount table of its own, in which somebody may mount.
    let mut unshare = Command::new("/usr/bin/unshare");
    unshare.args(["--user", "--map-root-user", "--mount", "./run", "sv/resolvconf", "auto startup"]);
    unshare.current_dir(&dir).stdin(Stdio::null()).stderr(Stdio::null());
    unshare.stdout(fs::File::create(kit.path("out")).unwrap());
    unshare.env("PATH", format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", kit.path("bin").display()));
    let run = Running::start(&mut unshare);
    let seen = || text(format!("/proc/{}/root/etc/resolv.conf", run.pid()));
    wait_until("the first", || seen() == "nameserver 192.0.2.1\n");
    // Renamed over, as those who write it do. What is watched takes a moment to be so.
    let mut n = 1;
    wait_until("the next", || {
        n += 1;
        fs::write(kit.path("etc/new"), format!("nameserver 192.0.2.{n}\n")).unwrap();
        fs::rename(kit.path("etc/new"), kit.path("etc/resolv.conf")).unwrap();
        let want = format!("nameserver 192.0.2.{n}\n");
        (0..100).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(2));
            seen() == want
        })
    });
    let inotify = wait_for("inotify", || {
        let children = text(format!("/proc/{0}/task/{0}/children", run.pid()));
        let all: Vec<i32> = children.split_ascii_whitespace().map(|p| p.parse().unwrap()).collect();
        all.into_iter().find(|pid| text(format!("/proc/{pid}/cmdline")).starts_with("inotify"))
    });
    let mut run = run;
    run.signal(Signal::SIGTERM);
    run.wait();
    wait_until("the end of all of it", || !alive(inotify));
}

#[test]
fn usage() {
    let kit = Kit::new();
    for args in [
        &[][..],
        &["--force"],
        &["--rmsvc=a", "--ensvc=b"],
        &["--set-variable=A=1"],
        &["--scanint=x", "--svscanlog"],
    ] {
        let mut command = kit.ours("minisvc");
        assert_eq!(command.args(args).status().unwrap().code(), Some(100), "{args:?}");
    }
    assert_eq!(kit.code("minisvc", &["--show-settings"]), 0);
}
