//! The executable `ucspi-tcp`.

#![forbid(unsafe_code)]

use ucspi_tcp::{tcprules, tcpserver};

program::main!("ucspi-tcp", [tcpserver::PROGRAM, tcprules::PROGRAM, tcprules::CHECK_PROGRAM]);
