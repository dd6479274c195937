//! End-to-end scenarios against real parts, and the kit that all test suites share.
//!
//! - [`kit`] is what a test of any crate may use: temporary trees, a private view of the machine
//!   with the mail users and modules in it, waits for events, children that never outlive a test,
//!   a private MariaDB server;
//! - [`instance`] drives a whole private system (`svctool try`) for the scenarios in `tests/`;
//! - [`killing`] kills its processes and writes down what that can have repeated, [`deliveries`] judges by it.
//!
//! Nothing here touches the machine's own /etc, uses a fixed port or waits for luck.
#![forbid(unsafe_code)]

pub mod deliveries;
pub mod instance;
pub mod killing;
pub mod kit;
pub mod smtp;
