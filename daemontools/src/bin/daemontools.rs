//! The executable `daemontools`: everything but supervise and what is in `chain-tools`.

#![forbid(unsafe_code)]

use daemontools::{
    fghack, inotify, logselect, minisvc, multilog, pipeline, qfilelog, qlogselect, readproctitle, setuidgid,
    splogger, svalert, svc, svok, svps, svscan, svscanboot, svstat, tai64n, teepipe, waitfor,
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
        setuidgid::PROGRAM,
        setuidgid::ENVUIDGID_PROGRAM,
        setuidgid::SETUSER_PROGRAM,
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
        logselect::PROGRAM,
        qlogselect::PROGRAM,
        qfilelog::PROGRAM,
        splogger::PROGRAM,
        teepipe::PROGRAM,
        pipeline::SPIPE_PROGRAM,
        pipeline::MULTIPIPE_PROGRAM,
    ]
);
