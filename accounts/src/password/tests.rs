//! Known answers (made with openssl, the C library by way of perl, and Python's hashlib; those of SCRAM
//! are the examples of RFC 5802 and RFC 7677, those of argon2 belong to its reference code).

use super::*;
use proptest::prelude::*;

const HELLO: [&str; 10] = [
    "$1$abcdefgh$fzmjzFdo5nMtBG8gtud5e0",
    "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5",
    "$6$saltstringsalt$f7BsoS8PFXMxMdMdfIFxvVFnGZK97OEJnYVpTyDkhsZ4FzHl2ErMAohlhYL1/DBnEbTUt9OZ6VExIhZI3hfk50",
    "$6$rounds=1400$saltsalt$sZBOVAgr9SneMjb63HXAJ4emqj2JJiJiz9w8Y1acxxMtSied.HgZ3MEH1L11GumI/8qjZV4X3.mGwHf3TNW3g0",
    "$2a$05$abcdefghijklmnopqrstuu7nFISH/8YdwlXD3lw69A4iBUf6fvWAW",
    "$2b$05$abcdefghijklmnopqrstuu7nFISH/8YdwlXD3lw69A4iBUf6fvWAW",
    "$2y$05$abcdefghijklmnopqrstuu7nFISH/8YdwlXD3lw69A4iBUf6fvWAW",
    "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$42RgPIrXdXSEEs77lDi/4IqKVqFBAVaHJkzw5uD1r57",
    "$gy$j9T$F5Jx5fExrKuPp53xLKQ..1$uLkBCRJb/TzKBTR3DrVo2tiThTkOvFiPjk1DUnHM8aA",
    "$7$BU..../....abcdefghijklmnop$yC22.x6qmB.qv12eW8EuHZQpvTXBrFEPcSz.Kb/QwV3",
];
const DES: &str = "abhv/ZnAzL36k";
const ARGON2: [&str; 2] = [
    "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
    "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
];
/// Of the password `pencil`.
const SCRAM: [&str; 3] = [
    "{SCRAM-SHA-1}4096,QSXCR+Q6sek8bf92,6dlGYMOdZcOPutkcNY8U2g7vK9Y=,D+CSWLOshSulAsxiupA+qs2/fTE=",
    "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
    "{SCRAM-SHA-512}4096,W22ZaJ0SNY7soEsUEjb6gQ==,6AAub3065EYRmyFpM2RNwqK+eGnrkYuEWbXn19LsEmBqzu8QaCXNc1FwpnX9NhH2hK/60dzj9DoO5DvVkOHbvg==,jZHbYjC1aHh0/hKbxyBuGFjDrgjgKTT1esA7awWiKcRZ0o/0b1yWEebBeSVkkCFewf91nLDfKF24mvD5nmE6rA==",
];

fn ok(stored: &str, password: &str) -> bool {
    verify(stored.as_bytes(), password.as_bytes()).unwrap()
}

#[test]
fn known_answers_of_every_scheme() {
    for stored in HELLO {
        assert!(ok(stored, "Hello world!"), "{stored}");
        assert!(!ok(stored, "Hello world"), "{stored}");
        assert!(!ok(stored, stored), "the hash is no password");
    }
    assert!(ok(DES, "secret12") && !ok(DES, "secret11"));
    for stored in ARGON2 {
        assert!(ok(stored, "password") && !ok(stored, "Password"), "{stored}");
    }
    for stored in SCRAM {
        assert!(ok(stored, "pencil") && !ok(stored, "pen"), "{stored}");
    }
    assert!(!ok("{CRAM}p,e:ncil", "p,e:ncil"), "the part after the last comma is the hash");
    assert!(ok("{CRAM}pencil", "pencil") && !ok("{CRAM}pencil", "pencil2"));
}

#[test]
fn empty_locked_and_unknown_fields_match_nothing() {
    for stored in [
        "",
        "*",
        "!",
        "!!",
        "x",
        "*0",
        "*1",
        "*LK*",
        "!$6$saltsalt$",
        "plain text",
        "$3$$87ee0af454a9cb8d90d24196068637a8",
        "$9$unknown$x",
        "$md5$x",
        "$sha1$1$x$y",
        "$6$",
        "$6",
        "$y$",
        "$2b$05$short",
        "$argon2id$",
        "$argon2i$v=19$m=8,t=1,p=1$c29tZXNhbHQ$AAAA",
        "$argon2id$v=19$m=4294967295,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
        "{CRAM}",
        "{SCRAM-SHA-1}",
        "{SCRAM-SHA-1}4096,a,b",
        "{X}y",
    ] {
        for password in ["", "*", "*0", "*1", "!", "x", stored] {
            assert!(!ok(stored, password), "{stored:?} {password:?}");
        }
    }
    // A setting without its hash part must not be matched by what it leads to.
    assert!(!ok("$6$saltsalt$", "Hello world!"));
}

#[test]
fn passwords_crypt_would_cut_short_are_refused() {
    let stored =
        "$6$saltsalt$qkTgsCrWMTAS9gBGcf9W60sFfH.hU0oTCAOJjhbz5tSp/sU3/xXZK4OFwCtq8lIIdpJ6CatVdOTSHKp97TPkt/";
    assert!(ok(stored, ""), "the hash of the empty password");
    assert!(!ok(stored, "\0anything"));
    assert!(!verify(stored.as_bytes(), &vec![b'x'; 100_000]).unwrap());
}

#[test]
fn combined_fields() {
    let crypt = HELLO[1];
    for scram in SCRAM {
        let both = format!("{scram},{crypt}");
        assert_eq!(split(both.as_bytes()), (Some(scram.as_bytes()), crypt.as_bytes()));
        assert!(ok(&both, "Hello world!") && !ok(&both, "pencil"), "the hash decides when there is one");
        let argon = format!("{scram},{}", ARGON2[1]);
        assert_eq!(split(argon.as_bytes()).1, ARGON2[1].as_bytes());
    }
    let long = format!("{}:1d96ee3a529b5a5f9e47c01f229a2cb8a6e15f7d:pen,cil", SCRAM[0]);
    for hash in [crypt, ARGON2[1], DES] {
        let both = format!("{long},{hash}");
        assert_eq!(split(both.as_bytes()), (Some(long.as_bytes()), hash.as_bytes()));
    }
    assert_eq!(
        split(format!("{{CRAM}}a,b,{}", ARGON2[1]).as_bytes()),
        (Some(&b"{CRAM}a,b"[..]), ARGON2[1].as_bytes())
    );
    assert_eq!(split(crypt.as_bytes()), (None, crypt.as_bytes()));
}

#[test]
fn scram_secrets_of_both_forms() {
    for (text, mechanism) in SCRAM.iter().zip([Mechanism::Sha1, Mechanism::Sha256, Mechanism::Sha512]) {
        let secret = ScramSecret::parse(text.as_bytes()).unwrap();
        assert_eq!((secret.mechanism, secret.iterations), (mechanism, 4096));
        assert_eq!(secret.encode().expose(), text.as_bytes());
        let made = ScramSecret::create(mechanism, b"pencil", 4096, Some(secret.salt.clone())).unwrap();
        assert_eq!(made, secret);
        let long = ScramSecret::parse(secret.encode_with_clear(b"pencil").expose()).unwrap();
        assert_eq!(long.clear.unwrap().expose(), b"pencil");
    }
    let long = ScramSecret::parse(SCRAM[0].as_bytes()).unwrap().encode_with_clear(b"pencil");
    assert!(long.expose().ends_with(b":1d96ee3a529b5a5f9e47c01f229a2cb8a6e15f7d:pencil"));
    for bad in [
        "{SCRAM-SHA-1}0,QSXCR+Q6sek8bf92,6dlGYMOdZcOPutkcNY8U2g7vK9Y=,D+CSWLOshSulAsxiupA+qs2/fTE=",
        "{SCRAM-SHA-1}4096,QSXCR+Q6sek8bf92,6dlGYMOdZcOPutkcNY8U2g7vK9Y=",
        "{SCRAM-SHA-1}4096,QSXCR+Q6sek8bf92,6dlGYMOdZcOPutkcNY8U2g7vK9Y=,D+CSWLOshSulAsxiupA+qs2/fTE=,x",
        "{SCRAM-SHA-1}4096,QSXCR+Q6sek8bf92,6dlGYMOdZcOPutkcNY8U2g7vK9Y=,D+CSWLOshSulAsxiupA+qs2/fTE=:ab",
        "{SCRAM-SHA-256}4096,QSXCR+Q6sek8bf92,6dlGYMOdZcOPutkcNY8U2g7vK9Y=,D+CSWLOshSulAsxiupA+qs2/fTE=",
        "{SCRAM-MD5}4096,a,b,c",
    ] {
        assert!(ScramSecret::parse(bad.as_bytes()).is_none(), "{bad}");
    }
}

#[test]
fn new_hashes_verify_and_have_salts_of_their_own() {
    use Scheme::*;
    for (scheme, prefix) in [
        (Des, ""),
        (Md5, "$1$"),
        (Sha256, "$5$"),
        (Sha512, "$6$"),
        (Yescrypt, "$y$j9T$"),
        (Bcrypt, "$2b$12$"),
        (Argon2id, "$argon2id$v=19$"),
    ] {
        let [one, two] = [(); 2].map(|()| create(scheme, b"pass w").unwrap());
        assert!(one != two, "{scheme:?}");
        assert_eq!(Scheme::of(one.expose()), Some(scheme));
        assert!(one.expose().starts_with(prefix.as_bytes()) && one.expose().len() <= 128, "{scheme:?}");
        assert!(verify(one.expose(), b"pass w").unwrap() && !verify(one.expose(), b"pass W").unwrap());
    }
    assert!(create(Scrypt, b"x").is_err());
}

#[test]
fn the_scheme_is_chosen_in_order() {
    let file = b"# comment\n  MD5 and so on\n";
    assert_eq!(choose(None, None, None, None).unwrap(), Scheme::Sha512);
    assert_eq!(choose(None, None, None, Some(file)).unwrap(), Scheme::Md5);
    assert_eq!(choose(None, None, Some(b"2\n"), Some(file)).unwrap(), Scheme::Sha256);
    assert_eq!(choose(None, Some(b"4"), Some(b"2\n"), Some(file)).unwrap(), Scheme::Yescrypt);
    assert_eq!(choose(Some(b"des"), Some(b"4"), None, None).unwrap(), Scheme::Des);
    assert_eq!(choose(None, Some(b""), None, None).unwrap(), Scheme::Sha512);
    for bad in [&b"SHA"[..], b"5", b""] {
        assert!(choose(Some(bad), None, None, None).is_err());
    }
    assert!(choose(None, None, Some(b"# nothing\n"), None).is_err());
}

#[test]
fn random_passwords_differ_and_have_the_length() {
    let [one, two] = [(); 2].map(|()| random_password(40).unwrap());
    assert_eq!(one.expose().len(), 40);
    assert!(one != two && one.expose().iter().all(u8::is_ascii_alphanumeric));
}

/// What was computed, in the terms of [`Work`], while a password was checked.
fn computed(stored: Option<&str>, password: &[u8], nobody: &Work) -> (bool, Vec<Work>) {
    let mut done = Vec::new();
    let recorded = |field: &[u8], password: &[u8]| {
        let answer = attempt(field, password)?;
        if answer.is_some() {
            done.push(Work::of(field).expect("what is computed has a cost"));
        }
        Ok(answer)
    };
    let right = verify_or_with(recorded, stored.map(str::as_bytes), password, nobody).unwrap();
    (right, done)
}

#[test]
fn where_there_is_nothing_to_check_the_work_is_that_of_the_other_accounts() {
    for account in HELLO.iter().chain([&DES]).chain(&ARGON2).chain(&SCRAM).copied() {
        let usual = Work::of(account.as_bytes()).unwrap();
        let wrong = computed(Some(account), b"wrong", &Work::default());
        assert_eq!(wrong, (false, vec![usual.clone()]), "a wrong password: {account}");
        // No account, and accounts whose field is empty, locked, unknown or broken.
        for stored in [
            None,
            Some(""),
            Some("*"),
            Some("!$6$saltsalt$x"),
            Some("x"),
            Some("$9$unknown$x"),
            Some("$2b$05$short"),
            Some("$y$"),
            Some("$argon2id$v=19$m=1"),
            Some("{CRAM}"),
            Some("{SCRAM-SHA-1}4096,a,b"),
            Some("{SCRAM-SHA-1}4096,a,b,c,*"),
        ] {
            assert_eq!(computed(stored, b"wrong", &usual), wrong, "{stored:?} beside {account}");
        }
    }
}

#[test]
fn work_keeps_scheme_and_cost_and_neither_salt_nor_hash() {
    let field = |stored: &str| Work::of(stored.as_bytes()).map(|w| String::from_utf8(w.0).unwrap());
    for (stored, work) in [
        (HELLO[3], "$6$rounds=1400$nobodynobodynobo$"),
        ("$2b$12$abcdefghijklmnopqrstuu7nFISH/8YdwlXD3lw69A4iBUf6fvWAW", "$2b$12$nobodynobodynobodynob."),
        ("$y$jFT$F5Jx5fExrKuPp53xLKQ..1$42Rg", "$y$jFT$nobodynobodynobodynob.$"),
        (
            ARGON2[0],
            "$argon2id$v=19$m=65536,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        ),
        ("{CRAM}secret", "{CRAM}nobody"),
    ] {
        assert_eq!(field(stored).as_deref(), Some(work), "{stored}");
    }
    // Of a combined field the part counts that a password is checked against.
    assert_eq!(field(&format!("{},{}", SCRAM[0], HELLO[1])), field(HELLO[1]));
    for none in ["", "*", "!", "x", "$argon2id$", "{CRAM}", "{SCRAM-SHA-1}x", "{X}y", "$2b$"] {
        assert_eq!(field(none), None, "{none}");
    }
}

#[test]
fn a_password_that_no_field_can_match_costs_nothing_for_anybody() {
    for password in [&b"a\0b"[..], &[b'x'; LONGEST + 1]] {
        for stored in [None, Some(HELLO[0])] {
            assert_eq!(computed(stored, password, &Work::default()), (false, Vec::new()));
        }
    }
}

#[test]
fn work_that_cannot_be_done_is_replaced_by_the_default() {
    let broken = Work(b"$y$jZZZZZ$nobody$".to_vec());
    assert_eq!(computed(None, b"x", &broken), (false, vec![Work::default()]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_stored_field_is_read_without_panic(field in "[{}$,:a-zA-Z0-9/+=-]{0,60}", tail in proptest::collection::vec(any::<u8>(), 0..20)) {
        let field = [field.as_bytes(), &tail].concat();
        let (scram, crypt) = split(&field);
        prop_assert!(scram.map_or(0, <[u8]>::len) + crypt.len() <= field.len());
        let _ = ScramSecret::parse(&field);
        let _ = Scheme::of(&field);
        if let Some(work) = Work::of(&field) {
            prop_assert_eq!(Work::of(work.field()), Some(work));
        }
    }

    #[test]
    fn any_secret_prefix_is_read_without_panic(tail in "[0-9,:=a-zA-Z/+]{0,60}") {
        for name in ["{SCRAM-SHA-1}", "{SCRAM-SHA-256}", "{CRAM}"] {
            let field = format!("{name}{tail}");
            let _ = split(field.as_bytes());
            let _ = ScramSecret::parse(field.as_bytes());
        }
    }
}
