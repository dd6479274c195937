//! SCRAM secrets in the password field of an account.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = accounts::password::ScramSecret::parse(data);
});
