//! Files of envini: what is accepted can be in an environment.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    for (name, value) in daemontools::envini::parse(data).unwrap_or_default() {
        assert!(!name.is_empty() && !name.contains(&b'=') && !name.contains(&0) && !value.contains(&0));
    }
});
