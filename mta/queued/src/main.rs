//! The executable `qmail-queued`.

#![forbid(unsafe_code)]

program::main!("qmail-queued", [mta_queued::PROGRAM]);
