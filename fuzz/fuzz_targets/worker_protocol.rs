//! Messages between qmail-lspawn and its workers.
#![no_main]

use mta_queue::worker_protocol::{Answer, Request};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Some(request) = Request::decode(data) {
        assert_eq!(request.encode().as_deref(), Some(data));
    }
    let _ = Answer::decode(data);
});
