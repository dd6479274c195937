//! The text after DATA: line ends, dots, sizes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    smtp::data::fuzz_data(data);
});
