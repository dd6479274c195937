//! The executable of everything on the delivery side that starts as root.
#![forbid(unsafe_code)]

program::main!(
    "qmail-root",
    [mta_spawn::start::PROGRAM, mta_spawn::lspawn::PROGRAM, mta_spawn::rspawn::PROGRAM]
);
