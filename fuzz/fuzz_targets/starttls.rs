//! What a server says before TLS: nothing but a complete last line makes it ready.
#![no_main]

use ucspi_tcp::tcpclient::starttls::{Dialogue, Protocol, Step};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    for protocol in [Protocol::Smtp, Protocol::Pop3, Protocol::Imap] {
        if let Ok(Step::Ready(greeting)) = Dialogue::new(protocol, "x").feed(data) {
            assert!(data.ends_with(b"\n") && data.starts_with(&greeting));
        }
    }
});
