//! Lines of tcprules, and what the database says about a client.
#![no_main]

use ucspi_tcp::rules::{Who, keys};
use ucspi_tcp::tcprules::parse_rule;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = parse_rule(data);
    if let Ok(text) = std::str::from_utf8(data) {
        let (host, info) = text.split_once('\n').unwrap_or((text, ""));
        let _ = keys(Who { ip: host.parse().ok(), host: Some(host), info: Some(info) });
    }
});
