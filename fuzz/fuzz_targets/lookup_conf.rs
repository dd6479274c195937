//! The file that tells the modules where their daemons are.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    lookup::conf::fuzz_conf(data);
});
