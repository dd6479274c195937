//! Drives a whole private system.
