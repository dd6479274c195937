use super::*;
use proptest::prelude::*;

fn mailbox() -> impl Strategy<Value = Mailbox> {
    let text = || prop::collection::vec(any::<u8>(), 0..30);
    let aliases = prop::collection::vec(text(), 0..5);
    let quota = (any::<Option<u64>>(), any::<Option<u64>>());
    (text(), any::<[u32; 3]>(), text(), text(), quota, any::<(bool, bool)>(), aliases).prop_map(
        |(address, [uid, gid, flags], home, gecos, (bytes, messages), (active, alias_only), aliases)| {
            Mailbox {
                address,
                uid: Uid::from_raw(uid),
                gid: Gid::from_raw(gid),
                home,
                gecos,
                quota: Quota { bytes, messages },
                flags,
                active,
                alias_only,
                aliases,
            }
        },
    )
}

fn requests<'a>(a: &'a [u8], b: &'a [u8]) -> Vec<Request<'a>> {
    vec![
        Request::User(a),
        Request::Mailbox(a),
        Request::Domain(a),
        Request::Relay { address: a, ip: b },
        Request::Authenticate { address: a, password: b, service: a, remote_host: b },
        Request::Account { address: a, service: b },
        Request::Flush(Key::All),
        Request::Flush(Key::Address(a)),
        Request::Flush(Key::Domain(a)),
        Request::Status,
    ]
}

fn encoded(encode: impl FnOnce(&mut Vec<u8>) -> Result<(), TooLong>) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out).unwrap();
    out
}

fn frame(bytes: &[u8]) -> Frame<'_> {
    frame::split(bytes, MAX_FRAME).unwrap().unwrap().0
}

/// Every frame with its body cut anywhere must be refused, never read as something else.
fn assert_cuts_refused<T: std::fmt::Debug>(
    bytes: &[u8],
    decode: impl Fn(&Frame<'_>) -> Result<T, Malformed>,
) {
    let whole = frame(bytes);
    for cut in 0..whole.body.len() {
        let short = Frame { body: &whole.body[..cut], ..whole };
        assert!(decode(&short).is_err(), "cut at {cut} was accepted");
    }
}

#[test]
fn passwords_are_not_printed() {
    let request =
        Request::Authenticate { address: b"a@b", password: b"hunter2", service: b"", remote_host: b"" };
    assert!(!format!("{request:?}").contains("hunter2"));
}

#[test]
fn an_answer_must_fit_the_question() {
    let bytes = encoded(|o| Reply::User(UserStatus::OverQuota).encode(o));
    assert_eq!(Reply::decode(&Request::Mailbox(b"a"), &frame(&bytes)), Err(Malformed::Code));
    let granted = encoded(|o| frame::append(o, 0, MAX_FRAME, |_| Ok(())));
    let question = Request::Account { address: b"a@b", service: b"" };
    assert!(Reply::decode(&question, &frame(&granted)).is_err(), "an empty grant is no grant");
}

#[test]
fn a_request_above_the_limit_is_not_sent() {
    let mut out = Vec::new();
    assert_eq!(Request::User(&[b'a'; 5000]).encode(&mut out), Err(TooLong));
    assert!(out.is_empty());
}

proptest! {
    #[test]
    fn requests_come_back(a in prop::collection::vec(any::<u8>(), 0..50), b in prop::collection::vec(any::<u8>(), 0..50)) {
        for request in requests(&a, &b) {
            let bytes = encoded(|o| request.encode(o));
            prop_assert_eq!(Request::decode(&frame(&bytes)).unwrap(), request);
            assert_cuts_refused(&bytes, |f| Request::decode(f).map(|_| ()));
        }
    }

    #[test]
    fn replies_come_back(m in mailbox(), d in prop::collection::vec(any::<u8>(), 0..50)) {
        let login = Request::Authenticate { address: b"", password: b"", service: b"", remote_host: b"" };
        let cases = [
            (Request::Mailbox(b""), Reply::Mailbox(m.clone())),
            (Request::Mailbox(b""), Reply::Absent),
            (Request::Domain(b""), Reply::Domain(d.clone())),
            (Request::Relay { address: b"", ip: b"" }, Reply::Yes),
            (Request::User(b""), Reply::User(UserStatus::Found)),
            (Request::User(b""), Reply::User(UserStatus::Absent)),
            (Request::User(b""), Reply::User(UserStatus::Inactive)),
            (Request::User(b""), Reply::User(UserStatus::OverQuota)),
            (Request::User(b""), Reply::User(UserStatus::Alias)),
            (login, Reply::Verdict(Verdict::Granted(m.clone()))),
            (login, Reply::Verdict(Verdict::Absent)),
            (login, Reply::Verdict(Verdict::Wrong)),
            (login, Reply::Verdict(Verdict::Disabled)),
            (login, Reply::Verdict(Verdict::Expired)),
            (login, Reply::Verdict(Verdict::PasswordExpired)),
            (login, Reply::Verdict(Verdict::Later)),
            (Request::Status, Reply::Status(vec![(d.clone(), m.home.clone())])),
            (login, Reply::Temporary),
            (login, Reply::Refused),
        ];
        for (request, reply) in cases {
            let bytes = encoded(|o| reply.encode(o));
            prop_assert_eq!(Reply::decode(&request, &frame(&bytes)).unwrap(), reply);
        }
    }

    #[test]
    fn a_mailbox_cut_short_is_refused(mut m in mailbox()) {
        m.aliases.clear();
        let bytes = encoded(|o| Reply::Mailbox(m.clone()).encode(o));
        assert_cuts_refused(&bytes, |f| Reply::decode(&Request::Mailbox(b""), f));
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz_frames(&bytes);
        let body = encoded(|o| frame::append(o, bytes.first().copied().unwrap_or(0) % 10, MAX_FRAME, |w| w.bytes(&bytes)));
        fuzz_frames(&body);
    }
}
