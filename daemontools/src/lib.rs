//! supervise, svscan, svc, svstat, multilog and friends.
