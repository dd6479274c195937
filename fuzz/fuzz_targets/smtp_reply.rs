//! Replies of a remote server.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    smtp::reply::fuzz_reply(data);
});
