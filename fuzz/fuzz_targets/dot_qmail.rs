//! dot-qmail files.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = mta_deliver::dotqmail::parse(data);
});
