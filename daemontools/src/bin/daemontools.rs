//! The executable `daemontools`: everything but supervise.

#![forbid(unsafe_code)]

use daemontools::{envdir, multilog, setlock, setuidgid, softlimit, svc, svok, svscan, svstat, tai64n};

program::main!(
    "daemontools",
    [
        svscan::PROGRAM,
        svc::PROGRAM,
        svstat::PROGRAM,
        svok::PROGRAM,
        svok::SVUP_PROGRAM,
        multilog::PROGRAM,
        envdir::PROGRAM,
        setuidgid::PROGRAM,
        setuidgid::ENVUIDGID_PROGRAM,
        softlimit::PROGRAM,
        setlock::PROGRAM,
        setlock::PGRPHACK_PROGRAM,
        tai64n::PROGRAM,
        tai64n::TAI64NLOCAL_PROGRAM,
    ]
);
