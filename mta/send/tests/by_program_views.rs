//! qmail-qread, qmail-qstat and queue-fix as they are run.

mod common;

use common::{Site, Tree, always, run_as_user, succeed};
use e2e::kit::{PATIENCE, until};
use mta_queue::layout::Part;
use mta_queue::spawn_protocol::Verdict;

fn view(site: &Site, program: &str, args: &[&str]) -> String {
    run_as_user(&site.bin(), program, args, site.environment()).ok().stdout
}

#[test]
fn messages_are_listed_before_and_after_sorting() {
    let site = Site::new(&[("locals", "here.example\n")]);
    let id = site.inject("s@x.example", &["a@here.example", "b@far.example"], "12345\n");
    let listing = view(&site, "qmail-qread", &[]);
    let n = id.0 % 3;
    assert!(
        listing.contains(&format!(
            " GMT  {n}/#{id}  21  <s@x.example>\n\ttodo\ta@here.example\n\ttodo\tb@far.example\n"
        )),
        "{listing}"
    );
    assert!(listing.ends_with("queue1: messages 1 local 0 remote 0 todo 1 bouncing 0\n"));
    assert_eq!(
        view(&site, "qmail-qstat", &[]),
        "messages in queue: 1\nmessages in queue but not yet preprocessed: 1\n"
    );

    let tree = Tree::start(&site, always(Verdict::Failure, "no"), always(Verdict::Deferral, "later"));
    tree.wait_for_log("failure");
    tree.wait_for_log("deferral");
    tree.stop();
    let listing = view(&site, "qmail-qread", &[]);
    assert!(listing.contains("<s@x.example>  bouncing\n"), "{listing}");
    assert!(listing.contains("\tremote\tb@far.example\n"), "{listing}");
    assert_eq!(view(&site, "qmail-qread", &["-l"]).lines().count(), 1, "only the counts");
    let json: serde_json::Value = serde_json::from_str(&view(&site, "qmail-qread", &["--json"])).unwrap();
    assert_eq!(json[0]["recipients"][0]["address"], "b@far.example");
    assert_eq!((json[0]["id"].as_u64(), json[0]["bouncing"].as_bool()), (Some(id.0), Some(true)));
    let json: serde_json::Value = serde_json::from_str(&view(&site, "qmail-qstat", &["--json"])).unwrap();
    assert_eq!((json[0]["messages"].as_u64(), json[0]["todo"].as_u64()), (Some(1), Some(0)));
}

#[test]
fn an_empty_queue_is_valid_json_and_a_missing_one_an_error() {
    let site = Site::new(&[]);
    assert_eq!(view(&site, "qmail-qread", &["--json"]), "[]\n");
    let env = [("QUEUEDIR".into(), "/nonexistent".into())];
    let output = run_as_user(&site.bin(), "qmail-qstat", &[], &env);
    assert_eq!(output.code, 111);
    assert!(output.stderr.starts_with("qmail-qstat: fatal: /nonexistent: "), "{output:?}");
}

#[test]
fn queue_fix_says_what_it_does_and_messages_survive_a_copy() {
    let site = Site::new(&[("locals", "here.example\n")]);
    for n in 0..5 {
        site.inject("s@x", &["a@here.example"], &format!("message {n}\n"));
    }
    // A copy has other inodes.
    let (old, root) = (site.dir.path().join("old"), site.queue.root().to_owned());
    std::fs::rename(&root, &old).unwrap();
    let copied = std::process::Command::new("cp").args(["-rp"]).args([&old, &root]).status().unwrap();
    assert!(copied.success());
    let root = root.to_str().unwrap();
    let dry = run_as_user(&site.bin(), "queue-fix", &["-N", root], site.environment());
    assert!(dry.code > 5 && dry.stdout.contains("would rename (wrong inode) "), "{dry:?}");
    view(&site, "queue-fix", &[root]);
    assert_eq!(view(&site, "queue-fix", &[root]), "", "nothing left to do");
    let tree = Tree::start(&site, succeed(), succeed());
    until(PATIENCE, "all delivered", || tree.local.count() == 5);
    site.wait_until_empty();
    assert_eq!(site.count(Part::Mess), 0);
}

#[test]
fn tables_answer_for_every_program() {
    let site = Site::new(&[]);
    for program in ["qmail-send", "todo-proc", "qmail-clean", "queue-fix", "qmail-qread", "qmail-qstat"] {
        let help = view(&site, program, &["--help"]);
        assert!(help.starts_with(&format!("{program}: ")), "{help}");
        if program != "queue-fix" {
            let settings = view(&site, program, &["--show-settings"]);
            assert!(settings.contains("queue"), "{program}: {settings}");
        }
    }
    let usage = run_as_user(&site.bin(), "queue-fix", &["-s", "0", "/x"], site.environment());
    assert_eq!(usage.code, 100);
    assert!(usage.stderr.contains("option -s: 0: expected a number from 1 to 151"), "{usage:?}");
}

#[test]
fn queue_fix_gives_everything_to_its_user() {
    use mta_queue::layout::{DIRECTORIES, LOCK_FILES};
    use std::os::unix::fs::MetadataExt;
    let (site, etc) = (Site::new(&[]), e2e::kit::Etc::with_mail_users());
    let root = site.dir.path().join("queue2");
    let fix = || {
        let mut command = etc.command(site.bin().join("queue-fix"));
        e2e::kit::run(command.args(["-s", "3", "-b", "1"]).arg(&root)).ok().stdout
    };
    assert!(fix().contains("create directory "));
    assert_eq!(fix(), "");
    for row in DIRECTORIES {
        let meta = std::fs::metadata(root.join(row.name)).unwrap();
        let wanted = (etc.uid(row.owner.user()), etc.gid("qmail"), row.mode);
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), wanted, "{}", row.name);
    }
    for (name, _, owner, mode) in LOCK_FILES {
        let meta = std::fs::metadata(root.join(name)).unwrap();
        assert_eq!(
            (meta.uid(), meta.gid(), meta.mode() & 0o7777),
            (etc.uid(owner.user()), etc.gid("qmail"), *mode),
            "{name}"
        );
    }
    // What goes wrong is mended, and only that.
    std::os::unix::fs::chown(root.join("lock/trigger"), Some(0), Some(0)).unwrap();
    std::fs::remove_dir(root.join("todo/1")).unwrap();
    let mended = fix();
    assert_eq!(mended.lines().count(), 2, "{mended}");
}
