//! SMTP grammar, server and client sessions without I/O.
