//! What every store promises.

use accounts::{
    Account, AccountStore, Added, Address, DomainName, Event, Limits, Quota, SecretBytes, Service,
    ServiceFlags, StoreSettings, SyncState, UnixIds, open_store,
};

pub(crate) fn address(text: &str) -> Address {
    Address::parse(text.as_bytes()).unwrap()
}

pub(crate) fn account(text: &str) -> Account {
    let address = address(text);
    let home = format!("/home/mail/{}", address.local()).into();
    Account { password: b"$6$salt$hash".as_slice().into(), ..Account::new(address, home) }
}

fn domain(text: &str) -> DomainName {
    DomainName::parse(text.as_bytes()).unwrap()
}

fn with(settings: &StoreSettings, accounts: &[&str]) -> Box<dyn AccountStore> {
    let mut store = open_store(settings);
    for a in accounts {
        assert_eq!(store.insert(&account(a)).unwrap(), Added::Done);
    }
    store
}

fn event(service: &str, at: i64) -> Event {
    Event { service: Service::parse(service.as_bytes()).unwrap(), remote_ip: "192.0.2.1".into(), at }
}

pub(crate) fn found_inactive_and_absent(settings: &StoreSettings) {
    let mut store = with(settings, &["ann@example.com"]);
    let inactive = Account { active: false, ..account("ina@example.com") };
    store.insert(&inactive).unwrap();
    assert!(store.account(&address("ann@example.com")).unwrap().unwrap().active);
    assert!(!store.account(&address("ina@example.com")).unwrap().unwrap().active);
    assert_eq!(store.account(&address("bob@example.com")).unwrap(), None);
    assert_eq!(store.account(&address("ann@example.org")).unwrap(), None);
    assert_eq!(store.count(&domain("example.com")).unwrap(), (1, 1));
    store.ping().unwrap();
}

pub(crate) fn every_field_comes_back(settings: &StoreSettings) {
    let mut store = open_store(settings);
    let full = Account {
        scram: Some(b"{SCRAM-SHA-256}4096,c2FsdA==,a,b".as_slice().into()),
        own_ids: Some(UnixIds { uid: 4_000_000_000, gid: 70_001 }),
        state: SyncState::ADD_PENDING,
        flags: ServiceFlags::NO_POP | ServiceFlags::OVERRIDE,
        gecos: "Zo\u{eb} M\u{fc}ller \u{1f4ee}".into(),
        quota: Quota { bytes: Some(52_428_800), messages: Some(1000) },
        ..account("zoe.m+x_y@mail.example.com")
    };
    full.check().unwrap();
    store.insert(&full).unwrap();
    assert_eq!(store.account(&full.address).unwrap().unwrap(), full);
    let plain = account("plain@example.com");
    store.insert(&plain).unwrap();
    assert_eq!(store.account(&plain.address).unwrap().unwrap(), plain);
}

pub(crate) fn a_second_insert_is_refused(settings: &StoreSettings) {
    let mut store = with(settings, &["ann@example.com"]);
    let other = Account { gecos: "other".into(), ..account("ann@example.com") };
    assert_eq!(store.insert(&other).unwrap(), Added::Exists);
    assert_eq!(store.insert(&Account { active: false, ..other }).unwrap(), Added::Exists);
    assert_eq!(store.account(&address("ann@example.com")).unwrap().unwrap().gecos, "");
}

pub(crate) fn updates_move_between_active_and_inactive(settings: &StoreSettings) {
    let mut store = with(settings, &["ann@example.com"]);
    for active in [false, false, true] {
        let changed = Account { active, gecos: format!("now {active}"), ..account("ann@example.com") };
        assert!(store.update(&changed).unwrap());
        assert_eq!(store.account(&changed.address).unwrap().unwrap(), changed);
        // A change that changes nothing is no "absent".
        assert!(store.update(&changed).unwrap());
    }
    assert!(!store.update(&account("bob@example.com")).unwrap());
    assert_eq!(store.account(&address("bob@example.com")).unwrap(), None);
    assert_eq!(store.count(&domain("example.com")).unwrap(), (1, 0));
}

pub(crate) fn deleting_takes_everything_along(settings: &StoreSettings) {
    let mut store = with(settings, &["ann@example.com", "bob@example.com"]);
    let ann = address("ann@example.com");
    assert!(store.set_ids(&ann, Some(UnixIds { uid: 70_000, gid: 70_000 })).unwrap());
    store.note(&ann, &event("imap", 5)).unwrap();
    store.open_relay(&ann, "192.0.2.1", 5).unwrap();
    store.set_limits("ann@example.com", Some(&Limits { default_quota: 1, ..Limits::NONE })).unwrap();
    store.add_alias(&ann, b"&x@example.org").unwrap();
    store.add_alias(&address("info@example.com"), b"&ann@example.com").unwrap();
    store.add_alias(&address("info@example.com"), b"&bob@example.com").unwrap();
    assert!(store.delete(&ann).unwrap());
    assert!(!store.delete(&ann).unwrap());
    assert_eq!(store.account(&ann).unwrap(), None);
    assert_eq!(store.account_by_uid(70_000).unwrap(), None);
    assert_eq!(store.events(&ann).unwrap(), []);
    assert!(!store.may_relay(&ann, "192.0.2.1", 0).unwrap());
    assert_eq!(store.limits("ann@example.com").unwrap(), None);
    assert!(store.aliases(&ann).unwrap().is_empty());
    assert_eq!(store.aliases(&address("info@example.com")).unwrap(), [b"&bob@example.com".to_vec()]);
    assert!(store.account(&address("bob@example.com")).unwrap().is_some());
}

pub(crate) fn new_passwords_and_withdrawals(settings: &StoreSettings) {
    let mut store = with(settings, &["ann@example.com"]);
    let ann = address("ann@example.com");
    let (hash, scram) = (b"$6$new$new".as_slice().into(), b"{CRAM}x".as_slice().into());
    for active in [true, false] {
        let changed = Account { active, gecos: "kept".into(), ..account("ann@example.com") };
        store.update(&changed).unwrap();
        assert!(store.set_password(&ann, &hash, Some(&scram)).unwrap());
        let expected = Account { password: hash.clone(), scram: Some(scram.clone()), ..changed };
        assert_eq!(store.account(&ann).unwrap().unwrap(), expected);
    }
    assert!(store.set_password(&ann, &hash, None).unwrap());
    assert_eq!(store.account(&ann).unwrap().unwrap().scram, None);
    assert!(!store.set_password(&address("bob@example.com"), &hash, None).unwrap());
    store.add_alias(&ann, b"&x@example.org").unwrap();
    assert!(store.withdraw(&ann).unwrap());
    assert!(!store.withdraw(&ann).unwrap());
    assert_eq!(store.aliases(&ann).unwrap().len(), 1, "an alias of this name was not part of the insertion");
}

pub(crate) fn deleting_a_domain(settings: &StoreSettings) {
    let mut store = with(settings, &["a@x.example", "b@x.example", "c@yx.example"]);
    store.update(&Account { active: false, ..account("b@x.example") }).unwrap();
    store.add_alias(&address("i@x.example"), b"&a@x.example").unwrap();
    store.set_limits("a@x.example", Some(&Limits::NONE)).unwrap();
    store.set_limits("c@yx.example", Some(&Limits::NONE)).unwrap();
    assert_eq!(store.delete_domain(&domain("x.example")).unwrap(), 2);
    assert_eq!(store.delete_domain(&domain("x.example")).unwrap(), 0);
    assert_eq!(store.account(&address("b@x.example")).unwrap(), None);
    assert!(store.aliases(&address("i@x.example")).unwrap().is_empty());
    assert_eq!(store.limits("a@x.example").unwrap(), None);
    assert!(store.limits("c@yx.example").unwrap().is_some());
    assert!(store.account(&address("c@yx.example")).unwrap().is_some());
}

pub(crate) fn pages_in_order(settings: &StoreSettings) {
    let mut store = open_store(settings);
    let mut all: Vec<String> = Vec::new();
    for n in 0..23 {
        for d in ["a.example", "b.example"] {
            let one = Account { active: n % 3 > 0, ..account(&format!("user{n:02}@{d}")) };
            store.insert(&one).unwrap();
            all.push(one.address.to_string());
        }
    }
    let mut pages = |domain: Option<&DomainName>, size| {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = store.list(domain, after.as_ref(), size).unwrap();
            seen.extend(page.iter().map(|a| a.address.to_string()));
            after = page.last().map(|a| a.address.clone());
            if page.len() < size as usize {
                return seen;
            }
        }
    };
    all.sort();
    for size in [1, 7, 46, 100] {
        assert_eq!(pages(None, size), all, "{size}");
    }
    let b: Vec<String> = all.iter().filter(|a| a.ends_with("@b.example")).cloned().collect();
    assert_eq!(pages(Some(&domain("b.example")), 5), b);
    assert!(pages(Some(&domain("c.example")), 5).is_empty());
}

pub(crate) fn aliases_by_line(settings: &StoreSettings) {
    let mut store = open_store(settings);
    let info = address("info@example.com");
    assert!(store.add_alias(&info, b"&b@example.org").unwrap());
    assert!(store.add_alias(&info, b"|/bin/x 'a b' %s").unwrap());
    assert!(!store.add_alias(&info, b"&b@example.org").unwrap());
    assert!(store.add_alias(&address("abuse@example.com"), b"&info@example.com").unwrap());
    assert_eq!(store.aliases(&info).unwrap(), [b"&b@example.org".to_vec(), b"|/bin/x 'a b' %s".to_vec()]);
    let first = store.list_aliases(&domain("example.com"), None, 2).unwrap();
    assert_eq!(first[1], (info.clone(), b"&b@example.org".to_vec()));
    let rest = store.list_aliases(&domain("example.com"), Some((&first[1].0, &first[1].1)), 2).unwrap();
    assert_eq!(rest, [(info.clone(), b"|/bin/x 'a b' %s".to_vec())]);
    assert_eq!(store.remove_alias(&info, Some(b"&nobody@x.y")).unwrap(), 0);
    assert_eq!(store.remove_alias(&info, Some(b"&b@example.org")).unwrap(), 1);
    assert_eq!(store.remove_alias(&info, None).unwrap(), 1);
    assert!(store.aliases(&info).unwrap().is_empty());
    assert_eq!(store.aliases(&address("abuse@example.com")).unwrap().len(), 1);
}

pub(crate) fn limits_of_domains_and_users(settings: &StoreSettings) {
    let mut store = open_store(settings);
    assert_eq!(store.limits("example.com").unwrap(), None);
    let limits = Limits {
        password_expiry: Some(2_000_000_000),
        max_accounts: Some(0),
        default_quota: 5_000_000_000,
        disabled: ServiceFlags::NO_IMAP | ServiceFlags::NO_DIALUP,
        ..Limits::NONE
    };
    store.set_limits("example.com", Some(&limits)).unwrap();
    store.set_limits("ann@example.com", Some(&Limits::NONE)).unwrap();
    assert_eq!(store.limits("example.com").unwrap().unwrap(), limits);
    assert_eq!(store.limits("ann@example.com").unwrap().unwrap(), Limits::NONE);
    store.set_limits("example.com", None).unwrap();
    assert_eq!(store.limits("example.com").unwrap(), None);
}

pub(crate) fn own_ids(settings: &StoreSettings) {
    let mut store = with(settings, &["ann@example.com", "bob@example.com"]);
    let (ann, bob) = (address("ann@example.com"), address("bob@example.com"));
    let ids = |uid| Some(UnixIds { uid, gid: 100 });
    assert!(store.set_ids(&ann, ids(70_000)).unwrap());
    assert!(store.set_ids(&ann, ids(70_001)).unwrap());
    assert!(!store.set_ids(&bob, ids(70_001)).unwrap());
    assert_eq!(store.account(&bob).unwrap().unwrap().own_ids, None);
    assert_eq!(store.account_by_uid(70_001).unwrap().unwrap().address, ann);
    assert_eq!(store.account_by_uid(70_000).unwrap(), None);
    let eve = Account { own_ids: ids(70_001), ..account("eve@example.com") };
    assert_eq!(store.insert(&eve).unwrap(), Added::IdsTaken);
    assert_eq!(store.account(&eve.address).unwrap(), None, "nothing half done");
    store.update(&Account { active: false, ..account("ann@example.com") }).unwrap();
    assert_eq!(store.account_by_uid(70_001).unwrap().unwrap().own_ids, ids(70_001), "kept when inactive");
    assert!(store.set_ids(&ann, None).unwrap());
    assert_eq!(store.account_by_uid(70_001).unwrap(), None);
}

pub(crate) fn last_events(settings: &StoreSettings) {
    let mut store = with(settings, &["ann@example.com"]);
    let ann = address("ann@example.com");
    for e in [event("pop3", 1_700_000_000), event("imap", 1_700_000_001), event("pop3", 1_800_000_000)] {
        store.note(&ann, &e).unwrap();
    }
    assert_eq!(store.events(&ann).unwrap(), [event("imap", 1_700_000_001), event("pop3", 1_800_000_000)]);
    assert!(store.events(&address("bob@example.com")).unwrap().is_empty());
}

pub(crate) fn relay_window(settings: &StoreSettings) {
    let mut store = open_store(settings);
    let ann = address("ann@example.com");
    store.open_relay(&ann, "192.0.2.1", 100).unwrap();
    store.open_relay(&ann, "192.0.2.1", 200).unwrap();
    assert!(store.may_relay(&ann, "192.0.2.1", 200).unwrap());
    assert!(!store.may_relay(&ann, "192.0.2.1", 201).unwrap());
    assert!(!store.may_relay(&ann, "192.0.2.2", 0).unwrap());
}

pub(crate) fn hostile_strings_are_values(settings: &StoreSettings) {
    let mut store = with(settings, &["ann@example.com"]);
    // Every character an address may have, and texts where nothing but length is checked.
    let odd = account("o'or'1'='1@example.com");
    store.insert(&odd).unwrap();
    let nasty = "x'; DROP TABLE indimail; -- \\";
    store.update(&Account { gecos: nasty.into(), ..odd.clone() }).unwrap();
    assert_eq!(store.account(&odd.address).unwrap().unwrap().gecos, nasty);
    let line = b"|x '); DELETE FROM valias; -- \" ` \\";
    store.add_alias(&odd.address, line).unwrap();
    assert_eq!(store.aliases(&odd.address).unwrap(), [line.to_vec()]);
    assert_eq!(store.remove_alias(&address("ann@example.com"), Some(b"' OR '1'='1")).unwrap(), 0);
    assert_eq!(store.limits("' OR 1=1 -- ").unwrap(), None);
    assert!(!store.may_relay(&odd.address, "' OR '1'='1", 0).unwrap());
    // Names that only look alike.
    for name in ["ann_@example.com", "an_@example.com", "a*@example.com"] {
        assert_eq!(store.account(&address(name)).unwrap(), None, "{name}");
    }
    assert_eq!(store.count(&domain("example.com")).unwrap(), (2, 0));
}

pub(crate) fn concurrent_writers(settings: &StoreSettings) {
    const WRITERS: usize = 6;
    const EACH: usize = 10;
    let winners: usize = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|w| {
                scope.spawn(move || {
                    let mut store = open_store(settings);
                    let mut won = 0;
                    for n in 0..EACH {
                        let own = account(&format!("own{w}-{n}@example.com"));
                        assert_eq!(store.insert(&own).unwrap(), Added::Done);
                        // All writers want this one, half of them as an inactive account.
                        let contested =
                            Account { active: w % 2 == 0, ..account(&format!("all{n}@example.com")) };
                        won += usize::from(store.insert(&contested).unwrap() == Added::Done);
                        store.note(&contested.address, &event("imap", 1_700_000_000)).unwrap();
                    }
                    won
                })
            })
            .collect();
        writers.into_iter().map(|w| w.join().unwrap()).sum()
    });
    assert_eq!(winners, EACH);
    let (active, inactive) = open_store(settings).count(&domain("example.com")).unwrap();
    assert_eq!(active + inactive, ((WRITERS + 1) * EACH) as u64);
}

pub(crate) fn values_too_long_are_not_cut(settings: &StoreSettings) {
    let mut store = open_store(settings);
    let long = Account { password: SecretBytes::new(vec![b'x'; 200]), ..account("ann@example.com") };
    assert!(long.check().is_err());
    if store.insert(&long).is_ok() {
        assert_eq!(store.account(&long.address).unwrap().unwrap().password.expose().len(), 200);
    } else {
        assert_eq!(store.account(&long.address).unwrap(), None);
    }
}
