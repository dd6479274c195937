//! dot-qmail files: which one, what its lines say, in which order they act.
//!
//! ```text
//! dash, ext ─ candidates ─► find (opens files) ─► DotFile ─ parse ─► lines ─ Interpreter ─► Action ...
//! ```
//!
//! The interpreter does no I/O: it says what to do next and is told how a program ended.

mod find;
mod interpret;
mod parse;

pub use find::{DotFile, FindError, candidates, exists, find, safe_extension};
pub use interpret::{Action, Interpreter};
pub use parse::{Instruction, ParseError, parse};
