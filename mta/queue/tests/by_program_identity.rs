//! Who the caller is, by names that are looked up when the program runs.

mod common;

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use common::make_queue;
use e2e::kit::{Etc, Output, run, set_mode};
use mta_queue::layout::{Part, Queue, ids_in};

struct Site {
    dir: tempfile::TempDir,
    etc: Etc,
}

impl Site {
    fn new() -> Self {
        let (dir, etc) = (e2e::kit::root(), Etc::with_mail_users());
        let program = dir.path().join("qmail-queue");
        e2e::kit::copy_program(env!("CARGO_BIN_EXE_qmail-queue"), &program);
        chown(&program, Some(etc.uid("qmailq")), Some(etc.gid("qmail"))).unwrap();
        set_mode(&program, 0o6551);
        std::fs::write(dir.path().join("message"), "Subject: x\n\n").unwrap();
        std::fs::write(dir.path().join("envelope"), b"Fs@x\0Ta@y\0\0").unwrap();
        Self { dir, etc }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Injects a message as this user, with these groups.
    fn inject(&self, queue: &Path, uid: u32, gid: u32, groups: &str) -> Output {
        let script = format!(
            "exec {} <{} 1<{}",
            self.path("qmail-queue").display(),
            self.path("message").display(),
            self.path("envelope").display()
        );
        let mut command = self.etc.command("setpriv");
        command.args([format!("--reuid={uid}"), format!("--regid={gid}"), format!("--groups={groups}")]);
        run(command.args(["sh", "-c", &script]).env("QUEUEDIR", queue).env("HOSTNAME", "h"))
    }
}

fn only_message(queue: &Queue) -> String {
    let id = ids_in(&queue.root().join("mess/0")).unwrap()[0];
    let text = std::fs::read_to_string(queue.path(Part::Mess, id)).unwrap();
    for part in [Part::Mess, Part::Intd, Part::Todo] {
        std::fs::remove_file(queue.path(part, id)).unwrap();
    }
    text
}

#[test]
fn fix_13_alias_and_qmails_are_known_by_name_at_run_time() {
    let site = Site::new();
    let queue = make_queue(&site.path("queue1"), 1, site.etc.uid("qmailq"), site.etc.gid("qmail"));
    for (user, wanted) in [("alias", "(invoked by alias); "), ("qmails", "(invoked for bounce); ")] {
        site.inject(queue.root(), site.etc.uid(user), site.etc.gid("nofiles"), "4242").ok();
        let text = only_message(&queue);
        assert!(text.contains(wanted), "{user}: {text}");
    }
    site.inject(queue.root(), 61_009, 61_009, "4242").ok();
    assert!(only_message(&queue).contains("(invoked by uid 61009); "));
}

#[test]
fn fix_37b_mail_users_and_members_of_the_group_may_choose_and_others_may_not() {
    let site = Site::new();
    // Owned by somebody else: chosen by a trusted caller it is reached, and found to be unusable (87).
    let queue = make_queue(&site.path("queue1"), 1, 61_010, 61_010);
    set_mode(queue.root(), 0o777);
    let nofiles = site.etc.gid("nofiles");
    let inject = |uid, groups: &str| site.inject(queue.root(), uid, nofiles, groups).code;
    for user in ["qmaild", "qmails", "qmailr", "alias", "indimail", "qmailq"] {
        assert_eq!(inject(site.etc.uid(user), "4242"), 87, "{user}");
    }
    assert_eq!(inject(0, "0"), 87, "root");
    assert_eq!(inject(61_009, &site.etc.gid("qmail").to_string()), 87, "member of the group");
    assert_eq!(inject(61_009, "4242"), 61, "an outsider");
    assert_eq!(inject(site.etc.uid("qmaill"), "4242"), 61, "the logger");
}
