//! Queues made and mended by the functions behind the program.

use super::*;
use crate::queue_fix::{Settings, run};
use mta_queue::layout::{Channel, Queue, Shape};

fn settings(directory: &Path, split: u32, bigtodo: bool) -> Settings {
    Settings {
        directory: directory.to_owned(),
        dry: false,
        merged: false,
        split: Some(split),
        bigtodo: Some(bigtodo),
    }
}

/// Who plays the roles does not matter here.
fn run_as_me(settings: &Settings) -> u32 {
    let me = unix::ids::Role { uid: nix::unistd::geteuid(), gid: nix::unistd::getegid() };
    let owners = crate::queue_fix::Owners { qmailq: me, qmails: me, qmailr: me };
    let shape = crate::queue_fix::shape(settings).unwrap();
    let queue = Queue::new(&settings.directory, shape);
    let mut fixer = Fixer { queue, owners, dry: settings.dry, faults: 0 };
    fixer.skeleton().unwrap();
    if settings.directory.join("mess").exists() {
        fixer.messages().unwrap();
        fixer.surplus().unwrap();
    }
    fixer.faults
}

/// A message under some number, with a text that tells whose part is whose.
fn plant(queue: &Queue, id: u64, text: &str) -> MessageId {
    let id = MessageId(id);
    for part in [Part::Mess, Part::Info, Part::Recipients(Channel::Local), Part::Bounce] {
        std::fs::write(queue.path(part, id), format!("{text} {}", part.name())).unwrap();
    }
    id
}

fn find(queue: &Queue, text: &str) -> MessageId {
    let all = queue.directories(Part::Mess).flat_map(|(_, d)| mta_queue::layout::ids_in(&d).unwrap());
    let mut found = all.filter(|&id| {
        std::fs::read(queue.path(Part::Mess, id)).unwrap() == format!("{text} mess").into_bytes()
    });
    let id = found.next().unwrap_or_else(|| panic!("{text} is gone"));
    assert!(mta_queue::layout::is_named_by_inode(&queue.path(Part::Mess, id), id).unwrap());
    for part in [Part::Info, Part::Recipients(Channel::Local), Part::Bounce] {
        let wanted = format!("{text} {}", part.name());
        assert_eq!(std::fs::read(queue.path(part, id)).unwrap(), wanted.as_bytes(), "{text}");
    }
    id
}

#[test]
fn a_new_queue_is_complete_and_a_second_run_finds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let directory = dir.path().join("a/queue1");
    let mut new = settings(&directory, 23, true);
    new.dry = true;
    assert!(run_as_me(&new) > 0 && !directory.exists());
    new.dry = false;
    assert!(run_as_me(&new) > 100);
    assert_eq!(run_as_me(&new), 0);
    let found = Shape::of(&directory, None, None).unwrap();
    assert_eq!(found, Shape { split: 23, bigtodo: true });
    assert_eq!(std::fs::metadata(directory.join("lock/tcpto")).unwrap().len(), 2048);
}

#[test]
fn messages_of_a_copied_queue_get_their_inode_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let small = settings(dir.path(), 3, false);
    run_as_me(&small);
    let queue = Queue::new(dir.path(), Shape { split: 3, bigtodo: false });
    plant(&queue, 10, "one");
    // The name of the second one is the inode of the first: a plain rename would overwrite.
    let inode = std::fs::metadata(queue.path(Part::Mess, MessageId(10))).unwrap().ino();
    plant(&queue, inode, "two");
    std::fs::write(queue.path(Part::Info, MessageId(999)), b"orphan").unwrap();
    run_as_me(&small);
    find(&queue, "one");
    find(&queue, "two");
    assert!(!queue.path(Part::Info, MessageId(999)).exists());
    assert_eq!(run_as_me(&small), 0);
}

#[test]
fn an_interrupted_run_is_taken_up() {
    let dir = tempfile::tempdir().unwrap();
    let small = settings(dir.path(), 3, false);
    run_as_me(&small);
    let queue = Queue::new(dir.path(), Shape { split: 3, bigtodo: false });
    plant(&queue, 10, "one");
    let inode = std::fs::metadata(queue.path(Part::Mess, MessageId(10))).unwrap().ino();
    // Stopped in the first pass: one part renamed.
    let info = queue.path(Part::Info, MessageId(10));
    std::fs::rename(&info, info.with_file_name(format!("fix.{inode}"))).unwrap();
    run_as_me(&small);
    let id = find(&queue, "one");
    // Stopped in the second pass: mess and one part still have interim names.
    for part in [Part::Mess, Part::Bounce] {
        let path = queue.path(part, id);
        std::fs::rename(&path, path.with_file_name(format!("fix.{id}"))).unwrap();
    }
    run_as_me(&small);
    assert_eq!(find(&queue, "one"), id);
    assert_eq!(run_as_me(&small), 0);
}

#[test]
fn the_split_can_grow_and_shrink_and_todo_can_be_split() {
    let dir = tempfile::tempdir().unwrap();
    run_as_me(&settings(dir.path(), 3, false));
    let small = Queue::new(dir.path(), Shape { split: 3, bigtodo: false });
    plant(&small, 10, "one");
    run_as_me(&settings(dir.path(), 3, false));
    let id = find(&small, "one");
    std::fs::write(small.path(Part::Todo, id), b"envelope").unwrap();
    for (split, bigtodo) in [(7, true), (3, false)] {
        run_as_me(&settings(dir.path(), split, bigtodo));
        let queue = Queue::new(dir.path(), Shape { split, bigtodo });
        assert_eq!(Shape::of(dir.path(), None, None).unwrap(), queue.shape());
        assert_eq!(find(&queue, "one"), id);
        assert!(queue.path(Part::Todo, id).exists());
        assert_eq!(run_as_me(&settings(dir.path(), split, bigtodo)), 0);
    }
}

#[test]
fn a_running_sender_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    run_as_me(&settings(dir.path(), 3, false));
    let _held = unix::lock::Lock::try_exclusive(&dir.path().join("lock/sendmutex"), 0o600).unwrap().unwrap();
    let error = run(&settings(dir.path(), 3, false)).map(drop).unwrap_err().to_string();
    assert!(error.contains("a sender is running") || error.contains("no user named"), "{error}");
}
