//! Frames of nssd, both directions.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    lookup::identity::fuzz_frames(data);
});
