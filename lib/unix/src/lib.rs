//! The one place where the workspace talks to the kernel.
//!
//! Everything above this crate works on values: owned descriptors, typed ids, deadlines. Modules:
//!
//! - [`fd`]: pipes, duplicates, close-on-exec and non-blocking flags, whole reads and writes;
//! - [`buffered`]: buffered input and output, out before an input waits;
//! - [`durable`]: files that must survive a power cut, in the order that makes them do so;
//! - [`together`]: many changes forced out at once;
//! - [`ids`]: users and groups by name, one at a time, never by walking the password database;
//! - [`mail_users`]: the table of the mail system's own users and groups;
//! - [`name_service`]: daemons that must not ask themselves;
//! - [`map`]: files that processes share as memory;
//! - [`gather`]: deliveries of several threads, forced out at once;
//! - [`guest`]: what modules owe the process they are loaded into;
//! - [`privilege`]: giving up root, for good or for the files of somebody else;
//! - `readiness` (feature of that name): events of thousands of descriptors, for one thread;
//! - [`signals`]: signals as bytes on a descriptor;
//! - [`socket`]: Unix sockets, peer credentials, inherited listeners;
//! - [`dial`]: TCP connections made with a deadline;
//! - [`wait`]: `poll` with deadlines;
//! - [`child`]: fork, exec and what became of the child;
//! - [`image`]: a program prepared once and become many times;
//! - [`passing`]: whole messages over a socket pair, with a descriptor;
//! - [`process`]: processes that are not our children;
//! - [`lock`]: whole-file locks;
//! - [`notify`]: telling a service manager that we are ready;
//! - [`resolve`]: names of addresses and addresses of names;
//! - [`host`]: what the kernel knows about this process and this host;
//! - [`terminal`]: is there one, and how large is it;
//! - [`title`]: what ps(1) shows of this process;
//! - [`clock`]: the two clocks, read here and passed on as values.
//!
//! Invariants: no module here holds global state (signals excepted, which the kernel makes global);
//! every descriptor made here is close-on-exec; nothing here reads the environment.

pub mod buffered;
pub mod child;
pub mod clock;
pub mod dial;
pub mod durable;
pub mod fd;
pub mod gather;
pub mod guest;
pub mod host;
pub mod ids;
pub mod image;
pub mod lock;
pub mod mail_users;
pub mod map;
pub mod name_service;
pub mod notify;
pub mod passing;
pub mod privilege;
pub mod process;
#[cfg(feature = "readiness")]
pub mod readiness;
pub mod resolve;
pub mod signals;
pub mod socket;
mod spawn;
pub mod terminal;
pub mod title;
pub mod together;
pub mod wait;

pub use nix::errno::Errno;
pub use nix::sys::signal::Signal;
pub use nix::unistd::{Gid, Pid, Uid};
