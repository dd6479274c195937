//! The map that any process may have before it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    snapshot::fuzz_map(data);
});
