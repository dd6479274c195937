//! Maps as a reader sees them: what was put in comes out, changes count, and damage is never believed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use snapshot::{Answer, Builder, Change, Changes, DomainRow, Full, Header, Map, Row, Standing, State};

/// What a user is: uid, gid, own uid, further group, comment, home, shell.
type Facts = (u32, u32, bool, u32, Vec<u8>, Vec<u8>, Vec<u8>);

fn facts(uid: u32, owns: bool) -> Facts {
    (uid, 7001, owns, 7002, b"A B".to_vec(), b"/home/a".to_vec(), b"/bin/sh".to_vec())
}

fn row<'a>(name: &'a [u8], f: &'a Facts) -> Row<'a> {
    Row { name, uid: f.0, gid: f.1, owns_uid: f.2, also: f.3, gecos: &f.4, home: &f.5, shell: &f.6 }
}

fn domain<'a>(name: &'a [u8], real: &'a [u8], gid: u32) -> DomainRow<'a> {
    let is_real = name == real;
    DomainRow { name, real, ids: (gid, gid), is_group: true, owns_gid: is_real, must_ask: false }
}

fn built(users: &BTreeMap<Vec<u8>, Facts>, domains: &[DomainRow<'_>]) -> Vec<AtomicU64> {
    let mut builder = Builder::new(Vec::new(), 0x1234_5678_9abc_def1);
    for (name, facts) in users {
        builder.user(&row(name, facts)).unwrap();
    }
    for row in domains {
        builder.domain(row).unwrap();
    }
    let (body, mut bytes) = builder.finish(1, 1_700_000_000, (100, 200)).unwrap();
    bytes.extend(body);
    bytes.chunks_exact(8).map(|c| AtomicU64::new(u64::from_ne_bytes(c.try_into().unwrap()))).collect()
}

fn seen(map: &Map<'_>, name: &[u8]) -> Answer<Facts> {
    match map.user(name) {
        Answer::Found(u) => {
            assert_eq!(u.name(), name.to_ascii_lowercase());
            let strings = [b"\0x\0", u.gecos(), b"\0", u.home(), b"\0", u.shell(), b"\0"].concat();
            assert_eq!(u.tail(), strings);
            let texts = (u.gecos().to_vec(), u.home().to_vec(), u.shell().to_vec());
            Answer::Found((u.uid(), u.gid(), u.has_own_uid(), u.also(), texts.0, texts.1, texts.2))
        }
        Answer::Absent => Answer::Absent,
        Answer::Ask => Answer::Ask,
    }
}

fn uid_name(map: &Map<'_>, uid: u32) -> Answer<Vec<u8>> {
    match map.user_by_uid(uid) {
        Answer::Found(u) => Answer::Found(u.name().to_vec()),
        Answer::Absent => Answer::Absent,
        Answer::Ask => Answer::Ask,
    }
}

fn small() -> BTreeMap<Vec<u8>, Facts> {
    [("ann@example.org", facts(8001, true)), ("bob@example.org", facts(7001, false))]
        .map(|(n, f)| (n.as_bytes().to_vec(), f))
        .into()
}

const DOMAINS: [(&[u8], &[u8], u32); 3] = [
    (b"example.org", b"example.org", 7001),
    (b"second.example", b"second.example", 7002),
    (b"alias.example", b"example.org", 7001),
];

fn furnished() -> Vec<AtomicU64> {
    built(&small(), &DOMAINS.map(|(n, r, g)| domain(n, r, g)))
}

#[test]
fn users_groups_and_alias_domains_are_found_in_any_case() {
    let words = furnished();
    let header = Header::read(&words).unwrap();
    let map = Map::new(&words, &header);
    assert!(map.is_whole());
    assert_eq!((header.users, header.domains), (2, 3));
    for name in [&b"ann@example.org"[..], b"Ann@EXAMPLE.org", b"ann@alias.example"] {
        assert_eq!(seen(&map, name), Answer::Found(facts(8001, true)));
    }
    for name in
        [&b"nobody@example.org"[..], b"ann@else.where", b"ann", b"", b"example.org", b"a\0b", &[b'x'; 400]]
    {
        assert_eq!(seen(&map, name), Answer::Absent, "{}", name.escape_ascii());
    }
    assert_eq!(uid_name(&map, 8001), Answer::Found(b"ann@example.org".to_vec()));
    assert_eq!(uid_name(&map, 7001), Answer::Absent, "a uid that a domain shares names nobody");
    let group = |a: Answer<snapshot::Group>| match a {
        Answer::Found(g) => Some((g.name().to_vec(), g.gid())),
        _ => None,
    };
    assert_eq!(group(map.group(b"Second.example")), Some((b"second.example".to_vec(), 7002)));
    assert_eq!(group(map.group(b"alias.example")), Some((b"alias.example".to_vec(), 7001)));
    assert_eq!(group(map.group_by_gid(7001)), Some((b"example.org".to_vec(), 7001)));
    assert!(matches!(map.group(b"ann@example.org"), Answer::Absent));
    assert!(matches!(map.group_by_gid(9), Answer::Absent));
    assert_eq!(map.groups_of(b"ann@example.org"), Answer::Found(7002));
}

#[test]
fn changes_count_at_once_and_the_last_one_wins() {
    let words = furnished();
    let header = Header::read(&words).unwrap();
    let map = Map::new(&words, &header);
    let changes = Changes::new(&words, &header);
    changes.append(Change::Gone(b"ann@example.org")).unwrap();
    assert_eq!(seen(&map, b"ann@example.org"), Answer::Absent);
    assert_eq!(seen(&map, b"ann@alias.example"), Answer::Absent);
    assert_eq!(uid_name(&map, 8001), Answer::Absent);
    // Her uid goes to another one, and back.
    changes.append(Change::User(row(b"new@example.org", &facts(8001, true)))).unwrap();
    assert_eq!(uid_name(&map, 8001), Answer::Found(b"new@example.org".to_vec()));
    assert_eq!(seen(&map, b"new@alias.example"), Answer::Found(facts(8001, true)));
    changes.append(Change::User(row(b"new@example.org", &facts(8002, true)))).unwrap();
    assert_eq!(uid_name(&map, 8001), Answer::Absent);
    assert_eq!(uid_name(&map, 8002), Answer::Found(b"new@example.org".to_vec()));
    changes.append(Change::User(row(b"ann@example.org", &facts(8001, true)))).unwrap();
    assert_eq!(uid_name(&map, 8001), Answer::Found(b"ann@example.org".to_vec()));
    changes.append(Change::Ask(b"bob@example.org")).unwrap();
    assert_eq!(seen(&map, b"bob@example.org"), Answer::Ask);
    // What no record can hold is asked about.
    let long = (8005, 7001, true, 0, vec![b'g'; 2000], b"/".to_vec(), b"/".to_vec());
    changes.append(Change::User(row(b"long@example.org", &long))).unwrap();
    assert_eq!(seen(&map, b"long@example.org"), Answer::Ask);
    let mut names = Vec::new();
    assert!(map.each_change(|e| names.push(e.name().to_vec())));
    assert_eq!(names.len(), 6);
    assert!(map.is_whole(), "what was built is not touched");
}

#[test]
fn a_map_that_is_full_says_so_and_keeps_what_it_has() {
    let words = furnished();
    let header = Header::read(&words).unwrap();
    let changes = Changes::new(&words, &header);
    let mut count = 0;
    while changes.append(Change::User(row(b"ann@example.org", &facts(9000 + count, true)))).is_ok() {
        count += 1;
    }
    assert!(count > 1000);
    assert_eq!(changes.append(Change::Gone(b"ann@example.org")), Err(Full));
    let map = Map::new(&words, &header);
    assert_eq!(seen(&map, b"ann@example.org"), Answer::Found(facts(9000 + count - 1, true)));
    assert_eq!(uid_name(&map, 9000), Answer::Absent);
    assert_eq!(header.changes(&words), (count.into(), 99));
}

#[test]
fn what_a_map_is_good_for_depends_on_the_time_and_on_the_daemon() {
    let words = furnished();
    let header = Header::read(&words).unwrap();
    let standing = |now| header.standing(&words, now);
    assert_eq!(
        [100, 101, 200, 201].map(standing),
        [Standing::Complete, Standing::Found, Standing::Found, Standing::Expired]
    );
    header.set_state(&words, State::Ask);
    assert_eq!([100, 201].map(standing), [Standing::Ask, Standing::Expired]);
    header.set_state(&words, State::Live);
    header.set_times(&words, 300, 400);
    assert_eq!(standing(250), Standing::Complete);
    header.set_state(&words, State::Superseded);
    assert_eq!(standing(250), Standing::Superseded);
    words[32].store(77, Ordering::Relaxed);
    assert_eq!(standing(250), Standing::Expired);
}

#[test]
fn no_single_damaged_word_changes_an_answer() {
    let words = furnished();
    let header = Header::read(&words).unwrap();
    Changes::new(&words, &header).append(Change::Gone(b"bob@example.org")).unwrap();
    let expected = [
        (&b"ann@example.org"[..], Answer::Found(facts(8001, true))),
        (b"bob@example.org", Answer::Absent),
        (b"eve@alias.example", Answer::Absent),
    ];
    // Everything but the times and the room for further changes.
    let used = words.iter().rposition(|w| w.load(Ordering::Relaxed) != 0).unwrap();
    for at in (0..25).chain(512..=used) {
        for flip in [1_u64, 1 << 20, 1 << 33, 1 << 63, u64::MAX] {
            words[at].fetch_xor(flip, Ordering::Relaxed);
            if let Some(header) = Header::read(&words) {
                let map = Map::new(&words, &header);
                for (name, right) in &expected {
                    let got = seen(&map, name);
                    assert!(got == *right || got == Answer::Ask, "word {at} ^ {flip:x}: {got:?}");
                }
                let by_uid = uid_name(&map, 8001);
                assert!(
                    by_uid == Answer::Found(b"ann@example.org".to_vec()) || by_uid == Answer::Ask,
                    "{at}"
                );
                assert!(matches!(map.group_by_gid(9), Answer::Absent | Answer::Ask));
            }
            words[at].fetch_xor(flip, Ordering::Relaxed);
        }
    }
    // Cut short, or longer than it says.
    for length in [0, 1, 24, 25, 511, 512, words.len() - 1] {
        assert_eq!(Header::read(&words[..length]), None);
    }
}

fn text(most: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(1..=255_u8, 0..most)
}

fn people() -> impl Strategy<Value = BTreeMap<Vec<u8>, Facts>> {
    let name = "[a-z0-9]{1,30}@(example[.]org|second[.]example)".prop_map(String::into_bytes);
    let facts = (1..50_000_u32, any::<u32>(), Just(false), any::<u32>(), text(48), text(156), text(30));
    prop::collection::btree_map(name, facts, 0..200).prop_map(|mut users| {
        // Own uids are different ones.
        for (n, (_, facts)) in (60_000..).zip(users.iter_mut()) {
            if facts.0 % 2 == 0 {
                (facts.0, facts.2) = (n, true);
            }
        }
        users
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_was_put_in_comes_out(users in people(), changed in people(), gone: prop::sample::Index) {
        let words = built(&users, &DOMAINS.map(|(n, r, g)| domain(n, r, g)));
        let header = Header::read(&words).unwrap();
        let map = Map::new(&words, &header);
        prop_assert!(map.is_whole());
        let mut rows = 0;
        let all = map.each_row(|e| {
            assert_eq!(e.ordinal(), rows);
            rows += 1;
        });
        prop_assert!(all);
        prop_assert_eq!(u64::from(rows), header.users);
        let mut now = users.clone();
        let changes = Changes::new(&words, &header);
        if !users.is_empty() {
            let name = users.keys().nth(gone.index(users.len())).unwrap();
            changes.append(Change::Gone(name)).unwrap();
            now.remove(name);
        }
        for (name, (uid, facts)) in changed.iter().map(|(n, f)| (n, (f.0, f))) {
            let facts = (uid + 1_000_000, facts.1, facts.2, facts.3, facts.4.clone(), facts.5.clone(), facts.6.clone());
            changes.append(Change::User(row(name, &facts))).unwrap();
            now.insert(name.clone(), facts);
        }
        for name in users.keys().chain(changed.keys()) {
            prop_assert_eq!(seen(&map, name), now.get(name).map_or(Answer::Absent, |f| Answer::Found(f.clone())));
        }
        for (name, facts) in now.iter().filter(|(_, f)| f.2) {
            prop_assert_eq!(uid_name(&map, facts.0), Answer::Found(name.clone()));
        }
    }

    #[test]
    fn garbled_maps_hurt_nobody_and_invent_nobody(
        hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>()), 1..40),
    ) {
        let words = furnished();
        for (at, value) in hits {
            at.get(&words[..4000]).store(value, Ordering::Relaxed);
        }
        if let Some(header) = Header::read(&words) {
            let map = Map::new(&words, &header);
            let got = seen(&map, b"ann@example.org");
            prop_assert!(got == Answer::Found(facts(8001, true)) || got == Answer::Ask);
            prop_assert!(matches!(seen(&map, b"eve@example.org"), Answer::Absent | Answer::Ask));
        }
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.load(Ordering::Relaxed).to_ne_bytes()).collect();
        snapshot::fuzz_map(&bytes);
    }

    #[test]
    fn any_bytes_are_a_map_or_none(bytes: Vec<u8>) {
        snapshot::fuzz_map(&bytes);
    }
}
