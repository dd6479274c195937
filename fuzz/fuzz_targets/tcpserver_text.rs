//! What tcpserver reads as text: the number of a control file, limits of networks, lists of networks, its own
//! status, rows of a table with rules.
#![no_main]

use ucspi_tcp::networks::Networks;
use ucspi_tcp::sql_rules::{Server, rule_of_row};
use ucspi_tcp::tcpserver::settings::number_at_start;
use ucspi_tcp::tcpserver::status::Snapshot;
use ucspi_tcp::tcpserver::table::NetworkLimit;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    assert!(number_at_start(data).is_none_or(|n| n <= 1_000_000));
    let _ = (Server::parse(data), rule_of_row(data, b"allow", data), rule_of_row(b"", data, data));
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = (text.parse::<Networks>(), text.parse::<NetworkLimit>());
    if let Some(snapshot) = Snapshot::decode(text) {
        assert_eq!(Snapshot::decode(&snapshot.encode()), Some(snapshot));
    }
});
