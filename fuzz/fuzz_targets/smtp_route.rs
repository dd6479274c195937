//! Entries of smtproutes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = mta_remote::route::parse(data);
});
