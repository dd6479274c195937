//! TAI64N labels at the start of a line.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = tai::Label::parse(data);
});
