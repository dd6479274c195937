//! How svscan begins and ends: scripts, variables, limits, the first process of a container.

mod kit;

use std::fs;
use std::process::{Command, Stdio};

use kit::{Kit, Running, alive, script, signal, text, trapping, wait_for, wait_until};
use nix::sys::signal::Signal;

/// svscan on `sv`, its messages in `svscan.err`.
fn command(kit: &Kit) -> Command {
    fs::create_dir_all(kit.path("sv/.svscan")).unwrap();
    let mut command = kit.ours("svscan");
    command
        .args(["-v", "sv"])
        .env("DISABLE_RUN", "")
        .stderr(fs::File::create(kit.path("svscan.err")).unwrap());
    command
}

/// svscan started by another program, which is given in front.
fn below(kit: &Kit, argv: &[&str]) -> Command {
    let mut command = kit.command(argv[0].into());
    fs::create_dir_all(kit.path("sv/.svscan")).unwrap();
    command.args(&argv[1..]).env("DISABLE_RUN", "").stderr(fs::File::create(kit.path("svscan.err")).unwrap());
    command
}

/// What svscan itself has said; its supervises say things there too.
fn said(kit: &Kit) -> String {
    let lines = text(kit.path("svscan.err"));
    lines.lines().filter(|l| l.starts_with("svscan: ")).map(|l| format!("{l}\n")).collect()
}

fn end(mut svscan: Running) -> Option<i32> {
    svscan.signal(Signal::SIGTERM);
    svscan.wait()
}

#[test]
fn services_go_on_unless_they_are_to_be_stopped() {
    let kit = Kit::new();
    let log = format!("exec {} {}", kit.path("bin/multilog").display(), kit.path("logs").display());
    kit.service("sv/.svscan", "exit 1", Some(&log));
    kit.service("sv/a", "exec sleep 1000", Some("exec cat"));
    let svscan = Running::start(command(&kit).env("SCANLOG", ""));
    let (service, logger) = (kit.wait_up("sv/a"), kit.wait_up("sv/a/log"));
    assert_eq!(end(svscan), Some(0));
    assert_eq!((kit.pid("sv/a"), kit.pid("sv/a/log")), (Some(service), Some(logger)));
    assert_eq!(kit.code("svok", &["sv/.svscan/log"]), 100, "its own logger ends");
    assert!(!kit.path("sv/.svscan.pid").exists());
    let svscan = Running::start(command(&kit).env("TERMINATE_SESSION", ""));
    wait_until("the services to be found", || said(&kit).contains("a/log: supervise is running already"));
    assert_eq!(end(svscan), Some(0));
    assert!(!alive(service) && !alive(logger));
}

#[test]
fn the_shutdown_script_comes_first() {
    let kit = Kit::new();
    let told = "trap 'echo service >> ../../order; exit 0' TERM; : > ready";
    let dir = kit.service("sv/a", &trapping(told), None);
    let mut svscan = Running::start(command(&kit).env("TERMINATE_SESSION", ""));
    script(
        &kit.path("sv/.svscan/shutdown"),
        "echo begin >> ../order; sleep 0.3; echo end >> ../order; exit 3",
    );
    wait_until("the trap", || dir.join("ready").exists());
    svscan.signal(Signal::SIGTERM);
    svscan.signal(Signal::SIGTERM);
    assert_eq!(svscan.wait(), Some(0));
    assert_eq!(text(kit.path("order")), "begin\nend\nservice\n");
    assert!(said(&kit).contains("warning: .svscan/shutdown exited 3\n"), "{}", said(&kit));
}

#[test]
fn what_the_shutdown_script_stops_is_not_started_again_and_the_rest_goes_on() {
    let kit = Kit::new();
    kit.service("sv/a", "exec sleep 1000", Some("exec cat"));
    kit.service("sv/b", "exec sleep 1000", None);
    let stop = format!("exec {} -dx a", kit.path("bin/svc").display());
    script(&kit.path("svc"), &format!("{stop} -W"));
    let svscan = Running::start(&mut command(&kit));
    script(&kit.path("sv/.svscan/shutdown"), &format!("exec {} -dx -W a", kit.path("bin/svc").display()));
    let (service, logger, other) = (kit.wait_up("sv/a"), kit.wait_up("sv/a/log"), kit.wait_up("sv/b"));
    assert_eq!(end(svscan), Some(0));
    assert!(!alive(service));
    wait_until("the logger to read to the end", || !alive(logger));
    assert_eq!(kit.pid("sv/b"), Some(other));
}

#[test]
fn a_shutdown_script_that_hangs_is_killed() {
    let kit = Kit::new();
    let svscan = Running::start(command(&kit).env("TERMINATE_SESSION", "").env("KILLWAIT", "1"));
    script(&kit.path("sv/.svscan/shutdown"), "exec sleep 1000");
    wait_until("svscan", || kit.path("sv/.svscan.pid").exists());
    kit.service("sv/a", "exec sleep 1000", None);
    kit.wait_up("sv/a");
    assert_eq!(end(svscan), Some(0));
    assert!(said(&kit).contains("takes too long"), "{}", said(&kit));
}

#[test]
fn the_exit_code_is_what_a_service_wrote() {
    let kit = Kit::new();
    fs::create_dir_all(kit.path("sv/.svscan")).unwrap();
    fs::write(kit.path("sv/.svscan/exitcode"), "9\n").unwrap();
    let svscan = Running::start(command(&kit).env("TERMINATE_SESSION", ""));
    kit.service("sv/a", "exec sleep 1000", None);
    kit.wait_up("sv/a");
    assert_eq!(end(svscan), Some(0), "that was of the run before");
    let run = trapping("trap 'echo 42 > ../.svscan/exitcode; exit 0' TERM; : > ready");
    let dir = kit.service("sv/b", &run, None);
    let svscan = Running::start(command(&kit).env("TERMINATE_SESSION", ""));
    wait_until("the trap", || dir.join("ready").exists());
    assert_eq!(end(svscan), Some(42));
}

#[test]
fn initcmd_runs_first() {
    let kit = Kit::new();
    kit.service("sv/a", "echo service >> ../../order; exec sleep 1000", None);
    for (value, text_of) in [("", "own"), ("sleep 0.3; echo \"$SCANDIR\" >> ../order", "")] {
        let _ = fs::remove_file(kit.path("order"));
        let mut command = command(&kit);
        script(&kit.path("sv/.svscan/run"), "sleep 0.3; echo own >> ../order");
        let svscan = Running::start(
            command.env("TERMINATE_SESSION", "").env("INITCMD", value).env("WAIT_INITCMD", ""),
        );
        let here = kit.path("sv").canonicalize().unwrap().display().to_string();
        let first = if text_of.is_empty() { here } else { text_of.to_owned() };
        wait_until("both", || text(kit.path("order")) == format!("{first}\nservice\n"));
        assert_eq!(end(svscan), Some(0));
    }
    // While it runs svscan can be stopped, and without WAIT_INITCMD nothing waits.
    let endless = "exec sleep 1000";
    let svscan = Running::start(command(&kit).env("INITCMD", endless).env("WAIT_INITCMD", ""));
    wait_until("svscan", || kit.path("sv/.svscan.pid").exists());
    assert_eq!(end(svscan), Some(0));
    let svscan = Running::start(command(&kit).env("INITCMD", endless).env("TERMINATE_SESSION", ""));
    kit.wait_up("sv/a");
    assert_eq!(end(svscan), Some(0));
}

#[test]
fn a_session_of_its_own() {
    let kit = Kit::new();
    let session = |svscan: &Running| {
        wait_until("svscan", || kit.path("sv/.svscan.pid").exists());
        nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(svscan.pid()))).unwrap().as_raw()
    };
    let svscan = Running::start(&mut command(&kit));
    assert_ne!(session(&svscan), svscan.pid());
    end(svscan);
    let svscan = Running::start(command(&kit).env("SETSID", ""));
    assert_eq!(session(&svscan), svscan.pid());
}

#[test]
fn limits_of_open_files() {
    let kit = Kit::new();
    kit.service("sv/a", "ulimit -n > limit.new; mv limit.new limit; exec sleep 1000", None);
    let svscan =
        Running::start(&mut below(&kit, &["/bin/sh", "-c", "ulimit -S -n 70; exec bin/svscan -v -n 100 sv"]));
    let limit = wait_for("the limit", || Some(text(kit.path("sv/a/limit"))).filter(|t| !t.is_empty()));
    assert_eq!(limit, "70\n", "that of the services is left alone");
    // It is lowered for a moment while a child is started.
    wait_until("room for two for each service, and some", || {
        let own = text(format!("/proc/{}/limits", svscan.pid()));
        let own = own.lines().find(|l| l.starts_with("Max open files")).unwrap();
        (200..300).contains(&own.split_ascii_whitespace().nth(3).unwrap().parse::<u64>().unwrap())
    });
    assert!(!said(&kit).contains("open files"), "{}", said(&kit));
    end(svscan);
    let _svscan =
        Running::start(&mut below(&kit, &["/bin/sh", "-c", "ulimit -n 80; exec bin/svscan -n 100 sv"]));
    wait_until("the warning", || said(&kit).contains("has room for 28 services with loggers, not 100"));
}

#[test]
fn without_inotify_the_directory_is_read_every_few_seconds() {
    let kit = Kit::new();
    // No instance of inotify for this user namespace.
    let none = "echo 0 > /proc/sys/user/max_inotify_instances && exec bin/svscan -v sv";
    let svscan = Running::start(
        below(&kit, &["/usr/bin/unshare", "--user", "--map-root-user", "/bin/sh", "-c", none])
            .env("TERMINATE_SESSION", ""),
    );
    wait_until("the warning", || said(&kit).contains("unable to watch sv"));
    kit.service("sv/.a", "exec sleep 1000", Some("exec cat"));
    fs::rename(kit.path("sv/.a"), kit.path("sv/a")).unwrap();
    let pids = [kit.wait_up("sv/a"), kit.wait_up("sv/a/log")];
    assert_eq!(end(svscan), Some(0));
    assert!(!pids.into_iter().any(alive));
}

#[test]
fn idle_processes_do_not_wake_up() {
    let kit = Kit::new();
    for n in 0..5 {
        kit.service(&format!("sv/s{n}"), "exec sleep 1000", Some("exec cat"));
    }
    let svscan = Running::start(&mut command(&kit));
    let supervises: Vec<_> = (0..5)
        .flat_map(|n| [format!("sv/s{n}"), format!("sv/s{n}/log")])
        .map(|name| {
            kit.wait_up(&name);
            i32::try_from(kit.stat(&name)["spid"].as_i64().unwrap()).unwrap()
        })
        .chain([svscan.pid()])
        .collect();
    // Counts of waits that ended, of all of them.
    let waits = || -> Vec<String> {
        let line = |pid: &i32| {
            let status = text(format!("/proc/{pid}/status"));
            status.lines().find(|l| l.starts_with("voluntary_ctxt_switches")).unwrap().to_owned()
        };
        supervises.iter().map(line).collect()
    };
    let quiet = |seconds: u64| {
        let before = waits();
        std::thread::sleep(std::time::Duration::from_secs(seconds));
        before == waits()
    };
    // What the start has left to do comes to an end; then there is nothing more, however long one looks.
    wait_until("all to be idle", || quiet(3));
}

#[test]
fn the_directory_is_read_again_when_asked() {
    let kit = Kit::new();
    let dir = kit.service("sv/a", "exec sleep 1000", None);
    kit.service("sv/b", "exec sleep 1000", None);
    // A child that ends, and an interval.
    for variables in [&[("SCANNOW", "")][..], &[("AUTOSCAN", ""), ("SCANINTERVAL", "1")]] {
        let mut command = command(&kit);
        let svscan = Running::start(command.env("TERMINATE_SESSION", "").envs(variables.iter().copied()));
        kit.wait_up("sv/a");
        kit.wait_up("sv/b");
        fs::write(dir.join("down"), "").unwrap();
        if variables[0].0 == "SCANNOW" {
            let supervise = kit.stat("sv/b")["spid"].as_i64().unwrap();
            signal(i32::try_from(supervise).unwrap(), Signal::SIGKILL);
        }
        kit.wait_state("sv/a", "down");
        fs::remove_file(dir.join("down")).unwrap();
        end(svscan);
    }
}

#[test]
fn signals_switch_reports_and_warnings() {
    let kit = Kit::new();
    kit.service("sv/a", "exec sleep 1000", None);
    fs::create_dir_all(kit.path("sv/.svscan")).unwrap();
    let err = fs::File::create(kit.path("svscan.err")).unwrap();
    let svscan = Running::start(kit.ours("svscan").arg("sv").env("DISABLE_RUN", "").stderr(err));
    let kill_supervise = || {
        let old = wait_for("supervise", || kit.stat("sv/a")["spid"].as_i64());
        signal(i32::try_from(old).unwrap(), Signal::SIGKILL);
        wait_until("another", || kit.stat("sv/a")["spid"].as_i64().is_some_and(|new| new != old));
    };
    kit.wait_up("sv/a");
    kill_supervise();
    assert_eq!(said(&kit), "");
    svscan.signal(Signal::SIGUSR1);
    kill_supervise();
    let reported = said(&kit);
    assert!(reported.contains("was killed by signal 9"), "{reported}");
    svscan.signal(Signal::SIGUSR1);
    kill_supervise();
    assert_eq!(said(&kit), reported);
    // A directory that cannot be looked at is a warning at every scan.
    std::os::unix::fs::symlink("loop", kit.path("sv/loop")).unwrap();
    wait_until("a warning", || said(&kit).contains("warning: unable to look at loop"));
    svscan.signal(Signal::SIGUSR2);
    kill_supervise();
    let warned = said(&kit);
    kit.service("sv/b", "exec sleep 1000", None);
    kit.wait_up("sv/b");
    assert_eq!(said(&kit), warned);
}

#[test]
fn the_first_process_of_a_container() {
    let kit = Kit::new();
    let run =
        trapping("trap 'echo 7 > ../.svscan/exitcode; exit 0' TERM; (sleep 0.1 & sleep 0.2 &); : > ready");
    let dir = kit.service("sv/a", &run, None);
    let unshare = ["--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"];
    let argv: Vec<_> =
        ["/usr/bin/unshare"].into_iter().chain(unshare).chain(["bin/svscan", "-v", "sv"]).collect();
    let mut outside = Running::start(&mut below(&kit, &argv));
    wait_until("the trap", || dir.join("ready").exists());
    // Strangers are buried with their names.
    wait_until("two orphans", || {
        said(&kit).matches(" ([sleep]) exited 0: completed last rites\n").count() == 2
    });
    assert_eq!(fs::read(kit.path("sv/.svscan.pid")).unwrap(), b"\x01\0\0\0\n1\n");
    let children = text(format!("/proc/{0}/task/{0}/children", outside.pid()));
    let svscan: i32 = children.trim().parse().unwrap();
    // RTMIN+3, which has no name here.
    let kill = Command::new("/bin/sh").args(["-c", &format!("kill -37 {svscan}")]).status();
    assert!(kill.unwrap().success());
    assert_eq!(outside.wait(), Some(7));
    assert!(!kit.path("sv/.svscan.pid").exists());
}

#[test]
fn orphans_are_taken_in_by_any_svscan() {
    let kit = Kit::new();
    kit.service("sv/a", "(sleep 0.2 &); exec sleep 1000", None);
    let _svscan = Running::start(&mut command(&kit));
    wait_until("the orphan", || said(&kit).contains(" ([sleep]) exited 0: completed last rites\n"));
}

#[test]
fn many_services_start_and_stop() {
    const SERVICES: usize = 300;
    let kit = Kit::new();
    for n in 0..SERVICES {
        kit.service(&format!("sv/s{n}"), "echo up >> count; exec sleep 1000", None);
    }
    let svscan = Running::start(
        kit.ours("svscan")
            .arg("sv")
            .env("DISABLE_RUN", "")
            .env("TERMINATE_SESSION", "")
            .stderr(Stdio::null()),
    );
    let up = || (0..SERVICES).filter(|n| text(kit.path(format!("sv/s{n}/count"))) == "up\n").count();
    wait_until("all to be up", || up() == SERVICES);
    assert_eq!(end(svscan), Some(0));
    assert_eq!(up(), SERVICES, "each was started once");
    let supervised = (0..SERVICES).filter(|n| kit.code("svok", &[&format!("sv/s{n}")]) == 0).count();
    assert_eq!(supervised, 0);
}
