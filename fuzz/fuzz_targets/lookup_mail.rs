//! Frames of inlookup, both directions.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    lookup::mail::fuzz_frames(data);
});
