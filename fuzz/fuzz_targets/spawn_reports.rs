//! Reports of qmail-lspawn and qmail-rspawn.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = mta_queue::spawn_protocol::ReportDecoder::default().take(data);
});
