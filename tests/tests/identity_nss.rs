//! Mail accounts as system users of a whole private instance.

use e2e::instance::Instance;
use e2e::kit::{Output, PATIENCE, run, run_with_input, until};

fn getent(instance: &Instance, arguments: &[&str]) -> Output {
    run(instance.command("getent").args(arguments))
}

fn add(instance: &Instance, address: &str, arguments: &[&str]) {
    let mut command = instance.command("vadduser");
    command.args(["--password-fd", "0"]).args(arguments).arg(address);
    run_with_input(&mut command, b"a long enough password\n").ok();
}

#[test]
fn what_the_tools_change_every_program_sees_at_once() {
    let instance = Instance::start();
    let address = format!("carla@{}", instance.report.domain);
    let passwd = ["passwd", address.as_str()];
    assert_eq!(getent(&instance, &passwd).code, 2);
    add(&instance, &address, &["-c", "Carla Example"]);
    let line = getent(&instance, &passwd).ok().stdout;
    assert!(line.starts_with(&format!("{address}:x:")), "{line}");
    assert!(line.contains(":Carla Example:"), "{line}");
    assert!(line.ends_with(":/bin/sh\n"), "{line}");
    assert_eq!(getent(&instance, &["shadow", &address]).ok().stdout, format!("{address}:*:1:0:99999:0:::\n"));
    let _ = instance.run(&["vdeluser", &address]);
    assert_eq!(getent(&instance, &passwd).code, 2, "remembered no longer");
}

#[test]
fn an_account_with_ids_of_its_own_owns_its_files_by_name() {
    let instance = Instance::start();
    let address = format!("dora@{}", instance.report.domain);
    add(&instance, &address, &["--uid", "42001", "--gid", "42001"]);
    assert!(
        getent(&instance, &["passwd", "42001"]).ok().stdout.starts_with(&format!("{address}:x:42001:42001:"))
    );
    let home = getent(&instance, &["passwd", &address]).ok().stdout;
    let home = home.split(':').nth(5).expect("a home").to_owned();
    assert_eq!(instance.run(&["stat", "-c", "%U", &home]).trim_end(), address);
    assert!(instance.run(&["id", &address]).starts_with(&format!("uid=42001({address}) gid=42001")));
}

#[test]
fn a_killed_daemon_comes_back_and_local_users_never_leave() {
    let instance = Instance::start();
    let address = instance.account(0).address.clone();
    let nssd =
        instance.report.services.iter().find(|s| s.name == "nssd").expect("the service").directory.clone();
    let nssd = nssd.to_str().expect("a plain path");
    let _ = instance.run(&["svc", "-k", nssd]);
    until(PATIENCE, "the next daemon answers", || getent(&instance, &["passwd", &address]).code == 0);
    let _ = instance.run(&["svc", "-d", nssd]);
    until(PATIENCE, "nssd is down", || run(instance.command("svstat").arg(nssd)).stdout.contains(": down"));
    assert!(getent(&instance, &["passwd", "root"]).ok().stdout.starts_with("root:"));
    assert_eq!(getent(&instance, &["passwd", &address]).code, 0, "the map that it left has her");
    let _ = instance.run(&["svc", "-u", nssd]);
    until(PATIENCE, "it answers again", || getent(&instance, &["passwd", &address]).code == 0);
}
