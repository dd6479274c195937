//! TCP (and Unix socket) servers that start a program for each connection.
//!
//! ```text
//! listener ──accept──► rules (cdb by address) ──► table (limits) ──► child: the program, the connection on
//!    ▲                                               │               descriptors 0 and 1, TCP* variables
//!    └── poll, signals (HUP, USR1, TERM, CHLD) ◄─────┴── one line of log for each step
//! ```
//!
//! - [`tcpserver`]: the server; its bookkeeping, log lines and variables are pure;
//! - [`tcp_env`]: what has to be asked about a client before its program starts;
//! - [`rules`]: what a rules database says about an address, and [`tcprules`]: making and asking one.

#![forbid(unsafe_code)]

pub mod rules;
pub mod tcp_env;
pub mod tcprules;
pub mod tcpserver;
