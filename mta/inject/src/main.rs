//! The executable of the injection commands.
#![forbid(unsafe_code)]

program::main!("qmail-inject", [mta_inject::inject::PROGRAM, mta_inject::sendmail::PROGRAM]);
