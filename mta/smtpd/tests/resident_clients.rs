//! The tests of by_program_clients.rs, served by the resident server.

#[path = "by_program_clients.rs"]
mod by_program;
