//! Daemon that answers mail and login questions.
