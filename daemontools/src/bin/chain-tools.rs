//! The executable `chain-tools`: programs that become another and ask no name service.
//!
//! They are started in rows, once for each service start or connection, and most of what that costs is the
//! dynamic linker's work; released builds link this one statically (`scripts/build`). What looks users up
//! stays elsewhere, because the name services are shared objects.

#![forbid(unsafe_code)]

use daemontools::{envdir, envini, setlock, softlimit};

program::main!(
    "chain-tools",
    [envdir::PROGRAM, envini::PROGRAM, softlimit::PROGRAM, setlock::PROGRAM, setlock::PGRPHACK_PROGRAM]
);
