//! The executable `ucspi-tcp`.

#![forbid(unsafe_code)]

use ucspi_tcp::{argv0, beside, filters, questions, tcp_env, tcpclient, tcprules, tcpserver, tcpstatus, udp};

program::main!(
    "ucspi-tcp",
    [
        tcpserver::PROGRAM,
        tcpstatus::PROGRAM,
        tcp_env::PROGRAM,
        tcprules::PROGRAM,
        tcprules::CHECK_PROGRAM,
        tcpclient::PROGRAM,
        questions::MCONNECT_PROGRAM,
        questions::MCONNECT_IO_PROGRAM,
        questions::TCPCAT_PROGRAM,
        questions::WHO_PROGRAM,
        questions::DATE_PROGRAM,
        questions::FINGER_PROGRAM,
        questions::HTTP_PROGRAM,
        beside::RECORDIO_PROGRAM,
        beside::FIXCRIO_PROGRAM,
        filters::ADDCR_PROGRAM,
        filters::DELCR_PROGRAM,
        argv0::PROGRAM,
        udp::CLIENT_PROGRAM,
        udp::LOGGER_PROGRAM,
    ]
);
