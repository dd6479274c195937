//! One command to configure, check and try the system.
