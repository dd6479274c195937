//! Status records of supervise.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = daemontools::status::Record::decode(data);
});
