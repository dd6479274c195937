//! A supervised service as other programs find it: where its state is, and the way to give it a command.
//!
//! ```text
//! service directory ─ state_path ─► state directory ─ control ─ fifo ─► supervise
//! ```
//!
//! - [`state_path`] knows where the state of a service directory is: beside `run`, or below `/run`;
//! - [`fifo`] opens both ends without ever waiting.

#![forbid(unsafe_code)]

pub mod fifo;
pub mod state_path;

use std::io::{self, Write};
use std::path::Path;

use state_path::Places;

/// Writes control bytes to the supervise of the service directory `dir`; `Ok(false)` when none is running.
///
/// # Errors
/// Its control cannot be opened or written to.
pub fn command(places: &Places, dir: &Path, bytes: &[u8]) -> io::Result<bool> {
    match fifo::writer(&places.of_client(dir).join("control"))? {
        Some(mut control) => control.write_all(bytes).map(|()| true),
        None => Ok(false),
    }
}
