//! Datagrams to the notification socket of a service.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = daemontools::supervise::notice::Notice::parse(data);
});
