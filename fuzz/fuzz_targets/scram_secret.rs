//! The password field of an account: SCRAM secrets, and what checking a password against it costs.
#![no_main]

use accounts::password::{ScramSecret, Work, split};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = ScramSecret::parse(data);
    let (secret, crypted) = split(data);
    assert!(secret.map_or(0, <[u8]>::len) + crypted.len() <= data.len());
    let _ = Work::of(data);
});
