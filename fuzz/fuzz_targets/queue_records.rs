//! Envelope records of todo and info files.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    for record in mta_queue::envelope::records(data) {
        if record.is_err() {
            break;
        }
    }
});
