//! The domain table and the control files of a domain.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use accounts::{DomainName, Domains, Editor, UnixIds};
use control::Directory;

struct Place {
    dir: tempfile::TempDir,
    editor: Editor,
    domains: Domains,
}

const IDS: UnixIds = UnixIds { uid: 555, gid: 556 };

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    for sub in ["users", "control", "domains"] {
        std::fs::create_dir(dir.path().join(sub)).unwrap();
    }
    let users = dir.path().join("users");
    let editor = Editor::new(&users, &Directory::new(dir.path().join("control")), None);
    Place { editor, domains: Domains::new(&users), dir }
}

fn name(text: &str) -> DomainName {
    DomainName::parse(text.as_bytes()).unwrap()
}

impl Place {
    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn put(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn add(&self, domain: &str) {
        let dir = self.path(&format!("domains/{domain}"));
        std::fs::create_dir_all(&dir).unwrap();
        self.editor.add(&name(domain), IDS, &dir).unwrap();
    }
}

#[test]
fn adding_edits_every_file_once_and_removing_undoes_it() {
    let p = place();
    p.put("control/locals", "host.example\nExample.com \n# kept\n");
    p.put("control/virtualdomains", "other.example:other\n");
    p.put("users/assign", "=root:alias:1:2:/alias:-:root:\n.\n");
    std::fs::set_permissions(p.path("control/virtualdomains"), std::fs::Permissions::from_mode(0o640))
        .unwrap();
    for _ in 0..2 {
        p.add("example.com");
        let dir = p.path("domains/example.com").display().to_string();
        assert_eq!(p.text("control/locals"), "host.example\n# kept\n");
        assert_eq!(p.text("control/virtualdomains"), "other.example:other\nexample.com:example.com\n");
        assert_eq!(p.text("control/rcpthosts"), "example.com\n");
        assert_eq!(
            p.text("users/assign"),
            format!("=root:alias:1:2:/alias:-:root:\n+example.com-:example.com:555:556:{dir}:-::\n.\n")
        );
    }
    let mode = std::fs::metadata(p.path("control/virtualdomains")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    let found = p.domains.domain(b"Example.COM").unwrap().unwrap();
    assert_eq!((found.ids, found.is_alias()), (IDS, false));
    assert_eq!(found.dir, p.path("domains/example.com"));
    p.editor.check_recipients(&name("example.com")).unwrap();
    for _ in 0..2 {
        p.editor.remove(&name("example.com")).unwrap();
        assert_eq!(p.domains.domain(b"example.com").unwrap(), None);
        assert_eq!(p.text("users/assign"), "=root:alias:1:2:/alias:-:root:\n.\n");
        assert_eq!(p.text("control/rcpthosts") + &p.text("control/chkrcptdomains"), "");
        assert_eq!(p.text("control/virtualdomains"), "other.example:other\n");
    }
}

#[test]
fn the_fifty_first_domain_goes_to_the_cdb() {
    let p = place();
    for n in 0..52 {
        p.add(&format!("d{n}.example"));
    }
    p.add("d51.example");
    assert_eq!(p.text("control/rcpthosts").lines().count(), 50);
    assert_eq!(p.text("control/morercpthosts"), "d50.example\nd51.example\n");
    let listed = |domain: &[u8]| {
        cdb::Reader::open(&p.path("control/morercpthosts.cdb"))
            .unwrap()
            .unwrap()
            .get(domain)
            .unwrap()
            .is_some()
    };
    assert!(listed(b"d50.example") && listed(b"d51.example") && !listed(b"d1.example"));
    p.editor.remove(&name("d50.example")).unwrap();
    assert!(!listed(b"d50.example") && listed(b"d51.example"));
    assert_eq!(p.domains.all().unwrap().len(), 51);
}

#[test]
fn alias_domains_lead_to_the_real_one() {
    let p = place();
    p.add("real.example");
    symlink(p.path("domains/real.example"), p.path("domains/alias.example")).unwrap();
    p.editor.add(&name("alias.example"), IDS, &p.path("domains/alias.example")).unwrap();
    let alias = p.domains.domain(b"alias.example").unwrap().unwrap();
    assert_eq!((alias.real.as_str(), alias.is_alias()), ("real.example", true));
    let names: Vec<_> = p.domains.all().unwrap().into_iter().map(|d| d.name.to_string()).collect();
    assert_eq!(names, ["real.example", "alias.example"]);
}

#[test]
fn absent_is_not_unreadable() {
    let p = place();
    assert_eq!(p.domains.domain(b"example.com").unwrap(), None, "no table, no domains");
    p.add("example.com");
    assert_eq!(p.domains.domain(b"example").unwrap(), None);
    for not_a_domain in ["", "a/b", "..", "example.com\0", "com-"] {
        assert_eq!(p.domains.domain(not_a_domain.as_bytes()).unwrap(), None, "{not_a_domain:?}");
    }
    std::fs::remove_dir(p.path("domains/example.com")).unwrap();
    let error = p.domains.domain(b"example.com").unwrap_err().to_string();
    assert!(error.contains("domain example.com: "), "{error}");
    let good = std::fs::read(p.path("users/cdb")).unwrap();
    std::fs::write(p.path("users/cdb"), &good[..good.len() - 9]).unwrap();
    let error = p.domains.domain(b"example.com").unwrap_err().to_string();
    assert!(error.contains("users/cdb: damaged"), "{error}");
}

#[test]
fn a_table_cut_short_is_refused_and_kept() {
    let p = place();
    p.put("users/assign", "+a.example-:a.example:1:2:/x:-::\n");
    let dir = p.path("domains");
    let error = p.editor.add(&name("b.example"), IDS, &dir).unwrap_err().to_string();
    assert!(error.contains("users/assign: line 2: ") && error.contains("cut short"), "{error}");
    assert_eq!(p.text("users/assign"), "+a.example-:a.example:1:2:/x:-::\n");
    assert_eq!(p.text("control/rcpthosts"), "", "mail is not accepted for half a domain");
}

#[test]
fn a_change_stopped_at_any_step_accepts_no_mail_too_early_and_can_be_finished() {
    // In the order of the steps; a directory in the place of a file stops the change there.
    for stopped_at in
        ["control/locals", "users/assign", "users/cdb", "control/virtualdomains", "control/rcpthosts"]
    {
        let p = place();
        p.put("control/locals", "example.com\n");
        let dir = p.path("domains/example.com");
        std::fs::create_dir(&dir).unwrap();
        let block = |on: bool| {
            let path = p.path(stopped_at);
            if on {
                drop(std::fs::rename(&path, p.path("saved")));
                std::fs::create_dir_all(path.join("in the way")).unwrap();
            } else {
                std::fs::remove_dir_all(&path).unwrap();
                drop(std::fs::rename(p.path("saved"), &path));
            }
        };
        block(true);
        assert!(p.editor.add(&name("example.com"), IDS, &dir).is_err(), "{stopped_at}");
        assert_eq!(p.text("control/rcpthosts"), "", "{stopped_at}");
        block(false);
        p.editor.add(&name("example.com"), IDS, &dir).unwrap();
        assert!(p.domains.domain(b"example.com").unwrap().is_some());
        assert_eq!(p.text("control/rcpthosts"), "example.com\n", "{stopped_at}");
        assert_eq!(p.text("control/locals"), "", "{stopped_at}");
        // Removing: while rcpthosts has the domain, everything else has it too.
        if stopped_at != "control/locals" {
            block(true);
            assert!(p.editor.remove(&name("example.com")).is_err(), "{stopped_at}");
            assert_eq!(p.text("control/rcpthosts"), "", "{stopped_at}");
            block(false);
        }
        p.editor.remove(&name("example.com")).unwrap();
        assert!(p.domains.domain(b"example.com").unwrap().is_none(), "{stopped_at}");
        assert_eq!(p.text("control/virtualdomains"), "", "{stopped_at}");
    }
}

#[test]
fn editors_wait_for_each_other() {
    let p = place();
    let names: Vec<String> = (0..8).map(|n| format!("d{n}.example")).collect();
    std::thread::scope(|scope| {
        for domain in &names {
            let p = &p;
            scope.spawn(move || p.add(domain));
        }
    });
    assert_eq!(p.domains.all().unwrap().len(), 8);
    assert_eq!(p.text("control/virtualdomains").lines().count(), 8);
    assert!(Path::new(&p.path("users/.lock")).exists());
}
