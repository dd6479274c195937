//! Patterns of multilog, both kinds: the first line is the pattern.
#![no_main]

use daemontools::multilog::pattern::{matches, matches_glob};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let (pattern, line) = data.split_at(data.iter().position(|&b| b == b'\n').unwrap_or(data.len()));
    let _ = matches(pattern, line);
    let _ = matches_glob(pattern, line);
});
