//! The file wait of a service directory.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = daemontools::supervise::dependency::Dependencies::parse(data);
});
