//! The executable of `inlookup` and `inquerytest`.

program::main!("inlookup", [inlookup::daemon::PROGRAM, inlookup::inquerytest::PROGRAM]);
