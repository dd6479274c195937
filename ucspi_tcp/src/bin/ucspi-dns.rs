//! The executable `ucspi-dns`: programs that ask the DNS themselves, apart from `ucspi-tcp`, which is to stay light.

#![forbid(unsafe_code)]

use ucspi_tcp::rblsmtpd;

program::main!("ucspi-dns", [rblsmtpd::PROGRAM]);
