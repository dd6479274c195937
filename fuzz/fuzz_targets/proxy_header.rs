//! Headers of the PROXY protocol, both versions.
#![no_main]

use ucspi_tcp::proxy::{Parsed, encode_v2, parse};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Parsed::Done(header, length) = parse(data) {
        assert!(length <= data.len());
        // What was understood can be said again, as long as no text of it is longer than what is written.
        let texts = header.tls.iter().flat_map(|t| [&t.version, &t.cipher, &t.common_name]);
        if texts.chain(&header.authority).all(|t| t.len() <= 255) {
            let again = encode_v2(&header);
            assert_eq!(parse(&again), Parsed::Done(header, again.len()));
        }
    }
});
