//! The executable `tcpserver-tls`.

#![forbid(unsafe_code)]

program::main!("tcpserver-tls", [ucspi_tcp::tcpserver_tls::PROGRAM]);
