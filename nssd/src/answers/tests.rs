use super::*;
use crate::source::fake::{Fake, domain, entry};
use accounts::DomainName;

const ROOT: Asker = Asker { is_root: true, is_administrator: true };
const ANYBODY: Asker = Asker { is_root: false, is_administrator: false };
const SECOND: Duration = Duration::from_secs(1);

fn rules() -> Rules {
    let lifetimes = Lifetimes { positive: 300 * SECOND, negative: 20 * SECOND, capacity: 100 };
    Rules { policy: Policy::default(), lifetimes }
}

fn fake() -> Fake {
    let mut fake = Fake::default();
    fake.add(entry("ann@example.org", 4000, 4000));
    fake.domains = vec![domain("example.org", 9000, 9000), domain("shared.org", 5555, 5555)];
    fake.domains.push(domain("other.org", 5555, 5555));
    let mut alias = domain("alias.org", 9000, 9000);
    alias.real = DomainName::parse(b"example.org").unwrap();
    fake.domains.push(alias);
    fake
}

struct Bench {
    answers: Answers,
    source: Fake,
    start: Instant,
}

impl Bench {
    fn new() -> Self {
        Self { answers: Answers::new(rules()), source: fake(), start: Instant::now() }
    }

    fn ask_at(&mut self, asker: Asker, request: Request<'_>, seconds: u32) -> Answer<Reply> {
        self.answers.answer(&mut self.source, asker, &request, self.start + seconds * SECOND, &|_| {})
    }

    fn ask(&mut self, request: Request<'_>) -> Reply {
        self.ask_at(ROOT, request, 0).unwrap()
    }
}

#[test]
fn users_by_name_and_id_in_any_case() {
    let mut b = Bench::new();
    let Reply::User(user) = b.ask(Request::UserByName(b"Ann@Example.ORG")) else { panic!() };
    assert_eq!((user.name.as_slice(), user.uid), (&b"ann@example.org"[..], 4000));
    assert!(matches!(b.ask(Request::UserById(4000)), Reply::User(_)));
    for absent in
        [&b"bob@example.org"[..], b"ann", b"root", b"", b"ann@example.org\0", b"a/b@example.org", b"@"]
    {
        assert_eq!(b.ask(Request::UserByName(absent)), Reply::Absent, "{}", absent.escape_ascii());
    }
}

#[test]
fn ids_below_the_floor_are_not_even_asked_for() {
    let mut b = Bench::new();
    for id in [0, 1, 499] {
        assert_eq!(b.ask(Request::UserById(id)), Reply::Absent);
        assert_eq!(b.ask(Request::GroupById(id)), Reply::Absent);
    }
    assert_eq!(b.source.questions, 0);
}

#[test]
fn groups_are_domains_and_a_shared_id_is_nobody_s() {
    let mut b = Bench::new();
    let Reply::Group(group) = b.ask(Request::GroupByName(b"shared.org")) else { panic!() };
    assert_eq!((group.gid, group.members.len()), (5555, 0));
    let Reply::Group(group) = b.ask(Request::GroupById(9000)) else {
        panic!("an alias domain does not count")
    };
    assert_eq!(group.name, b"example.org");
    assert_eq!(b.ask(Request::GroupById(5555)), Reply::Absent);
}

#[test]
fn an_account_with_ids_of_its_own_is_also_in_its_domain_s_group() {
    let mut b = Bench::new();
    assert_eq!(b.ask(Request::GroupsOf(b"ann@example.org")), Reply::Groups(vec![9000]));
    b.source.add(entry("bob@example.org", 9000, 9000));
    assert_eq!(b.ask(Request::GroupsOf(b"bob@example.org")), Reply::Absent);
}

#[test]
fn shadow_is_for_root() {
    let mut b = Bench::new();
    let request = Request::ShadowByName(b"ann@example.org");
    assert!(matches!(b.ask(request), Reply::Shadow(s) if s.password == b"*"));
    assert_eq!(b.ask_at(ANYBODY, request, 0), Ok(Reply::Refused));
    assert_eq!(b.ask_at(ANYBODY, Request::Page { map: Map::Shadow, cursor: b"" }, 0), Ok(Reply::Refused));
    assert_eq!(b.answers.remembered(), 0, "shadow records are not kept in memory");
}

#[test]
fn answers_are_remembered_for_their_time_and_errors_never() {
    let mut b = Bench::new();
    b.source.away = true;
    for _ in 0..2 {
        assert!(b.ask_at(ROOT, Request::UserByName(b"ann@example.org"), 0).is_err());
    }
    assert_eq!(b.source.questions, 2, "an error is never remembered, and never a no");
    b.source.away = false;
    b.ask(Request::UserByName(b"ann@example.org"));
    b.ask(Request::UserByName(b"bob@example.org"));
    b.source.away = true;
    let ann = Request::UserByName(b"ANN@example.org");
    let bob = Request::UserByName(b"bob@example.org");
    assert!(matches!(b.ask_at(ROOT, ann, 299), Ok(Reply::User(_))));
    assert!(b.ask_at(ROOT, ann, 300).is_err());
    assert_eq!(b.ask_at(ROOT, bob, 19), Ok(Reply::Absent));
    assert!(b.ask_at(ROOT, bob, 20).is_err());
}

#[test]
fn a_flush_is_for_administrators_and_reaches_every_form_of_an_answer() {
    let mut b = Bench::new();
    let ann = b"ann@example.org";
    let all = [Request::UserByName(ann), Request::UserById(4000), Request::GroupsOf(ann)];
    for request in all {
        b.ask(request);
    }
    b.ask(Request::UserByName(b"bob@example.org"));
    assert_eq!(b.ask_at(ANYBODY, Request::Flush(Key::All), 0), Ok(Reply::Refused));
    assert_eq!(b.answers.remembered(), 4);
    assert_eq!(b.ask(Request::Flush(Key::Address(b"Ann@example.org"))), Reply::Done);
    assert_eq!(b.answers.remembered(), 1, "only bob is left");
    b.ask(Request::Flush(Key::Domain(b"example.org")));
    assert_eq!(b.answers.remembered(), 0);
    b.source.entries.clear();
    assert_eq!(b.ask(Request::UserByName(ann)), Reply::Absent);
}

#[test]
fn the_number_of_remembered_answers_is_bounded() {
    let mut b = Bench::new();
    for n in 0..1000 {
        b.ask(Request::UserByName(format!("u{n}@example.org").as_bytes()));
    }
    assert_eq!(b.answers.remembered(), 100);
}

fn walk(b: &mut Bench, asker: Asker, map: Map) -> (Vec<Vec<u8>>, usize) {
    let (mut names, mut pages, mut cursor) = (Vec::new(), 0, Vec::new());
    loop {
        let reply = b.ask_at(asker, Request::Page { map, cursor: &cursor }, 0).unwrap();
        let mut bytes = Vec::new();
        reply.encode(&mut bytes).expect("a page fits a frame");
        pages += 1;
        cursor = match reply {
            Reply::Users(page) => {
                names.extend(page.records.into_iter().map(|r| r.name));
                page.next
            }
            Reply::GroupPage(page) => {
                names.extend(page.records.into_iter().map(|r| r.name));
                page.next
            }
            Reply::Shadows(page) => {
                names.extend(page.records.into_iter().map(|r| r.name));
                page.next
            }
            other => panic!("{other:?}"),
        };
        if cursor.is_empty() {
            return (names, pages);
        }
    }
}

#[test]
fn enumeration_is_paged_and_complete_and_skips_what_has_no_record() {
    let mut b = Bench::new();
    for n in 0..1000 {
        let mut e = entry(&format!("u{n:04}@example.org"), 4001 + n, 4001);
        e.account.gecos = "g".repeat(300);
        b.source.add(e);
    }
    b.source.add(entry("mallory@example.org", 0, 0));
    for map in [Map::Passwd, Map::Shadow] {
        let (names, pages) = walk(&mut b, ROOT, map);
        assert_eq!(names.len(), 1001);
        assert!(names.is_sorted() && !names.contains(&b"mallory@example.org".to_vec()));
        assert!(pages > 3, "{pages}");
    }
    let (groups, _) = walk(&mut b, ROOT, Map::Group);
    assert_eq!(groups, [b"example.org".to_vec(), b"shared.org".to_vec(), b"other.org".to_vec()]);
}

#[test]
fn enumeration_obeys_the_policy() {
    for (policy, asker, expected) in [
        (Enumeration::Off, ROOT, 0),
        (Enumeration::Root, ROOT, 1),
        (Enumeration::Root, ANYBODY, 0),
        (Enumeration::All, ANYBODY, 1),
    ] {
        let mut b = Bench::new();
        let mut rules = rules();
        rules.policy.enumeration = policy;
        b.answers.reload(rules);
        assert_eq!(walk(&mut b, asker, Map::Passwd).0.len(), expected, "{policy}");
    }
}

#[test]
fn many_groups_take_several_pages() {
    let mut b = Bench::new();
    b.source.domains =
        (0..3000).map(|n| domain(&format!("{n}.{}.example", "d".repeat(40)), 9000, 9000)).collect();
    let (groups, pages) = walk(&mut b, ROOT, Map::Group);
    assert_eq!(groups.len(), 3000);
    assert!(pages > 2);
}

#[test]
fn hostile_names_and_cursors_are_no_more_than_absent() {
    let mut b = Bench::new();
    for name in
        [&b"' OR 1=1 --@example.org"[..], b"%s%n@example.org", &[b'a'; 4000], b"a@b@c", b"\xff@example.org"]
    {
        assert_eq!(b.ask(Request::UserByName(name)), Reply::Absent);
        assert_eq!(b.ask(Request::GroupsOf(name)), Reply::Absent);
        let page = b.ask(Request::Page { map: Map::Passwd, cursor: name });
        assert!(matches!(page, Reply::Users(p) if p.records.is_empty() && p.next.is_empty()));
    }
    assert_eq!(b.source.questions, 0);
}
