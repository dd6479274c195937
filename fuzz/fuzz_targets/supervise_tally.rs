//! The file death_tally.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = daemontools::supervise::tally::decode(data);
});
