//! The tests of by_program_session.rs, served by the resident server.

#[path = "by_program_session.rs"]
mod by_program;
