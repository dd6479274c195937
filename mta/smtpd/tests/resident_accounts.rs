//! The tests of by_program_accounts.rs, served by the resident server.

#[path = "by_program_accounts.rs"]
mod by_program;
