//! nssd.conf.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    nssd::conf::fuzz_conf(data);
});
