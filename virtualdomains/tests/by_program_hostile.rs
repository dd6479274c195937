//! Root at work in directories whose owner means harm: what the owner could not do is not done for them.

mod site;

use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use site::{ID, Site, names, refused};

/// Gives a path and everything below it to the domain's user.
fn give(path: &Path) {
    chown(path, Some(ID), Some(ID)).unwrap();
    for entry in std::fs::read_dir(path).into_iter().flatten() {
        give(&entry.unwrap().path());
    }
}

fn mode(path: impl AsRef<Path>, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

#[test]
fn homes_are_made_and_removed_with_the_rights_of_the_domain_s_user() {
    let site = Site::new();
    site.domain();
    site.with_password(&["vadduser", "-d", "ann@example.com"], "x").ok();
    // Root could write here all the same.
    mode(site.path("mail/A2E/example.com"), 0o551);
    let output = site.with_password(&["vadduser", "-d", "bob@example.com"], "x");
    refused(&output, 111, "Permission denied");
    assert!(site.account("bob@example.com").is_none(), "the row is taken back");
    refused(&site.run(&["vdeluser", "ann@example.com"]), 111, "Permission denied");
    assert_eq!(names(&site.path("mail/A2E/example.com")), ["ann"]);
    mode(site.path("mail/A2E/example.com"), 0o751);
    site.with_password(&["vadduser", "-d", "bob@example.com"], "x").ok();
    assert_eq!(site.owner("mail/A2E/example.com/bob/Maildir/tmp"), (ID, ID, 0o700));
}

#[test]
fn a_home_of_another_user_id_is_removed_whatever_it_has_become() {
    let site = Site::new();
    site.domain();
    let argv = ["vadduser", "--uid", "7001", "--gid", "7002", "ann@example.com"];
    site.with_password(&argv, "x").ok();
    site.put("outside/kept", "kept");
    let home = site.path("mail/A2E/example.com/ann");
    std::fs::create_dir_all(home.join("shut/inner")).unwrap();
    std::fs::write(home.join("shut/inner/f"), "x").unwrap();
    symlink(site.path("outside"), home.join("shut/inner/link")).unwrap();
    for sub in ["shut/inner/f", "shut/inner", "shut"] {
        chown(home.join(sub), Some(7001), Some(7002)).unwrap();
    }
    mode(home.join("shut/inner"), 0);
    mode(home.join("shut"), 0o100);
    site.run(&["vdeluser", "ann@example.com"]).ok();
    assert!(!home.exists());
    assert_eq!(names(&site.path("outside")), ["kept"]);
}

#[test]
fn a_base_named_by_the_domain_s_user_gives_no_more_than_their_own_rights() {
    let site = Site::new();
    site.domain();
    std::fs::create_dir(site.path("etc")).unwrap();
    let base_path = site.path("var/domains/example.com/.base_path");
    let name_base = |dir: &str| {
        drop(std::fs::remove_file(&base_path));
        std::fs::write(&base_path, format!("{}\n", site.path(dir).display())).unwrap();
        chown(&base_path, Some(ID), Some(ID)).unwrap();
    };
    // A directory of root's, and one that does not exist yet below it.
    for dir in ["etc", "etc/new"] {
        name_base(dir);
        refused(&site.with_password(&["vadduser", "-d", "ann@example.com"], "x"), 111, "Permission denied");
        assert_eq!(names(&site.path("etc")), [""; 0], "{dir}");
    }
    // What lies there under the names of the domain is not removed for them either.
    site.put("etc/A2E/example.com/f", "root's");
    name_base("etc");
    refused(&site.run(&["vdeldomain", "example.com"]), 111, "Permission denied");
    assert_eq!(site.text("etc/A2E/example.com/f"), "root's");
    // Their own directory is theirs to name.
    std::fs::create_dir(site.path("theirs")).unwrap();
    give(&site.path("theirs"));
    site.domain_again();
    name_base("theirs");
    site.with_password(&["vadduser", "-d", "ann@example.com"], "x").ok();
    assert_eq!(site.owner("theirs/A2E/example.com/ann/Maildir/new"), (ID, ID, 0o700));
    assert_eq!(site.owner("theirs/A2E").0, ID);
    site.run(&["vdeldomain", "example.com"]).ok();
    assert_eq!(names(&site.path("theirs/A2E")), [""; 0]);
}

#[test]
fn the_base_of_an_administrator_is_root_s_file() {
    let site = Site::new();
    let base = site.path("far").display().to_string();
    let id = ID.to_string();
    site.with_password(&["vadddomain", "-i", &id, "-g", &id, "-B", &base, "example.com"], "x").ok();
    assert_eq!(site.owner("var/domains/example.com/.base_path"), (0, 0, 0o644));
    site.with_password(&["vadduser", "-d", "ann@example.com"], "x").ok();
    assert_eq!(site.owner("far/A2E/example.com/ann/Maildir"), (ID, ID, 0o700));
    assert_eq!(site.owner("far/A2E").0, site.uid("indimail"));
    // A second name of another file of root's is no word of root's about this domain.
    std::fs::create_dir(site.path("etc")).unwrap();
    site.put("elsewhere", &format!("{}\n", site.path("etc").display()));
    let base_path = site.path("var/domains/example.com/.base_path");
    std::fs::remove_file(&base_path).unwrap();
    std::fs::hard_link(site.path("elsewhere"), &base_path).unwrap();
    refused(&site.with_password(&["vadduser", "-d", "bob@example.com"], "x"), 111, "Permission denied");
    assert_eq!(names(&site.path("etc")), [""; 0]);
}

#[test]
fn files_that_the_domain_s_user_cannot_read_are_not_read_for_them() {
    let site = Site::new();
    site.domain();
    site.put("secret", "not for the domain's user");
    mode(site.path("secret"), 0o600);
    let file = site.path("var/domains/example.com/hash_method");
    std::fs::hard_link(site.path("secret"), &file).unwrap();
    let output = site.with_password(&["vadduser", "ann@example.com"], "x");
    refused(&output, 111, "Permission denied");
    assert!(!output.stderr.contains("not for"), "{output:?}");
    // Nor what root's group may read, when the directory is of that group.
    mode(site.path("secret"), 0o640);
    chown(site.path("var/domains/example.com"), Some(ID), Some(0)).unwrap();
    refused(&site.with_password(&["vadduser", "ann@example.com"], "x"), 111, "Permission denied");
    std::fs::remove_file(&file).unwrap();
    symlink(site.path("secret"), &file).unwrap();
    refused(&site.with_password(&["vadduser", "ann@example.com"], "x"), 111, "hash_method");
}

#[test]
fn links_in_the_place_of_everything_of_a_domain() {
    let site = Site::new();
    site.domain();
    site.with_password(&["vadduser", "-d", "ann@example.com"], "x").ok();
    site.put("etc/passwd", "root's");
    let etc = site.path("etc");
    let dir = site.path("var/domains/example.com");
    for name in [".qmail-default", "bulk_mail"] {
        let path = dir.join(name);
        if path.is_dir() { std::fs::remove_dir(&path) } else { std::fs::remove_file(&path) }.unwrap();
        symlink(&etc, path).unwrap();
    }
    let maildir = site.path("mail/A2E/example.com/ann/Maildir");
    std::fs::remove_dir(maildir.join("new")).unwrap();
    symlink(&etc, maildir.join("new")).unwrap();
    // The directory of all homes of the domain with this letter, and that of the postmaster's.
    symlink(&etc, site.path("mail/A2E/example.com/postmaster")).unwrap();
    std::fs::remove_dir(site.path("mail/L2P/example.com")).unwrap();
    symlink(&etc, site.path("mail/L2P/example.com")).unwrap();
    refused(&site.with_password(&["vadduser", "-d", "max@example.com"], "x"), 111, "max");
    site.run(&["vuserinfo", "ann@example.com"]).ok();
    site.run(&["vdeldomain", "example.com"]).ok();
    assert_eq!(names(&etc), ["passwd"]);
    assert_eq!(site.text("etc/passwd"), "root's");
    assert_eq!(names(&site.path("var/domains")), [""; 0]);
    assert_eq!(names(&site.path("mail/A2E")), [""; 0]);
}

#[test]
fn what_is_used_is_counted_with_the_rights_of_the_account() {
    let site = Site::new();
    site.domain();
    site.with_password(&["vadduser", "-d", "ann@example.com"], "x").ok();
    site.put("roots/new/1", "a message that is root's");
    mode(site.path("roots"), 0o700);
    let maildir = site.path("mail/A2E/example.com/ann/Maildir");
    std::fs::remove_dir_all(&maildir).unwrap();
    symlink(site.path("roots"), &maildir).unwrap();
    let shown = site.run(&["vuserinfo", "-q", "ann@example.com"]).ok().stdout;
    assert!(shown.contains("used: unknown"), "{shown}");
}
