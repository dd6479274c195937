//! vadduser, vdeluser, vpasswd, vuserinfo and valias, run as the real executable.

mod site;

use std::os::unix::fs::{PermissionsExt, symlink};

use site::{ID, Site, names, refused};

#[test]
fn an_account_with_its_home() {
    let site = Site::new();
    site.domain();
    site.with_password(&["vadduser", "-d", "-c", "Ann Example", "-q", "1M", "ann@example.com"], "se cret")
        .ok();
    for sub in ["", "/Maildir", "/Maildir/cur", "/Maildir/new", "/Maildir/tmp"] {
        assert_eq!(site.owner(&format!("mail/A2E/example.com/ann{sub}")), (ID, ID, 0o700), "{sub}");
    }
    assert!(site.verifies("ann@example.com", "se cret") && !site.verifies("ann@example.com", "se crew"));
    let text = site.run(&["vuserinfo", "--json", "ann@example.com"]).ok().stdout;
    let info: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(info["home"], site.path("mail/A2E/example.com/ann").to_str().unwrap());
    assert_eq!((&info["gecos"], &info["quota"]), (&"Ann Example".into(), &"1048576S".into()));
    assert_eq!((&info["active"], &info["uid"], &info["own_ids"]), (&true.into(), &ID.into(), &false.into()));
    assert!(info["events"]["add"]["at"].as_i64().unwrap() > 1_700_000_000);
    assert!(!text.contains("$6$"), "no hash without -p");
    assert!(!site.run(&["vuserinfo", "-a", "ann@example.com"]).ok().stdout.contains("$6$"));
    assert!(site.run(&["vuserinfo", "-p", "ann@example.com"]).ok().stdout.starts_with("password: $6$"));
    refused(&site.with_password(&["vadduser", "ann@example.com"], "x"), 100, "exists already");
    assert!(site.verifies("ann@example.com", "se cret"), "the refusal changed nothing");
}

#[test]
fn without_d_the_home_waits_for_the_first_delivery() {
    let site = Site::new();
    site.domain();
    site.with_password(&["vadduser", "-i", "ann@example.com"], "x").ok();
    assert!(!site.path("mail/A2E/example.com/ann").exists());
    assert_eq!(site.owner("mail/A2E/example.com"), (ID, ID, 0o751), "delivery can make it");
    assert!(!site.account("ann@example.com").unwrap().account.active);
    refused(&site.with_password(&["vadduser", "-i", "spam@example.com"], "x"), 100, "reserved");
}

#[test]
fn a_user_id_of_its_own() {
    let site = Site::new();
    site.domain();
    let add = |uid: &str, name: &str| {
        site.with_password(&["vadduser", "--uid", uid, "--gid", "7002", &format!("{name}@example.com")], "x")
    };
    add("7001", "ann").ok();
    assert_eq!(site.owner("mail/A2E/example.com/ann/Maildir/new"), (7001, 7002, 0o700));
    assert_eq!(site.account("ann@example.com").unwrap().ids.uid, 7001);
    refused(&add("7001", "bob"), 100, "another account");
    assert!(site.account("bob@example.com").is_none());
    let taken = site.uid("indimail").to_string();
    refused(&add(&taken, "bob"), 100, "indimail");
    refused(&add("0", "bob"), 100, "--uid");
    refused(
        &site.with_password(&["vadduser", "--uid", "7003", "bob@example.com"], "x"),
        100,
        "one needs the other",
    );
}

#[test]
fn a_new_base_can_be_passed_through() {
    let site = Site::new();
    site.domain();
    let base = site.path("far/away/mail");
    let argv = ["vadduser", "-d", "-B", base.to_str().unwrap(), "ann@example.com"];
    site.with_password(&argv, "x").ok();
    for dir in ["far", "far/away", "far/away/mail"] {
        let mode = std::fs::metadata(site.path(dir)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755, "{dir}");
    }
}

#[test]
fn unsafe_names_and_texts_are_refused() {
    let site = Site::new();
    site.domain();
    for name in
        ["../x", "a/b", ".x", "-x", "a..b", "a b", "a%b", "a:b", "a|b", "a\"b", "a\nb", "Ann", "x.", ""]
    {
        let output = site.with_password(&["vadduser", "--", &format!("{name}@example.com")], "x");
        refused(&output, 100, "vadduser");
    }
    refused(
        &site.with_password(&["vadduser", "ann@nowhere.example"], "x"),
        1,
        "nowhere.example: no such domain",
    );
    for (argv, what) in [
        (&["vadduser", "-c", "a:b", "ann@example.com"][..], "gecos"),
        (&["vadduser", "-c", "a\nb", "ann@example.com"], "gecos"),
        (&["vadduser", "-q", "x", "ann@example.com"], "quota"),
        (&["vadduser", "-B", "mail", "ann@example.com"], "absolute"),
    ] {
        refused(&site.with_password(argv, "x"), 100, what);
    }
    assert!(site.account("ann@example.com").is_none());
    assert_eq!(names(&site.path("mail")), ["L2P"]);
}

#[test]
fn passwords_from_everywhere() {
    let mut site = Site::new();
    site.domain();
    site.with_password(&["vadduser", "ann@example.com"], "one").ok();
    // As an operand.
    site.run(&["vpasswd", "ann@example.com", "two"]).ok();
    assert!(site.verifies("ann@example.com", "two"));
    // Random.
    let shown = site.run(&["vpasswd", "-r", "16", "ann@example.com"]).ok().stdout;
    let random = shown.trim_end().strip_prefix("Password is ").unwrap().to_owned();
    assert!(random.len() == 16 && site.verifies("ann@example.com", &random));
    // Already hashed.
    let hash = "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5";
    site.run(&["vpasswd", "-e", "ann@example.com", hash]).ok();
    assert!(site.verifies("ann@example.com", "Hello world!"));
    refused(&site.run(&["vpasswd", "-e", "ann@example.com", "plain"]), 100, "-e");
    // Schemes: option, variable, control file.
    let field = |site: &Site| site.account("ann@example.com").unwrap().account.password.expose().to_vec();
    site.put("control/hash_method", "# comment\nYESCRYPT\n");
    site.run(&["vpasswd", "ann@example.com", "x"]).ok();
    assert!(field(&site).starts_with(b"$y$"));
    site.set("PASSWORD_HASH", "2");
    site.run(&["vpasswd", "ann@example.com", "x"]).ok();
    assert!(field(&site).starts_with(b"$5$"));
    site.run(&["vpasswd", "-h", "ARGON2ID", "ann@example.com", "x"]).ok();
    assert!(field(&site).starts_with(b"$argon2id$") && site.verifies("ann@example.com", "x"));
    // Refused, and never shown.
    for bad in ["", "hide:me", "hide\tme"] {
        let output = site.run(&["vpasswd", "ann@example.com", bad]);
        refused(&output, 100, "password");
        assert!(!output.stderr.contains("hide"), "{output:?}");
    }
    refused(&site.run(&["vpasswd", "--password-fd", "77", "ann@example.com"]), 100, "--password-fd");
    refused(&site.run(&["vpasswd", "-r", "3", "ann@example.com"]), 100, "-r");
    assert!(site.verifies("ann@example.com", "x"));
    refused(&site.run(&["vpasswd", "bob@example.com", "x"]), 1, "no such account");
}

#[test]
fn scram_secrets_come_and_go_with_a_warning() {
    let site = Site::new();
    site.domain();
    site.with_password(&["vadduser", "-m", "SCRAM-SHA-256", "-C", "ann@example.com"], "pencil").ok();
    let secret = || site.account("ann@example.com").unwrap().account.scram;
    let parsed = accounts::password::ScramSecret::parse(secret().unwrap().expose()).unwrap();
    assert!(parsed.verify(b"pencil") && parsed.clear.as_ref().unwrap().expose() == b"pencil");
    assert!(site.verifies("ann@example.com", "pencil"));
    assert_eq!((parsed.iterations, parsed.salt.len()), (4096, 16));
    site.with_password(&["vadduser", "-m", "SCRAM-SHA-512", "bob@example.com"], "pencil").ok();
    let bob = site.account("bob@example.com").unwrap().account.scram.unwrap();
    let bob = accounts::password::ScramSecret::parse(bob.expose()).unwrap();
    assert!(bob.salt.len() == 16 && bob.salt != parsed.salt, "random");
    let argv = ["vpasswd", "-m", "SCRAM-SHA-1", "-S", "QSXCR+Q6sek8bf92", "ann@example.com", "pencil"];
    site.run(&argv).ok();
    assert_eq!(
        secret().unwrap().expose(),
        b"{SCRAM-SHA-1}4096,QSXCR+Q6sek8bf92,6dlGYMOdZcOPutkcNY8U2g7vK9Y=,D+CSWLOshSulAsxiupA+qs2/fTE="
    );
    let output = site.run(&["vpasswd", "ann@example.com", "new"]).ok();
    assert!(output.stderr.contains("warning") && output.stderr.contains("SCRAM"), "{output:?}");
    assert!(secret().is_none());
    site.run(&["vpasswd", "-m", "CRAM", "ann@example.com", "a,b"]).ok();
    assert_eq!(secret().unwrap().expose(), b"{CRAM}a,b");
    refused(&site.run(&["vpasswd", "-m", "SCRAM-SHA-1", "-I", "5", "ann@example.com", "x"]), 100, "-I");
}

#[test]
fn an_account_whose_home_cannot_be_made_is_taken_back() {
    let site = Site::new();
    site.domain();
    site.put("mail/A2E", "a file in the way");
    refused(&site.with_password(&["vadduser", "-d", "ann@example.com"], "x"), 111, "ann");
    assert!(site.account("ann@example.com").is_none());
    std::fs::remove_file(site.path("mail/A2E")).unwrap();
    // What belonged to somebody else is not handed on.
    site.put("mail/A2E/example.com/ann/Maildir/new/1", "old mail");
    refused(&site.with_password(&["vadduser", "ann@example.com"], "x"), 100, "exists already");
    assert!(site.account("ann@example.com").is_none());
    assert_eq!(site.text("mail/A2E/example.com/ann/Maildir/new/1"), "old mail");
}

#[test]
fn links_are_never_followed() {
    let site = Site::new();
    site.domain();
    site.put("outside/kept", "kept");
    std::fs::create_dir_all(site.path("mail/A2E")).unwrap();
    symlink(site.path("outside"), site.path("mail/A2E/example.com")).unwrap();
    refused(&site.with_password(&["vadduser", "-d", "ann@example.com"], "x"), 111, "ann");
    assert_eq!(names(&site.path("outside")), ["kept"]);
    std::fs::remove_file(site.path("mail/A2E/example.com")).unwrap();
    site.with_password(&["vadduser", "-d", "ann@example.com"], "x").ok();
    symlink(site.path("outside"), site.path("mail/A2E/example.com/ann/Maildir/.link")).unwrap();
    site.run(&["vdeluser", "ann@example.com"]).ok();
    assert!(!site.path("mail/A2E/example.com/ann").exists());
    assert_eq!(names(&site.path("outside")), ["kept"]);
    // A home exchanged for a link: the link goes, what it leads to stays.
    site.with_password(&["vadduser", "-d", "ann@example.com"], "x").ok();
    std::fs::remove_dir_all(site.path("mail/A2E/example.com/ann")).unwrap();
    symlink(site.path("outside"), site.path("mail/A2E/example.com/ann")).unwrap();
    site.run(&["vdeluser", "ann@example.com"]).ok();
    assert_eq!(names(&site.path("outside")), ["kept"]);
    // A row that names another directory.
    site.with_password(&["vadduser", "ann@example.com"], "x").ok();
    let mut account = site.account("ann@example.com").unwrap().account;
    account.home = site.path("outside");
    site.accounts().store().update(&account).unwrap();
    let output = site.run(&["vdeluser", "ann@example.com"]).ok();
    assert!(output.stderr.contains("warning"), "{output:?}");
    assert_eq!(names(&site.path("outside")), ["kept"]);
    assert!(site.account("ann@example.com").is_none());
}

#[test]
fn removing_an_account() {
    let site = Site::new();
    site.domain();
    site.with_password(&["vadduser", "-d", "ann@example.com"], "x").ok();
    site.run(&["valias", "-i", "&ann@example.com", "info@example.com"]).ok();
    site.run(&["vdeluser", "ann@example.com"]).ok();
    refused(&site.run(&["vuserinfo", "ann@example.com"]), 1, "no such account");
    refused(&site.run(&["vdeluser", "ann@example.com"]), 1, "no such account");
    refused(&site.run(&["valias", "-s", "info@example.com"]), 1, "no such alias");
    // No terminal to ask on.
    let mut command = std::process::Command::new("setsid");
    let inner = site.command(&["vdeluser", "postmaster@example.com"]);
    command.arg("--wait").arg(inner.get_program()).args(inner.get_args());
    command.envs(inner.get_envs().filter_map(|(n, v)| Some((n, v?))));
    refused(&e2e::kit::run(&mut command), 100, "reserved");
    assert!(site.account("postmaster@example.com").is_some());
    site.run(&["vdeluser", "-y", "postmaster@example.com"]).ok();
}

#[test]
fn changing_an_account() {
    let site = Site::new();
    site.domain();
    site.with_password(&["vadduser", "-q", "1000S,9C", "ann@example.com"], "x").ok();
    let modify = |argv: &[&str]| site.run(&[&["vmoduser"], argv, &["ann@example.com"]].concat());
    let account = || site.account("ann@example.com").unwrap().account;
    modify(&["-n"]).ok();
    assert!(!account().active);
    modify(&["-n", "-c", "Ann", "-p", "-i"]).ok();
    assert!(account().active);
    assert_eq!((account().gecos.as_str(), account().flags.bits()), ("Ann", 0x0a));
    modify(&["-t", "-p", "-s"]).ok();
    assert_eq!(account().flags.bits(), 0x108);
    modify(&["-x", "-0"]).ok();
    assert_eq!(account().flags.bits(), 0x200);
    // Over quota comes and goes alone.
    modify(&["-b", "-i"]).ok();
    modify(&["-t", "-b"]).ok();
    assert_eq!(account().flags.bits(), 0x208);
    modify(&["-x", "-0"]).ok();
    modify(&["-q", "+24"]).ok();
    assert_eq!(account().quota.to_string(), "1024S,9C");
    refused(&modify(&["-q", "-1k"]), 100, "nothing of the quota");
    modify(&["-q", "NOQUOTA"]).ok();
    assert_eq!(account().quota.to_string(), "NOQUOTA");
    assert!(site.verifies("ann@example.com", "x"), "the password stays");
    refused(&modify(&[]), 100, "nothing to change");
    refused(&modify(&["-c", "a:b"]), 100, "gecos");
    refused(&site.run(&["vmoduser", "-n", "postmaster@example.com"]), 100, "reserved");
    refused(&site.run(&["vmoduser", "-n", "bob@example.com"]), 1, "no such account");
}

#[test]
fn aliases() {
    let site = Site::new();
    site.domain();
    let valias = |argv: &[&str]| site.run(&[&["valias"], argv].concat());
    valias(&["-i", "&a@other.example", "info@example.com"]).ok();
    valias(&["-i", "|/bin/prog 'a b'", "info@example.com"]).ok();
    refused(&valias(&["-i", "&a@other.example", "info@example.com"]), 100, "already");
    valias(&["-u", "&a@other.example", "-i", "/srv/x/Maildir/", "info@example.com"]).ok();
    assert_eq!(
        valias(&["-s", "info@example.com"]).ok().stdout,
        "info@example.com -> /srv/x/Maildir/\ninfo@example.com -> |/bin/prog 'a b'\n"
    );
    let json = valias(&["--json", "-S", "/srv/x/Maildir/", "@example.com"]).ok().stdout;
    assert_eq!(json, "[{\"alias\":\"info@example.com\",\"line\":\"/srv/x/Maildir/\"}]\n");
    valias(&["-d", "/srv/x/Maildir/", "info@example.com"]).ok();
    refused(&valias(&["-d", "/srv/x/Maildir/", "info@example.com"]), 1, "no such line");
    refused(&valias(&["-u", "&no@x.y", "-i", "&b@x.y", "info@example.com"]), 1, "no such line");
    for bad in ["", "nobody", "/srv/mbox", "|", "&a@b\n|evil"] {
        refused(&valias(&["-i", bad, "info@example.com"]), 100, "alias line");
    }
    refused(&valias(&["info@example.com"]), 100, "expected one of");
    refused(&valias(&["-s", "-i", "&a@b.c", "info@example.com"]), 100, "expected one of");
}

#[test]
fn domain_limits_where_they_are_in_force() {
    let site = Site::new();
    site.domain();
    let limits = accounts::Limits {
        default_quota: 4096,
        default_max_messages: 7,
        max_accounts: Some(2),
        ..accounts::Limits::NONE
    };
    site.accounts().store().set_limits("example.com", Some(&limits)).unwrap();
    site.with_password(&["vadduser", "ann@example.com"], "x").ok();
    assert_eq!(site.account("ann@example.com").unwrap().account.quota.to_string(), "NOQUOTA");
    site.put("var/domains/example.com/.domain_limits", "");
    refused(&site.with_password(&["vadduser", "bob@example.com"], "x"), 100, "limit of 2 accounts");
    site.run(&["vdeluser", "ann@example.com"]).ok();
    site.with_password(&["vadduser", "bob@example.com"], "x").ok();
    assert_eq!(site.account("bob@example.com").unwrap().account.quota.to_string(), "4096S,7C");
}
