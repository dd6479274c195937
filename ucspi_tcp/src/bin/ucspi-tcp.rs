//! The executable `ucspi-tcp`.

#![forbid(unsafe_code)]

use ucspi_tcp::{tcp_env, tcprules, tcpserver};

program::main!(
    "ucspi-tcp",
    [tcpserver::PROGRAM, tcp_env::PROGRAM, tcprules::PROGRAM, tcprules::CHECK_PROGRAM]
);
