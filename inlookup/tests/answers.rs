//! The meaning of every question, over a source in memory that can be away.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use accounts::password::Work;
use accounts::{
    Account, Address, Answer, Domain, DomainName, Entry, Limits, Quota, SecretBytes, ServiceFlags,
    Unavailable, UnixIds, password,
};
use inlookup::answers::{Answers, Login, Now, Shared};
use inlookup::counters::Count;
use inlookup::settings::CacheSettings;
use inlookup::source::Source;
use inlookup::throttle;
use lookup::mail::{UserStatus, Verdict};

const MAIL: UnixIds = UnixIds { uid: 555, gid: 556 };

/// Switches that a test keeps in hand while the worker owns the source.
#[derive(Default)]
struct Control {
    away: AtomicBool,
    /// Only the sample of what checking passwords costs cannot be had.
    no_sample: AtomicBool,
    questions: AtomicUsize,
    /// Called once, in the middle of the next question for aliases.
    meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

#[derive(Default)]
struct Memory {
    accounts: HashMap<String, Account>,
    aliases: HashMap<String, Vec<Vec<u8>>>,
    limits: HashMap<String, Limits>,
    relay: Option<(String, String, i64)>,
    control: Arc<Control>,
}

impl Memory {
    fn ask(&self) -> Answer<()> {
        self.control.questions.fetch_add(1, Ordering::SeqCst);
        if self.control.away.load(Ordering::SeqCst) { Err(Unavailable::new("store", "away")) } else { Ok(()) }
    }
}

impl Source for Memory {
    fn domain(&mut self, name: &DomainName) -> Answer<Option<Domain>> {
        self.ask()?;
        let real = match name.as_str() {
            "example.com" | "alias.example" => "example.com",
            _ => return Ok(None),
        };
        let real = DomainName::parse(real.as_bytes()).unwrap();
        Ok(Some(Domain {
            name: name.clone(),
            real,
            dir: "/var/indimail/domains/example.com".into(),
            ids: MAIL,
        }))
    }
    fn account(&mut self, real: &Address, domain: &Domain) -> Answer<Option<Entry>> {
        self.ask()?;
        let found = self.accounts.get(&real.to_string()).cloned();
        Ok(found.map(|account| Entry {
            ids: account.own_ids.unwrap_or(domain.ids),
            account,
            domain: domain.clone(),
        }))
    }
    fn aliases(&mut self, real: &Address) -> Answer<Vec<Vec<u8>>> {
        self.ask()?;
        if let Some(event) = self.control.meanwhile.lock().unwrap().take() {
            event();
        }
        Ok(self.aliases.get(&real.to_string()).cloned().unwrap_or_default())
    }
    fn works(&mut self, domain: Option<&DomainName>, _: u32) -> Answer<Vec<(Address, Work)>> {
        self.ask()?;
        if self.control.no_sample.load(Ordering::SeqCst) {
            return Err(Unavailable::new("store", "a row makes no sense"));
        }
        let of_domain = |a: &&Account| domain.is_none_or(|d| a.address.domain() == d);
        let accounts = self.accounts.values().filter(of_domain);
        let work = |a: &Account| Some((a.address.clone(), Work::of(a.combined_password().expose())?));
        Ok(accounts.filter_map(work).collect())
    }
    fn limits(&mut self, entry: &Entry) -> Answer<Option<Limits>> {
        self.ask()?;
        Ok(self.limits.get(&entry.account.address.to_string()).cloned())
    }
    fn may_relay(&mut self, real: &Address, ip: &str, since: i64) -> Answer<bool> {
        self.ask()?;
        Ok(self.relay.as_ref().is_some_and(|(a, i, at)| *a == real.to_string() && i == ip && *at >= since))
    }
}

fn account(local: &str) -> Account {
    let address = Address::new(local.as_bytes(), b"example.com").unwrap();
    let mut account = Account::new(address, format!("/home/mail/{local}").into());
    account.password = hash(b"secret");
    account.gecos = "Jane Doe".to_owned();
    account.quota = Quota { bytes: Some(1000), messages: None };
    account
}

fn hash(password: &[u8]) -> SecretBytes {
    password::create(password::Scheme::Sha256, password).unwrap()
}

struct Bench {
    answers: Answers<Memory>,
    shared: Arc<Shared>,
    control: Arc<Control>,
    now: Now,
}

fn bench(change: impl FnOnce(&mut Memory)) -> Bench {
    bench_with(change, throttle::Limits { account: 3, host: 5, window: Duration::from_secs(60) })
}

fn bench_with(change: impl FnOnce(&mut Memory), limits: throttle::Limits) -> Bench {
    let mut memory = Memory::default();
    memory.accounts.insert("jane@example.com".to_owned(), account("jane"));
    change(&mut memory);
    let cache = CacheSettings {
        positive: Duration::from_secs(300),
        negative: Duration::from_secs(30),
        capacity: 100,
    };
    let shared = Arc::new(Shared::new(cache, limits, Duration::from_secs(3600)));
    let control = Arc::clone(&memory.control);
    let now = Now { instant: Instant::now(), unix: 1_700_000_000 };
    Bench { answers: Answers::new(memory, Arc::clone(&shared)), shared, control, now }
}

impl Bench {
    fn later(&mut self, seconds: u64) {
        self.now.instant += Duration::from_secs(seconds);
        self.now.unix += seconds;
    }

    fn user(&mut self, address: &str) -> Answer<UserStatus> {
        self.answers.user(address.as_bytes(), self.now)
    }

    fn login(&mut self, address: &str, password: &str, service: &str, host: &str) -> Answer<Verdict> {
        let login =
            Login { address: address.as_bytes(), service: service.as_bytes(), remote_host: host.as_bytes() };
        self.answers.authenticate(&login, password.as_bytes(), self.now)
    }

    /// Questions that reached the source since the last call.
    fn questions(&self) -> usize {
        self.control.questions.swap(0, Ordering::SeqCst)
    }
}

#[test]
fn each_state_of_an_address_has_its_status() {
    let mut b = bench(|m| {
        for (local, active, flags) in [
            ("off", false, ServiceFlags::NONE),
            ("full", true, ServiceFlags::BOUNCE_MAIL),
            ("offandfull", false, ServiceFlags::BOUNCE_MAIL),
        ] {
            let account = Account { active, flags, ..account(local) };
            m.accounts.insert(format!("{local}@example.com"), account);
        }
        m.aliases.insert("sales@example.com".to_owned(), vec![b"&jane@example.com".to_vec()]);
        // An account with an alias of its name is an account.
        m.aliases.insert("jane@example.com".to_owned(), vec![b"&copy@example.org".to_vec()]);
    });
    for (address, status) in [
        ("jane@example.com", UserStatus::Found),
        ("JANE@Example.COM", UserStatus::Found),
        ("jane@alias.example", UserStatus::Found),
        ("off@example.com", UserStatus::Inactive),
        ("full@example.com", UserStatus::OverQuota),
        ("offandfull@example.com", UserStatus::Inactive),
        ("sales@example.com", UserStatus::Alias),
        ("sales@alias.example", UserStatus::Alias),
        ("nobody@example.com", UserStatus::Absent),
        ("jane@elsewhere.org", UserStatus::Absent),
        ("not an address", UserStatus::Absent),
        ("x' or 1=1@example.com", UserStatus::Absent),
        ("", UserStatus::Absent),
    ] {
        assert_eq!(b.user(address), Ok(status), "{address}");
    }
}

#[test]
fn a_mailbox_is_the_real_one_with_its_aliases_and_without_a_hash() {
    let mut b = bench(|m| {
        m.aliases.insert("jane@example.com".to_owned(), vec![b"&copy@example.org".to_vec()]);
        m.aliases.insert("sales@example.com".to_owned(), vec![b"&jane@example.com".to_vec()]);
        let own = Account { own_ids: Some(UnixIds { uid: 60_001, gid: 60_002 }), ..account("own") };
        m.accounts.insert("own@example.com".to_owned(), own);
    });
    let mailbox = b.answers.mailbox(b"jane@alias.example", b.now).unwrap().unwrap();
    assert_eq!(mailbox.address, b"jane@example.com");
    assert_eq!((mailbox.uid.as_raw(), mailbox.gid.as_raw()), (555, 556));
    assert_eq!(
        (mailbox.home.as_slice(), mailbox.gecos.as_slice()),
        (&b"/home/mail/jane"[..], &b"Jane Doe"[..])
    );
    assert_eq!((mailbox.quota.bytes, mailbox.active, mailbox.alias_only), (Some(1000), true, false));
    assert_eq!(mailbox.aliases, [b"&copy@example.org"]);
    assert!(!format!("{mailbox:?}").contains("$5$"));
    let own = b.answers.mailbox(b"own@example.com", b.now).unwrap().unwrap();
    assert_eq!((own.uid.as_raw(), own.gid.as_raw()), (60_001, 60_002));
    let alias = b.answers.mailbox(b"sales@example.com", b.now).unwrap().unwrap();
    assert_eq!(
        (alias.alias_only, alias.uid.as_raw(), alias.home.len(), alias.aliases.len()),
        (true, 555, 0, 1)
    );
    assert_eq!(b.answers.mailbox(b"nobody@example.com", b.now), Ok(None));
}

#[test]
fn domains_resolve_to_real_ones_or_are_not_ours() {
    let mut b = bench(|_| {});
    for (name, real) in [
        ("example.com", Some("example.com")),
        ("Alias.Example", Some("example.com")),
        ("elsewhere.org", None),
        ("..", None),
        ("", None),
    ] {
        assert_eq!(b.answers.domain(name.as_bytes()), Ok(real.map(|r| r.as_bytes().to_vec())), "{name}");
    }
}

#[test]
fn relay_rows_count_until_they_are_an_hour_old() {
    let mut b = bench(|m| {
        m.relay = Some(("jane@example.com".to_owned(), "192.0.2.1".to_owned(), 1_700_000_000 - 3599));
    });
    let relay = |b: &mut Bench, address: &[u8], ip: &[u8]| b.answers.relay(address, ip, b.now);
    assert_eq!(relay(&mut b, b"Jane@alias.example", b"192.0.2.1"), Ok(true));
    assert_eq!(relay(&mut b, b"jane@example.com", b"192.0.2.2"), Ok(false));
    assert_eq!(relay(&mut b, b"jane@elsewhere.org", b"192.0.2.1"), Ok(false));
    assert_eq!(relay(&mut b, b"jane@example.com", b"\xff"), Ok(false));
    b.later(2);
    assert_eq!(relay(&mut b, b"jane@example.com", b"192.0.2.1"), Ok(false));
    b.control.away.store(true, Ordering::SeqCst);
    assert!(relay(&mut b, b"jane@example.com", b"192.0.2.1").is_err(), "a fault is not a no");
}

#[test]
fn a_fault_is_cannot_tell_for_every_question_and_is_not_remembered() {
    let mut b = bench(|_| {});
    b.control.away.store(true, Ordering::SeqCst);
    assert!(b.user("jane@example.com").is_err());
    assert!(b.user("nobody@example.com").is_err());
    assert!(b.answers.mailbox(b"jane@example.com", b.now).is_err());
    assert!(b.answers.domain(b"example.com").is_err());
    assert!(b.answers.account(b"jane@example.com", b"imap", b.now).is_err());
    for _ in 0..10 {
        assert!(b.login("jane@example.com", "secret", "imap", "h").is_err());
    }
    b.control.away.store(false, Ordering::SeqCst);
    assert_eq!(b.user("jane@example.com"), Ok(UserStatus::Found));
    assert_eq!(b.user("nobody@example.com"), Ok(UserStatus::Absent));
    // Nor did the fault count as failed logins.
    assert!(matches!(b.login("jane@example.com", "secret", "imap", "h"), Ok(Verdict::Granted(_))));
}

#[test]
fn answers_are_remembered_for_their_time_and_survive_an_outage() {
    let mut b = bench(|_| {});
    for (address, lifetime) in [("jane@example.com", 300), ("nobody@example.com", 30)] {
        b.user(address).unwrap();
        assert_ne!(b.questions(), 0);
        b.control.away.store(true, Ordering::SeqCst);
        b.later(lifetime - 1);
        assert!(b.user(&address.to_uppercase()).is_ok(), "{address}");
        assert_eq!(b.questions(), 0);
        b.later(1);
        assert!(b.user(address).is_err(), "{address}");
        b.control.away.store(false, Ordering::SeqCst);
    }
    assert_eq!(b.shared.counters.get(Count::Hit), 2);
}

#[test]
fn forgetting_is_by_address_by_domain_or_whole() {
    let mut b = bench(|m| {
        m.accounts.insert("joe@example.com".to_owned(), account("joe"));
    });
    let asked = |b: &mut Bench| {
        ["jane@example.com", "joe@example.com", "jane@alias.example", "no@alias.example"].map(|address| {
            b.questions();
            b.user(address).unwrap();
            b.questions() != 0
        })
    };
    asked(&mut b);
    assert_eq!(asked(&mut b), [false; 4]);
    b.shared.forget(b"Joe@Example.com");
    assert_eq!(asked(&mut b), [false, true, false, false]);
    // A real address is forgotten under every name it was asked by, "nobody" included.
    b.shared.forget(b"jane@example.com");
    assert_eq!(asked(&mut b), [true, false, true, false]);
    b.shared.forget(b"no@example.com");
    assert_eq!(asked(&mut b), [false, false, false, true]);
    b.shared.forget(b"alias.example");
    assert_eq!(asked(&mut b), [false, false, true, true]);
    b.shared.forget(b"example.com");
    assert_eq!(asked(&mut b), [true; 4]);
    b.shared.forget(b"");
    assert_eq!(asked(&mut b), [true; 4]);
}

#[test]
fn what_changed_while_it_was_looked_up_is_not_remembered() {
    let mut b = bench(|_| {});
    let shared = Arc::clone(&b.shared);
    *b.control.meanwhile.lock().unwrap() = Some(Box::new(move || shared.forget(b"jane@example.com")));
    b.user("jane@example.com").unwrap();
    assert_eq!(b.shared.remembered(), 0);
    b.user("jane@example.com").unwrap();
    assert_eq!(b.shared.remembered(), 1);
}

#[test]
fn what_cannot_be_an_address_takes_no_memory() {
    let mut b = bench(|_| {});
    for n in 0..50 {
        assert_eq!(b.user(&format!("{n}{}@example.com", "x".repeat(3000))), Ok(UserStatus::Absent));
    }
    assert_eq!((b.shared.remembered(), b.questions()), (0, 0));
}

#[test]
fn the_verdict_needs_the_right_password_before_it_tells_anything_else() {
    let mut b = bench_with(
        |m| {
            for account in [
                Account { active: false, ..account("off") },
                Account { flags: ServiceFlags::NO_POP, ..account("nopop") },
                Account { password: SecretBytes::default(), ..account("empty") },
                Account { password: b"*".as_slice().into(), ..account("locked") },
                Account { scram: Some(b"{CRAM}secret".as_slice().into()), ..account("scram") },
            ] {
                m.accounts.insert(account.address.to_string(), account);
            }
        },
        throttle::Limits { account: 0, host: 0, window: Duration::from_secs(60) },
    );
    for (address, service) in [
        ("jane@example.com", "imap"),
        ("Jane@Alias.example", "sshd"),
        ("scram@example.com", "imap"),
        ("nopop@example.com", "imap"),
    ] {
        let verdict = b.login(address, "secret", service, "").unwrap();
        assert!(matches!(&verdict, Verdict::Granted(m) if m.home.starts_with(b"/home/mail/")), "{verdict:?}");
    }
    for (address, password, service, verdict) in [
        ("jane@example.com", "wrong", "imap", Verdict::Wrong),
        ("jane@example.com", "", "imap", Verdict::Wrong),
        ("nobody@example.com", "secret", "imap", Verdict::Absent),
        ("jane@elsewhere.org", "secret", "imap", Verdict::Absent),
        ("no address", "secret", "imap", Verdict::Absent),
        ("off@example.com", "secret", "imap", Verdict::Disabled),
        ("off@example.com", "wrong", "imap", Verdict::Wrong),
        ("nopop@example.com", "secret", "pop3", Verdict::Disabled),
        ("nopop@example.com", "wrong", "pop3", Verdict::Wrong),
        ("empty@example.com", "", "imap", Verdict::Wrong),
        ("locked@example.com", "*", "imap", Verdict::Wrong),
    ] {
        assert_eq!(b.login(address, password, service, ""), Ok(verdict), "{address} {password} {service}");
    }
}

#[test]
fn limits_expire_accounts_and_passwords_and_disable_services() {
    let past = Some(1_700_000_000);
    let mut b = bench(|m| {
        for (local, limits, flags) in [
            ("gone", Limits { domain_expiry: past, ..Limits::NONE }, ServiceFlags::NONE),
            ("stale", Limits { password_expiry: past, ..Limits::NONE }, ServiceFlags::NONE),
            ("soon", Limits { domain_expiry: Some(1_700_000_001), ..Limits::NONE }, ServiceFlags::NONE),
            ("noimap", Limits { disabled: ServiceFlags::NO_IMAP, ..Limits::NONE }, ServiceFlags::NONE),
            (
                "exempt",
                Limits { domain_expiry: past, password_expiry: past, ..Limits::NONE },
                ServiceFlags::OVERRIDE,
            ),
        ] {
            m.accounts.insert(format!("{local}@example.com"), Account { flags, ..account(local) });
            m.limits.insert(format!("{local}@example.com"), limits);
        }
    });
    for (local, expected) in [
        ("gone", Some(Verdict::Expired)),
        ("stale", Some(Verdict::PasswordExpired)),
        ("soon", None),
        ("noimap", Some(Verdict::Disabled)),
        ("exempt", None),
    ] {
        let address = format!("{local}@example.com");
        let at_login = b.login(&address, "secret", "imap", "").unwrap();
        let at_account = b.answers.account(address.as_bytes(), b"imap", b.now).unwrap();
        assert_eq!(at_login, at_account, "{local}");
        match expected {
            Some(verdict) => assert_eq!(at_login, verdict, "{local}"),
            None => assert!(matches!(at_login, Verdict::Granted(_)), "{local}: {at_login:?}"),
        }
        // Without the password, none of this is told.
        assert_eq!(b.login(&address, "wrong", "imap", ""), Ok(Verdict::Wrong), "{local}");
    }
}

#[test]
fn logins_ask_the_store_each_time() {
    let mut b = bench(|_| {});
    b.user("jane@example.com").unwrap();
    b.questions();
    b.login("jane@example.com", "secret", "imap", "").unwrap();
    assert_ne!(b.questions(), 0);
    b.answers.account(b"jane@example.com", b"imap", b.now).unwrap();
    assert_ne!(b.questions(), 0);
}

#[test]
fn too_many_failures_are_answered_later_whatever_the_password() {
    let mut b = bench(|_| {});
    for n in 0..3 {
        assert_eq!(b.login("jane@example.com", "wrong", "imap", &format!("h{n}")), Ok(Verdict::Wrong));
    }
    b.questions();
    assert_eq!(b.login("JANE@example.com", "secret", "imap", "h9"), Ok(Verdict::Later));
    assert_eq!(b.questions(), 0, "nothing was looked up or hashed");
    assert_eq!(b.shared.counters.get(Count::Throttled), 1);
    b.later(60);
    assert!(matches!(b.login("jane@example.com", "secret", "imap", "h9"), Ok(Verdict::Granted(_))));
    // Unknown accounts are counted alike, and so is a host that tries many names.
    for n in 0..5 {
        assert_eq!(b.login(&format!("u{n}@example.com"), "x", "imap", "192.0.2.1"), Ok(Verdict::Absent));
    }
    assert_eq!(b.login("jane@example.com", "secret", "imap", "192.0.2.1"), Ok(Verdict::Later));
    assert!(matches!(b.login("jane@example.com", "secret", "imap", "192.0.2.2"), Ok(Verdict::Granted(_))));
    b.shared.reset();
    assert!(matches!(b.login("jane@example.com", "secret", "imap", "192.0.2.1"), Ok(Verdict::Granted(_))));
}

/// A hash that is made with so little work that a test can have many of them.
const CHEAP: [&str; 3] = [
    "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
    "$2b$05$abcdefghijklmnopqrstuu7nFISH/8YdwlXD3lw69A4iBUf6fvWAW",
    "$6$rounds=1400$saltsalt$sZBOVAgr9SneMjb63HXAJ4emqj2JJiJiz9w8Y1acxxMtSied.HgZ3MEH1L11GumI/8qjZV4X3.mGwHf3TNW3g0",
];

fn without_throttle(change: impl FnOnce(&mut Memory)) -> Bench {
    bench_with(change, throttle::Limits { account: 0, host: 0, window: Duration::from_secs(60) })
}

#[test]
fn a_login_for_nobody_does_the_work_of_the_accounts_of_its_domain() {
    for hash in CHEAP {
        let mut b = without_throttle(|m| {
            m.accounts.clear();
            for (local, field) in [("ann", hash), ("joe", hash), ("locked", "*"), ("empty", "")] {
                let password = field.as_bytes().into();
                m.accounts.insert(format!("{local}@example.com"), Account { password, ..account(local) });
            }
        });
        let domain = DomainName::parse(b"example.com").unwrap();
        let usual = Work::of(hash.as_bytes()).unwrap();
        for n in 0..50 {
            let address = format!("u{n}@example.com");
            let work = b.answers.work_of_nobody(Some(&domain), address.as_bytes(), b.now.instant);
            assert_eq!(work, usual, "{address}");
        }
        // A domain without accounts, and one that is not of this host.
        let empty = DomainName::parse(b"empty.example").unwrap();
        for domain in [Some(&empty), None] {
            assert_eq!(b.answers.work_of_nobody(domain, b"a@b", b.now.instant), usual);
        }
    }
}

#[test]
fn where_there_are_no_accounts_the_work_is_that_of_a_new_one() {
    let mut b = without_throttle(|m| m.accounts.clear());
    assert_eq!(b.answers.work_of_nobody(None, b"a@b", b.now.instant), Work::default());
}

#[test]
fn the_store_is_asked_alike_for_everybody_and_a_sample_that_fails_refuses_nobody() {
    let mut b = without_throttle(|m| {
        let password = b"*".as_slice().into();
        m.accounts.insert("locked@example.com".to_owned(), Account { password, ..account("locked") });
    });
    for address in ["jane@example.com", "nobody@example.com", "locked@example.com"] {
        b.shared.reset();
        b.questions();
        b.login(address, "wrong", "imap", "").unwrap();
        assert_eq!(b.questions(), 3, "the domain, the sample, the account: {address}");
        b.login(address, "wrong", "imap", "").unwrap();
        assert_eq!(b.questions(), 2, "the sample lasts: {address}");
        // Until somebody has a new password, which may be of another scheme.
        b.shared.forget(b"other@example.com");
        b.login(address, "wrong", "imap", "").unwrap();
        assert_eq!(b.questions(), 3, "{address}");
    }
    b.shared.reset();
    b.control.no_sample.store(true, Ordering::SeqCst);
    assert!(matches!(b.login("jane@example.com", "secret", "imap", ""), Ok(Verdict::Granted(_))));
    assert_eq!(b.login("nobody@example.com", "secret", "imap", ""), Ok(Verdict::Absent));
    b.control.no_sample.store(false, Ordering::SeqCst);
    let domain = DomainName::parse(b"example.com").unwrap();
    let work = b.answers.work_of_nobody(Some(&domain), b"a@example.com", b.now.instant);
    assert_ne!(work, Work::default(), "a failure is not remembered");
}
