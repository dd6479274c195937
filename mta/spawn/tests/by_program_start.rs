//! qmail-start as it runs: who runs as whom, with which descriptors.

mod support;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::process::{Command, Stdio};

use e2e::kit::{self, Running, until};
use support::Tree;

/// Writes down who it is and its descriptors.
const RECORD: &str = r#"f=$OUT/$(basename $0)-$(basename ${1:-none})
for n in 0 1 2 3 4 5 6 7 8 9; do [ -e /proc/$$/fd/$n ] && readlink /proc/$$/fd/$n | sed "s/^/fd$n /" >>$f.new; done
echo "ids $(id -u):$(id -g):$(id -G)" >>$f.new; echo "cwd $(pwd)" >>$f.new; echo "umask $(umask)" >>$f.new
echo "args $*" >>$f.new; echo "pid $$" >>$f.new
mv $f.new $f"#;

fn tree() -> Tree {
    let tree = Tree::new();
    for name in ["qmail-clean", "todo-proc", "qmail-lspawn", "qmail-rspawn", "logger"] {
        // The link to our executable, where there is one, gives way.
        tree.program(name, &format!("{RECORD}\ncat >/dev/null"));
    }
    tree.program("qmail-send", &format!("{RECORD}\nread x <$OUT/gate"));
    let gate = tree.at("out/gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
    kit::set_mode(&gate, 0o666);
    tree
}

type Facts = BTreeMap<String, String>;

/// Starts the tree and reads what every process wrote down.
fn start(tree: &Tree, mut command: Command, count: usize) -> (Running, BTreeMap<String, Facts>) {
    let log = std::fs::File::create(tree.at("out/log.new")).unwrap();
    let running = Running::start(command.stdin(Stdio::null()).stdout(log));
    let names = || -> Vec<String> {
        let entries = std::fs::read_dir(tree.at("out")).unwrap();
        let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
        names.filter(|n| n != "gate" && !n.ends_with(".new")).collect()
    };
    until(kit::PATIENCE, "all processes wrote down who they are", || names().len() == count);
    let read = |name: &String| -> Facts {
        let text = std::fs::read_to_string(tree.at("out").join(name)).unwrap();
        text.lines().filter_map(|l| l.split_once(' ')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    };
    (running, names().iter().map(|n| (n.clone(), read(n))).collect())
}

/// Lets qmail-send end and waits until everybody has.
fn finish(tree: &Tree, running: &mut Running, facts: &BTreeMap<String, Facts>) {
    let mut gate = OpenOptions::new().write(true).open(tree.at("out/gate")).unwrap();
    gate.write_all(b"go\n").unwrap();
    running.wait_within(kit::PATIENCE);
    for (name, facts) in facts {
        let stat = format!("/proc/{}/stat", facts["pid"]);
        until(kit::PATIENCE, &format!("end of {name}"), || {
            std::fs::read_to_string(&stat).map_or(true, |s| s.contains(") Z "))
        });
    }
}

#[test]
fn the_tree_is_as_the_table_says() {
    let tree = tree();
    let mut command = tree.command("qmail-start");
    command.arg("./Maildir/").arg(tree.at("usr/sbin/logger")).arg("x");
    let (mut running, all) = start(&tree, command, 7);
    let etc = &tree.etc;
    let (qmail, nofiles) = (etc.gid("qmail"), etc.gid("nofiles"));
    let ids = |user: &str, gid: u32| format!("{}:{gid}:{gid}", etc.uid(user));
    for (name, wanted) in [
        ("qmail-send-queue", ids("qmails", qmail)),
        ("todo-proc-queue", ids("qmails", qmail)),
        ("qmail-clean-qmail-send", ids("qmailq", qmail)),
        ("qmail-clean-todo-proc", ids("qmailq", qmail)),
        ("qmail-lspawn-Maildir", format!("0:{qmail}:{qmail}")),
        ("qmail-rspawn-queue", ids("qmailr", qmail)),
        ("logger-x", ids("qmaill", nofiles)),
    ] {
        assert_eq!(all[name]["ids"], wanted, "{name}");
        assert_eq!((all[name]["cwd"].as_str(), all[name]["umask"].as_str()), ("/", "0077"), "{name}");
    }
    let queue = tree.at("queue").display().to_string();
    assert_eq!(all["qmail-lspawn-Maildir"]["args"], format!("./Maildir/ {queue}"));
    assert_eq!(all["qmail-send-queue"]["pid"], running.pid().to_string(), "qmail-start becomes qmail-send");

    let fd = |name: &str, n: u32| all[name].get(&format!("fd{n}")).cloned();
    for (number, other, theirs) in [
        (0, "logger-x", 0),
        (1, "qmail-lspawn-Maildir", 0),
        (2, "qmail-lspawn-Maildir", 1),
        (3, "qmail-rspawn-queue", 0),
        (4, "qmail-rspawn-queue", 1),
        (5, "qmail-clean-qmail-send", 0),
        (6, "qmail-clean-qmail-send", 1),
        (7, "todo-proc-queue", 0),
        (8, "todo-proc-queue", 1),
    ] {
        let pipe = fd("qmail-send-queue", number);
        assert!(pipe.as_ref().is_some_and(|p| p.starts_with("pipe:")), "{number}: {pipe:?}");
        assert_eq!(pipe, fd(other, theirs), "descriptor {number} and {other} {theirs}");
    }
    assert_eq!(fd("todo-proc-queue", 2), fd("qmail-clean-todo-proc", 0));
    assert_eq!(fd("todo-proc-queue", 3), fd("qmail-clean-todo-proc", 1));
    // Nobody has more than its own: descriptors above 2 (3 in todo-proc, 8 in qmail-send) are closed,
    // but for the one a shell keeps its script on.
    for (name, highest) in [("qmail-lspawn-Maildir", 2), ("qmail-rspawn-queue", 2), ("todo-proc-queue", 3)] {
        for n in highest + 1..9 {
            assert!(!fd(name, n).is_some_and(|p| p.starts_with("pipe:")), "{name} has {n}");
        }
    }
    finish(&tree, &mut running, &all);
}

#[test]
fn fix_27_any_number_of_arguments_and_the_option_of_a_static_queue() {
    let tree = tree();
    let mut command = tree.command("qmail-start");
    let arguments: Vec<String> = (0..500).map(|n| format!("argument-{n}")).collect();
    command.arg("-s").arg("./Maildir/").arg(tree.at("usr/sbin/logger")).args(&arguments);
    let (mut running, all) = start(&tree, command, 7);
    assert_eq!(all["logger-argument-0"]["args"], arguments.join(" "));
    let queue = tree.at("queue").display().to_string();
    assert_eq!(all["qmail-lspawn-Maildir"]["args"], format!("./Maildir/ {queue}"));
    finish(&tree, &mut running, &all);
    let out = kit::run(tree.command("qmail-start").arg("-d"));
    assert!(out.code == 100 && out.stderr.contains("unknown option -d"), "{out:?}");
}

/// With our own module in nsswitch.conf, walking passwd would walk every mail account.
#[test]
fn fix_25_users_are_looked_up_one_by_one() {
    let program = std::fs::read(env!("CARGO_BIN_EXE_qmail-root")).unwrap();
    let has = |name: &str| program.windows(name.len()).any(|w| w == name.as_bytes());
    assert!(has("getpwnam_r"), "the names of functions cannot be found in the program");
    for name in ["getpwent", "getgrent"] {
        assert!(!has(name), "{name} is linked");
    }
}

#[test]
fn a_user_that_is_missing_is_named() {
    let mut tree = Tree::new();
    let without = |user: &str| {
        let etc = kit::Etc::with_mail_users();
        let passwd = kit::run(etc.command("cat").arg("/etc/passwd")).ok().stdout;
        let lines = passwd.lines().filter(|l| !l.starts_with(&format!("{user}:")));
        etc.file("passwd", lines.map(|l| format!("{l}\n")).collect::<String>())
    };
    for user in ["qmails", "qmailq", "qmailr"] {
        tree.etc = without(user);
        let out = kit::run(&mut tree.command("qmail-start"));
        assert!(out.code == 111 && out.stderr.contains(user), "{user}: {out:?}");
    }
    for user in ["qmailq", "qmailp"] {
        tree.etc = without(user);
        let out = kit::run(tree.command("qmail-lspawn").arg("./Mailbox"));
        assert!(out.code == 111 && out.stderr.contains(user), "{user}: {out:?}");
    }
}

#[test]
fn without_logger_the_log_goes_to_standard_output() {
    let tree = tree();
    let (mut running, all) = start(&tree, tree.command("qmail-start"), 6);
    assert!(all["qmail-send-queue"]["fd0"].ends_with("out/log.new"));
    assert!(all["qmail-lspawn-Mailbox"]["args"].starts_with("./Mailbox "));
    finish(&tree, &mut running, &all);
}

#[test]
fn supplementary_groups_only_where_asked_for() {
    let tree = tree();
    let mut command = tree.command("qmail-start");
    command.env("USE_SETGROUPS", "qmailr");
    let (mut running, all) = start(&tree, command, 6);
    let certs = tree.etc.gid("qcerts").to_string();
    let in_group = |name: &str| all[name]["ids"].split([':', ' ']).any(|g| g == certs);
    assert!(in_group("qmail-rspawn-queue"), "{:?}", all["qmail-rspawn-queue"]);
    assert!(!in_group("qmail-send-queue") && !in_group("qmail-lspawn-Mailbox"));
    finish(&tree, &mut running, &all);
}

#[test]
fn an_ordinary_user_plays_all_roles() {
    let tree = tree();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=4711", "--regid=4712", "--clear-groups", "--"])
        .arg(tree.at("usr/sbin/qmail-start"));
    tree.variables(&mut command);
    let (mut running, all) = start(&tree, command, 6);
    for (name, facts) in &all {
        assert_eq!(facts["ids"], "4711:4712:4712", "{name}");
    }
    finish(&tree, &mut running, &all);
}

#[test]
fn a_program_that_is_missing_is_named_and_nothing_is_left_running() {
    let tree = tree();
    std::fs::remove_file(tree.at("usr/sbin/qmail-send")).unwrap();
    let out = kit::run(&mut tree.command("qmail-start"));
    assert!(
        out.code == 111 && out.stderr.contains("qmail-start: fatal: cannot start qmail-send: "),
        "{out:?}"
    );
    // kit::run returns when the last holder of its pipes has ended.
}
