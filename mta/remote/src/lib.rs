//! qmail-remote: deliver one message to a remote host.
