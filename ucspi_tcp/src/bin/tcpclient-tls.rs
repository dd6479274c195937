//! The executable `tcpclient-tls`.

#![forbid(unsafe_code)]

program::main!("tcpclient-tls", [ucspi_tcp::tcpclient_tls::PROGRAM]);
