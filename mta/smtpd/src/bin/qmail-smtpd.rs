//! The executable of qmail-smtpd.

#![forbid(unsafe_code)]

program::main!("qmail-smtpd", [mta_smtpd::PROGRAM]);
