use super::*;
use proptest::prelude::*;

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>().prop_filter("clean", |b| is_clean(&[*b])), 0..30)
}

prop_compose! {
    fn user()(name in name(), gecos in name(), home in name(), shell in name(), uid: u32, gid: u32) -> User {
        User { name, uid, gid, gecos, home, shell }
    }
}

prop_compose! {
    fn group()(name in name(), gid: u32, members in prop::collection::vec(name(), 0..5)) -> Group {
        Group { name, gid, members }
    }
}

prop_compose! {
    fn shadow()(name in name(), password in name(), d: [Option<u64>; 6]) -> Shadow {
        let [last_change, min, max, warn, inactive, expire] = d;
        Shadow { name, password, last_change, min, max, warn, inactive, expire }
    }
}

fn encoded(encode: impl FnOnce(&mut Vec<u8>) -> Result<(), TooLong>) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out).unwrap();
    out
}

fn frame(bytes: &[u8]) -> Frame<'_> {
    frame::split(bytes, MAX_FRAME).unwrap().unwrap().0
}

fn page<T>(record: T) -> Page<T> {
    Page { records: vec![record], next: b"next".to_vec() }
}

#[test]
fn a_record_with_bytes_that_break_passwd_is_refused() {
    for bad in [&b"a\0b"[..], b"a:b", b"a\nb"] {
        let user = User { gecos: bad.to_vec(), ..User::default() };
        let bytes = encoded(|o| Reply::User(user).encode(o));
        assert_eq!(Reply::decode(&Request::UserById(1), &frame(&bytes)), Err(Malformed::Value));
    }
}

#[test]
fn hashes_are_not_printed() {
    let shadow = Shadow { password: b"$6$hidden".to_vec(), ..Shadow::default() };
    assert!(!format!("{:?}", Reply::Shadow(shadow)).contains("$6$"));
}

#[test]
fn an_empty_page_must_be_the_last() {
    let bytes = encoded(|o| Reply::Users(Page { records: vec![], next: b"again".to_vec() }).encode(o));
    let request = Request::Page { map: Map::Passwd, cursor: b"" };
    assert_eq!(Reply::decode(&request, &frame(&bytes)), Err(Malformed::Value));
}

proptest! {
    #[test]
    fn requests_come_back(name in prop::collection::vec(any::<u8>(), 0..50), id: u32) {
        let maps = [Map::Passwd, Map::Group, Map::Shadow].map(|map| Request::Page { map, cursor: &name });
        let others = [
            Request::UserByName(&name), Request::UserById(id), Request::GroupByName(&name),
            Request::GroupById(id), Request::ShadowByName(&name), Request::GroupsOf(&name),
            Request::Flush(Key::All), Request::Flush(Key::Domain(&name)), Request::Status,
        ];
        for request in maps.into_iter().chain(others) {
            let bytes = encoded(|o| request.encode(o));
            let whole = frame(&bytes);
            prop_assert_eq!(Request::decode(&whole).unwrap(), request);
            for cut in 0..whole.body.len() {
                let short = Frame { body: &whole.body[..cut], ..whole };
                prop_assert!(Request::decode(&short).is_err());
            }
        }
    }

    #[test]
    fn replies_come_back(u in user(), g in group(), s in shadow(), gids: Vec<u32>) {
        let map = |map| Request::Page { map, cursor: b"" };
        prop_assume!(gids.len() < 1000);
        let mut measured = Vec::new();
        frame::append(&mut measured, 0, MAX_FRAME, |w| { u.put(w)?; g.put(w)?; s.put(w) }).unwrap();
        prop_assert_eq!(measured.len() - 8, u.size() + g.size() + s.size());
        let cases = [
            (Request::UserById(1), Reply::User(u.clone())),
            (Request::GroupById(1), Reply::Group(g.clone())),
            (Request::ShadowByName(b""), Reply::Shadow(s.clone())),
            (Request::GroupsOf(b""), Reply::Groups(gids)),
            (map(Map::Passwd), Reply::Users(page(u))),
            (map(Map::Group), Reply::GroupPage(page(g))),
            (map(Map::Shadow), Reply::Shadows(page(s))),
            (Request::Flush(Key::All), Reply::Done),
            (Request::Status, Reply::Status(vec![(b"a".to_vec(), b"1".to_vec())])),
            (Request::UserById(1), Reply::Absent),
            (Request::UserById(1), Reply::Temporary),
            (Request::UserById(1), Reply::Refused),
        ];
        for (request, reply) in cases {
            let bytes = encoded(|o| reply.encode(o));
            prop_assert_eq!(Reply::decode(&request, &frame(&bytes)).unwrap(), reply);
        }
    }

    #[test]
    fn a_user_cut_short_is_refused(u in user()) {
        let bytes = encoded(|o| Reply::User(u.clone()).encode(o));
        let whole = frame(&bytes);
        for cut in 0..whole.body.len() {
            let short = Frame { body: &whole.body[..cut], ..whole };
            prop_assert!(Reply::decode(&Request::UserById(1), &short).is_err());
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz_frames(&bytes);
        let body = encoded(|o| frame::append(o, bytes.first().copied().unwrap_or(0) % 12, MAX_FRAME, |w| w.bytes(&bytes)));
        fuzz_frames(&body);
    }
}
