//! Subject and issuer of a certificate.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Some(names) = tls::distinguished::names(data) {
        assert!(!names.subject.chars().chain(names.issuer.chars()).any(char::is_control));
    }
});
