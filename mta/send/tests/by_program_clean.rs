//! The real qmail-clean, command by command.

mod common;

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use common::{Site, run_as_user};
use mta_queue::layout::Part;

/// Feeds commands in pieces of one byte and returns the answers.
fn answers(site: &Site, commands: &[u8]) -> Vec<u8> {
    use std::os::unix::process::CommandExt;
    let mut child = Command::new(site.bin().join("qmail-clean"))
        .env_clear()
        .envs(site.environment().iter().cloned())
        .uid(common::USER)
        .gid(common::USER)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    commands.iter().for_each(|b| input.write_all(&[*b]).unwrap());
    drop(input);
    let mut out = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut out).unwrap();
    assert!(child.wait().unwrap().success());
    out
}

#[test]
fn fix_44_one_command_one_byte() {
    let site = Site::new(&[]);
    let id = site.inject("s@x", &["a@y"], "x\n");
    let mut commands = b"\0junk\0foop/../../etc/passwd\0todo/1/2/3\0".to_vec();
    commands.extend(vec![b'y'; 10_000]);
    commands.push(0);
    commands.extend(format!("todo/{id}\0").bytes());
    assert_eq!(answers(&site, &commands), b"xxxxx+");
    assert_eq!((site.count(Part::Mess), site.count(Part::Intd), site.count(Part::Todo)), (1, 0, 0));
    assert_eq!(answers(&site, format!("foop/{id}\0foop/{id}\0foop/{id}").as_bytes()), b"++");
    assert!(site.is_empty());
}

#[test]
fn old_embryos_go_at_start_and_a_missing_queue_is_an_error() {
    let mut site = Site::new(&[]);
    site.set("OSSIFIED", "1000");
    let pid = site.queue.root().join("pid");
    for (name, age) in [("1.1.1", 2000), ("2.2.2", 10)] {
        let file = std::fs::File::create(pid.join(name)).unwrap();
        let time = unix::clock::now() - std::time::Duration::from_secs(age);
        file.set_times(std::fs::FileTimes::new().set_accessed(time).set_modified(time)).unwrap();
    }
    answers(&site, b"");
    let left: Vec<_> = std::fs::read_dir(&pid).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["2.2.2"]);
    let env = [("QUEUEDIR".into(), "/nonexistent".into())];
    let output = run_as_user(&site.bin(), "qmail-clean", &[], &env);
    assert_eq!(output.code, 111);
    assert!(output.stderr.starts_with("qmail-clean: fatal: /nonexistent: "), "{output:?}");
}
