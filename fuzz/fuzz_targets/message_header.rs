//! Header fields of a message: nothing is lost between them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let (header, body) = message::header::split(data);
    assert!(data.starts_with(header) && data.ends_with(body));
    for field in message::header::fields(header) {
        let _ = field.unfolded();
    }
});
