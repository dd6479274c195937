//! What tcpserver reads as text: the number of a control file, limits of networks, lists of networks, its own status.
#![no_main]

use ucspi_tcp::networks::Networks;
use ucspi_tcp::tcpserver::settings::number_at_start;
use ucspi_tcp::tcpserver::status::Snapshot;
use ucspi_tcp::tcpserver::table::NetworkLimit;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    assert!(number_at_start(data).is_none_or(|n| n <= 1_000_000));
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = (text.parse::<Networks>(), text.parse::<NetworkLimit>());
    if let Some(snapshot) = Snapshot::decode(text) {
        assert_eq!(Snapshot::decode(&snapshot.encode()), Some(snapshot));
    }
});
