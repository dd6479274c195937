//! vadddomain, vdeldomain and vdominfo, run as the real executable.

mod site;

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use accounts::UnixIds;
use site::{ID, Site, names, refused};

#[test]
fn a_domain_comes_with_everything_it_needs() {
    let site = Site::new();
    site.put("control/locals", "localhost\nexample.com\n");
    site.domain();
    let dir = site.path("var/domains/example.com");
    assert_eq!(names(&dir), [".qmail-default", "bulk_mail"]);
    let line = format!(
        "| {}/usr/sbin/vdelivermail '' bounce-no-mailbox\n",
        site.path("").display().to_string().trim_end_matches('/')
    );
    assert_eq!(site.text("var/domains/example.com/.qmail-default"), line);
    assert_eq!(site.owner("var/domains/example.com/.qmail-default"), (ID, ID, 0o600));
    assert_eq!(site.owner("var/domains/example.com"), (ID, ID, 0o751));
    assert_eq!(site.owner("var/accounts.sqlite"), (site.uid("indimail"), site.owner("var/domains").1, 0o660));
    assert_eq!(site.text("control/rcpthosts"), "example.com\n");
    assert_eq!(site.text("control/virtualdomains"), "example.com:example.com\n");
    assert_eq!(site.text("control/locals"), "localhost\n");
    assert_eq!(
        site.text("users/assign"),
        format!("+example.com-:example.com:{ID}:{ID}:{}:-::\n.\n", dir.display())
    );
    assert_eq!(site.owner("users/cdb").2, 0o644);
    assert!(site.verifies("postmaster@example.com", "post secret"));
    let aliases = site.run(&["valias", "-s", "@example.com"]).ok().stdout;
    assert_eq!(
        aliases,
        "abuse@example.com -> &postmaster@example.com\nmailer-daemon@example.com -> &postmaster@example.com\n"
    );
    let info: serde_json::Value =
        serde_json::from_str(&site.run(&["vdominfo", "--json", "example.com"]).ok().stdout).unwrap();
    assert_eq!((&info["uid"], &info["accounts"]["active"]), (&ID.into(), &1.into()));
    assert_eq!(info["directory"], dir.to_str().unwrap());
    assert!(site.run(&["vdominfo", "--json"]).ok().stdout.starts_with("[{"));
    refused(
        &site.with_password(&["vadddomain", "example.com"], "x"),
        100,
        "example.com: the domain exists already",
    );
}

#[test]
fn options_of_a_domain() {
    let site = Site::new();
    let base = site.path("elsewhere").display().to_string();
    std::fs::create_dir(site.path("srv")).unwrap();
    let srv = site.path("srv").display().to_string();
    site.with_password(
        &[
            "vadddomain",
            "-u",
            "indimail",
            "-d",
            &srv,
            "-B",
            &base,
            "-q",
            "5M,9C",
            "-E",
            "o'neil@other.example",
            "-R",
            "-h",
            "SHA-256",
            "example.com",
        ],
        "post secret",
    )
    .ok();
    let entry = site.account("postmaster@example.com").unwrap();
    assert_eq!(entry.ids, UnixIds { uid: site.uid("indimail"), gid: entry.ids.gid });
    assert_eq!(entry.account.quota.to_string(), "5242880S,9C");
    assert_eq!(entry.account.home, site.path("elsewhere/L2P/example.com/postmaster"));
    assert!(entry.account.password.expose().starts_with(b"$5$"));
    assert_eq!(site.text("control/chkrcptdomains"), "example.com\n");
    assert!(
        site.text("srv/domains/example.com/.qmail-default").ends_with(" '' 'o'\\''neil@other.example'\n")
    );
    // The scheme of the domain holds for its later accounts.
    site.with_password(&["vadduser", "ann@example.com"], "x").ok();
    assert!(site.account("ann@example.com").unwrap().account.password.expose().starts_with(b"$5$"));
    site.run(&["vdeldomain", "example.com"]).ok();
    assert_eq!(names(&site.path("srv/domains")), [""; 0]);
}

#[test]
fn bad_domains_are_refused_and_leave_nothing() {
    let site = Site::new();
    for (argv, what) in [
        (&["vadddomain", "Example.com"][..], "upper case"),
        (&["vadddomain", "../x"], "letters, digits"),
        (&["vadddomain", "-i", "0", "-g", "0", "example.com"], "root"),
        (&["vadddomain", "-q", "much", "example.com"], "quota"),
        (&["vadddomain", "-u", "no-such-user", "example.com"], "no-such-user"),
        (&["vadddomain", "-B", "relative", "example.com"], "absolute"),
        (&["vadddomain", "-h", "ROT13", "example.com"], "scheme"),
        (&["vadddomain"], "missing operand"),
        (&["vadddomain", "--frob"], "frob"),
    ] {
        refused(&site.with_password(argv, "x"), 100, what);
    }
    refused(&site.run(&["vdeldomain", "EXAMPLE.com"]), 100, "upper case");
    refused(&site.run(&["vdeldomain", "example.com"]), 1, "no such domain");
    refused(&site.run(&["vdominfo", "example.com"]), 1, "no such domain");
    assert_eq!(names(&site.path("var")), [""; 0]);
    assert_eq!(names(&site.path("users")), [""; 0]);
}

#[test]
fn a_domain_that_cannot_be_finished_is_taken_back() {
    let site = Site::new();
    site.domain();
    site.run(&["vdeldomain", "example.com"]).ok();
    // Cut short: the table cannot be changed, though it can be read.
    site.put("users/assign", "+other.example-:other.example:1:2:/x:-::\n");
    refused(&site.with_password(&["vadddomain", "example.com"], "x"), 111, "cut short");
    assert_eq!(names(&site.path("var/domains")), [""; 0]);
    // The last step: homes cannot be made.
    site.put("users/assign", ".\n");
    std::fs::remove_dir_all(site.path("mail/L2P")).unwrap();
    site.put("mail/L2P", "a file in the way");
    refused(&site.with_password(&["vadddomain", "example.com"], "x"), 111, "L2P");
    assert_eq!(names(&site.path("var/domains")), [""; 0]);
    assert_eq!(site.text("users/assign"), ".\n");
    assert_eq!(site.text("control/rcpthosts") + &site.text("control/virtualdomains"), "");
    std::fs::remove_file(site.path("mail/L2P")).unwrap();
    site.domain();
    assert!(site.account("postmaster@example.com").is_some());
}

#[test]
fn removing_takes_accounts_mail_and_alias_domains_along() {
    let site = Site::new();
    site.domain();
    site.with_password(&["vadduser", "-d", "ann@example.com"], "x").ok();
    site.put("mail/A2E/example.com/ann/Maildir/new/1", "mail");
    site.put("mail/A2E/other.example/bob/Maildir/new/1", "mail of another domain");
    site.run(&["vaddaliasdomain", "alias.example", "example.com"]).ok();
    // An account added by way of the alias domain is one of the real domain.
    site.with_password(&["vadduser", "carl@alias.example"], "x").ok();
    assert!(site.run(&["vuserinfo", "-n", "carl@example.com"]).ok().stdout.contains("carl@example.com"));
    assert!(site.run(&["vdominfo", "-l", "example.com"]).ok().stdout.contains("alias.example"));
    site.run(&["vdeldomain", "example.com"]).ok();
    assert_eq!(names(&site.path("var/domains")), [""; 0]);
    assert_eq!(names(&site.path("mail/A2E")), ["other.example"]);
    assert_eq!(site.text("mail/A2E/other.example/bob/Maildir/new/1"), "mail of another domain");
    assert_eq!(site.text("users/assign"), ".\n");
    assert_eq!(site.text("control/rcpthosts") + &site.text("control/virtualdomains"), "");
    site.domain();
    assert!(site.account("ann@example.com").is_none(), "a new domain has no accounts of the old one");
}

#[test]
fn only_the_alias_of_an_alias_domain_is_removed() {
    let site = Site::new();
    site.domain();
    site.run(&["vaddaliasdomain", "alias.example", "example.com"]).ok();
    site.run(&["vdeldomain", "alias.example"]).ok();
    assert_eq!(names(&site.path("var/domains")), ["example.com"]);
    assert!(site.account("postmaster@example.com").is_some());
    assert_eq!(site.text("control/rcpthosts"), "example.com\n");
}

#[test]
fn alias_domains_are_made_whole_or_not_at_all() {
    let site = Site::new();
    site.domain();
    let add = |alias: &str, real: &str| site.run(&["vaddaliasdomain", alias, real]);
    add("alias.example", "example.com").ok();
    assert_eq!(
        std::fs::read_link(site.path("var/domains/alias.example")).unwrap(),
        std::path::Path::new("example.com")
    );
    assert_eq!(site.text("control/virtualdomains"), "example.com:example.com\nalias.example:alias.example\n");
    assert!(site.account("postmaster@alias.example").is_some());
    refused(&add("alias.example", "example.com"), 100, "exists already");
    refused(&add("more.example", "alias.example"), 100, "example.com");
    refused(&add("more.example", "nowhere.example"), 1, "no such domain");
    site.put("users/assign", &site.text("users/assign").replace("\n.\n", "\n"));
    refused(&add("more.example", "example.com"), 111, "cut short");
    assert_eq!(names(&site.path("var/domains")), ["alias.example", "example.com"]);
    assert!(!site.text("control/rcpthosts").contains("more"));
}

#[test]
fn qmail_send_is_told() {
    let mut site = Site::new();
    std::fs::create_dir_all(site.path("send/supervise")).unwrap();
    let fifo = site.path("send/supervise/control");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    site.set("QMAIL_SEND_SERVICE", site.path("send").display().to_string());
    // Nobody listens: a warning, and no waiting.
    let output = site.with_password(&["vadddomain", "-i", "6101", "-g", "6101", "a.example"], "x").ok();
    assert!(
        output.stderr.contains("warning") && output.stderr.contains("supervise is not running"),
        "{output:?}"
    );
    let mut pipe = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&fifo).unwrap();
    site.domain();
    let mut got = [0; 8];
    assert_eq!(pipe.read(&mut got).unwrap(), 1);
    assert_eq!(got[0], b'h');
}
