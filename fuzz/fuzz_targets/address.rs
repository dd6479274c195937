//! Account addresses: what is accepted is safe as a path component.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(address) = accounts::Address::parse(data) {
        let local = address.local().as_bytes();
        assert!(!local.is_empty() && !local.contains(&b'/') && !local.contains(&0) && local[0] != b'.');
    }
});
