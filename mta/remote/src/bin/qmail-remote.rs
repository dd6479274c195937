//! The executable of qmail-remote.

#![forbid(unsafe_code)]

program::main!("qmail-remote", [mta_remote::PROGRAM]);
