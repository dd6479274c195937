//! The conversation with refused clients: one reply for each line, whatever it holds.
#![no_main]

use ucspi_tcp::rblsmtpd::session::{Session, Words};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let words = Words { name: "me".into(), refusal: "451 no".into(), extended: false };
    let outcome = Session::new(words).feed(data);
    let count = |bytes: &[u8]| bytes.iter().filter(|&&b| b == b'\n').count();
    assert!(count(&outcome.replies) <= count(data));
    assert!(outcome.over || count(&outcome.replies) == count(data));
    assert!(outcome.log.iter().all(|line| line.bytes().all(|b| (b' '..=b'~').contains(&b))));
});
