//! Daemon that answers NSS questions.
