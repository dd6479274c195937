//! The executable `supervise`: one process for each service, so it carries nothing else.

#![forbid(unsafe_code)]

program::main!("supervise", [daemontools::supervise::PROGRAM]);
