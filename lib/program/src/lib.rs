//! A program is a table, settings and a run function.
//!
//! ```text
//! argv, environment, control files
//!     │  main!(..)          which program of this executable was started (dispatch)
//!     ▼
//! Invocation ── Spec ──►  --help --version --man --completions --show-settings
//!     │  Parsed             options as getopt reads them, ending at the first operand
//!     │  Loader             every value with its source; all problems reported together
//!     ▼
//! Settings (the program's own type) ──► run(settings) ──► Exit
//! ```
//!
//! This crate is the only reader of argv, the environment and CONTROLDIR. One executable carries
//! many programs; each is a [`Program`] in one table, and `EXECUTABLE --list-programs` prints that
//! table so that installation makes its links from it.

pub mod chain;
mod dispatch;
pub mod env_directory;
mod layout;
mod loader;
mod man;
mod options;
mod spec;

pub use dispatch::{Invocation, Program, start};
pub use layout::Layout;
pub use loader::{Environment, Loader, Problems, Source};
pub use options::{Parsed, UsageError};
pub use spec::{Control, ExitCodeDoc, Operands, OptionSpec, Place, Spec, Variable};

/// What a program ends with. Each program family documents its codes in its [`Spec`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit(pub u8);

impl Exit {
    /// Done.
    pub const OK: Self = Self(0);
    /// qmail and daemontools: permanent failure, wrong usage.
    pub const PERMANENT: Self = Self(100);
    /// qmail and daemontools: temporary failure, try again.
    pub const TEMPORARY: Self = Self(111);
}

/// Defines `main` for an executable that carries the programs of a table.
///
/// ```text
/// program::main!("daemontools", [svc::PROGRAM, svstat::PROGRAM]);
/// ```
#[macro_export]
macro_rules! main {
    ($executable:literal, [$($program:expr),+ $(,)?]) => {
        fn main() -> std::process::ExitCode {
            static PROGRAMS: &[$crate::Program] = &[$($program),+];
            $crate::start($executable, PROGRAMS)
        }
    };
}
