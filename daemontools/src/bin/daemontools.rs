//! The executable `daemontools`: everything but supervise.

#![forbid(unsafe_code)]

use daemontools::{
    envdir, envini, fghack, inotify, minisvc, multilog, readproctitle, setlock, setuidgid, softlimit,
    svalert, svc, svok, svps, svscan, svscanboot, svstat, tai64n, waitfor,
};

program::main!(
    "daemontools",
    [
        svscan::PROGRAM,
        minisvc::PROGRAM,
        svc::PROGRAM,
        svstat::PROGRAM,
        svok::PROGRAM,
        svps::PROGRAM,
        svok::SVUP_PROGRAM,
        multilog::PROGRAM,
        envdir::PROGRAM,
        envini::PROGRAM,
        setuidgid::PROGRAM,
        setuidgid::ENVUIDGID_PROGRAM,
        setuidgid::SETUSER_PROGRAM,
        softlimit::PROGRAM,
        setlock::PROGRAM,
        setlock::PGRPHACK_PROGRAM,
        tai64n::PROGRAM,
        tai64n::TAI64NLOCAL_PROGRAM,
        fghack::PROGRAM,
        readproctitle::PROGRAM,
        svalert::PROGRAM,
        svscanboot::PROGRAM,
        waitfor::PROGRAM,
        inotify::PROGRAM,
        tai64n::TAI64NUNIX_PROGRAM,
        tai64n::TAI64N2TAI_PROGRAM,
        tai64n::TAI2TAI64N_PROGRAM,
    ]
);
