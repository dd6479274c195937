//! Lines of tcprules.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = ucspi_tcp::tcprules::parse_rule(data);
});
