//! The built module as an object file: its name, what it shows, what it needs.

mod house;

use std::process::Command;

use e2e::kit::run;

fn readelf(option: &str) -> String {
    run(Command::new("readelf").args(["--wide", option]).arg(house::module())).ok().stdout
}

#[test]
fn it_has_its_name_stays_loaded_and_resolves_everything_at_once() {
    let dynamic = readelf("--dynamic");
    assert!(dynamic.contains("Library soname: [libnss_indimail.so.2]"), "{dynamic}");
    assert!(dynamic.lines().any(|l| l.contains("(FLAGS_1)") && l.contains("NODELETE")), "{dynamic}");
    let needed: Vec<&str> = dynamic.lines().filter(|l| l.contains("(NEEDED)")).collect();
    let expected = ["libc.so.6", "libgcc_s.so.1", "ld-linux"];
    assert!(needed.iter().all(|l| expected.iter().any(|e| l.contains(e))), "{needed:?}");
}

#[test]
fn it_shows_the_sixteen_functions_and_nothing_else() {
    let symbols =
        run(Command::new("nm").args(["--dynamic", "--defined-only"]).arg(house::module())).ok().stdout;
    let mut names: Vec<&str> = symbols.lines().filter_map(|l| l.split(' ').nth(2)).collect();
    names.sort_unstable();
    let mut expected: Vec<String> = [
        "block",
        "endgrent",
        "endpwent",
        "endspent",
        "getgrent_r",
        "getgrgid_r",
        "getgrnam_r",
        "getpwent_r",
        "getpwnam_r",
        "getpwuid_r",
        "getspent_r",
        "getspnam_r",
        "initgroups_dyn",
        "setgrent",
        "setpwent",
        "setspent",
    ]
    .iter()
    .map(|n| format!("_nss_indimail_{n}"))
    .collect();
    expected.sort_unstable();
    assert_eq!(names, expected);
}

#[test]
fn it_starts_no_thread_and_changes_no_signal() {
    let undefined =
        run(Command::new("nm").args(["--dynamic", "--undefined-only"]).arg(house::module())).ok().stdout;
    let used: Vec<&str> = undefined.lines().filter_map(|l| l.trim().split([' ', '@']).nth(1)).collect();
    assert!(used.contains(&"connect"), "{undefined}");
    for forbidden in
        ["pthread_create", "sigaction", "signal", "sigprocmask", "pthread_sigmask", "setenv", "exit"]
    {
        assert!(!used.contains(&forbidden), "{forbidden}");
    }
}
