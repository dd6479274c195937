//! Lists of ciphers and versions of TLS.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = (tls::suites::list(text), tls::suites::versions(text));
    }
});
