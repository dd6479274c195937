//! Paths in MAIL and RCPT.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    smtp::address::fuzz_path(data);
});
