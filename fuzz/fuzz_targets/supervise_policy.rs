//! Small files of a service directory: back-off, numbers, descriptors.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = (
        daemontools::supervise::policy::Backoff::parse(data).map(|b| b.delay(u32::MAX)),
        daemontools::supervise::policy::number(data),
        daemontools::supervise::policy::descriptor(data),
    );
});
