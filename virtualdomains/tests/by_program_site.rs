//! What all commands share: stores, users, daemons, post-handle programs, help.

mod site;

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use site::{ID, Site, refused};

#[test]
fn a_damaged_store_cannot_tell() {
    let site = Site::new();
    site.domain();
    site.put(
        "var/accounts.sqlite",
        "this is no database, whatever its name says; it only has the length of one",
    );
    for argv in [
        &["vuserinfo", "ann@example.com"][..],
        &["vdeluser", "ann@example.com"],
        &["vdominfo"],
        &["valias", "-s", "a@example.com"],
    ] {
        refused(&site.run(argv), 111, "accounts.sqlite");
    }
    refused(&site.with_password(&["vadduser", "ann@example.com"], "x"), 111, "accounts.sqlite");
    site.put("control/accountstore", "oracle:\n");
    refused(&site.run(&["vuserinfo", "ann@example.com"]), 111, "accountstore:1: ");
}

#[test]
fn a_set_user_id_copy_refuses_to_run() {
    let mut site = Site::new();
    site.domain();
    let program = site.path("usr/libexec/indimail/vadmin");
    std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o4755)).unwrap();
    site.as_user(Some(65_534));
    refused(&site.run(&["vuserinfo", "postmaster@example.com"]), 100, "set-user-id");
}

#[test]
fn the_password_is_asked_for_twice_without_echo() {
    let site = Site::new();
    site.domain();
    site.with_password(&["vadduser", "ann@example.com"], "old").ok();
    // script(1) gives the command a terminal of its own.
    let ask = |input: &str| {
        let inner = site.command(&["vpasswd", "ann@example.com"]);
        let words: Vec<_> = std::iter::once(inner.get_program())
            .chain(inner.get_args())
            .map(|w| w.to_str().unwrap())
            .collect();
        let mut command = std::process::Command::new("script");
        command.args(["--quiet", "--return", "--command", &words.join(" "), "/dev/null"]);
        command.envs(inner.get_envs().filter_map(|(n, v)| Some((n, v?))));
        dialogue(command, input)
    };
    let (code, shown) = ask("new secret");
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("New password for ann@example.com: ") && shown.contains("Retype"), "{shown}");
    assert!(!shown.contains("new secret"), "{shown}");
    assert!(site.verifies("ann@example.com", "new secret"));
}

/// Runs a command that asks on its terminal and answers each prompt when it is shown, which is when echo
/// is off. Gives back the exit code and everything shown.
fn dialogue(mut command: std::process::Command, answer: &str) -> (i32, String) {
    use std::process::Stdio;
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let (mut shown, mut answered) = (Vec::new(), 0);
    let mut buf = [0; 1024];
    loop {
        match output.read(&mut buf).unwrap() {
            0 => break,
            n => shown.extend_from_slice(&buf[..n]),
        }
        let prompts = shown.windows(2).filter(|w| w == b": ").count();
        while answered < prompts {
            input.write_all(format!("{answer}\n").as_bytes()).unwrap();
            answered += 1;
        }
    }
    (child.wait().unwrap().code().unwrap(), String::from_utf8_lossy(&shown).into_owned())
}

#[test]
fn root_and_the_mail_user_share_the_sqlite_file() {
    let mut site = Site::new();
    let indimail = site.uid("indimail");
    // As the packages make it: SQLite needs its journal beside the file.
    std::os::unix::fs::chown(site.path("var"), Some(indimail), None).unwrap();
    site.with_password(&["vadddomain", "example.com"], "x").ok();
    site.with_password(&["vadduser", "ann@example.com"], "x").ok();
    // Root has the file open with a journal that root's process made.
    let mut ours = site.accounts();
    let ann = accounts::Address::parse(b"ann@example.com").unwrap();
    let event = accounts::Event { service: accounts::Service::password(), remote_ip: String::new(), at: 7 };
    ours.note(&ann, &event).unwrap();
    assert_eq!(site.owner("var/accounts.sqlite-wal").0, indimail);
    site.as_user(Some(indimail));
    site.run(&["vpasswd", "ann@example.com", "by the mail user"]).ok();
    assert!(ours.account(&ann).unwrap().is_some());
    assert!(site.verifies("ann@example.com", "by the mail user"));
    drop(ours);
    // A directory in which the journal cannot be made is named, and is no "absent".
    std::os::unix::fs::chown(site.path("var"), Some(0), None).unwrap();
    let output = site.run(&["vuserinfo", "ann@example.com"]);
    refused(&output, 111, "directory must be");
}

#[test]
fn everything_in_mariadb() {
    let server = e2e::kit::MariaDb::start();
    server.sql(
        "CREATE USER mail@localhost IDENTIFIED BY 'db secret'; GRANT ALL ON indimail.* TO mail@localhost",
    );
    let mut site = Site::new();
    let line = format!("localhost:mail:db secret:{}\n", server.socket().display());
    site.put("control/host.mysql", &line);
    let output = site.with_password(&["vadddomain", "example.com"], "x");
    refused(&output, 111, "0640");
    assert!(!output.stderr.contains("db secret"));
    std::fs::set_permissions(site.path("control/host.mysql"), std::fs::Permissions::from_mode(0o640))
        .unwrap();
    site.domain();
    assert!(!site.path("var/accounts.sqlite").exists());
    site.with_password(&["vadduser", "-d", "-q", "1M", "ann@example.com"], "pass").ok();
    assert!(site.verifies("ann@example.com", "pass"));
    let row =
        "SELECT pw_name, pw_domain, pw_uid, pw_gid, pw_shell FROM indimail.indimail WHERE pw_name = 'ann'";
    assert_eq!(server.sql(row), "ann\texample.com\t1\t0\t1048576S\n");
    let shown = site.run(&["vdominfo", "--show-settings"]).ok().stdout;
    assert!(shown.contains("mysql:indimail@") && !shown.contains("db secret"), "{shown}");
    site.set("BASE_PATH", site.path("mail").display().to_string());
    site.run(&["vdeldomain", "example.com"]).ok();
    assert_eq!(server.sql("SELECT COUNT(*) FROM indimail.indimail"), "0\n");
    assert!(!site.path("mail/A2E/example.com").exists());
}

#[test]
fn an_ordinary_user_has_a_site_of_its_own() {
    let mut site = Site::of_user(ID);
    site.domain();
    site.with_password(&["vadduser", "-d", "ann@example.com"], "x").ok();
    assert_eq!(site.owner("mail/A2E/example.com/ann/Maildir/new"), (ID, ID, 0o700));
    let info = site.run(&["vuserinfo", "-a", "ann@example.com"]).ok().stdout;
    assert!(info.contains(&format!("uid: {ID}\n")), "{info}");
    refused(&site.run(&["vuserinfo", "-p", "ann@example.com"]), 100, "only root");
    refused(&site.with_password(&["vadddomain", "-i", "1", "-g", "1", "b.example"], "x"), 100, "only root");
    refused(
        &site.with_password(&["vadduser", "--uid", "7", "--gid", "7", "b@example.com"], "x"),
        100,
        "only root",
    );
    // Somebody else.
    site.as_user(Some(ID + 1));
    refused(&site.run(&["vdeluser", "ann@example.com"]), 100, "only root");
    refused(&site.run(&["vpasswd", "ann@example.com", "x"]), 100, "only root");
    assert!(site.run(&["vdominfo"]).stdout.is_empty());
    site.as_user(Some(ID));
    site.run(&["vdeldomain", "example.com"]).ok();
    assert!(site::names(&site.path("var/domains")).is_empty());
}

#[test]
fn root_leaves_domains_of_user_0_alone() {
    let site = Site::new();
    site.domain();
    let text = site.text("users/assign").replace(&format!(":{ID}:{ID}:"), ":0:0:");
    site.put("users/assign", &text);
    let editor =
        accounts::Editor::new(&site.path("users"), &control::Directory::new(site.path("control")), None);
    editor.remove(&accounts::DomainName::parse(b"other.example").unwrap()).unwrap();
    refused(&site.with_password(&["vadduser", "ann@example.com"], "x"), 100, "user id in users/assign is 0");
}

const HANDLER: &str = "#!/bin/sh
{ printf '%s\\n' \"$#\" \"$@\"; id -u; echo \"tool $INDIMAIL_TOOL\"; ls /proc/self/fd | wc -l; } >OUT
exit 7
";

/// A handler that writes what it got into `out/NAME`.
fn handler(site: &Site, path: &str, out: &str) {
    std::fs::create_dir_all(site.path("out")).unwrap();
    std::fs::set_permissions(site.path("out"), std::fs::Permissions::from_mode(0o777)).unwrap();
    site.put(path, &HANDLER.replace("OUT", &site.path(out).display().to_string()));
    std::fs::set_permissions(site.path(path), std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn the_post_handle_program_of_the_installation() {
    let site = Site::new();
    let id = ID.to_string();
    for tool in ["vadddomain", "vadduser", "vpasswd", "valias", "vdeluser", "vdeldomain"] {
        handler(&site, &format!("usr/libexec/indimail/{tool}"), &format!("out/{tool}"));
    }
    let calls: [(&[&str], &[&str]); 6] = [
        (
            &["vadddomain", "-i", &id, "-g", &id, "example.com", "hidden pass"],
            &["-i", &id, "-g", &id, "example.com"],
        ),
        (&["vadduser", "-c", "two words", "ann@example.com", "hidden pass"], &["ann@example.com"]),
        (&["vpasswd", "ann@example.com", "hidden pass"], &["ann@example.com"]),
        (&["valias", "-i", "&a@b.c", "x@example.com"], &["x@example.com"]),
        (&["vdeluser", "ann@example.com"], &["ann@example.com"]),
        (&["vdeldomain", "example.com"], &["example.com"]),
    ];
    for (argv, expected) in calls {
        let output = site.run(argv);
        assert_eq!(output.code, 7, "{argv:?}: {output:?}");
        // 0, 1, 2 and the directory that ls reads.
        let wanted = format!("{}\n{}\n{ID}\ntool {}\n4\n", expected.len(), expected.join("\n"), argv[0]);
        assert_eq!(site.text(&format!("out/{}", argv[0])), wanted, "{argv:?}");
        std::fs::remove_file(site.path(&format!("out/{}", argv[0]))).unwrap();
        // The same again fails, and the program does not run.
        if ["vadddomain", "vadduser", "valias", "vdeluser", "vdeldomain"].contains(&argv[0]) {
            assert!([1, 100].contains(&site.run(argv).code), "{argv:?}");
            assert!(!site.path(&format!("out/{}", argv[0])).exists(), "{argv:?}");
        }
    }
}

#[test]
fn post_handle_from_the_environment() {
    let mut site = Site::new();
    handler(&site, "handler", "out/it");
    site.set("POST_HANDLE", format!("{} 'first word' x", site.path("handler").display()));
    assert_eq!(site.with_password(&["vadddomain", "-i", "6101", "-g", "6101", "example.com"], "x").code, 7);
    assert!(
        site.text("out/it").starts_with("10\n'first\nword'\nx\n--password-fd\n0\n-i\n"),
        "{}",
        site.text("out/it")
    );
    site.set("POST_HANDLE", "/nonexistent/program");
    site.with_password(&["vadduser", "ann@example.com"], "x").ok();
    site.set("POST_HANDLE", " ");
    site.with_password(&["vadduser", "bob@example.com"], "x").ok();
}

/// Answers one flush request on each of `count` connections and gives back what was asked.
fn daemon(listener: UnixListener, count: usize) -> std::thread::JoinHandle<Vec<Vec<u8>>> {
    std::thread::spawn(move || {
        let mut asked = Vec::new();
        for _ in 0..count {
            let (mut stream, _) = listener.accept().unwrap();
            let mut length = [0; 4];
            stream.read_exact(&mut length).unwrap();
            let mut request = vec![0; u32::from_be_bytes(length) as usize];
            stream.read_exact(&mut request).unwrap();
            let mut reply = Vec::new();
            lookup::mail::Reply::Yes.encode(&mut reply).unwrap();
            stream.write_all(&reply).unwrap();
            asked.push(request);
        }
        asked
    })
}

#[test]
fn daemons_are_told_of_every_change() {
    let site = Site::new();
    let id = ID.to_string();
    let changes: [(&[&str], &str); 9] = [
        (&["vadddomain", "-i", &id, "-g", &id, "example.com", "x"], "example.com"),
        (&["vaddaliasdomain", "alias.example", "example.com"], "alias.example"),
        (&["vadduser", "ann@example.com", "x"], "ann@example.com"),
        (&["vpasswd", "ann@example.com", "y"], "ann@example.com"),
        (&["vmoduser", "-n", "ann@example.com"], "ann@example.com"),
        // What was asked under the name of an alias domain is told under the real one.
        (&["valias", "-i", "&a@b.c", "info@alias.example"], "info@example.com"),
        (&["vdeluser", "ann@example.com"], "ann@example.com"),
        (&["vdeldomain", "alias.example"], "alias.example"),
        (&["vdeldomain", "example.com"], "example.com"),
    ];
    // Of an alias domain that is removed both parts of the command tell.
    let told = changes.len() + 1;
    let daemons = ["inlookup.sock", "nssd.sock"];
    let daemons = daemons.map(|socket| daemon(UnixListener::bind(site.path(socket)).unwrap(), told));
    for (argv, _) in changes {
        let output = site.run(argv).ok();
        assert!(!output.stderr.contains("warning"), "{output:?}");
    }
    for daemon in daemons {
        let asked = daemon.join().unwrap();
        let mut asked = asked.iter();
        for (argv, key) in changes {
            let request = asked.next().unwrap();
            let has = request.ends_with(key.as_bytes());
            assert!(has, "{argv:?}: {}", request.escape_ascii());
            if key == "alias.example" && argv[0] == "vdeldomain" {
                asked.next();
            }
        }
    }
}

#[test]
fn without_a_database_password_no_command_runs() {
    let site = Site::new();
    site.put("control/host.mysql", "localhost:indimail\n");
    std::fs::set_permissions(site.path("control/host.mysql"), std::fs::Permissions::from_mode(0o640))
        .unwrap();
    let id = ID.to_string();
    for argv in [
        &["vadddomain", "-i", &id, "-g", &id, "example.com", "x"][..],
        &["vdominfo"],
        &["vuserinfo", "a@b.c"],
    ] {
        refused(&site.run(argv), 111, "no password for the database, and there is no default one");
    }
}

#[test]
fn a_daemon_that_is_gone_is_a_warning_only() {
    let site = Site::new();
    site.domain();
    drop(UnixListener::bind(site.path("nssd.sock")).unwrap());
    let output = site.with_password(&["vadduser", "ann@example.com"], "x").ok();
    assert!(output.stderr.contains("warning") && output.stderr.contains("nssd.sock"), "{output:?}");
    assert!(site.account("ann@example.com").is_some());
}

#[test]
fn every_command_tells_about_itself() {
    let site = Site::new();
    for name in site::names(&site.path("usr/bin")) {
        for (option, has) in [
            ("--help", "password"),
            ("--version", "indimail"),
            ("--man", ".TH"),
            ("--completions", "complete"),
            ("--show-settings", "account store"),
        ] {
            let operands: &[&str] = match (option, name.as_str()) {
                ("--show-settings", "vdominfo") => &[],
                ("--show-settings", "vaddaliasdomain") => &["a.example", "b.example"],
                ("--show-settings", _) => &["a@example.com"],
                _ => &[],
            };
            let output = site.run(&[&[name.as_str(), option], operands].concat()).ok();
            assert!(output.stdout.contains(has), "{name} {option}: {output:?}");
        }
        refused_usage(&site, &name);
    }
}

fn refused_usage(site: &Site, name: &str) {
    let output = site.run(&[name, "--no-such-option"]);
    assert_eq!(output.code, 100, "{name}: {output:?}");
    assert!(output.stderr.contains("no-such-option") && output.stderr.contains("usage"), "{output:?}");
}

/// The names in a section of a help text.
fn listed(help: &str, section: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|l| !l.starts_with(section)).skip(1);
    let rows = lines.take_while(|l| l.starts_with(' ') || l.is_empty());
    // A row is indented less than the text that goes on.
    let rows = rows.filter(|l| l.starts_with("  ") && !l.starts_with("    "));
    rows.filter_map(|l| l.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn each_command_lists_the_variables_it_looks_at_and_no_others() {
    let mut site = Site::new();
    site.domain();
    let tools = site::names(&site.path("usr/bin"));
    let variables = |site: &Site, tool: &str| listed(&site.run(&[tool, "--help"]).ok().stdout, "variables:");
    let all: std::collections::BTreeSet<_> = tools.iter().flat_map(|t| variables(&site, t)).collect();
    assert_eq!(all.len(), 10, "{all:?}");
    // The control directory is what the others depend on.
    for name in all.iter().filter(|n| !["CONTROLDIR", "SYSCONFDIR"].contains(&n.as_str())) {
        // A value that every variable can have, and that shows where it is looked at.
        let marker = site.path("marker").display().to_string();
        let before = site.variable(name);
        site.set(name, marker.clone());
        for tool in &tools {
            let shown = site.run(&[tool, "--show-settings"]).ok().stdout;
            let uses = shown.contains(&format!("variable {name}")) && shown.contains(&marker);
            assert_eq!(uses, variables(&site, tool).contains(name), "{tool} {name}: {shown}");
        }
        site.restore(name, before);
    }
    // What only some commands are for.
    let of = |name: &str| tools.iter().filter(|t| variables(&site, t).contains(&name.to_owned())).count();
    assert_eq!((of("PASSWORD_HASH"), of("POST_HANDLE"), of("QMAIL_SEND_SERVICE")), (3, 8, 3));
    site.put("control/hash_method", "YESCRYPT\n");
    for tool in &tools {
        let help = site.run(&[tool, "--help"]).ok().stdout;
        let shown = site.run(&[tool, "--show-settings"]).ok().stdout;
        let lists = listed(&help, "control files:").contains(&"hash_method".to_owned());
        assert_eq!(shown.contains("YESCRYPT"), lists, "{tool}: {shown}");
        assert_eq!(lists, ["vadddomain", "vadduser", "vpasswd"].contains(&tool.as_str()), "{tool}");
    }
}
