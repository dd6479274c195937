//! The tests of by_program_limits.rs, served by the resident server.

#[path = "by_program_limits.rs"]
mod by_program;
