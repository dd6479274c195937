//! Domains and store together.

use std::os::unix::fs::symlink;

use accounts::{
    Account, Accounts, Added, Address, DomainName, Editor, Event, Limits, Service, ServiceFlags, Settings,
    StoreSettings, UnixIds, create_store,
};
use control::Directory;

struct Place {
    dir: tempfile::TempDir,
    accounts: Accounts,
}

fn address(text: &str) -> Address {
    Address::parse(text.as_bytes()).unwrap()
}

/// `real.example`, `other.example`, and `alias.example` for the first.
fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    for sub in ["users", "control", "domains/real.example", "domains/other.example"] {
        std::fs::create_dir_all(dir.path().join(sub)).unwrap();
    }
    symlink("real.example", dir.path().join("domains/alias.example")).unwrap();
    let editor = Editor::new(&dir.path().join("users"), &Directory::new(dir.path().join("control")), None);
    for (name, uid) in [("real.example", 600), ("other.example", 700), ("alias.example", 600)] {
        let ids = UnixIds { uid, gid: uid };
        let domain = DomainName::parse(name.as_bytes()).unwrap();
        editor.add(&domain, ids, &dir.path().join("domains").join(name)).unwrap();
    }
    let store = StoreSettings::sqlite(dir.path().join("accounts.sqlite"));
    create_store(&store, None).unwrap();
    let accounts = Accounts::open(&Settings { store, assign_dir: dir.path().join("users") });
    Place { dir, accounts }
}

fn account(text: &str) -> Account {
    Account::new(address(text), "/home/x".into())
}

#[test]
fn alias_domains_stand_for_the_real_one() {
    let mut p = place();
    assert_eq!(p.accounts.insert(&account("ann@alias.example")).unwrap(), Some(Added::Done));
    assert_eq!(p.accounts.insert(&account("ann@real.example")).unwrap(), Some(Added::Exists));
    assert_eq!(p.accounts.insert(&account("ann@unknown.example")).unwrap(), None);
    for asked in ["ann@real.example", "ANN@Alias.Example"] {
        let entry = p.accounts.account(&address(asked)).unwrap().unwrap();
        assert_eq!(entry.account.address, address("ann@real.example"));
        assert_eq!(entry.ids, UnixIds { uid: 600, gid: 600 });
    }
    assert_eq!(p.accounts.account(&address("ann@other.example")).unwrap(), None);
    p.accounts.store().add_alias(&address("info@real.example"), b"&ann@real.example").unwrap();
    assert_eq!(p.accounts.aliases(&address("info@alias.example")).unwrap().len(), 1);
    let event = Event { service: Service::created(), remote_ip: String::new(), at: 7 };
    p.accounts.note(&address("ann@alias.example"), &event).unwrap();
    assert_eq!(p.accounts.store().events(&address("ann@real.example")).unwrap(), [event]);
}

#[test]
fn own_ids_come_before_those_of_the_domain() {
    let mut p = place();
    let own = UnixIds { uid: 5001, gid: 5002 };
    p.accounts.insert(&Account { own_ids: Some(own), ..account("ann@alias.example") }).unwrap();
    assert_eq!(p.accounts.account(&address("ann@real.example")).unwrap().unwrap().ids, own);
    let entry = p.accounts.account_by_uid(5001).unwrap().unwrap();
    assert_eq!(entry.account.address, address("ann@real.example"));
    assert_eq!(p.accounts.account_by_uid(600).unwrap(), None, "a shared user id names nobody");
}

#[test]
fn pages_leave_out_domains_of_other_hosts() {
    let mut p = place();
    for n in 0..5 {
        p.accounts.insert(&account(&format!("a{n}@real.example"))).unwrap();
        p.accounts.store().insert(&account(&format!("a{n}@gone.example"))).unwrap();
        p.accounts.insert(&account(&format!("a{n}@other.example"))).unwrap();
    }
    let mut all = |domain: Option<&str>| {
        let domain = domain.map(|d| DomainName::parse(d.as_bytes()).unwrap());
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = p.accounts.list(domain.as_ref(), after.as_ref(), 2).unwrap();
            seen.extend(page.entries.into_iter().map(|e| e.account.address.to_string()));
            after = page.next;
            if after.is_none() {
                return seen;
            }
        }
    };
    assert_eq!(all(None).len(), 10);
    assert_eq!(
        all(Some("alias.example")),
        ["a0", "a1", "a2", "a3", "a4"].map(|a| format!("{a}@real.example"))
    );
    assert!(all(Some("gone.example")).is_empty());
}

#[test]
fn limits_only_where_the_domain_says_so_and_the_user_before_the_domain() {
    let mut p = place();
    p.accounts.insert(&account("ann@real.example")).unwrap();
    let limits = |disabled| Limits { disabled, ..Limits::NONE };
    p.accounts.store().set_limits("real.example", Some(&limits(ServiceFlags::NO_POP))).unwrap();
    let entry = p.accounts.account(&address("ann@alias.example")).unwrap().unwrap();
    assert_eq!(p.accounts.limits(&entry).unwrap(), None);
    std::fs::write(p.dir.path().join("domains/real.example/.domain_limits"), "").unwrap();
    assert_eq!(p.accounts.limits(&entry).unwrap(), Some(limits(ServiceFlags::NO_POP)));
    p.accounts.store().set_limits("ann@real.example", Some(&limits(ServiceFlags::NO_IMAP))).unwrap();
    assert_eq!(p.accounts.limits(&entry).unwrap(), Some(limits(ServiceFlags::NO_IMAP)));
}

#[test]
fn faults_are_never_absent() {
    let mut p = place();
    p.accounts.insert(&account("ann@real.example")).unwrap();
    // Not ours: known without asking the store.
    std::fs::remove_file(p.dir.path().join("accounts.sqlite")).unwrap();
    assert_eq!(p.accounts.account(&address("ann@unknown.example")).unwrap(), None);
    assert!(p.accounts.account(&address("ann@real.example")).is_err());
    assert!(p.accounts.account(&address("bob@real.example")).is_err());
    assert!(p.accounts.aliases(&address("bob@real.example")).is_err());
    std::fs::write(p.dir.path().join("users/cdb"), "damaged").unwrap();
    assert!(p.accounts.account(&address("ann@unknown.example")).is_err());
}
